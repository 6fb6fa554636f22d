"""The server's last answers what is due, and the person's "later"; a file has of them what the next daemon needs.

That is "nothing until then", the rules for PINs, and what was put off. The file names neither a card nor a person: a
row is a digest of server and card UUID, and what was said. It is for one server by its address and root; a file of
another server or user, or one that cannot be read, is not used.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final
from uuid import UUID

import msgspec

from cardwright_cardops.durable import write_whole
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.pin_rules import PinRules

from .link.ports import Due

_log = logging.getLogger(__name__)

FILE: Final = "due.json"
MOST: Final = 1024
"""Answers that are kept."""
MAX_OCTETS: Final = 1 << 19
LONGEST: Final = timedelta(days=400)
"""No certificate lives longer without a renewal; what a file says of later times is not believed."""
LONGEST_LATER: Final = timedelta(days=30)
"""So long an update is put off at most."""
_SET_BACK: Final = 300.0
"""Seconds by which a clock that is set right may go back; by more, and what was put off then is offered again."""
_VERSION: Final = 1
_Row = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """What is in the file: the server's mark, and by the digest of a card when there is something to ask for again, its
    rules, and when what is due was put off until when. Times are seconds since 1970.
    """

    version: int
    server: Annotated[str, msgspec.Meta(max_length=64)]
    nothing: Annotated[dict[_Row, int], msgspec.Meta(max_length=MOST)]
    rules: Annotated[dict[_Row, PinRules], msgspec.Meta(max_length=MOST)]
    later: Annotated[dict[_Row, tuple[float, float]], msgspec.Meta(max_length=MOST)] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said; ``at`` None: to an earlier daemon."""

    due: Due
    at: datetime | None


class Answers:
    """Keeps them. ``path`` None: in memory only. ``server`` names the server, and may raise CardwrightError."""

    def __init__(self, path: Path | None = None, server: Callable[[], bytes] = bytes) -> None:
        self._path = path
        self._server = server
        self._mark = ""
        self._kept: dict[UUID, Answer] = {}
        self._nothing: dict[str, int] | None = None
        self._rules: dict[str, PinRules] = {}
        self._later: dict[str, tuple[float, float]] = {}
        self.dirty = False
        """Whether the file has to be written."""

    def get(self, guid: UUID) -> Answer | None:
        """The last answer for a card, while it holds."""
        now, found = datetime.now(UTC), self._kept.get(guid)
        if found is None:
            until = self._rows().get(self._row(guid))
            if until is None or not now.timestamp() < until < (now + LONGEST).timestamp():
                return None
            return Answer(Due(until=datetime.fromtimestamp(until, UTC)), None)
        return found if found.due.until is not None and found.due.until > now else None

    def put(self, guid: UUID, due: Due) -> None:
        """The server said ``due``."""
        self._kept.pop(guid, None)
        self._kept[guid] = Answer(due, datetime.now(UTC))
        while len(self._kept) > MOST:
            del self._kept[next(iter(self._kept))]
        rows, row = self._rows(), self._row(guid)
        before = rows.pop(row, None)
        if not due and due.until is not None:
            rows[row] = int(due.until.timestamp())
            while len(rows) > MOST:
                del rows[next(iter(rows))]
        self.dirty |= rows.get(row) != before

    def rules(self, guid: UUID) -> PinRules | None:
        """The rules for a new PIN that the server told last for a card."""
        self._rows()
        return self._rules.get(self._row(guid))

    def put_rules(self, guid: UUID, rules: PinRules) -> None:
        """The server told ``rules``."""
        self._rows()
        row = self._row(guid)
        self.dirty |= self._rules.pop(row, None) != rules
        self._rules[row] = rules
        while len(self._rules) > MOST:
            del self._rules[next(iter(self._rules))]

    def later(self, name: UUID | str) -> datetime | None:
        """Until when what is due for a card was put off; ``name`` is its card UUID, or its serial number."""
        self._rows()
        row = self._later.get(self._row(name))
        return datetime.fromtimestamp(row[1], UTC) if row is not None and _holds(row) else None

    def put_later(self, name: UUID | str, until: datetime) -> None:
        """What is due was put off."""
        self._rows()
        row = self._row(name)
        self._later.pop(row, None)
        self._later[row] = (datetime.now(UTC).timestamp(), until.timestamp())
        self.dirty = True
        while len(self._later) > MOST:
            del self._later[next(iter(self._later))]

    def drop(self, guid: UUID | None) -> None:
        """What is due need not be true any more; None: of no card."""
        rows = self._rows()
        if guid is None:
            self._kept.clear()
            self.dirty |= bool(rows)
            rows.clear()
        else:
            self._kept.pop(guid, None)
            self.dirty |= rows.pop(self._row(guid), None) is not None

    def take(self) -> bytes:
        """What has to be written, for ``write``; b"" where nothing has."""
        if not self.dirty or self._path is None or not self._mark:
            return b""
        self.dirty = False
        now = datetime.now(UTC).timestamp()
        rows = {row: until for row, until in self._rows().items() if until > now}
        later = {row: times for row, times in self._later.items() if _holds(times)}
        return msgspec.json.encode(_Document(_VERSION, self._mark, rows, self._rules, later))

    def write(self, content: bytes) -> None:
        """Write the file. Blocks. Never raises."""
        if self._path is None or not content:
            return
        try:
            write_whole(self._path, content)
        except OSError as error:
            _log.warning("what the server said, or was put off, cannot be kept: %s", error.strerror)

    def _row(self, name: UUID | str) -> str:
        octets = name.bytes if isinstance(name, UUID) else b"serial number " + name.encode()
        return hashlib.sha256(self._mark.encode() + octets).hexdigest()[:32]

    def _rows(self) -> dict[str, int]:
        if self._nothing is None:
            self._nothing = self._read()
        return self._nothing

    def _read(self) -> dict[str, int]:
        """What the file says. A file that is not ours, or not of this server, says nothing."""
        if self._path is None:
            return {}
        try:
            self._mark = hashlib.sha256(self._server()).hexdigest()
            text = _own(self._path)
            found = msgspec.json.decode(text, type=_Document)
            if found.version != _VERSION:
                raise ValueError("another version")
        except FileNotFoundError:
            return {}
        except CardwrightError as error:
            _log.info("what an earlier daemon was told is not used: %s", error.code)
            return {}
        except (OSError, ValueError, msgspec.DecodeError) as error:
            _log.warning("%s is not used: %s", self._path, _why(error))
            return {}
        if found.server != self._mark:
            _log.info("%s is of another server, and is not used", self._path)
            return {}
        self._rules, self._later = found.rules, found.later
        return found.nothing


def _holds(later: tuple[float, float]) -> bool:
    """Whether what was put off still is. What was said in the future was said before the clock was set back."""
    said, until = later
    now = datetime.now(UTC).timestamp()
    return said - _SET_BACK <= now < until <= said + LONGEST_LATER.total_seconds() + _SET_BACK


def _own(path: Path) -> bytes:
    """What is in a file of this user's that nobody else could write. Raises OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no file")
        if about.st_uid != os.geteuid() or about.st_mode & 0o077:
            raise ValueError("others than its owner could have written or read it")
        text = file.read(MAX_OCTETS + 1)
    if len(text) > MAX_OCTETS:
        raise ValueError("it is too long")
    return text


def _why(error: Exception) -> str:
    """Without what is in the file."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__ if isinstance(error, msgspec.DecodeError) else str(error)
