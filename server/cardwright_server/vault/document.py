"""What the vault keeps in its key file, and the shape of that file."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from .errors import VaultDamaged
from .messages import UNREADABLE, Limit
from .model import KeyRole, MasterPurpose, PublicKeyInfo, VendorKdf
from .profiles import DEFAULT_RULES, CertificateRule
from .quotas import DEFAULT_LIMITS

MAX_KEY_FILE: Final = 16 * 1024 * 1024
KEY_FILE: Final = "vault.keys"
AUDIT_FOLDER: Final = "audit"


class Master(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of a master key. ``material`` is the backend's: the key itself, or its id in the HSM.

    ``made_at``: milliseconds since 1970 by the vault's audit, whose time never goes back; 0 if it is not known, of
    first versions and in files of older programs.
    """

    purpose: MasterPurpose
    version: int
    material: bytes
    made_at: int = 0

    def __repr__(self) -> str:
        return f"Master({self.purpose.value}, {self.version})"


class VendorMaster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A vendor's master key, as it was imported: the backend of the others has no part in it."""

    name: str
    kdf: VendorKdf
    material: bytes

    def __repr__(self) -> str:
        return f"VendorMaster({self.name}, {self.kdf.value})"


class SigningKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signing key: what everyone may know of it, and the backend's ``material``."""

    info: PublicKeyInfo
    material: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.info.name})"


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that the passphrase holder decides, and the keys. ``revision`` counts its changes.

    ``marks`` is filled in backups only: what the audit remembered then.
    """

    vault_id: str
    revision: int
    epoch: int = 1
    masters: tuple[Master, ...]
    keys: tuple[SigningKey, ...] = ()
    vendors: tuple[VendorMaster, ...] = ()
    rules: dict[str, CertificateRule] = msgspec.field(default_factory=lambda: dict(DEFAULT_RULES))
    limits: dict[str, Limit] = msgspec.field(default_factory=lambda: dict(DEFAULT_LIMITS))
    marks: dict[str, str] = {}

    def current(self, purpose: MasterPurpose) -> Master:
        """The newest version; there always is one."""
        return max((one for one in self.masters if one.purpose is purpose), key=lambda one: one.version)

    def master(self, purpose: MasterPurpose, version: int) -> Master | None:
        """That version, None if there is none."""
        return next((one for one in self.masters if one.purpose is purpose and one.version == version), None)

    def key(self, name: str) -> SigningKey | None:
        """The signing key of that name."""
        return next((one for one in self.keys if one.info.name == name), None)

    def with_role(self, *roles: KeyRole) -> list[PublicKeyInfo]:
        """All keys of those roles."""
        return [one.info for one in self.keys if one.info.role in roles]


class Derivation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Argon2id (RFC 9106): ``memory`` in KiB. Bounded, so that a foreign file cannot take the machine down."""

    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    iterations: Annotated[int, msgspec.Meta(ge=1, le=64)] = 3
    lanes: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
    memory: Annotated[int, msgspec.Meta(ge=64, le=2 * 1024 * 1024)] = 256 * 1024


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The key file. ``sealed`` is the document as the backend seals it; ``header`` is what it is bound to."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    backend: str
    vault_id: str
    derivation: Derivation | None = None
    sealed: bytes

    @property
    def header(self) -> bytes:
        """The octets that the seal covers besides the document."""
        return msgspec.msgpack.encode((self.format, self.backend, self.vault_id, self.derivation))

    @classmethod
    def read(cls, content: bytes) -> KeyFile:
        """Raises VaultDamaged."""
        try:
            return msgspec.msgpack.decode(content, type=cls)
        except UNREADABLE as cause:
            raise VaultDamaged("The key file is damaged, or is none.") from cause

    def encode(self) -> bytes:
        """The file's content."""
        return msgspec.msgpack.encode(self)


def read_document(content: bytes) -> Document:
    """Raises VaultDamaged."""
    try:
        return msgspec.msgpack.decode(content, type=Document)
    except UNREADABLE as cause:
        raise VaultDamaged("The key file holds something that this version cannot read.") from cause
