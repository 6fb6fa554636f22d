"""The vault as the server sees it: acts, never keys.

``VaultClient`` (a process behind a socket) and ``LocalVault`` (in this process) both are one. Every call is safe to
repeat. Every call raises VaultLocked, VaultUnavailable, VaultRefused and VaultQuota.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.secret import Secret

from .model import (
    ArchiveContext,
    AuditBlock,
    Authorization,
    CommitPurpose,
    ContentKind,
    DataClass,
    DataContext,
    EscrowAlgorithm,
    EscrowedKey,
    PublicKeyInfo,
    PukPurpose,
    SignedBlock,
    VaultCard,
    VaultStatus,
    VendorCard,
    WitnessResponse,
    Wrapped,
)


class Vault(Protocol):
    """Typed operations. All octets are plain values unless they are a Secret."""

    async def status(self) -> VaultStatus:
        """Works while locked, too."""

    async def public_key(self, name: str) -> PublicKeyInfo:
        """A signing key's public half."""

    # Secrets of cards.

    async def answer_management_key(
        self, card: VaultCard, algorithm: ManagementAlgorithm, witness: bytes
    ) -> WitnessResponse:
        """Answer one encrypted witness block of the card with its management key, and challenge the card."""

    async def check_management_key(
        self, card: VaultCard, algorithm: ManagementAlgorithm, challenge: bytes, answer: bytes
    ) -> bool:
        """Whether ``answer`` is ``challenge`` under the card's key. A challenge of the vault counts once."""

    async def answer_vendor_key(
        self, card: VendorCard, algorithm: ManagementAlgorithm, witness: bytes
    ) -> WitnessResponse:
        """As ``answer_management_key``, with the key that a vendor gave the card."""

    async def check_vendor_key(
        self, card: VendorCard, algorithm: ManagementAlgorithm, challenge: bytes, answer: bytes
    ) -> bool:
        """As ``check_management_key``, with the key that a vendor gave the card."""

    async def new_management_key(
        self, card: VaultCard, algorithm: ManagementAlgorithm, authorization: Authorization
    ) -> Secret:
        """The management key in clear, to be written to the card. Only under the current master version."""

    async def puk(self, card: VaultCard, purpose: PukPurpose, authorization: Authorization) -> Secret:
        """The card's PUK, 8 digits. ``SET`` only under the current master version."""

    # Signatures.

    async def sign_certificate(self, ca: str, profile: str, tbs: bytes) -> bytes:
        """The signature value over a DER TBSCertificate that keeps the profile."""

    async def sign_crl(self, ca: str, tbs: bytes) -> bytes:
        """The signature value over a DER TBSCertList; its number must be higher than the last."""

    async def sign_ocsp(self, responder: str, tbs: Sequence[bytes]) -> tuple[bytes, ...]:
        """Signature values over DER ResponseData, 1 to 100 of them."""

    async def sign_content(self, signer: str, kind: ContentKind, signed_attributes: bytes) -> bytes:
        """The signature value over DER SignedAttributes (SET OF) of a card's object."""

    async def sign_audit_block(self, block: AuditBlock) -> SignedBlock:
        """Sign the next block of a chain; the last one again gives the same ``signed``. Forks are refused."""

    # Escrow and sealed data.

    async def generate_keypair_for_escrow(
        self, algorithm: EscrowAlgorithm, organization: str, owner: str
    ) -> EscrowedKey:
        """A new key pair, sealed for ``ArchiveContext(organization, owner, public_key)`` without certificate."""

    async def wrap_for_archive(self, private_key: Secret, context: ArchiveContext) -> Wrapped:
        """Seal a PKCS #8 DER private key that is the one of ``context.public_key``."""

    async def bind_certificate(self, wrapped: Wrapped, context: ArchiveContext, certificate: bytes) -> Wrapped:
        """Seal an archived key anew, under the current master, for ``context`` with ``certificate`` (DER)."""

    async def rewrap(self, wrapped: Wrapped, context: ArchiveContext) -> Wrapped:
        """Seal an archived key anew, under the current master."""

    async def rewrap_data(self, wrapped: Wrapped, context: DataContext) -> Wrapped:
        """The same for what ``seal_data`` sealed."""

    async def unwrap_for_card(self, wrapped: Wrapped, context: ArchiveContext, authorization: Authorization) -> Secret:
        """The PKCS #8 DER private key, to be imported to a card."""

    async def unwrap_for_pfx(
        self, wrapped: Wrapped, context: ArchiveContext, password: Secret, authorization: Authorization
    ) -> bytes:
        """A PKCS #12 file (AES-256) with key and certificate under ``password`` (UTF-8, 12 octets at least)."""

    async def seal_data(self, kind: DataClass, data: Secret, context: DataContext) -> Wrapped:
        """Seal up to 64 KiB."""

    async def open_data(self, wrapped: Wrapped, context: DataContext, authorization: Authorization) -> Secret:
        """The opposite of ``seal_data``."""

    async def hmac_commit(self, purpose: CommitPurpose, data: Sequence[bytes]) -> tuple[bytes, ...]:
        """HMAC-SHA-256 of each value (1 to 1000 of them, 64 KiB each) under a key that never leaves."""
