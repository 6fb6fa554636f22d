"""The typed operations over anything that carries a message to a vault and brings its answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.secret import Secret

from . import messages as m
from .administration import administer
from .core import VaultCore
from .errors import VaultError
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
    KeyRole,
    MasterPurpose,
    PublicKeyInfo,
    PukPurpose,
    SignedBlock,
    SigningAlgorithm,
    VaultCard,
    VaultStatus,
    VendorCard,
    VendorKdf,
    WitnessResponse,
    Wrapped,
)
from .profiles import CertificateRule

Ask: TypeAlias = Callable[[m.Message], Awaitable[Any]]
"""Carry one message; the value is of the message's ``answer`` type. Raises VaultError."""


class VaultCalls:
    """A ``Vault``, whatever is behind ``ask``."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def status(self) -> VaultStatus:
        """See ``Vault``."""
        answer: VaultStatus = await self._ask(m.Status())
        return answer

    async def public_key(self, name: str) -> PublicKeyInfo:
        """See ``Vault``."""
        answer: PublicKeyInfo = await self._ask(m.PublicKey(name))
        return answer

    async def answer_management_key(
        self, card: VaultCard, algorithm: ManagementAlgorithm, witness: bytes
    ) -> WitnessResponse:
        """See ``Vault``."""
        answer: WitnessResponse = await self._ask(m.AnswerManagementKey(card, algorithm, witness))
        return answer

    async def check_management_key(
        self, card: VaultCard, algorithm: ManagementAlgorithm, challenge: bytes, answer: bytes
    ) -> bool:
        """See ``Vault``."""
        proved: bool = await self._ask(m.CheckManagementKey(card, algorithm, challenge, answer))
        return proved

    async def answer_vendor_key(
        self, card: VendorCard, algorithm: ManagementAlgorithm, witness: bytes
    ) -> WitnessResponse:
        """See ``Vault``."""
        answer: WitnessResponse = await self._ask(m.AnswerVendorKey(card, algorithm, witness))
        return answer

    async def check_vendor_key(
        self, card: VendorCard, algorithm: ManagementAlgorithm, challenge: bytes, answer: bytes
    ) -> bool:
        """See ``Vault``."""
        proved: bool = await self._ask(m.CheckVendorKey(card, algorithm, challenge, answer))
        return proved

    async def new_management_key(
        self, card: VaultCard, algorithm: ManagementAlgorithm, authorization: Authorization
    ) -> Secret:
        """See ``Vault``."""
        return Secret(await self._ask(m.NewManagementKey(card, algorithm, authorization)))

    async def puk(self, card: VaultCard, purpose: PukPurpose, authorization: Authorization) -> Secret:
        """See ``Vault``."""
        return Secret(await self._ask(m.Puk(card, purpose, authorization)))

    async def sign_certificate(self, ca: str, profile: str, tbs: bytes) -> bytes:
        """See ``Vault``."""
        answer: bytes = await self._ask(m.SignCertificate(ca, profile, tbs))
        return answer

    async def sign_crl(self, ca: str, tbs: bytes) -> bytes:
        """See ``Vault``."""
        answer: bytes = await self._ask(m.SignCrl(ca, tbs))
        return answer

    async def sign_ocsp(self, responder: str, tbs: Sequence[bytes]) -> tuple[bytes, ...]:
        """See ``Vault``."""
        answer: tuple[bytes, ...] = await self._ask(m.SignOcsp(responder, tuple(tbs)))
        return answer

    async def sign_content(self, signer: str, kind: ContentKind, signed_attributes: bytes) -> bytes:
        """See ``Vault``."""
        answer: bytes = await self._ask(m.SignContent(signer, kind, signed_attributes))
        return answer

    async def sign_audit_block(self, block: AuditBlock) -> SignedBlock:
        """See ``Vault``."""
        answer: SignedBlock = await self._ask(m.SignAuditBlock(block))
        return answer

    async def generate_keypair_for_escrow(
        self, algorithm: EscrowAlgorithm, organization: str, owner: str
    ) -> EscrowedKey:
        """See ``Vault``."""
        answer: EscrowedKey = await self._ask(m.GenerateForEscrow(algorithm, organization, owner))
        return answer

    async def wrap_for_archive(self, private_key: Secret, context: ArchiveContext) -> Wrapped:
        """See ``Vault``."""
        answer: Wrapped = await self._ask(m.WrapForArchive(private_key.reveal(), context))
        return answer

    async def bind_certificate(self, wrapped: Wrapped, context: ArchiveContext, certificate: bytes) -> Wrapped:
        """See ``Vault``."""
        answer: Wrapped = await self._ask(m.BindCertificate(wrapped, context, certificate))
        return answer

    async def rewrap(self, wrapped: Wrapped, context: ArchiveContext) -> Wrapped:
        """See ``Vault``."""
        answer: Wrapped = await self._ask(m.Rewrap(wrapped, context))
        return answer

    async def rewrap_data(self, wrapped: Wrapped, context: DataContext) -> Wrapped:
        """See ``Vault``."""
        answer: Wrapped = await self._ask(m.RewrapData(wrapped, context))
        return answer

    async def unwrap_for_card(self, wrapped: Wrapped, context: ArchiveContext, authorization: Authorization) -> Secret:
        """See ``Vault``."""
        return Secret(await self._ask(m.UnwrapForCard(wrapped, context, authorization)))

    async def unwrap_for_pfx(
        self, wrapped: Wrapped, context: ArchiveContext, password: Secret, authorization: Authorization
    ) -> bytes:
        """See ``Vault``."""
        answer: bytes = await self._ask(m.UnwrapForPfx(wrapped, context, password.reveal(), authorization))
        return answer

    async def seal_data(self, kind: DataClass, data: Secret, context: DataContext) -> Wrapped:
        """See ``Vault``."""
        answer: Wrapped = await self._ask(m.SealData(kind, data.reveal(), context))
        return answer

    async def open_data(self, wrapped: Wrapped, context: DataContext, authorization: Authorization) -> Secret:
        """See ``Vault``."""
        return Secret(await self._ask(m.OpenData(wrapped, context, authorization)))

    async def hmac_commit(self, purpose: CommitPurpose, data: Sequence[bytes]) -> tuple[bytes, ...]:
        """See ``Vault``."""
        answer: tuple[bytes, ...] = await self._ask(m.HmacCommit(purpose, tuple(data)))
        return answer


class VaultAdmin:
    """What the passphrase holder may do; each call raises VaultUnlockRefused besides what a ``Vault`` raises."""

    def __init__(self, ask: Ask, credential: Secret) -> None:
        """``credential`` is the passphrase, or the user PIN of the HSM."""
        self._ask = ask
        self._credential = credential

    async def unlock(self, *, spend_last_try: bool = False) -> None:
        """Open the vault. An HSM gets its PIN once; its last try only if ``spend_last_try``."""
        await self._ask(m.Unlock(self._credential.reveal(), spend_last_try))

    async def lock(self) -> None:
        """Forget all keys."""
        await self._ask(m.Lock(self._credential.reveal()))

    async def create_key(
        self,
        name: str,
        role: KeyRole,
        algorithm: SigningAlgorithm,
        subject: bytes = b"",
        profiles: Sequence[str] = (),
    ) -> PublicKeyInfo:
        """A new signing key; ``profiles`` only for CAs, ``subject`` (DER Name) for all but the audit's key."""
        key = m.CreateKey(self._credential.reveal(), name, role, algorithm, subject, tuple(profiles))
        answer: PublicKeyInfo = await self._ask(key)
        return answer

    async def rotate_master(self, purpose: MasterPurpose) -> int:
        """A new version of a master key; its number."""
        answer: int = await self._ask(m.RotateMaster(self._credential.reveal(), purpose))
        return answer

    async def destroy_master(self, purpose: MasterPurpose, version: int) -> None:
        """Destroy an old version: what is sealed or derived under it is gone. Backups made before still have it."""
        await self._ask(m.DestroyMaster(self._credential.reveal(), purpose, version))

    async def import_vendor_master(self, name: str, kdf: VendorKdf, key: Secret, check: bytes = b"") -> bytes:
        """Take a vendor's master key in, for good; its check value, which has to be ``check`` where that is given."""
        answer: bytes = await self._ask(
            m.ImportVendorMaster(self._credential.reveal(), name, kdf, key.reveal(), check)
        )
        return answer

    async def set_rule(self, name: str, rule: CertificateRule) -> None:
        """Add or replace a certificate profile."""
        await self._ask(m.SetRule(self._credential.reveal(), name, rule))

    async def set_limit(self, name: str, limit: m.Limit) -> None:
        """Replace a quota."""
        await self._ask(m.SetLimit(self._credential.reveal(), name, limit))

    async def change_credential(self, new: Secret) -> None:
        """Another passphrase from now on (software vault)."""
        await self._ask(m.ChangeCredential(self._credential.reveal(), new.reveal()))
        self._credential = new

    async def backup(self, passphrase: Secret) -> bytes:
        """The whole vault, sealed under ``passphrase`` (software vault)."""
        answer: bytes = await self._ask(m.Backup(self._credential.reveal(), passphrase.reveal()))
        return answer

    async def new_epoch(self) -> int:
        """Allow audit chains to go on from a restored database; the epoch's number."""
        answer: int = await self._ask(m.NewEpoch(self._credential.reveal()))
        return answer


class LocalVault(VaultCalls):
    """A vault in this process: for tests, and for tools that work while no server runs."""

    def __init__(self, core: VaultCore) -> None:
        super().__init__(self._carry)
        self._core = core
        self._lock = threading.Lock()

    def admin(self, credential: Secret) -> VaultAdmin:
        """The administrator's operations on the same vault."""
        return VaultAdmin(self._carry, credential)

    async def _carry(self, message: m.Message) -> Any:
        return await asyncio.to_thread(self._perform, message)

    def _perform(self, message: m.Message) -> Any:
        with self._lock:
            if isinstance(message, m.AdminMessage):
                return administer(self._core, message)
            [answer] = self._core.perform([message])
        if isinstance(answer, VaultError):
            raise answer
        return answer
