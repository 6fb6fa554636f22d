"""A slot's key as a ``cryptography`` private key: it signs requests, certificates, CMS and TLS, and decrypts.

Only the operation itself happens on the card; everything that would export the key refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..kept_key import KeptKey
from .algorithms import Algorithm, PublicKey, UnsupportedAlgorithm
from .signing import (
    digest,
    ecdsa_block,
    pkcs1_v15_block,
    pss_block,
    signature_of,
    unpad_oaep,
    unpad_pkcs1_v15,
)

UseOnCard: TypeAlias = Callable[[bytes, bool], bytes]
"""``use(data, agree)``: GENERAL AUTHENTICATE with the key; the value of the answer's tag 82."""

CardPrivateKey: TypeAlias = "CardRSAKey | CardECKey | CardEd25519Key | CardX25519Key"


def card_private_key(public: PublicKey, use: UseOnCard) -> CardPrivateKey:
    """The private key that belongs to ``public``, with its operations done by ``use``.

    Its methods raise what ``use`` raises.
    """
    match public:
        case rsa.RSAPublicKey():
            return CardRSAKey(public, use)
        case ec.EllipticCurvePublicKey():
            return CardECKey(public, use)
        case ed25519.Ed25519PublicKey():
            return CardEd25519Key(public, use)
        case x25519.X25519PublicKey():
            return CardX25519Key(public, use)


class _OnCard(KeptKey):
    kept_by = "the card"


def _hashed(data: bytes, algorithm: hashes.HashAlgorithm | Prehashed) -> tuple[bytes, hashes.HashAlgorithm]:
    if isinstance(algorithm, Prehashed):
        # The only way that cryptography offers to learn which hash it was.
        inner: hashes.HashAlgorithm = algorithm._algorithm
        return data, inner
    return digest(data, algorithm), algorithm


class CardRSAKey(_OnCard, rsa.RSAPrivateKey):
    """RSA: PKCS #1 v1.5 and PSS signatures, PKCS #1 v1.5 and OAEP decryption."""

    def __init__(self, public: rsa.RSAPublicKey, use: UseOnCard) -> None:
        self._public = public
        self._use = use

    @property
    def key_size(self) -> int:
        """Bits of the modulus."""
        return self._public.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        """The public half."""
        return self._public

    def sign(
        self, data: bytes, padding: AsymmetricPadding, algorithm: hashes.HashAlgorithm | Prehashed | Any
    ) -> bytes:
        """Sign ``data``. Raises BlockTooLarge, UnsupportedAlgorithm."""
        hashed, hash_algorithm = _hashed(data, algorithm)
        return self._use(self._block(hashed, hash_algorithm, padding), False).rjust(self.key_size // 8, b"\x00")

    def _block(self, hashed: bytes, algorithm: hashes.HashAlgorithm, how: AsymmetricPadding) -> bytes:
        if isinstance(how, padding.PKCS1v15):
            return pkcs1_v15_block(hashed, algorithm, self.key_size // 8)
        if isinstance(how, padding.PSS):
            return pss_block(hashed, algorithm, self.key_size, _salt_octets(how, algorithm, self._public))
        raise UnsupportedAlgorithm("Only PKCS #1 v1.5 and PSS signatures are made.")

    def decrypt(self, ciphertext: bytes, padding: AsymmetricPadding) -> bytes:
        """Decrypt one block. Raises DecryptionFailed, UnsupportedAlgorithm."""
        block = self._use(ciphertext, False).rjust(self.key_size // 8, b"\x00")
        return _unpad(block, padding)


def _salt_octets(how: padding.PSS, algorithm: hashes.HashAlgorithm, key: rsa.RSAPublicKey) -> int:
    length = how._salt_length
    if isinstance(length, int):
        return length
    if isinstance(length, type(padding.PSS.DIGEST_LENGTH)):
        return algorithm.digest_size
    return padding.calculate_max_pss_salt_length(key, algorithm)


def _unpad(block: bytes, how: AsymmetricPadding) -> bytes:
    if isinstance(how, padding.PKCS1v15):
        return unpad_pkcs1_v15(block)
    if isinstance(how, padding.OAEP):
        return unpad_oaep(block, how.algorithm, how.mgf._algorithm, how._label or b"")
    raise UnsupportedAlgorithm("Only PKCS #1 v1.5 and OAEP are decrypted.")


class CardECKey(_OnCard, ec.EllipticCurvePrivateKey):
    """P-256 and P-384: ECDSA, and ECDH for key management slots."""

    def __init__(self, public: ec.EllipticCurvePublicKey, use: UseOnCard) -> None:
        self._public = public
        self._use = use

    @property
    def curve(self) -> ec.EllipticCurve:
        """The named curve."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """Bits of the curve."""
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public

    def sign(
        self, data: bytes | bytearray | memoryview, signature_algorithm: ec.EllipticCurveSignatureAlgorithm
    ) -> bytes:
        """ECDSA; the signature as DER."""
        algorithm = Algorithm.of(self._public)
        hashed, _ = _hashed(bytes(data), signature_algorithm.algorithm)
        return signature_of(self._use(ecdsa_block(hashed, algorithm), False), algorithm)

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """ECDH: the shared x coordinate."""
        if peer_public_key.curve.name != self.curve.name:
            raise UnsupportedAlgorithm("The other key is on another curve.")
        return self._use(peer_public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint), True)


class CardEd25519Key(_OnCard, ed25519.Ed25519PrivateKey):
    """Ed25519 signatures (RFC 8032, the pure form)."""

    def __init__(self, public: ed25519.Ed25519PublicKey, use: UseOnCard) -> None:
        self._public = public
        self._use = use

    def public_key(self) -> ed25519.Ed25519PublicKey:
        """The public half."""
        return self._public

    def sign(self, data: Any) -> bytes:
        """Sign the message itself."""
        return self._use(bytes(data), False)


class CardX25519Key(_OnCard, x25519.X25519PrivateKey):
    """X25519 key agreement (RFC 7748)."""

    def __init__(self, public: x25519.X25519PublicKey, use: UseOnCard) -> None:
        self._public = public
        self._use = use

    def public_key(self) -> x25519.X25519PublicKey:
        """The public half."""
        return self._public

    def exchange(self, peer_public_key: x25519.X25519PublicKey) -> bytes:
        """The shared secret, 32 octets."""
        return self._use(peer_public_key.public_bytes(Encoding.Raw, PublicFormat.Raw), True)
