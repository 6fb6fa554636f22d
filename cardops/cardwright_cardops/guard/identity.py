"""The card of the preview, proved again: what is asked of it, and whether the answers are its own.

The proof is a signature of 9E over the structure of RFC 3163 with a nonce made here, so a card that merely copies
CHUID and serial fails. A card without a key in 9E shows only what it says of itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ..iso7816.apdu import CommandAPDU
from ..iso7816.tlv import MalformedTlv, encode, encode_tag, parse_all, parse_one
from ..program.items import INS_GET_DATA, INS_GET_SERIAL, INS_SELECT, Answer, Apdu, Batch, Group, Item, Prove
from . import constants as c
from .effects import chuid_guid
from .keys import CURVES, ED25519, RSA
from .state import State
from .verdict import Deny, Rule

NONCE_OCTETS: Final = 32
RANDOM_OCTETS: Final = 32
AUDIENCE: Final = b"urn:cardwright:card-session"
"""The name in a proof of this kind, so that no proof can be used as a sign-in."""

_ANY_CHUID: Final = frozenset((0x9000, 0x6A82))
_PIV: Final = bytes.fromhex("A00000030800001000")


def proof_batch(state: State, stage: str, nonce: bytes) -> Batch:
    """What the card is asked at the start of a transaction, in ``stage``."""
    items: list[Item] = [
        Apdu(CommandAPDU(0x00, INS_SELECT, 0x04, 0x00, _PIV, 256)),
        Apdu(
            CommandAPDU(0x00, INS_GET_DATA, 0x3F, 0xFF, encode(0x5C, encode_tag(c.CHUID)), 65536), accept=_ANY_CHUID
        ),
    ]
    if state.identity.serial is not None:
        items.append(Apdu(CommandAPDU(0x00, INS_GET_SERIAL, 0x00, 0x00, b"", 256)))
    if state.card_key is not None:
        items.append(Prove(c.CARD_AUTHENTICATION, _algorithm_of(state.card_key), nonce))
    return Batch((Group(tuple(items), essential=True),), stage)


def check_proof(state: State, answers: tuple[Answer, ...], nonce: bytes) -> State | Deny:
    """The state in which the card is proven, or why it is not the card of the preview.

    ``answers`` are those to ``proof_batch``, all of them answered.
    """
    selected, chuid, *rest = answers
    if not selected.ok or chuid.sw not in _ANY_CHUID:
        return Deny(Rule.PLAN, "this card does not show its PIV application and CHUID")
    if (chuid_guid(chuid.data) if chuid.ok else None) not in state.guids:
        return Deny(Rule.PLAN, "this card has another card UUID than the one of the preview")
    if state.identity.serial is not None:
        serial = rest.pop(0)
        if not serial.ok or int.from_bytes(serial.data, "big") != state.identity.serial:
            return Deny(Rule.PLAN, "this card has another serial number than the one of the preview")
    if state.card_key is not None:
        proof = rest.pop(0)
        if not proof.ok or not _signed(proof.data, nonce, state.card_key):
            return Deny(Rule.PLAN, "this card does not hold the card authentication key of the one of the preview")
    return replace(state, proven=True)


def _algorithm_of(spki: bytes) -> int:
    """The PIV algorithm of a key; 0, which every card refuses, for one that no slot holds."""
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        return 0
    match key:
        case rsa.RSAPublicKey():
            return next((number for number, bits in RSA.items() if bits == key.key_size), 0)
        case ec.EllipticCurvePublicKey():
            return next((number for number, curve in CURVES.items() if curve.name == key.curve.name), 0)
        case ed25519.Ed25519PublicKey():
            return ED25519
    return 0


def _signed(token: bytes, nonce: bytes, spki: bytes) -> bool:
    """Whether ``token`` (TokenAB of RFC 3163, DER) is a proof for ``nonce`` by the key."""
    name = encode(0xA0, encode(0x86, AUDIENCE))
    try:
        random_a, entity_b, _, signature = parse_all(parse_one(token, 0x30).value)
        fits = (random_a.tag, len(random_a.value), signature.tag) == (0x04, RANDOM_OCTETS, 0x03)
        if not fits or entity_b.encode() != name or signature.value[:1] != b"\x00":
            return False
        message = encode(0x30, random_a.encode() + encode(0x04, nonce) + name)
        _verify(spki, signature.value[1:], message)
    except (MalformedTlv, ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _verify(spki: bytes, signature: bytes, message: bytes) -> None:
    """Raises InvalidSignature, ValueError, UnsupportedAlgorithm."""
    match load_der_public_key(spki):
        case rsa.RSAPublicKey() as key:
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        case ec.EllipticCurvePublicKey() as key:
            algorithm = hashes.SHA384() if key.curve.name == "secp384r1" else hashes.SHA256()
            key.verify(signature, message, ec.ECDSA(algorithm))
        case ed25519.Ed25519PublicKey() as key:
            key.verify(signature, message)
        case _:
            raise ValueError("a key of this kind does not sign")
