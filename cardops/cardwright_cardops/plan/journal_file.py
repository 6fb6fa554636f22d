"""A journal in a file: one JSON object a line, readable by its owner only, synced before ``note`` returns.

It holds the new management key, the PUK and imported keys in clear: it is the secrets file of ``card init``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from ..errors import CardwrightError
from ..piv.references import Slot
from ..secret import Secret
from .inventory import Identity, canonical
from .records import Entry, JournalFailed, Kind, require_same_card

FORMAT: Final = 1
MAX_OCTETS: Final = 4 * 1024 * 1024
_HEAD: Final = {"cardwright": "secrets of one card", "format": FORMAT}


class JournalMalformed(CardwrightError):
    """A secrets file that is damaged or is none."""

    code = "JOURNAL_MALFORMED"
    default_effect = "Nothing on the card was changed; the file was not changed."
    default_advice = "Give the file that an earlier 'card init' of this card wrote, or the name of a new one."


class FileJournal:
    """One card's entries in a file. A file is never overwritten, only added to."""

    __slots__ = ("_entries", "_folder_synced", "path")

    def __init__(self, path: Path, entries: tuple[Entry, ...]) -> None:
        self.path = path
        self._entries = list(entries)
        self._folder_synced = False

    @classmethod
    def begin(cls, path: str | Path) -> FileJournal:
        """A new journal; the file is made with the first entries. Raises JournalFailed if there is one already."""
        path = Path(path)
        if path.exists():
            raise JournalFailed(f"{path} exists and is not overwritten.", effect="Nothing was sent to the card.")
        return cls(path, ())

    @classmethod
    def resume(cls, path: str | Path) -> FileJournal:
        """The journal that an earlier session began. Raises JournalMalformed, JournalFailed."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_OCTETS + 1)
        except OSError as error:
            raise JournalFailed(f"The file {path} cannot be read: {error.strerror}.") from error
        if len(raw) > MAX_OCTETS:
            raise JournalMalformed(f"The file {path} is larger than a secrets file can be.")
        lines = raw.split(b"\n")
        if lines.pop():
            # The last line was not finished: nothing was sent to the card for it.
            _cut(path, len(raw) - len(raw.rpartition(b"\n")[2]))
        if not lines or _parsed(path, lines[0]) != _HEAD:
            raise JournalMalformed(f"The file {path} is no secrets file.")
        return cls(path, tuple(_entry(path, line) for line in lines[1:]))

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
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            if not self._entries and not self.path.exists():
                handle = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600)
                raw = canonical(_HEAD) + b"\n" + raw
            else:
                handle = os.open(self.path, flags)
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            self._sync_folder()
        except OSError as error:
            raise JournalFailed(f"The secrets file {self.path} cannot be written: {error.strerror}.") from error
        self._entries.extend(entries)

    def _sync_folder(self) -> None:
        if self._folder_synced:
            return
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._folder_synced = True


def _cut(path: Path, size: int) -> None:
    try:
        os.truncate(path, size)
    except OSError as error:
        raise JournalFailed(f"The secrets file {path} cannot be written: {error.strerror}.") from error


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
        if _document(entry) != values:
            raise ValueError("an entry with members that nobody knows")
    except (CardwrightError, ValueError, TypeError, KeyError, AttributeError):
        raise JournalMalformed(f"The secrets file {path} is damaged.") from None
    return entry
