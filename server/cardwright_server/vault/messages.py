"""What goes over the vault's sockets: a length of 4 octets, then msgpack of these, nothing else.

``Request`` kinds are for the server's socket, ``AdminRequest`` kinds for the administrator's; neither socket reads
the other's. Each class names the type of its answer in ``answer``.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from cardwright_cardops.piv.algorithms import ManagementAlgorithm

from .model import (
    ArchiveContext,
    AuditBlock,
    Authorization,
    CommitPurpose,
    ContentKind,
    DataClass,
    DataContext,
    Der,
    EscrowAlgorithm,
    EscrowedKey,
    Id,
    KeyRole,
    MasterPurpose,
    PublicKeyInfo,
    PukPurpose,
    SignedBlock,
    SigningAlgorithm,
    Small,
    VaultCard,
    VaultStatus,
    VendorCard,
    VendorKdf,
    Version,
    WitnessResponse,
    Wrapped,
)
from .profiles import CertificateRule

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What msgspec raises for octets that are no message: also UnicodeDecodeError, and for deep nesting RecursionError."""

MAX_FRAME = 9 * 1024 * 1024
MAX_COMMITS = 1000

Block = Annotated[bytes, msgspec.Meta(min_length=8, max_length=16)]
Credential = Annotated[bytes, msgspec.Meta(min_length=1, max_length=1024)]


class Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all requests. Its repr is the name alone: some fields are secrets."""

    answer: ClassVar[Any] = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


# ---------------------------------------------------------------------------------------------- the server's


class Status(Message, frozen=True):
    """Works while locked."""

    answer: ClassVar[Any] = VaultStatus


class PublicKey(Message, frozen=True):
    """One signing key's public half."""

    answer: ClassVar[Any] = PublicKeyInfo
    name: Id


class AnswerManagementKey(Message, frozen=True):
    """Decrypt one witness block, and make a challenge."""

    answer: ClassVar[Any] = WitnessResponse
    card: VaultCard
    algorithm: ManagementAlgorithm
    witness: Block


class CheckManagementKey(Message, frozen=True):
    """Compare the card's answer to a challenge."""

    answer: ClassVar[Any] = bool
    card: VaultCard
    algorithm: ManagementAlgorithm
    challenge: Block
    response: Block


class AnswerVendorKey(Message, frozen=True):
    """As AnswerManagementKey, with the key that a vendor gave the card."""

    answer: ClassVar[Any] = WitnessResponse
    card: VendorCard
    algorithm: ManagementAlgorithm
    witness: Block


class CheckVendorKey(Message, frozen=True):
    """As CheckManagementKey, with the key that a vendor gave the card."""

    answer: ClassVar[Any] = bool
    card: VendorCard
    algorithm: ManagementAlgorithm
    challenge: Block
    response: Block


class NewManagementKey(Message, frozen=True):
    """A management key in clear."""

    answer: ClassVar[Any] = bytes
    card: VaultCard
    algorithm: ManagementAlgorithm
    authorization: Authorization


class Puk(Message, frozen=True):
    """A PUK in clear."""

    answer: ClassVar[Any] = bytes
    card: VaultCard
    purpose: PukPurpose
    authorization: Authorization


class SignCertificate(Message, frozen=True):
    """A signature over a TBSCertificate."""

    answer: ClassVar[Any] = bytes
    ca: Id
    profile: Id
    tbs: Der


class SignCrl(Message, frozen=True):
    """A signature over a TBSCertList."""

    answer: ClassVar[Any] = bytes
    ca: Id
    tbs: Annotated[bytes, msgspec.Meta(max_length=8 * 1024 * 1024)]


class SignOcsp(Message, frozen=True):
    """Signatures over ResponseData."""

    answer: ClassVar[Any] = tuple[bytes, ...]
    responder: Id
    tbs: Annotated[tuple[Der, ...], msgspec.Meta(min_length=1, max_length=100)]


class SignContent(Message, frozen=True):
    """A signature over SignedAttributes."""

    answer: ClassVar[Any] = bytes
    signer: Id
    kind: ContentKind
    signed_attributes: Der


class SignAuditBlock(Message, frozen=True):
    """A signature over the next block of a chain."""

    answer: ClassVar[Any] = SignedBlock
    block: AuditBlock


class GenerateForEscrow(Message, frozen=True):
    """A new key pair, sealed."""

    answer: ClassVar[Any] = EscrowedKey
    algorithm: EscrowAlgorithm
    organization: Id
    owner: Id


class WrapForArchive(Message, frozen=True):
    """Seal a private key."""

    answer: ClassVar[Any] = Wrapped
    private_key: Small
    context: ArchiveContext


class BindCertificate(Message, frozen=True):
    """Seal an archived key anew, with its certificate."""

    answer: ClassVar[Any] = Wrapped
    wrapped: Wrapped
    context: ArchiveContext
    certificate: Der


class Rewrap(Message, frozen=True):
    """Seal an archived key anew, under the current master."""

    answer: ClassVar[Any] = Wrapped
    wrapped: Wrapped
    context: ArchiveContext


class RewrapData(Message, frozen=True):
    """Seal a small secret anew, under the current master."""

    answer: ClassVar[Any] = Wrapped
    wrapped: Wrapped
    context: DataContext


class UnwrapForCard(Message, frozen=True):
    """An archived key in clear."""

    answer: ClassVar[Any] = bytes
    wrapped: Wrapped
    context: ArchiveContext
    authorization: Authorization


class UnwrapForPfx(Message, frozen=True):
    """An archived key as PKCS #12."""

    answer: ClassVar[Any] = bytes
    wrapped: Wrapped
    context: ArchiveContext
    password: Annotated[bytes, msgspec.Meta(min_length=12, max_length=128)]
    authorization: Authorization


class SealData(Message, frozen=True):
    """Seal a small secret."""

    answer: ClassVar[Any] = Wrapped
    kind: DataClass
    data: Der
    context: DataContext


class OpenData(Message, frozen=True):
    """Open a small secret."""

    answer: ClassVar[Any] = bytes
    wrapped: Wrapped
    context: DataContext
    authorization: Authorization


class HmacCommit(Message, frozen=True):
    """Commitments to values."""

    answer: ClassVar[Any] = tuple[bytes, ...]
    purpose: CommitPurpose
    data: Annotated[tuple[Der, ...], msgspec.Meta(min_length=1, max_length=MAX_COMMITS)]


AnyRequest = (
    Status
    | PublicKey
    | AnswerManagementKey
    | CheckManagementKey
    | AnswerVendorKey
    | CheckVendorKey
    | NewManagementKey
    | Puk
    | SignCertificate
    | SignCrl
    | SignOcsp
    | SignContent
    | SignAuditBlock
    | GenerateForEscrow
    | WrapForArchive
    | BindCertificate
    | Rewrap
    | RewrapData
    | UnwrapForCard
    | UnwrapForPfx
    | SealData
    | OpenData
    | HmacCommit
)

# --------------------------------------------------------------------------------------- the administrator's


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of one kind in an hour and in a day; None is no limit."""

    per_hour: Annotated[int, msgspec.Meta(ge=0)] | None = None
    per_day: Annotated[int, msgspec.Meta(ge=0)] | None = None


class AdminMessage(Message, frozen=True):
    """Base: every one carries the passphrase of the software vault, or the user PIN of the HSM."""

    credential: Credential


class Unlock(AdminMessage, frozen=True):
    """Open the vault. ``spend_last_try`` sends a PIN to an HSM even if a wrong one would lock it."""

    spend_last_try: bool = False


class Lock(AdminMessage, frozen=True):
    """Forget the keys until the next unlock."""


class CreateKey(AdminMessage, frozen=True):
    """A new signing key. ``subject`` is a DER Name, empty only for the audit's; ``profiles`` are for CAs."""

    answer: ClassVar[Any] = PublicKeyInfo
    name: Id
    role: KeyRole
    algorithm: SigningAlgorithm
    subject: Small = b""
    profiles: tuple[Id, ...] = ()


class RotateMaster(AdminMessage, frozen=True):
    """A new version of a master key; old ones stay. Answers the version."""

    answer: ClassVar[Any] = int
    purpose: MasterPurpose


class DestroyMaster(AdminMessage, frozen=True):
    """Destroy an old version of a master key, and with it everything that needs it."""

    purpose: MasterPurpose
    version: Version


class ImportVendorMaster(AdminMessage, frozen=True):
    """A vendor's master key, under the name of the lot. Answers its check value, of which ``check`` is the wanted one.
    """

    answer: ClassVar[Any] = bytes
    name: Id
    kdf: VendorKdf
    key: Annotated[bytes, msgspec.Meta(min_length=16, max_length=32)]
    check: Annotated[bytes, msgspec.Meta(max_length=3)] = b""


class SetRule(AdminMessage, frozen=True):
    """Add or replace a certificate profile."""

    name: Id
    rule: CertificateRule


class SetLimit(AdminMessage, frozen=True):
    """Replace a quota."""

    name: Id
    limit: Limit


class ChangeCredential(AdminMessage, frozen=True):
    """Another passphrase (software vault only)."""

    new: Credential


class Backup(AdminMessage, frozen=True):
    """The whole vault, sealed under another passphrase (software vault only)."""

    answer: ClassVar[Any] = bytes
    passphrase: Credential


class NewEpoch(AdminMessage, frozen=True):
    """Begin a new epoch, after the server's database was restored. Answers its number."""

    answer: ClassVar[Any] = int


AnyAdminRequest = (
    Unlock
    | Lock
    | CreateKey
    | RotateMaster
    | DestroyMaster
    | ImportVendorMaster
    | SetRule
    | SetLimit
    | ChangeCredential
    | Backup
    | NewEpoch
)

# ----------------------------------------------------------------------------------------------------- both


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An error on the line: its code, its text, and what its class carries besides."""

    code: str
    message: str
    reason: str = ""
    retry_after: int = 0


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request and the number that its reply will have."""

    id: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    body: msgspec.Raw


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to request ``id``, or a fault."""

    id: int
    body: msgspec.Raw = msgspec.Raw(b"\xc0")
    fault: Fault | None = None
