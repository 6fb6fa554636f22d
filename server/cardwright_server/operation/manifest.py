"""What a backup is: a folder with these files, and a manifest that names their digests."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import msgspec

from ..vault.errors import VaultDamaged
from ..vault.files import read_bounded
from .errors import BackupUnusable

MANIFEST = "manifest.json"
SQLITE = "store.db"
POSTGRESQL = "store.dump"
VAULT = "vault.backup"
CONFIGURATION = "server.toml"
FORMAT = 1
_NAMES = (SQLITE, POSTGRESQL, VAULT, CONFIGURATION)
_MAX_MANIFEST = 64 * 1024


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``files``: SHA-256 in hex by name. ``revisions``: of the tables. ``journal_epoch``: of the second medium.

    ``anchor``: the end of the audit chain at that time, in the form that an auditor keeps; "" before the first block.
    """

    format: int
    program: str
    made_at: datetime
    engine: str
    revisions: tuple[str, ...]
    journal_epoch: int
    anchor: str
    files: dict[str, str]


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(folder: Path) -> Manifest:
    """The manifest of a backup, once every file was found to be what it says. Raises BackupUnusable."""
    try:
        found = msgspec.json.decode(read_bounded(folder / MANIFEST, _MAX_MANIFEST), type=Manifest)
    except VaultDamaged as error:
        raise BackupUnusable(f"{folder} has no manifest of a backup") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BackupUnusable(f"the manifest in {folder} cannot be read: {error}") from error
    if found.format != FORMAT:
        raise BackupUnusable(f"{folder} is a backup of format {found.format}; this program reads format {FORMAT}")
    if unknown := set(found.files) - set(_NAMES):
        raise BackupUnusable(f"the manifest in {folder} names {sorted(unknown)[0]!r}, which is no part of a backup")
    store = SQLITE if found.engine == "sqlite" else POSTGRESQL
    if store not in found.files:
        raise BackupUnusable(f"the backup in {folder} has no database")
    for name, digest in found.files.items():
        try:
            intact = digest_of(folder / name) == digest
        except OSError as error:
            raise BackupUnusable(f"{folder / name} cannot be read: {error.strerror}") from error
        if not intact:
            raise BackupUnusable(f"{folder / name} is not what was written")
    return found
