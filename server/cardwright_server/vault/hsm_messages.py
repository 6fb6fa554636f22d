"""What goes through the pipe between the vault and the process that holds the HSM's PKCS#11 module."""

from __future__ import annotations

from typing import Final

import msgspec

from .model import SigningAlgorithm

MAX_REQUEST: Final = 9 * 1024 * 1024
MAX_REPLY: Final = 64 * 1024


class HsmRequest(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base. Its repr is the name alone: one of them holds a PIN."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class Open(HsmRequest, frozen=True):
    """Load the module, find the token by its label, log in once."""

    module: str
    token: str
    pin: str
    spend_last_try: bool


class GenerateMaster(HsmRequest, frozen=True):
    """An AES-256 key for AES-CMAC. Answer: None."""

    id: bytes


class GenerateSigning(HsmRequest, frozen=True):
    """A key pair. Answer: SubjectPublicKeyInfo DER."""

    id: bytes
    algorithm: SigningAlgorithm


class Cmac(HsmRequest, frozen=True):
    """C_Sign with CKM_AES_CMAC. Answer: 16 octets."""

    id: bytes
    data: bytes


class Sign(HsmRequest, frozen=True):
    """C_Sign with CKM_SHA256_RSA_PKCS, or CKM_ECDSA over the hash. Answer: the signature, ECDSA as DER."""

    id: bytes
    algorithm: SigningAlgorithm
    data: bytes


class Destroy(HsmRequest, frozen=True):
    """C_DestroyObject for everything with that id. Answer: None."""

    id: bytes


AnyHsmRequest = Open | GenerateMaster | GenerateSigning | Cmac | Sign | Destroy


class HsmReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer, or what went wrong (``pin``, ``last-try``, ``token``, ``key``, ``module``) and a detail."""

    body: bytes = b""
    fault: str = ""
    detail: str = ""
