"""Keys on a token as private keys of ``cryptography``: they sign certificates, requests, CMS and TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

from asn1crypto.algos import DigestAlgorithm, DigestInfo
from asn1crypto.core import Null
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric import utils as asym_utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ..kept_key import KeptKey
from ..secret import Secret
from .capabilities import TokenCapabilities
from .errors import AnswerInvalid, DataRejected, KeyRefused, PinNeeded, UnsupportedByToken
from .inventory import KeyEntry
from .messages import Decrypt, Derive, Sign
from .values import Mechanism, TokenInfo

# CKM_* and CKG_MGF1_* of each hash (PKCS#11 v2.40).
_HASH_NUMBERS = {
    "sha1": (0x220, 1),
    "sha224": (0x255, 5),
    "sha256": (0x250, 2),
    "sha384": (0x260, 3),
    "sha512": (0x270, 4),
}


def _hash_numbers(algorithm: hashes.HashAlgorithm) -> tuple[int, int]:
    numbers = _HASH_NUMBERS.get(algorithm.name)
    if numbers is None:
        raise UnsupportedByToken(f"The hash {algorithm.name} is not used with tokens.", operation="hash")
    return numbers


def _digest(
    data: bytes | bytearray | memoryview, algorithm: asym_utils.Prehashed | hashes.HashAlgorithm
) -> tuple[bytes, hashes.HashAlgorithm]:
    """The hash and its kind. Raises DataRejected for a prehashed value of the wrong length."""
    if isinstance(algorithm, asym_utils.Prehashed):
        kind = algorithm._algorithm
        if len(data) != kind.digest_size:
            raise DataRejected("The hash has the wrong length.")
        return bytes(data), kind
    context = hashes.Hash(algorithm)
    context.update(data)
    return context.finalize(), algorithm


class Holder(Protocol):
    """The token, as far as its keys need it."""

    info: TokenInfo
    capabilities: TokenCapabilities

    def use_key(self, request: Sign | Decrypt | Derive) -> bytes:
        """One private-key operation. Raises Pkcs11Error."""


class _TokenKey(KeptKey):
    """What both kinds share: the token, the entry, and the PIN for keys that want it every time.

    What would export the key raises UnsupportedByToken.
    """

    kept_by = "the token"

    def __init__(self, token: Holder, entry: KeyEntry, pin: Callable[[], Secret] | None, spend_last_try: bool) -> None:
        self._token = token
        self._entry = entry
        self._pin = pin
        self._spend_last_try = spend_last_try

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._token!r}, id={self._entry.id.hex()})"

    @property
    def entry(self) -> KeyEntry:
        """The key as the inventory shows it."""
        return self._entry

    def _ask_pin(self) -> bytearray | None:
        if not self._entry.always_authenticate:
            return None
        if self._pin is None:
            raise PinNeeded("This key wants the PIN for every use.")
        return bytearray(self._pin().reveal())

    def _needs(self, allowed: bool, use: str, mechanism: Mechanism, offered: tuple[Mechanism, ...]) -> None:
        if not allowed:
            raise KeyRefused(f"The key's attributes do not allow to {use} with it.")
        if mechanism not in offered:
            raise UnsupportedByToken(f"The token has no {mechanism.name}.", operation=use)

    def _never_leaves(self) -> NoReturn:
        raise UnsupportedByToken("A key on a token never leaves it.", operation="private_bytes")


class TokenRsaKey(_TokenKey, rsa.RSAPrivateKey):
    """An RSA key: PKCS#1 v1.5 and PSS signatures, PKCS#1 v1.5 and OAEP decryption."""

    @property
    def key_size(self) -> int:
        """Modulus size in bits."""
        return self.public_key().key_size

    def public_key(self) -> rsa.RSAPublicKey:
        """The public half."""
        assert self._entry.public_key is not None
        key = load_der_public_key(self._entry.public_key)
        assert isinstance(key, rsa.RSAPublicKey)
        return key

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        padding: padding.AsymmetricPadding,
        algorithm: asym_utils.Prehashed | hashes.HashAlgorithm | asym_utils.NoDigestInfo,
    ) -> bytes:
        """Sign. Raises Pkcs11Error; UnsupportedByToken for paddings and hashes the token lacks."""
        if isinstance(algorithm, asym_utils.NoDigestInfo):
            raise UnsupportedByToken("Signatures without DigestInfo are not made.", operation="sign")
        digest, kind = _digest(data, algorithm)
        mechanism, pss = Mechanism.RSA_PKCS, None
        if _is_pkcs1(padding):
            message = _digest_info(digest, kind)
        else:
            mechanism, message, pss = Mechanism.RSA_PKCS_PSS, digest, self._pss(padding, kind)
        self._needs(self._entry.sign, "sign", mechanism, self._token.capabilities.sign)
        return self._token.use_key(
            Sign(
                self._token.info.identity,
                self._entry.id,
                self._ask_pin(),
                self._spend_last_try,
                int(mechanism),
                message,
                pss,
            )
        )

    def _pss(self, scheme: padding.AsymmetricPadding, kind: hashes.HashAlgorithm) -> tuple[int, int, int]:
        if not isinstance(scheme, padding.PSS):
            raise UnsupportedByToken(f"The padding {scheme.name} is not used.", operation="sign")
        salt = scheme._salt_length
        if salt is padding.PSS.DIGEST_LENGTH:
            salt = kind.digest_size
        elif salt is padding.PSS.MAX_LENGTH:
            salt = padding.calculate_max_pss_salt_length(self.public_key(), kind)
        if not isinstance(salt, int):
            raise UnsupportedByToken("A signature needs a definite salt length.", operation="sign")
        return _hash_numbers(kind)[0], _hash_numbers(scheme.mgf._algorithm)[1], salt

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> bytes:
        """Decrypt. Raises Pkcs11Error; DataRejected for what was not made for this key."""
        if len(ciphertext) != (self.key_size + 7) // 8:
            raise DataRejected("The encrypted data have the wrong length for this key.")
        mechanism, oaep = Mechanism.RSA_PKCS, None
        if not _is_pkcs1(padding):
            mechanism, oaep = Mechanism.RSA_PKCS_OAEP, _oaep(padding)
        self._needs(self._entry.decrypt, "decrypt", mechanism, self._token.capabilities.decrypt)
        return self._token.use_key(
            Decrypt(
                self._token.info.identity,
                self._entry.id,
                self._ask_pin(),
                self._spend_last_try,
                int(mechanism),
                bytes(ciphertext),
                oaep,
            )
        )


class TokenEcKey(_TokenKey, ec.EllipticCurvePrivateKey):
    """A key on P-256 or P-384: ECDSA and ECDH."""

    @property
    def key_size(self) -> int:
        """Field size in bits."""
        return self.curve.key_size

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self.public_key().curve

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        assert self._entry.public_key is not None
        key = load_der_public_key(self._entry.public_key)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return key

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        signature_algorithm: ec.EllipticCurveSignatureAlgorithm,
    ) -> bytes:
        """ECDSA; the answer is Ecdsa-Sig-Value DER (RFC 3279). Raises Pkcs11Error."""
        if not isinstance(signature_algorithm, ec.ECDSA):
            raise UnsupportedByToken("Only ECDSA is used with tokens.", operation="sign")
        digest, _ = _digest(data, signature_algorithm.algorithm)
        self._needs(self._entry.sign, "sign", Mechanism.ECDSA, self._token.capabilities.sign)
        # A hash longer than the group order is cut on the left (FIPS 186-5 section 6.4.1); not all modules do it.
        size = (self.key_size + 7) // 8
        raw = self._token.use_key(
            Sign(
                self._token.info.identity,
                self._entry.id,
                self._ask_pin(),
                self._spend_last_try,
                int(Mechanism.ECDSA),
                digest[:size],
                None,
            )
        )
        if len(raw) != 2 * size:
            raise AnswerInvalid("The signature has the wrong length.")
        return asym_utils.encode_dss_signature(int.from_bytes(raw[:size], "big"), int.from_bytes(raw[size:], "big"))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """ECDH; the answer is the X coordinate. Raises Pkcs11Error."""
        if peer_public_key.curve.name != self.curve.name:
            raise DataRejected("The other key is on another curve.")
        self._needs(self._entry.derive, "derive", Mechanism.ECDH1_DERIVE, self._token.capabilities.derive)
        size = (self.key_size + 7) // 8
        point = peer_public_key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        shared = self._token.use_key(
            Derive(
                self._token.info.identity,
                self._entry.id,
                self._ask_pin(),
                self._spend_last_try,
                point,
                size,
            )
        )
        if len(shared) != size:
            raise AnswerInvalid("The shared secret has the wrong length.")
        return shared


def _is_pkcs1(scheme: padding.AsymmetricPadding) -> bool:
    return isinstance(scheme, padding.PKCS1v15)


def _digest_info(digest: bytes, kind: hashes.HashAlgorithm) -> bytes:
    """DigestInfo of RFC 8017 section 9.2."""
    _hash_numbers(kind)
    algorithm = DigestAlgorithm({"algorithm": kind.name, "parameters": Null()})
    return bytes(DigestInfo({"digest_algorithm": algorithm, "digest": digest}).dump())


def _oaep(scheme: padding.AsymmetricPadding) -> tuple[int, int, bytes]:
    if not isinstance(scheme, padding.OAEP):
        raise UnsupportedByToken(f"The padding {scheme.name} is not used.", operation="decrypt")
    return (
        _hash_numbers(scheme.algorithm)[0],
        _hash_numbers(scheme.mgf._algorithm)[1],
        scheme._label or b"",
    )
