"""Keys of the vault in the shape of ``cryptography``'s, for code that builds a structure and wants it signed.

Such code is synchronous; it runs in a thread here, and its ``sign`` waits for the vault. The vault judges what comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import load_der_public_key

from cardwright_cardops.kept_key import KeptKey

from .model import ContentKind
from .protocol import Vault

T = TypeVar("T")
Sign: TypeAlias = Callable[[bytes], bytes]
VaultKey: TypeAlias = "VaultRSAKey | VaultECKey"


async def build_content(vault: Vault, signer: str, kind: ContentKind, build: Callable[[VaultKey], T]) -> T:
    """What ``build`` makes of a card's object with the content signer's key; it runs in a thread.

    Raises what ``build`` and ``Vault.sign_content`` raise.
    """
    return await _build(vault, signer, lambda data: vault.sign_content(signer, kind, data), build)


async def build_certificate(vault: Vault, ca: str, profile: str, build: Callable[[VaultKey], T]) -> T:
    """What ``build`` makes (``CertificateBuilder.sign``) with a CA's key under ``profile``; it runs in a thread.

    Raises what ``build`` and ``Vault.sign_certificate`` raise. A server that records what it will have signed builds
    the TBSCertificate itself and calls ``Vault.sign_certificate``.
    """
    return await _build(vault, ca, lambda tbs: vault.sign_certificate(ca, profile, tbs), build)


async def build_crl(vault: Vault, ca: str, build: Callable[[VaultKey], T]) -> T:
    """What ``build`` makes (``CertificateRevocationListBuilder.sign``) with a CA's key. Raises as above."""
    return await _build(vault, ca, lambda tbs: vault.sign_crl(ca, tbs), build)


async def build_ocsp(vault: Vault, responder: str, build: Callable[[VaultKey], T]) -> T:
    """What ``build`` makes (``OCSPResponseBuilder.sign``) with a responder's key. Raises as above."""

    async def sign(tbs: bytes) -> bytes:
        return (await vault.sign_ocsp(responder, [tbs]))[0]

    return await _build(vault, responder, sign, build)


async def _build(
    vault: Vault, name: str, sign: Callable[[bytes], Awaitable[bytes]], build: Callable[[VaultKey], T]
) -> T:
    info = await vault.public_key(name)
    loop = asyncio.get_running_loop()

    async def ask(data: bytes) -> bytes:
        return await sign(data)

    def wait(data: bytes) -> bytes:
        return asyncio.run_coroutine_threadsafe(ask(data), loop).result()

    public = load_der_public_key(info.public_key)
    if isinstance(public, rsa.RSAPublicKey):
        return await asyncio.to_thread(build, VaultRSAKey(public, wait))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return await asyncio.to_thread(build, VaultECKey(public, wait))


class _InVault(KeptKey):
    kept_by = "the vault"


class VaultRSAKey(_InVault, rsa.RSAPrivateKey):
    """Signs PKCS #1 v1.5 with SHA-256 and nothing else, as the vault does."""

    def __init__(self, public: rsa.RSAPublicKey, sign: Sign) -> None:
        self._public = public
        self._sign = sign

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        if not isinstance(padding, PKCS1v15) or not isinstance(algorithm, hashes.SHA256):
            raise UnsupportedAlgorithm("an RSA key of the vault signs PKCS #1 v1.5 with SHA-256")
        return self._sign(bytes(data))

    def decrypt(self, ciphertext: Any, padding: Any) -> bytes:
        self._never_leaves()


class VaultECKey(_InVault, ec.EllipticCurvePrivateKey):
    """Signs ECDSA with the hash of its curve: SHA-384 for P-384, else SHA-256."""

    def __init__(self, public: ec.EllipticCurvePublicKey, sign: Sign) -> None:
        self._public = public
        self._sign = sign

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:
        wanted = hashes.SHA384 if self.curve.key_size == 384 else hashes.SHA256
        if not isinstance(signature_algorithm, ec.ECDSA) or not isinstance(signature_algorithm.algorithm, wanted):
            raise UnsupportedAlgorithm(f"this key of the vault signs ECDSA with {wanted.name}")
        return self._sign(bytes(data))

    def exchange(self, algorithm: Any, peer_public_key: Any) -> bytes:
        self._never_leaves()
