"""What a card key signs to prove itself: the structures of RFC 3163, after FIPS 196.

The verifier's random never goes to the card alone: the workstation hashes its own random and the audience in,
so nobody can choose what the key signs. ``prove`` and ``sign_in`` differ in the audience and so cannot be
exchanged for one another.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

from asn1crypto.algos import SignedDigestAlgorithm
from asn1crypto.core import OctetBitString, OctetString, Sequence
from asn1crypto.x509 import GeneralName, GeneralNames
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from ..errors import CardwrightError
from ..iso7816 import tlv
from .algorithms import Algorithm, KeyKind, PublicKey
from .signing import default_hash

RANDOM_OCTETS: Final = 32
PROOF_AUDIENCE: Final = "urn:cardwright:card-session"
"""The entity that ``prove`` names: a card session, never a place to sign in."""


def check_nonce(guid: UUID, moment: datetime) -> bytes:
    """The nonce of a proof that goes with the question what is due for a card: nobody has to be asked for it.

    It is good for the minute of ``moment``, and for no other card.
    """
    minute = int(moment.timestamp()) // 60
    return hashlib.sha256(b"cardwright due check " + guid.bytes + minute.to_bytes(8, "big")).digest()


class ProofInvalid(CardwrightError):
    """A proof that is damaged, stale, for another audience or by another key."""

    code = "PROOF_INVALID"
    default_effect = "The card is treated as unproven; nothing on it was changed."
    default_advice = "Start again; if it stays, this is not the card it says it is."


class TokenAB(Sequence):  # type: ignore[misc]
    """TokenAB of RFC 3163 section 3, without certificates: the verifier knows them from the card."""

    _fields = [  # noqa: RUF012
        ("random_a", OctetString),
        ("entity_b", GeneralNames, {"implicit": 0}),
        ("signature_algorithm", SignedDigestAlgorithm),
        ("signature", OctetBitString),
    ]


_SEQUENCE, _OCTETS, _ENTITY_B = 0x30, 0x04, 0xA0
_SIGNATURE_ALGORITHMS: Final = {
    KeyKind.RSA: "sha256_rsa",
    KeyKind.EC: "sha256_ecdsa",
    KeyKind.ED25519: "ed25519",
}


@dataclass(frozen=True, slots=True)
class ToSign:
    """A proof before it is signed: ``message`` is the DER that is hashed, the rest goes into the token."""

    random_a: bytes
    audience: str
    message: bytes


def prepare(audience: str, nonce: bytes, random_a: bytes) -> ToSign:
    """The structure to sign for ``audience`` (a URI), the verifier's ``nonce`` and our own random.

    TBSDataAB of RFC 3163 section 3, written directly because a server makes one for every card that comes in.

    Raises ValueError for a nonce shorter than 8 octets (RFC 3163 section 3) or an unequal random.
    """
    if len(nonce) < 8 or len(nonce) > 64 or len(random_a) != RANDOM_OCTETS:
        raise ValueError("a nonce has 8 to 64 octets, our own random 32")
    entity_b = tlv.encode(_ENTITY_B, _names(audience).contents)
    message = tlv.encode(_SEQUENCE, tlv.encode(_OCTETS, random_a) + tlv.encode(_OCTETS, nonce) + entity_b)
    return ToSign(random_a, audience, message)


def token(made: ToSign, algorithm: Algorithm, signature: bytes) -> bytes:
    """The DER TokenAB that goes to the verifier."""
    name = "sha384_ecdsa" if algorithm is Algorithm.P384 else _SIGNATURE_ALGORITHMS[algorithm.kind]
    built: bytes = TokenAB(
        {
            "random_a": made.random_a,
            "entity_b": _names(made.audience),
            "signature_algorithm": {"algorithm": name},
            "signature": signature,
        }
    ).dump()
    return built


def verify(proof: bytes, *, audience: str, nonce: bytes, key: PublicKey) -> None:
    """Check a TokenAB by ``key`` for this ``audience`` and ``nonce``. Raises ProofInvalid."""
    try:
        parsed = TokenAB.load(proof, strict=True)
        random_a = parsed["random_a"].native
        signature = parsed["signature"].native
        algorithm = Algorithm.of(key)
        message = prepare(audience, nonce, random_a).message
        if parsed["entity_b"].contents != _names(audience).contents:
            raise ProofInvalid("The proof names another audience.")
        _verify(key, algorithm, signature, message)
    except InvalidSignature:
        raise ProofInvalid("The proof was not signed by this card's key, or not for this request.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ProofInvalid("The proof is damaged.") from error


def _verify(key: PublicKey, algorithm: Algorithm, signature: bytes, message: bytes) -> None:
    hashed = default_hash(algorithm)
    match key:
        case rsa.RSAPublicKey():
            key.verify(signature, message, padding.PKCS1v15(), hashed)
        case ec.EllipticCurvePublicKey():
            key.verify(signature, message, ec.ECDSA(hashed))
        case _ if algorithm is Algorithm.ED25519:
            key.verify(signature, message)  # type: ignore[union-attr]
        case _:
            raise ProofInvalid("A key of this kind does not sign.")


@lru_cache(maxsize=64)
def _names(audience: str) -> GeneralNames:
    names = GeneralNames([GeneralName("uniform_resource_identifier", audience)])
    names.dump()  # so that ``contents`` are there
    return names


__all__ = ["PROOF_AUDIENCE", "RANDOM_OCTETS", "ProofInvalid", "ToSign", "check_nonce", "prepare", "token", "verify"]
