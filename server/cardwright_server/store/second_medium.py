"""The second medium: a journal, kept apart from the database, of what must not be forgotten by a restore.

Issued certificates, revocations, escrowed keys, generations of card secrets, used tokens, and what became of devices,
workstations and operators' rights are written here, and are on the disk, before the transaction that records them
commits; so nothing takes effect that a later restore of an older database could not learn of. Each process appends to
a file of its own in one folder; the reader joins them.

A file is lines of ``<SHA-256 in hex> <JSON>``; each hash covers the one before it and the JSON. A last line that is
incomplete was never acknowledged. Damage before the last line is an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from cardwright_cardops.durable import write_whole
from cardwright_cardops.errors import CardwrightError

from ..condition import Condition
from .columns import canonical
from .ids import new_id

_NAME = re.compile(r"(\d{8})-([0-9a-f]{32})\.journal")
_START = bytes(32)
_HEX = 64
_ROOM = 64 * 1024


class SecondMediumUnavailable(CardwrightError):
    """The journal beside the database cannot be written."""

    code = "SECOND_MEDIUM_UNAVAILABLE"
    default_effect = "Nothing was recorded, and nothing that needs a record was begun."
    default_advice = "Make the folder of the second medium writable and give it room, then try again."


class SecondMediumMissing(SecondMediumUnavailable):
    """There is no journal of this installation where the configuration says, but there was one."""

    code = "SECOND_MEDIUM_MISSING"
    default_effect = "Nothing was recorded or started, and no other journal was begun in its place."
    default_advice = (
        "Mount it, or name its folder in the configuration (database.second_medium). If it is lost for good, make a "
        "backup, move the database away, and 'cardwright server restore' with --without-second-medium."
    )


class SecondMediumDamaged(CardwrightError):
    """A file of the journal was altered or cut in its middle."""

    code = "SECOND_MEDIUM_DAMAGED"
    default_advice = "Restore from another copy of the journal; do not go on without what it held."


class JournalKind(StrEnum):
    """What a journal remembers."""

    ISSUE = "issue"
    REVOKE = "revoke"
    ESCROW = "escrow"
    GENERATION = "generation"
    TOKEN_USE = "token-use"
    DEVICE = "device"
    WORKSTATION = "workstation"
    RIGHTS = "rights"


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """One thing that must not be forgotten. ``data``: what its domain needs to do it again; bytes as base64 or hex."""

    kind: JournalKind
    org: UUID
    subject: UUID
    data: Mapping[str, str | int | bool | None] = field(default_factory=dict, repr=False)


class Settled(StrEnum):
    """What is known of the transaction that an event belongs to."""

    TOOK_EFFECT = "took-effect"
    ABANDONED = "abandoned"
    IN_DOUBT = "in-doubt"
    """The process died in between, or the answer to the commit was lost. Replay treats it as having taken effect."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """An event as the reader gives it: of which transaction, when, in which epoch."""

    event: JournalEvent
    unit: UUID
    at: datetime
    epoch: int
    settled: Settled


class _Line(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """JSON of a line: the file's head, an event, or what became of a transaction."""

    epoch: int | None = None
    unit: UUID | None = None
    at: datetime | None = None
    kind: JournalKind | None = None
    org: UUID | None = None
    subject: UUID | None = None
    data: dict[str, str | int | bool | None] | None = None
    took_effect: bool | None = None


class SecondMedium:
    """Writer of one process. Made once; ``close`` it.

    Its folder is made if missing, readable by the owner only; no more once it is known whose it is (``belong_to``).

    ``write`` and ``sync`` stand for ``os.write`` and ``os.fsync``, so that tests can make them fail.
    """

    def __init__(
        self,
        folder: Path,
        *,
        write: Callable[[int, bytes], int] = os.write,
        sync: Callable[[int], None] = os.fsync,
    ) -> None:
        self.folder = folder
        self.condition = Condition("second-medium")
        self._write_some = write
        self._sync = sync
        self._org: UUID | None = None
        self._descriptor: int | None = None
        self._end = 0
        self._chain = _START
        self._queue: list[tuple[list[str], asyncio.Future[None] | None]] = []
        self._task: asyncio.Task[None] | None = None

    def belong_to(self, org: UUID) -> None:
        """From now on write only beside what this organization wrote: a disk that is not mounted is an empty folder.

        Raises SecondMediumMissing if there is nothing of it now, SecondMediumUnavailable, SecondMediumDamaged.
        """
        self._org = org
        self._require_own()

    async def append(self, events: Sequence[JournalEvent], now: datetime) -> UUID:
        """Write events of one transaction and wait until they are on the disk. Gives the name of the transaction.

        Raises SecondMediumUnavailable; what was written of them then never counts.
        """
        unit = new_id()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._enqueue([_event_text(event, unit, now) for event in events], written)
        await written
        return unit

    def settle(self, unit: UUID, *, took_effect: bool) -> None:
        """Note what became of the transaction. Written soon, not waited for: without it replay assumes the worst."""
        self._enqueue([canonical({"unit": unit, "took_effect": took_effect})], None)

    async def check(self) -> None:
        """Find out, before something has to be recorded, whether there is room: ``condition`` knows. Raises nothing."""
        try:
            await asyncio.to_thread(self._try_out)
        except OSError:
            self.condition.bad(SecondMediumUnavailable.code)
        except (SecondMediumUnavailable, SecondMediumDamaged) as error:
            self.condition.bad(error.code)
        else:
            self.condition.good()

    async def close(self) -> None:
        """Write what is waiting, then close the file."""
        while self._task is not None:
            await self._task
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _enqueue(self, texts: list[str], waiter: asyncio.Future[None] | None) -> None:
        self._queue.append((texts, waiter))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        # Everything that came while the last sync ran shares the next one.
        while self._queue:
            batch, self._queue = self._queue, []
            texts = [text for texts, _ in batch for text in texts]
            waiters = [waiter for _, waiter in batch if waiter is not None and not waiter.done()]
            error: SecondMediumUnavailable | None = None
            try:
                await asyncio.to_thread(self._append, texts, bool(waiters))
            except Exception as failure:
                # A mistake of ours, too, is for those who wait: this task must go on, or all later ones wait for ever.
                error = _unavailable(failure)
                self.condition.bad(error.code)
            else:
                self.condition.good()
            for waiter in waiters:
                if waiter.done():
                    continue
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)
        self._task = None

    def _append(self, texts: list[str], durable: bool) -> None:
        if self._descriptor is None:
            self._open()
        descriptor = self._descriptor
        assert descriptor is not None
        chain, octets = _chained(self._chain, texts)
        try:
            self._put(descriptor, octets, durable)
        except BaseException:
            # What the kernel kept of a failed write or sync is unknown: cut it off and never use this file again.
            self._descriptor = None
            try:
                os.ftruncate(descriptor, self._end)
            finally:
                os.close(descriptor)
            raise
        self._chain = chain
        self._end += len(octets)

    def _put(self, descriptor: int, octets: bytes, durable: bool) -> None:
        rest = memoryview(octets)
        while rest:
            rest = rest[self._write_some(descriptor, bytes(rest)) :]
        if durable:
            self._sync(descriptor)

    def _require_own(self) -> None:
        try:
            own = self._org is None or belongs(self.folder, self._org)
        except OSError as error:
            raise _unavailable(error) from error
        if not own:
            raise SecondMediumMissing(f"there is no journal of this installation in {self.folder}")

    def _try_out(self) -> None:
        self._require_own()
        with tempfile.TemporaryFile(dir=self.folder, buffering=0) as file:
            self._put(file.fileno(), bytes(_ROOM), durable=True)

    def _open(self) -> None:
        self._require_own()
        path, chain, end = _begin(self.folder, current_epoch(self.folder), self._org)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._chain, self._end = chain, end


def current_epoch(folder: Path) -> int:
    """The epoch of the journal: 1, and one more after each restore."""
    return max((int(found[1]) for path in folder.glob("*.journal") if (found := _NAME.fullmatch(path.name))), default=1)


def is_begun(folder: Path) -> bool:
    """Whether there is a journal in ``folder``."""
    return any(_NAME.fullmatch(path.name) for path in folder.glob("*.journal"))


def belongs(folder: Path, org: UUID) -> bool:
    """Whether an organization has a journal in ``folder``: it began a file there, or an event of its is in one.

    Raises SecondMediumDamaged and OSError.
    """
    return any(
        line.org == org
        for path in sorted(folder.glob("*.journal"))
        if _NAME.fullmatch(path.name)
        for line in _lines(path)
    )


def begin(folder: Path, org: UUID) -> None:
    """Begin the journal of a new organization, before anything of it is in the database.

    Raises SecondMediumUnavailable.
    """
    try:
        _begin(folder, current_epoch(folder), org)
    except OSError as error:
        raise _unavailable(error) from error


def raise_epoch(folder: Path, org: UUID | None = None) -> int:
    """Begin the next epoch, and give its number. Done by a restore, when no server runs. Raises OSError."""
    epoch = current_epoch(folder) + 1
    _begin(folder, epoch, org)
    return epoch


def _unavailable(failure: Exception) -> SecondMediumUnavailable:
    if isinstance(failure, SecondMediumUnavailable):
        return failure
    reason = failure.strerror if isinstance(failure, OSError) else type(failure).__name__
    error = SecondMediumUnavailable(f"the second medium cannot be written: {reason}")
    error.__cause__ = failure
    return error


def _begin(folder: Path, epoch: int, org: UUID | None) -> tuple[Path, bytes, int]:
    """A new file with its head: where it is, how its chain begins, how long it is. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{epoch:08d}-{new_id().hex}.journal"
    head: dict[str, Any] = {"epoch": epoch, "at": datetime.now(UTC)}
    chain, octets = _chained(_START, [canonical(head if org is None else head | {"org": org})])
    write_whole(path, octets)
    return path, chain, len(octets)


def remembered(folder: Path) -> Iterator[Remembered]:
    """Every event of every file, in order of epoch and time. Raises SecondMediumDamaged and OSError.

    Events of abandoned transactions are among them, so that replay can count them; it does not apply them.
    """
    found: list[Remembered] = []
    for path in sorted(folder.glob("*.journal")):
        if (name := _NAME.fullmatch(path.name)) is None:
            raise SecondMediumDamaged(f"{path.name} is no name of a journal")
        found.extend(_events(path, int(name[1])))
    found.sort(key=lambda one: (one.epoch, one.at))
    return iter(found)


def _events(path: Path, epoch: int) -> list[Remembered]:
    lines = list(_lines(path))
    if lines and lines[0].epoch != epoch:
        raise SecondMediumDamaged(f"{path.name} says that it is of another epoch")
    settled = {
        line.unit: Settled.TOOK_EFFECT if line.took_effect else Settled.ABANDONED
        for line in lines
        if line.took_effect is not None
    }
    found = []
    for line in lines[1:]:
        if line.took_effect is not None:
            continue
        if line.kind is None or line.org is None or line.subject is None or line.unit is None or line.at is None:
            raise SecondMediumDamaged(f"{path.name} holds a line that is no event")
        event = JournalEvent(line.kind, line.org, line.subject, line.data or {})
        found.append(Remembered(event, line.unit, line.at, epoch, settled.get(line.unit, Settled.IN_DOUBT)))
    return found


def _lines(path: Path) -> Iterator[_Line]:
    chain = _START
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            text = line[_HEX + 1 : -1]
            chain = hashlib.sha256(chain + text).digest()
            if line[: _HEX + 1] != chain.hex().encode() + b" ":
                raise SecondMediumDamaged(f"line {number} of {path.name} is not what was written")
            try:
                yield msgspec.json.decode(text, type=_Line)
            except msgspec.MsgspecError as error:
                raise SecondMediumDamaged(f"line {number} of {path.name} cannot be read") from error


def _event_text(event: JournalEvent, unit: UUID, now: datetime) -> str:
    body: dict[str, Any] = {
        "unit": unit,
        "at": now,
        "kind": event.kind.value,
        "org": event.org,
        "subject": event.subject,
        "data": dict(event.data),
    }
    return canonical(body)


def _chained(chain: bytes, texts: Sequence[str]) -> tuple[bytes, bytes]:
    parts = []
    for text in texts:
        chain = hashlib.sha256(chain + text.encode()).digest()
        parts.append(f"{chain.hex()} {text}\n".encode())
    return chain, b"".join(parts)
