"""Values that go into the vault and come out of it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

from cardwright_cardops.globalplatform.diversification import CardContext

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+\Z")]
"""An id or a name: printable ASCII without blanks. Lengths and patterns hold where a value is read from a message."""
OptionalId = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[\x21-\x7e]*\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Version = Annotated[int, msgspec.Meta(ge=1, le=0xFFFFFFFF)]
Small = Annotated[bytes, msgspec.Meta(max_length=4096)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Sealed = Annotated[bytes, msgspec.Meta(max_length=72 * 1024)]
Der = Annotated[bytes, msgspec.Meta(max_length=64 * 1024)]


class MasterPurpose(Enum):
    """What a master key is for. Each purpose has its own keys, in versions that count from 1."""

    MANAGEMENT_KEY = "management-key"
    PUK = "puk"
    ARCHIVE = "archive"
    BIOMETRIC = "biometric"
    INITIAL_SECRET = "initial-secret"
    COMMIT = "commit"


class SigningAlgorithm(Enum):
    """Signing keys of the vault; each signs with one hash only: SHA-384 for P-384, else SHA-256."""

    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"
    P256 = "p256"
    P384 = "p384"


class EscrowAlgorithm(Enum):
    """Key pairs that the vault makes for a card's key-management slot."""

    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    P256 = "p256"
    P384 = "p384"


class KeyRole(Enum):
    """What a signing key may sign: no key has two roles."""

    ROOT = "root"
    ISSUING = "issuing"
    OCSP = "ocsp"
    CONTENT = "content"
    AUDIT = "audit"


class PukPurpose(Enum):
    """Why a PUK leaves the vault: ``SET`` to write a new one to a card, ``UNLOCK`` to unblock a PIN with it."""

    SET = "set"
    UNLOCK = "unlock"


class ContentKind(Enum):
    """What a content signer signs for a card (SP 800-73-5 part 1 sections 3.1.2, 3.1.4, 3.1.7)."""

    CHUID = "chuid"
    BIOMETRIC = "biometric"
    SECURITY_OBJECT = "security-object"


class VendorKdf(Enum):
    """How a vendor's master key gives each card its management key; ``vendor`` has the octets."""

    SP800_108_CMAC = "sp800-108-cmac"
    VISA2 = "visa2"
    EMV_CPS = "emv-cps"


class CommitPurpose(Enum):
    """What an HMAC commitment is for; the same data under two purposes give unrelated values."""

    AUDIT_DETAIL = "audit-detail"
    SECURITY_ANSWER = "security-answer"
    TOKEN = "token"
    LOOKUP = "lookup"


class DataClass(Enum):
    """Small secrets that the database keeps sealed. Each class has its own master key."""

    BIOMETRIC = "biometric"
    INITIAL_SECRET = "initial-secret"


class EscrowClass(Enum):
    """Who can recover an archived key: ``VAULT`` is the server alone, with the vault."""

    VAULT = "vault"


class LockState(Enum):
    """Whether the vault's keys are at hand."""

    LOCKED = "locked"
    UNLOCKED = "unlocked"


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the values; octets show their number only."""

    def __repr__(self) -> str:
        fields = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = [f"{name}=<{len(it)} octets>" if isinstance(it, bytes) else f"{name}={it!r}" for name, it in fields]
        return f"{type(self).__name__}({', '.join(shown)})"


class VaultCard(Value, frozen=True):
    """Whose card secret: organization and card ids, generation of its keys, and version of the master key.

    The server records generation and ``master`` before it asks; ``VaultStatus.masters`` has the current version.
    """

    organization: Id
    card: Id
    generation: Count
    master: Version

    @property
    def context(self) -> CardContext:
        """What the key is derived from."""
        return CardContext(self.organization, self.card, self.generation)


class VendorCard(Value, frozen=True):
    """A card as its vendor delivers it. ``master``: the name of the vendor's master key, which is the id of the lot.

    ``card``: our id, for quotas. ``data``: what the KDF takes of this card.
    """

    master: Id
    card: Id
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=80)]


class Authorization(Value, frozen=True):
    """On whose behalf a secret leaves the vault: for the audit and the quotas, ids only.

    ``actor`` is the person or operator whose quota counts, ``request`` the request it serves, ``session`` the
    card session, "" where there is none.
    """

    actor: Id
    request: Id
    session: OptionalId = ""


class WitnessResponse(Value, frozen=True):
    """Second step of mutual authentication with 9B: the decrypted witness, and the vault's own challenge."""

    response: bytes
    challenge: bytes


class ArchiveContext(Value, frozen=True):
    """What an archived key belongs to: bound to the record as additional authenticated data.

    ``public_key`` is SubjectPublicKeyInfo DER; ``certificate`` DER, empty until there is one.
    """

    organization: Id
    owner: Id
    public_key: Small
    certificate: Der = b""
    escrow_class: EscrowClass = EscrowClass.VAULT


class DataContext(Value, frozen=True):
    """What a sealed secret belongs to; opening it with another context fails."""

    organization: Id
    owner: Id
    name: Id


class Wrapped(Value, frozen=True):
    """A sealed item: which master key, in which version, and the sealed octets. Safe to store anywhere."""

    key: MasterPurpose
    version: Version
    data: Sealed


class EscrowedKey(Value, frozen=True):
    """A new key pair: its public key (SubjectPublicKeyInfo DER), the private key only sealed."""

    public_key: bytes
    wrapped: Wrapped


class AuditBlock(Value, frozen=True):
    """What the server's audit asks to have signed: one block of its chain.

    ``sequence`` counts from 1 without gaps; ``previous`` is SHA-256 of the last ``SignedBlock.signed`` of this
    chain and epoch, 32 zero octets for the first; ``root`` is the digest over the block's entries.
    """

    chain: Id
    epoch: Count
    sequence: Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
    previous: Digest
    root: Digest
    entries: Count


class SignedBlock(Value, frozen=True):
    """The octets that were signed (JSON: the block, the vault's time, and the head of the vault's own audit)."""

    signed: bytes
    signature: bytes


class PublicKeyInfo(Value, frozen=True):
    """A signing key of the vault as everyone may know it. ``subject`` is a DER Name, empty for the audit key.

    ``profiles`` are the certificate profiles that this CA may sign under.
    """

    name: str
    role: KeyRole
    algorithm: SigningAlgorithm
    public_key: bytes
    subject: bytes
    profiles: tuple[str, ...] = ()


class VaultStatus(Value, frozen=True):
    """What anyone who may talk to the vault may know.

    While locked only ``state``, ``backend``, ``vault_id`` and the audit's fields are filled. ``masters`` maps
    each purpose to its current version, ``ages`` to every version that is there with the seconds since it was made, at
    least; ``crl_numbers`` each CA to the highest number it signed.
    """

    state: LockState
    backend: str
    vault_id: str
    audit_entries: int
    audit_head: bytes
    epoch: int = 0
    masters: dict[MasterPurpose, int] = msgspec.field(default_factory=dict)
    ages: dict[MasterPurpose, dict[int, float]] = msgspec.field(default_factory=dict)
    keys: tuple[str, ...] = ()
    vendors: tuple[str, ...] = ()
    crl_numbers: dict[str, int] = msgspec.field(default_factory=dict)
