"""The vault's own audit: lines of JSON, each with the hash of the one before, on disk before the vault answers.

It is also the vault's journal. Quotas, CRL numbers, ends of chains and the revision of the key file are folded from
it, so one durable write per answer is all there is. Files are cut at a few MiB; each begins with a
checkpoint of what was folded, so that opening reads one file only. The lines hold ids, digests and counts, no secrets.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from cardwright_cardops.durable import sync_directory, write_all, write_whole

from .errors import VaultDamaged
from .files import read_bounded
from .messages import UNREADABLE
from .quotas import Counters

SEGMENT_SIZE: Final = 8 * 1024 * 1024
_MAX_SEGMENT: Final = 4 * SEGMENT_SIZE
_NAME: Final = re.compile(r"audit-(\d{6})\.jsonl")
CHECKPOINT: Final = "checkpoint"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line. ``number`` counts from 1; ``at`` is in milliseconds since 1970 and never goes back.

    ``charges`` are counted against quotas, ``marks`` replace remembered values; ``counts`` are those of a checkpoint.
    """

    number: int
    at: int
    previous: str
    act: str
    outcome: str = "done"
    about: dict[str, str | int] = {}
    charges: dict[str, int] = {}
    marks: dict[str, str] = {}
    counts: dict[str, dict[int, int]] = {}


class Draft(msgspec.Struct):
    """An entry before it has its place."""

    act: str
    outcome: str = "done"
    about: dict[str, str | int] = msgspec.field(default_factory=dict)
    charges: dict[str, int] = msgspec.field(default_factory=dict)
    marks: dict[str, str] = msgspec.field(default_factory=dict)


def entries_of(content: bytes, previous: str | None = None) -> Iterator[tuple[Entry, str]]:
    """Each entry of one file and its hash, the chain checked; ``previous`` is what the first must follow.

    Raises VaultDamaged.
    """
    number = 0
    for line in content.splitlines():
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except UNREADABLE as cause:
            raise VaultDamaged(f"The vault's audit is damaged after entry {number}.") from cause
        if (number and entry.number != number + 1) or previous not in (None, entry.previous):
            raise VaultDamaged(f"The vault's audit was changed at entry {entry.number}.")
        number, previous = entry.number, hashlib.sha256(line).hexdigest()
        yield entry, previous


class AuditLog:
    """The open log and what is folded from it. One process and one thread at a time."""

    def __init__(self, directory: Path, now: Callable[[], float], segment_size: int = SEGMENT_SIZE) -> None:
        """``now`` is in seconds since 1970. Raises VaultDamaged; a last line that was cut by a crash is dropped."""
        self._directory = directory
        self._now = now
        self._segment_size = segment_size
        self._descriptor = -1
        self._load()

    # What is folded.

    def _clear(self) -> None:
        self.counters = Counters()
        self.marks: dict[str, str] = {}
        self.entries = 0
        self.head = "0" * 64
        self._last = 0

    def _fold(self, entry: Entry, digest: str) -> None:
        self.entries, self.head, self._last = entry.number, digest, entry.at
        if entry.act == CHECKPOINT:
            self.marks.clear()
            self.counters.restore(entry.counts)
        self.marks.update(entry.marks)
        for key, amount in entry.charges.items():
            self.counters.add(key, amount, entry.at)

    @property
    def milliseconds(self) -> int:
        """Now, but never before the last entry: a clock set back gives no quota back."""
        return max(int(self._now() * 1000), self._last)

    # Files.

    def _load(self) -> None:
        self._clear()
        found = sorted(path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))
        self._path = found[-1] if found else self._directory / "audit-000001.jsonl"
        content = read_bounded(self._path, _MAX_SEGMENT) if found else b""
        whole = content[: content.rfind(b"\n") + 1]
        first = True
        for entry, digest in entries_of(whole, self.head if len(found) < 2 else None):
            if (first and (entry.number == 1) is not (len(found) == 1)) or (entry.act == CHECKPOINT) is not (
                first and len(found) > 1
            ):
                raise VaultDamaged("The vault's audit does not begin with what it must begin with.")
            self._fold(entry, digest)
            first = False
        if len(found) > 1 and first:
            raise VaultDamaged("The vault's audit does not begin with what it must begin with.")
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = len(whole)
        if len(content) != len(whole):
            os.ftruncate(self._descriptor, self._size)
        os.lseek(self._descriptor, self._size, os.SEEK_SET)
        os.fsync(self._descriptor)
        sync_directory(self._directory)

    def add(self, draft: Draft) -> bytes:
        """Fold an entry and give its line; it counts only once ``commit`` wrote it."""
        entry = Entry(
            self.entries + 1,
            self.milliseconds,
            self.head,
            draft.act,
            draft.outcome,
            draft.about,
            draft.charges,
            draft.marks,
        )
        line = msgspec.json.encode(entry)
        self._fold(entry, hashlib.sha256(line).hexdigest())
        return line + b"\n"

    def commit(self, lines: bytes) -> None:
        """Write lines durably. Raises OSError; then none of them counts, in memory or on disk."""
        try:
            write_all(self._descriptor, lines)
            os.fsync(self._descriptor)
        except OSError:
            self._take_back()
            raise
        self._size += len(lines)
        if self._size >= self._segment_size:
            self._next_segment()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _take_back(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        self.close()
        self._load()

    def _next_segment(self) -> None:
        """Begin the next file. If that fails the old one goes on growing, and it is tried again next time."""
        number = int(self._path.name[6:12]) + 1
        entry = Entry(
            self.entries + 1,
            self.milliseconds,
            self.head,
            CHECKPOINT,
            marks=self.marks,
            counts=self.counters.snapshot(self.milliseconds),
        )
        line = msgspec.json.encode(entry)
        try:
            write_whole(self._directory / f"audit-{number:06}.jsonl", line + b"\n")
        except OSError:
            return
        self.close()
        self._load()


def verify(directory: Path) -> tuple[int, str]:
    """Check a whole audit from its first entry: number of entries, hash of the last. Raises VaultDamaged."""
    count, head = 0, "0" * 64
    for path in sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name)):
        for entry, digest in entries_of(path.read_bytes(), head):
            if entry.number != count + 1:
                raise VaultDamaged(f"The vault's audit lacks entries before {entry.number}.")
            count, head = entry.number, digest
    return count, head
