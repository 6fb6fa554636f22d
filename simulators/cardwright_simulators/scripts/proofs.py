"""Questions that only a private key can answer, and the judging of the answer with the public key.

A signature is checked with the library, an agreement with the other half, a decryption with the block that was
encrypted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm, PublicKey
from cardwright_cardops.piv.objects import CertificateObject
from cardwright_cardops.piv.responses import parse_public_key
from cardwright_cardops.piv.secure_messaging import SmSuite
from cardwright_cardops.piv.signing import default_hash, message_block, signature_of

_CURVES: Final[dict[int, ec.EllipticCurve]] = {
    Algorithm.P256: ec.SECP256R1(),
    Algorithm.P384: ec.SECP384R1(),
    SmSuite.CS2.value: ec.SECP256R1(),
    SmSuite.CS7.value: ec.SECP384R1(),
}
_AGREEING: Final = frozenset((0x9D, *range(0x82, 0x96)))


class Unfit(Exception):
    """What the card gave cannot be used for the step; the text says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: ``element`` goes into the template of GENERAL AUTHENTICATE beside the empty 82."""

    key: PublicKey
    algorithm: Algorithm
    element: bytes
    message: bytes
    own: ec.EllipticCurvePrivateKey | None = None

    def proves(self, answer: bytes) -> bool:
        """Whether ``answer``, the value of 82, comes from the private key."""
        match self.key:
            case rsa.RSAPublicKey() if not self.message:
                numbers = self.key.public_numbers()
                again = pow(int.from_bytes(answer, "big"), numbers.e, numbers.n)
                # The element is 81 with a ciphertext as long as the modulus.
                octets = self.algorithm.octets
                return len(answer) == octets and self.element.endswith(again.to_bytes(octets, "big"))
            case ec.EllipticCurvePublicKey() if self.own is not None:
                return self.own.exchange(ec.ECDH(), self.key) == answer
            case _:
                return self._verifies(answer)

    def _verifies(self, answer: bytes) -> bool:
        hashed = default_hash(self.algorithm)
        try:
            signature = signature_of(answer, self.algorithm)
            match self.key:
                case rsa.RSAPublicKey():
                    self.key.verify(signature, self.message, padding.PKCS1v15(), hashed)
                case ec.EllipticCurvePublicKey():
                    self.key.verify(signature, self.message, ec.ECDSA(hashed))
                case _:
                    return False
        except (InvalidSignature, CardwrightError):
            return False
        return True


def certified_key(tag: int, answer: bytes) -> PublicKey:
    """The public key of the certificate in a GET DATA answer. Raises Unfit when there is none."""
    try:
        row = containers.CONTAINERS[tag]
        key = CertificateObject.decode(containers.unwrap(tag, answer), row).x509(row).public_key()
    except (CardwrightError, UnsupportedAlgorithm, KeyError, ValueError) as error:
        raise Unfit(f"no certificate in {tag:X}") from error
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise Unfit(f"another kind of key in {tag:X}")
    return key


def generated_key(algorithm: int, answer: bytes) -> PublicKey:
    """The public key in an answer of GENERATE. Raises Unfit."""
    try:
        return parse_public_key(Algorithm(algorithm), answer)
    except (CardwrightError, ValueError) as error:
        raise Unfit("no public key of that algorithm") from error


def ask(slot: int, key: PublicKey) -> Asked:
    """A fresh question to the key: to sign, or in a key management slot to decrypt or agree. Raises Unfit."""
    algorithm = Algorithm.of(key)
    if slot not in _AGREEING:
        message = os.urandom(32)
        block = message_block(message, algorithm, default_hash(algorithm))
        return Asked(key, algorithm, encode(0x81, block), message)
    if isinstance(key, ec.EllipticCurvePublicKey):
        own = ec.generate_private_key(key.curve)
        return Asked(key, algorithm, encode(0x85, _octets(own)), b"", own)
    if not isinstance(key, rsa.RSAPublicKey):
        raise Unfit("another kind of key")
    block = b"\0\2" + bytes(octet or 1 for octet in os.urandom(algorithm.octets - 19)) + b"\0" + os.urandom(16)
    numbers = key.public_numbers()
    sealed = pow(int.from_bytes(block, "big"), numbers.e, numbers.n)
    return Asked(key, algorithm, encode(0x81, sealed.to_bytes(algorithm.octets, "big")), b"")


def point(algorithm: int) -> bytes:
    """Somebody's public point, 04 X Y, on the curve of an algorithm or cipher suite. Raises Unfit."""
    curve = _CURVES.get(algorithm)
    if curve is None:
        raise Unfit(f"no curve of algorithm {algorithm:02X}")
    return _octets(ec.generate_private_key(curve))


def _octets(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
