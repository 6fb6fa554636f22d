"""Algorithm identifiers (SP 800-78-5 tables 9 and 10, with those of vendors)."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from ..errors import CardwrightError


class KeyKind(Enum):
    """Families of asymmetric keys: they differ in what goes into GENERAL AUTHENTICATE."""

    RSA = "rsa"
    EC = "ec"
    ED25519 = "ed25519"
    X25519 = "x25519"


class UnsupportedAlgorithm(CardwrightError):
    """An algorithm that the card, the slot or this library does not have."""

    code = "ALGORITHM_UNSUPPORTED"
    default_effect = "Nothing on the card was changed."
    default_advice = "Choose an algorithm that the card has: 'cardwright card show' lists them."


class Algorithm(IntEnum):
    """Asymmetric algorithms of key slots. The value is the octet on the wire."""

    RSA3072 = 0x05
    RSA1024 = 0x06
    RSA2048 = 0x07
    P256 = 0x11
    P384 = 0x14
    RSA4096 = 0x16
    """Vendor identifier."""
    ED25519 = 0xE0
    """Vendor identifier."""
    X25519 = 0xE1
    """Vendor identifier."""

    @property
    def kind(self) -> KeyKind:
        """The family."""
        return _KINDS[self]

    @property
    def octets(self) -> int:
        """Octets of the modulus, of one coordinate or of the 25519 point."""
        return _OCTETS[self]

    @property
    def signs(self) -> bool:
        """Whether a key of this algorithm can sign."""
        return self is not Algorithm.X25519

    @property
    def label(self) -> str:
        """The name people type: ``rsa2048``, ``p256``, ``ed25519``."""
        return self.name.lower()

    @classmethod
    def named(cls, text: str) -> Algorithm:
        """The algorithm people call ``text``. Raises UnsupportedAlgorithm."""
        try:
            return cls[text.upper()]
        except KeyError:
            known = ", ".join(sorted(one.label for one in cls))
            raise UnsupportedAlgorithm(f"There is no algorithm '{text}'.", advice=f"Use one of {known}.") from None

    @classmethod
    def of(cls, key: PublicKey) -> Algorithm:
        """The algorithm of a public key. Raises UnsupportedAlgorithm for one that PIV slots do not hold."""
        match key:
            case rsa.RSAPublicKey() if key.key_size in _RSA_SIZES:
                return _RSA_SIZES[key.key_size]
            case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
                return _CURVES[key.curve.name]
            case ed25519.Ed25519PublicKey():
                return cls.ED25519
            case x25519.X25519PublicKey():
                return cls.X25519
        raise UnsupportedAlgorithm("No PIV slot holds a key of this kind or size.")


PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | x25519.X25519PublicKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey

_KINDS = {
    Algorithm.RSA1024: KeyKind.RSA,
    Algorithm.RSA2048: KeyKind.RSA,
    Algorithm.RSA3072: KeyKind.RSA,
    Algorithm.RSA4096: KeyKind.RSA,
    Algorithm.P256: KeyKind.EC,
    Algorithm.P384: KeyKind.EC,
    Algorithm.ED25519: KeyKind.ED25519,
    Algorithm.X25519: KeyKind.X25519,
}
_OCTETS = {
    Algorithm.RSA1024: 128,
    Algorithm.RSA2048: 256,
    Algorithm.RSA3072: 384,
    Algorithm.RSA4096: 512,
    Algorithm.P256: 32,
    Algorithm.P384: 48,
    Algorithm.ED25519: 32,
    Algorithm.X25519: 32,
}
_RSA_SIZES = {
    1024: Algorithm.RSA1024,
    2048: Algorithm.RSA2048,
    3072: Algorithm.RSA3072,
    4096: Algorithm.RSA4096,
}
_CURVES = {"secp256r1": Algorithm.P256, "secp384r1": Algorithm.P384}


class ManagementAlgorithm(IntEnum):
    """Algorithms of the card application administration key 9B; the value is the octet on the wire."""

    TDES = 0x03
    AES128 = 0x08
    AES192 = 0x0A
    AES256 = 0x0C

    @property
    def key_octets(self) -> int:
        """Octets of a key."""
        return {self.TDES: 24, self.AES128: 16, self.AES192: 24, self.AES256: 32}[self]

    @property
    def block_octets(self) -> int:
        """Octets of a witness or challenge."""
        return 8 if self is ManagementAlgorithm.TDES else 16


class PinPolicy(IntEnum):
    """When a slot's key wants the PIN (vendor tag AA)."""

    DEFAULT = 0
    NEVER = 1
    ONCE = 2
    ALWAYS = 3
    MATCH_ONCE = 4
    MATCH_ALWAYS = 5


MATCHING: Final = frozenset((PinPolicy.MATCH_ONCE, PinPolicy.MATCH_ALWAYS))
"""PIN policies of keys that want a fingerprint, which the card compares."""


class TouchPolicy(IntEnum):
    """When a slot's key wants a touch (vendor tag AB); ``CACHED`` counts for 15 seconds."""

    DEFAULT = 0
    NEVER = 1
    ALWAYS = 2
    CACHED = 3
