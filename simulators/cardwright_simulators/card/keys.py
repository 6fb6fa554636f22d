"""Private keys at work: raw RSA, ECDSA over a given hash, ECDH with point checks, Ed25519, X25519."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.iso7816.tlv import encode

from .algorithms import EC_OCTETS, RSA_BITS, Algorithm
from .answers import Refused, require
from .keypool import KeyPool

CardKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey
"""The library's objects for the keys that a card can hold."""

_CURVES: Final[dict[int, ec.EllipticCurve]] = {
    Algorithm.P256: ec.SECP256R1(),
    Algorithm.P384: ec.SECP384R1(),
    Algorithm.CS2: ec.SECP256R1(),
    Algorithm.CS7: ec.SECP384R1(),
}
_SIGNATURES: Final[dict[int, ec.ECDSA]] = {
    Algorithm.P256: ec.ECDSA(utils.Prehashed(hashes.SHA256())),
    Algorithm.P384: ec.ECDSA(utils.Prehashed(hashes.SHA384())),
}
_RAW = serialization.Encoding.Raw
_RAW_PUBLIC = serialization.PublicFormat.Raw


class WorkingKey(ABC):
    """One private key ready for use. What the kind of key cannot do is refused with 6A80."""

    @property
    @abstractmethod
    def public(self) -> bytes:
        """The data objects inside 7F49: 81 and 82 for RSA, 86 for all others."""

    @abstractmethod
    def exported(self) -> CardKey:
        """The key as the cryptography library holds it."""

    def sign(self, data: bytes) -> bytes:
        """The answer to a challenge (tag 81). Refuses data that does not fit the key."""
        raise Refused(SW.WRONG_DATA)

    def agree(self, point: bytes) -> bytes:
        """The secret shared with the holder of ``point`` (tag 85). Refuses what is no valid point."""
        raise Refused(SW.WRONG_DATA)


class RsaKey(WorkingKey):
    """RSA by the Chinese remainder theorem, without any padding (SP 800-73-5 part 2 appendix A)."""

    def __init__(self, p: int, q: int, e: int) -> None:
        """Raises ValueError where p, q, e make no RSA key."""
        self._p, self._q = p, q
        self._dp, self._dq = pow(e, -1, p - 1), pow(e, -1, q - 1)
        self._qinv = pow(q, -1, p)
        self.n, self.e = p * q, e
        self.size = (self.n.bit_length() + 7) // 8

    @property
    def public(self) -> bytes:
        exponent = self.e.to_bytes((self.e.bit_length() + 7) // 8, "big")
        return encode(0x81, self.n.to_bytes(self.size, "big")) + encode(0x82, exponent)

    def sign(self, data: bytes) -> bytes:
        require(len(data) == self.size)
        block = int.from_bytes(data, "big")
        require(block < self.n)
        m1, m2 = pow(block, self._dp, self._p), pow(block, self._dq, self._q)
        return (m2 + (m1 - m2) * self._qinv % self._p * self._q).to_bytes(self.size, "big")

    def exported(self) -> rsa.RSAPrivateKey:
        d = pow(self.e, -1, (self._p - 1) * (self._q - 1))
        public = rsa.RSAPublicNumbers(self.e, self.n)
        numbers = rsa.RSAPrivateNumbers(self._p, self._q, d, self._dp, self._dq, self._qinv, public)
        return numbers.private_key(unsafe_skip_rsa_key_validation=True)


class EllipticKey(WorkingKey):
    """P-256 or P-384: ECDSA in sign, ECDH in agree."""

    def __init__(self, algorithm: int, scalar: int) -> None:
        """Raises ValueError for a scalar outside the group."""
        self._algorithm = algorithm
        self._octets = EC_OCTETS[algorithm]
        self._key = ec.derive_private_key(scalar, _CURVES[algorithm])

    @property
    def public(self) -> bytes:
        return encode(0x86, self.point)

    @property
    def point(self) -> bytes:
        """04 X Y."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )

    def sign(self, data: bytes) -> bytes:
        require(0 < len(data) <= self._octets and self._algorithm in _SIGNATURES)
        return self._key.sign(data.rjust(self._octets, b"\0"), _SIGNATURES[self._algorithm])

    def agree(self, point: bytes) -> bytes:
        require(len(point) == 1 + 2 * self._octets and point[0] == 0x04)
        try:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[self._algorithm], point)
        except ValueError:
            raise Refused(SW.WRONG_DATA) from None
        return self._key.exchange(ec.ECDH(), peer)

    def exported(self) -> ec.EllipticCurvePrivateKey:
        return self._key


class Ed25519Key(WorkingKey):
    """EdDSA over the message itself."""

    def __init__(self, seed: bytes) -> None:
        self._key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public(self) -> bytes:
        return encode(0x86, self._key.public_key().public_bytes(_RAW, _RAW_PUBLIC))

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def exported(self) -> ed25519.Ed25519PrivateKey:
        return self._key


class X25519Key(WorkingKey):
    """Key agreement only; a peer of low order is refused."""

    def __init__(self, seed: bytes) -> None:
        self._key = x25519.X25519PrivateKey.from_private_bytes(seed)

    @property
    def public(self) -> bytes:
        return encode(0x86, self._key.public_key().public_bytes(_RAW, _RAW_PUBLIC))

    def agree(self, point: bytes) -> bytes:
        require(len(point) == 32)
        try:
            return self._key.exchange(x25519.X25519PublicKey.from_public_bytes(point))
        except ValueError:
            raise Refused(SW.WRONG_DATA) from None

    def exported(self) -> x25519.X25519PrivateKey:
        return self._key


def working_key(algorithm: int, private: tuple[bytes, ...]) -> WorkingKey:
    """The key of a stored ``private`` part. Raises ValueError where the parts make no key of ``algorithm``."""
    if algorithm in RSA_BITS:
        p, q, e = (int.from_bytes(part, "big") for part in private)
        if (p * q).bit_length() != RSA_BITS[algorithm]:
            raise ValueError("the primes do not make a modulus of that size")
        return RsaKey(p, q, e)
    (secret,) = private
    if algorithm in EC_OCTETS and len(secret) == EC_OCTETS[algorithm]:
        return EllipticKey(algorithm, int.from_bytes(secret, "big"))
    if algorithm == Algorithm.ED25519:
        return Ed25519Key(secret)
    if algorithm == Algorithm.X25519:
        return X25519Key(secret)
    raise ValueError(f"{len(secret)} octets make no key of algorithm {algorithm:02X}")


def generate(algorithm: int, pool: KeyPool | None) -> tuple[bytes, ...]:
    """A new private part for ``algorithm``; RSA keys come out of ``pool`` where there is one."""
    if algorithm in RSA_BITS:
        if pool is not None:
            return pool.take(RSA_BITS[algorithm])
        return split(rsa.generate_private_key(65537, RSA_BITS[algorithm]))[1]
    if algorithm in EC_OCTETS:
        return split(ec.generate_private_key(_CURVES[algorithm]))[1]
    if algorithm == Algorithm.ED25519:
        return split(ed25519.Ed25519PrivateKey.generate())[1]
    return split(x25519.X25519PrivateKey.generate())[1]


def split(key: PrivateKeyTypes) -> tuple[int, tuple[bytes, ...]]:
    """Algorithm identifier and private part of a key. Raises ValueError for a key no card can hold."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        bits = {size: number for number, size in RSA_BITS.items()}
        if key.key_size not in bits:
            raise ValueError(f"no PIV algorithm has RSA keys of {key.key_size} bits")
        parts = (numbers.p, numbers.q, numbers.public_numbers.e)
        return bits[key.key_size], tuple(part.to_bytes((part.bit_length() + 7) // 8, "big") for part in parts)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        for algorithm in (Algorithm.P256, Algorithm.P384):
            if key.curve.name == _CURVES[algorithm].name:
                value = key.private_numbers().private_value
                return algorithm, (value.to_bytes(EC_OCTETS[algorithm], "big"),)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return Algorithm.ED25519, (key.private_bytes_raw(),)
    if isinstance(key, x25519.X25519PrivateKey):
        return Algorithm.X25519, (key.private_bytes_raw(),)
    raise ValueError("no PIV algorithm has this kind of key")


def from_pkcs8(der: bytes) -> tuple[int, tuple[bytes, ...]]:
    """:func:`split` of an unencrypted PKCS#8 key. Raises ValueError."""
    try:
        key = serialization.load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("not an unencrypted private key that a card can hold") from error
    return split(key)


def to_pkcs8(algorithm: int, private: tuple[bytes, ...]) -> bytes:
    """The stored key as unencrypted PKCS#8."""
    return working_key(algorithm, private).exported().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
