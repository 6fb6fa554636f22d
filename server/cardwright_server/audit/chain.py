"""What is hashed and signed: the text of an entry, the root of a block, and the vault's statement about a block.

entry hash = SHA-256("cardwright.audit-entry.1" 0A, canonical JSON of the entry)
root       = SHA-256("cardwright.audit-root.1" 0A, entry hashes in the block's order)
signed     = the vault's JSON: chain, epoch, sequence, previous, root, number of entries, time
previous   = SHA-256(signed of the block before), 32 zero octets for the first
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import RowMapping

from ..store.columns import canonical

FIRST = bytes(32)
"""What the first block says it follows."""
COLUMNS = (
    *("id", "org", "created_at", "action", "outcome", "who_kind", "who", "person", "methods", "front"),
    *("target_kind", "target", "facts", "commitment", "correlation", "session"),
)
"""Columns of an entry that the chain holds."""
_ENTRY = b"cardwright.audit-entry.1\n"
_ROOT = b"cardwright.audit-root.1\n"


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the vault signed about a block. ``at``: its own time, milliseconds since 1970."""

    format: str
    vault: str
    key: str
    chain: str
    epoch: int
    sequence: int
    previous: str
    root: str
    entries: int
    at: int
    vault_entries: int
    vault_head: str


@dataclass(frozen=True, slots=True)
class SealedBlock:
    """A block as it is kept and exported. ``entries``: documents of ``entry_document``, in the block's order."""

    number: int
    signed: bytes
    signature: bytes
    entries: tuple[Mapping[str, Any], ...]


def entry_document(row: RowMapping | Mapping[str, Any]) -> dict[str, Any]:
    """An entry as plain JSON values, from its row. Times in UTC with six digits, octets in hex."""
    return {name: _plain(row[name]) for name in COLUMNS}


def entry_hash(document: Mapping[str, Any]) -> bytes:
    """Hash of an entry's document."""
    return hashlib.sha256(_ENTRY + canonical(document).encode()).digest()


def root_of(documents: Iterable[Mapping[str, Any]]) -> bytes:
    """The root over a block's entries."""
    digest = hashlib.sha256(_ROOT)
    for document in documents:
        digest.update(entry_hash(document))
    return digest.digest()


def block_hash(signed: bytes) -> bytes:
    """What the next block says it follows, and what an anchor holds."""
    return hashlib.sha256(signed).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int | str | dict) else str(value)
