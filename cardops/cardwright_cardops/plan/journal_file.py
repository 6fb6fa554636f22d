"""A journal in a file: one JSON object a line, readable by its owner only, synced before ``note`` returns.

It holds the new management key, the PUK and imported keys in clear: it is the secrets file of ``card init``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import weakref
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from ..durable import sync_directory, write_all
from ..errors import CardwrightError
from ..piv.algorithms import ManagementAlgorithm
from ..piv.commands import PIN_OCTETS
from ..piv.management_key import ManagementKey
from ..piv.references import Slot
from ..secret import Secret
from .inventory import Identity, canonical
from .records import Entry, JournalFailed, JournalMalformed, Kind, require_same_card

__all__ = ["FileJournal", "JournalMalformed"]

FORMAT: Final = 1
MAX_OCTETS: Final = 4 * 1024 * 1024
_HEAD: Final = {"cardwright": "secrets of one card", "format": FORMAT}
_FIRST_LINE: Final = canonical(_HEAD) + b"\n"
_SAFELY: Final = os.O_NOFOLLOW | os.O_CLOEXEC


class FileJournal:
    """One card's entries in a file, which is only ever added to.

    Opening and reading change nothing. From its first note until ``close`` a journal holds the file's lock (flock), so
    two sessions never write into one file.
    """

    __slots__ = ("__weakref__", "_closer", "_entries", "_file", "_folder_synced", "_is_new", "_whole", "path")

    def __init__(self, path: Path, entries: tuple[Entry, ...] = (), *, whole: bytes = b"", is_new: bool = True) -> None:
        """``whole``: the lines that were read, without a last one that was not finished."""
        self.path = path
        self._entries = list(entries)
        self._whole = whole
        self._is_new = is_new
        self._folder_synced = False
        self._file: int | None = None
        self._closer: weakref.finalize[..., FileJournal] | None = None

    @classmethod
    def begin(cls, path: str | Path) -> FileJournal:
        """A new journal; the file is made with the first entries. Raises JournalFailed if there is one already."""
        path = Path(path)
        if os.path.lexists(path):
            raise JournalFailed(f"{path} exists and is not overwritten.", effect="Nothing was sent to the card.")
        return cls(path)

    @classmethod
    def resume(cls, path: str | Path) -> FileJournal:
        """The journal that an earlier session began, maybe without getting to its first entry.

        Raises JournalMalformed, JournalFailed.
        """
        path = Path(path)
        try:
            file = os.open(path, os.O_RDONLY | _SAFELY | os.O_NONBLOCK)
            try:
                raw = _read(path, file)
            finally:
                os.close(file)
        except OSError as error:
            raise JournalFailed(f"The file {path} cannot be read: {error.strerror}.") from error
        # A last line that was not finished is nothing: nothing was sent to the card for it.
        whole = raw[: raw.rfind(b"\n") + 1]
        if not whole and _FIRST_LINE.startswith(raw):
            return cls(path, is_new=False)
        lines = whole.split(b"\n")[:-1]
        if not lines or _parsed(path, lines[0]) != _HEAD:
            raise JournalMalformed(f"The file {path} is no secrets file.")
        return cls(path, tuple(_entry(path, line) for line in lines[1:]), whole=whole, is_new=False)

    def recall(self, identity: Identity) -> tuple[Entry, ...]:
        """Everything in the file. Raises JournalOfAnotherCard."""
        require_same_card(self._entries, identity)
        return self.entries()

    def entries(self) -> tuple[Entry, ...]:
        """Everything in the file."""
        return tuple(self._entries)

    def note(self, entries: tuple[Entry, ...]) -> None:
        """Append and sync. Raises JournalFailed; then the file is as before or ends in a part that is ignored."""
        raw = b"".join(canonical(_document(entry)) + b"\n" for entry in entries)
        if not self._whole:
            raw = _FIRST_LINE + raw
        try:
            file = self._held()
            os.ftruncate(file, len(self._whole))
            try:
                write_all(file, raw)
                os.fsync(file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, len(self._whole))
                raise
            self._sync_folder()
        except OSError as error:
            raise JournalFailed(f"The secrets file {self.path} cannot be written: {error.strerror}.") from error
        self._whole += raw
        self._entries.extend(entries)

    def close(self) -> None:
        """Let go of the file; a later note takes it again."""
        if self._closer is not None:
            self._closer()
        self._file = self._closer = None

    def _held(self) -> int:
        """The file, open and locked, as it was read. Raises OSError, JournalFailed."""
        if self._file is not None:
            return self._file
        made = os.O_CREAT | os.O_EXCL if self._is_new else 0
        try:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | _SAFELY | made, 0o600)
        except FileExistsError:
            raise self._taken("was made by another program in the meantime") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raw = _read(self.path, file)
            if raw[: raw.rfind(b"\n") + 1] != self._whole or (not self._whole and not _FIRST_LINE.startswith(raw)):
                raise self._taken("was changed by another program in the meantime")
        except BlockingIOError:
            os.close(file)
            raise self._taken("is in use by another program") from None
        except BaseException:
            os.close(file)
            raise
        self._file, self._is_new = file, False
        self._closer = weakref.finalize(self, os.close, file)
        return file

    def _taken(self, how: str) -> JournalFailed:
        return JournalFailed(
            f"The secrets file {self.path} {how}.",
            advice="See that no other 'card init' runs, and start again; give every card a file of its own.",
        )

    def _sync_folder(self) -> None:
        if self._folder_synced:
            return
        sync_directory(self.path.parent)
        self._folder_synced = True


def _read(path: Path, file: int) -> bytes:
    """The whole file. Raises OSError, JournalMalformed."""
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise JournalMalformed(f"{path} is no plain file.")
    with open(file, "rb", closefd=False) as reading:
        raw = reading.read(MAX_OCTETS + 1)
    if len(raw) > MAX_OCTETS:
        raise JournalMalformed(f"The file {path} is larger than a secrets file can be.")
    return raw



def _document(entry: Entry) -> dict[str, Any]:
    values: dict[str, Any] = {
        "kind": entry.kind.value,
        "reference": entry.reference,
        "slot": None if entry.slot is None else entry.slot.label,
        "fingerprint": entry.fingerprint,
        "algorithm": None if entry.algorithm is None else f"{entry.algorithm:02X}",
        "value": None if entry.value is None else entry.value.reveal().hex(),
        "serial": entry.serial,
        "guid": None if entry.guid is None else str(entry.guid),
    }
    return {name: value for name, value in values.items() if value not in (None, "")}


def _texts(entry: Entry) -> tuple[object, ...]:
    return entry.reference, entry.fingerprint, entry.serial


def _require_usable(entry: Entry) -> None:
    """Raise ValueError for a secret that no card takes."""
    value = entry.value
    if entry.kind is Kind.MANAGEMENT_KEY:  # one that was given is named without its value
        algorithm = None if entry.algorithm is None else ManagementAlgorithm(entry.algorithm)
        if value is not None:
            if algorithm is None:
                raise ValueError("a management key of no algorithm")
            ManagementKey(algorithm, value)
    if entry.kind is Kind.PUK and value is not None and not 0 < len(value) <= PIN_OCTETS:
        raise ValueError("a PUK that is too long")


def _parsed(path: Path, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise JournalMalformed(f"The secrets file {path} is damaged.") from None


def _entry(path: Path, line: bytes) -> Entry:
    values = _parsed(path, line)
    try:
        algorithm, value, slot, guid = (values.get(name) for name in ("algorithm", "value", "slot", "guid"))
        entry = Entry(
            Kind(values["kind"]),
            values.get("reference", ""),
            None if slot is None else Slot.named(slot),
            values.get("fingerprint", ""),
            None if algorithm is None else int(algorithm, 16),
            None if value is None else Secret(bytes.fromhex(value)),
            values.get("serial", ""),
            None if guid is None else UUID(guid),
        )
        if _document(entry) != values or not all(isinstance(text, str) for text in _texts(entry)):
            raise ValueError("an entry with members that nobody knows")
        _require_usable(entry)
    except (CardwrightError, ValueError, TypeError, KeyError, AttributeError):
        raise JournalMalformed(f"The secrets file {path} is damaged.") from None
    return entry
