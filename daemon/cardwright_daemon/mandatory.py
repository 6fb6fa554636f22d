"""What the server's policy makes mandatory from a date: told when it comes, and begun by itself where that is allowed.

Only the machine's administrator can allow it (``machine``). What is begun so is an operation like any other: the PIN is
asked for, acts that a person has to confirm by name are not done, and taking the card out ends it. The one exception is
a lock, an operation of its own: who holds a card that is to be locked may well not want it to be, so what the machine's
administrator allowed stands for that confirmation. It is never a loop: each card is begun with a few times, with
growing pauses, and then left until something else is due for it, or for a lock until its next contact.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from cardwright_cardops.errors import CardwrightError

from .cards import Cards
from .errors import CardInOperation
from .link.ports import Due, Purpose
from .operations import Operations
from .prompts import Prompter
from .sessions import Sessions
from .tokens import Device, Tokens
from .waiting import sleep_until

if TYPE_CHECKING:
    from cardwright_cardops.guard import Act

_log = logging.getLogger(__name__)

PAUSES: Final = tuple(timedelta(minutes=minutes) for minutes in (10, 30, 120, 240))
"""Between beginnings on one card; after the last it is left alone."""
BUSY: Final = 30.0
"""Seconds after which a card is looked at again that somebody else has in hand."""
MOST_KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class Tried:
    """What was begun on a card: for which dues, how often, and when last."""

    dues: tuple[str, ...]
    count: int
    last: datetime


class Mandatory:
    """Follows what is told to be due. For one event loop.

    ``refresh`` asks the server what is due now, which comes back as ``told``; ``tell`` tells clients once more, as the
    moment of the next beginning is another one. ``prompter`` is who is asked for PINs.
    """

    def __init__(
        self,
        cards: Cards,
        tokens: Tokens,
        operations: Operations,
        sessions: Sessions,
        *,
        allowed: bool,
        refresh: Callable[[Device], Awaitable[Due]],
        tell: Callable[[Device, Due], None],
        prompter: Callable[[], Prompter],
        spread: Callable[[], float],
        pauses: tuple[timedelta, ...] = PAUSES,
    ) -> None:
        self._operations = operations
        self._sessions = sessions
        self._allowed = allowed
        self._refresh = refresh
        self._tell = tell
        self._prompter = prompter
        self._spread = spread
        self.pauses = pauses
        self._tried: dict[UUID | str, Tried] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        cards.removed.append(self._removed)
        tokens.removed.append(self._removed)

    async def stop(self) -> None:
        """Begin nothing more."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def begins_at(self, card: Device, due: Due) -> datetime | None:
        """When it is begun by itself; None where it is not."""
        if not (self._allowed and due and due.mandatory_from is not None):
            return None
        tried = self._tried.get(_name_of(card, due))
        if tried is None:
            return due.mandatory_from
        # A server that changes its mind all the time asks nobody for a PIN all the time.
        count = tried.count if tried.dues == _names_of(due) else 1
        if count > len(self.pauses):
            return None
        return max(due.mandatory_from, tried.last + self.pauses[count - 1])

    def told(self, card: Device, due: Due) -> None:
        """The server said what is due for ``card``."""
        self._removed(card)
        now = datetime.now(UTC)
        tried = self._tried.get(_name_of(card, due))
        if not due and tried is not None and now - tried.last > self.pauses[-1]:
            del self._tried[_name_of(card, due)]
        if card.gone.is_set() or not due or due.mandatory_from is None:
            return
        if due.mandatory_from > now:
            work = self._come(card, due.mandatory_from)
        elif (at := self.begins_at(card, due)) is not None:
            work = self._begin(card, due, at)
        else:
            return
        task = asyncio.create_task(work, name=f"mandatory:{card.reader}")
        self._tasks[card.id] = task
        task.add_done_callback(lambda done: self._tasks.pop(card.id) if self._tasks.get(card.id) is done else None)

    def _removed(self, card: Device) -> None:
        task = self._tasks.pop(card.id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _come(self, card: Device, moment: datetime) -> None:
        """Its day has come: the server says whether it still is due, and clients hear of it."""
        await sleep_until(moment)
        await asyncio.sleep(self._spread())
        for seconds in (*(pause.total_seconds() for pause in self.pauses), None):
            try:
                await self._refresh(card)
                return
            except CardwrightError as error:
                _log.info("what is mandatory now could not be asked for: %s", error.code)
            if seconds is not None:
                await asyncio.sleep(seconds)

    async def _begin(self, card: Device, due: Due, at: datetime) -> None:
        await sleep_until(at)
        while True:
            if self._sessions.is_wanted(card):
                # Somebody looks at its plan just now, or agreed to what is left.
                await asyncio.sleep(BUSY)
                continue
            try:
                begun = await self._sessions.through(
                    card, due.purpose, self._prompter(), request=due.request, confirmed=_allowed(due), unasked=True
                )
            except CardInOperation:
                await self._operations.wait(card.operation)
                continue
            break
        self._note(card, due)
        _log.info("an operation was begun because it is mandatory")
        ended = await self._operations.wait(begun.id)
        if ended.error is not None and not card.gone.is_set():
            self._tell(card, due)

    def _note(self, card: Device, due: Due) -> None:
        name, dues = _name_of(card, due), _names_of(due)
        before = self._tried.pop(name, None)
        count = before.count if before is not None and before.dues == dues else 0
        self._tried[name] = Tried(dues, count + 1, datetime.now(UTC))
        while len(self._tried) > MOST_KEPT:
            del self._tried[next(iter(self._tried))]


def _allowed(due: Due) -> frozenset[Act]:
    """What the machine's administrator confirmed for everybody: that a card is locked."""
    if due.purpose is not Purpose.LOCK:
        return frozenset()
    from cardwright_cardops.guard import Act  # takes long to load

    return frozenset({Act.LOCK_CARD})


def _name_of(card: Device, due: Due) -> UUID | str:
    """What a card is known by when it comes back. A lock is begun anew at every contact: it asks nobody for a PIN, and
    pulling the card out again and again is no way around it."""
    if due.purpose is Purpose.LOCK:
        return card.id
    return card.identity.guid or card.identity.serial or card.id


def _names_of(due: Due) -> tuple[str, ...]:
    return (due.purpose.value, *sorted(item.what for item in due.items))
