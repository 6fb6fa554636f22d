"""A virtual card that can be stopped before a command, and what the server had recorded of its card by then."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from cardwright_cardops.transport.connection import CardRemoved
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.around import Around

_PATIENCE = 120.0
PIN_COMMANDS = frozenset({0x20, 0x24, 0x2C})
"""VERIFY, CHANGE REFERENCE DATA, RESET RETRY COUNTER."""
_QUESTION = """
SELECT purpose, state,
       (SELECT count(*) FROM card_record WHERE session = card_session.id),
       (SELECT count(*) FROM card_key WHERE session = card_session.id)
FROM card_session WHERE device = ? ORDER BY created_at DESC, id DESC LIMIT 1
"""


@dataclass(frozen=True)
class Recorded:
    """What the books say of the last session of a device: its purpose and state, and how much it has recorded."""

    purpose: str
    state: str
    records: int
    keys: int

    def __str__(self) -> str:
        return f"{self.state} {self.records}+{self.keys}"


def recorded(store: Path, device: str) -> Recorded | None:
    """The last session of ``device`` in the SQLite file ``store``; None before the first."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30)) as connection:
        row = connection.execute(_QUESTION, (UUID(device).hex,)).fetchone()
    return None if row is None else Recorded(*row)


def _finds_out(command: bytes, answer: bytes) -> bool:
    """Whether a PUK was tried that may have been set by a command that was cut off; the right one gives the try back.

    Never the last try but one: then it could not be tried once more.
    """
    is_puk = command[1] == 0x2C or (command[1] == 0x24 and command[3] == 0x81)
    return is_puk and answer == b"\x63\xc2"


@dataclass(eq=False)
class StagedCard(Around[VirtualCard]):
    """``commands``: instructions that came; ``pin_commands``: how many had a PIN or PUK; ``refused``: it was wrong."""

    commands: list[int] = field(default_factory=list)
    pin_commands: int = 0
    refused: list[int] = field(default_factory=list)
    _until: Callable[[], bool] | None = None
    _held: Callable[[], object] = bool
    _go_on: threading.Event = field(default_factory=threading.Event)
    _lost: bool = False

    @property
    def serial(self) -> int:
        """The card's serial number."""
        return self.inside.serial

    def count_anew(self) -> None:
        """Begin to count what comes anew; what was refused stays, for the end is judged by it."""
        self.commands.clear()
        self.pin_commands = 0

    def hold(self, until: Callable[[], bool]) -> asyncio.Event:
        """Stop before the first command for which ``until`` is true; the event says that it is there."""
        reached, loop = asyncio.Event(), asyncio.get_running_loop()
        self._go_on.clear()
        self._held = lambda: loop.call_soon_threadsafe(reached.set)
        self._until = until
        return reached

    def release(self, *, lost: bool = False) -> None:
        """Go on; ``lost``: without doing the command, and out of the reader."""
        self._until, self._lost = None, lost
        self._go_on.set()

    def transmit(self, command: bytes) -> bytes:
        """To the card and back."""
        until = self._until
        if until is not None and until():
            self._held()
            assert self._go_on.wait(_PATIENCE)
            if self._lost:
                self._lost = False
                raise CardRemoved("The card was pulled.", sent=False)
        self.commands.append(command[1])
        answer = self.inside.transmit(command)
        # VERIFY without data only asks what is verified.
        has_pin = command[1] in PIN_COMMANDS and len(command) > 5
        self.pin_commands += has_pin
        if has_pin and answer != b"\x90\x00" and not _finds_out(command, answer):
            self.refused.append(int.from_bytes(answer, "big"))
        return answer


@dataclass(frozen=True)
class Moment:
    """Before the command ``command`` since the books came to the stage number ``stage`` of a session, both from 0."""

    stage: int
    command: int

    def __str__(self) -> str:
        return f"{self.stage}.{self.command}"

    def of(self, look: Callable[[], Recorded | None], purpose: str) -> Callable[[], bool]:
        """Whether it has come, asked before each command, in the next session of ``purpose``."""
        before, seen, at = look(), list[str](), 0

        def come() -> bool:
            nonlocal at
            now = look()
            if now is None or now == before or now.purpose != purpose:
                return False
            at = at + 1 if seen and seen[-1] == str(now) else 0
            if not at:
                seen.append(str(now))
            return (len(seen) - 1, at) == (self.stage, self.command)

        return come
