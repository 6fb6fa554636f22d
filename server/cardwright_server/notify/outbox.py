"""The outbox: committed events get one order, and each consumer reads them in it, at its own pace, each once.

What a consumer does with an event commits together with its new place in the order. A consumer therefore only
writes rows; what happens outside the database (sending mail) is done from those rows by someone else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from cardwright_cardops.errors import CardwrightError

from ..limits import backoff
from ..store.errors import StoreError
from ..store.lease import acquire, new_holder
from ..store.unit import Database, Isolation, Unit
from . import feed, store
from .store import Recorded

_PLACED_AT_ONCE = 500


class Consumer(Protocol):
    """One that reads events. ``name`` never changes: its place in the order is kept under it."""

    @property
    def name(self) -> str:
        """At most 40 characters."""

    @property
    def names(self) -> frozenset[str] | None:
        """The events it does something about; it passes others without being asked. None: all."""

    async def handle(self, unit: Unit, event: Recorded) -> None:
        """Write what follows from the event. Safe to run again; anything it raises is tried again later."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How the dispatcher treats time and failure."""

    look: timedelta = timedelta(seconds=1)
    lease: timedelta = timedelta(seconds=30)
    first_pause: timedelta = timedelta(seconds=1)
    longest_pause: timedelta = timedelta(minutes=10)
    most_failures: int = 8
    """After so many failures of one event it is put aside, and the consumer goes on."""


class Dispatcher:
    """Gives events to consumers. Every process runs one; leases let one of them serve each consumer."""

    def __init__(self, database: Database, consumers: Sequence[Consumer], patience: Patience | None = None) -> None:
        self._database = database
        self._consumers = tuple(consumers)
        self._patience = patience or Patience()
        self._holder = new_holder()
        self._wake = asyncio.Event()
        self._ends: dict[str, int] = {}
        """By consumer the end of the order at which there was nothing more for it."""
        self.error: CardwrightError | None = None
        """Why the last round ended early, if it did."""

    def wake(self) -> None:
        """A hint that there are events: ``unit.afterwards(dispatcher.wake)``."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled. With the database gone, try again."""
        while True:
            try:
                while await self.step():
                    pass
                self.error = None
            except StoreError as error:
                if self.error is None:
                    structlog.get_logger().warning("task-failed", action="outbox-dispatcher", code=error.code)
                self.error = error
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience.look.total_seconds()):
                    await self._wake.wait()
            self._wake.clear()

    async def step(self) -> bool:
        """Order what is new, and give each consumer at most one event of those that concern it.

        Whether anything was done. Raises StoreError.
        """
        placed, end = await self._database.transact(self._place, isolation=Isolation.READ_COMMITTED)
        waiting = [one for one in self._consumers if self._ends.get(one.name) != end]
        handled = [await self._serve(consumer, end) for consumer in waiting]
        if any(handled):
            await self._database.transact(store.mark_read, isolation=Isolation.READ_COMMITTED)
        return placed or any(handled)

    async def _place(self, unit: Unit) -> tuple[bool, int]:
        """Whether events were ordered, and where the order ends."""
        placed = 0
        if await acquire(unit, "outbox-order", self._holder, self._patience.lease) is not None:
            placed = await store.place(unit, _PLACED_AT_ONCE)
        return placed > 0, await feed.last(unit)

    async def _serve(self, consumer: Consumer, end: int) -> bool:
        tried: list[Recorded] = []
        done: list[Recorded | None] = []

        async def work(unit: Unit) -> bool:
            tried.clear()
            done.clear()
            position = await self._position(unit, consumer)
            if position is None:
                return False
            event = await store.next_event(unit, position, consumer.names)
            done.append(event)
            if event is None:
                return await store.pass_rest(unit, consumer.name, position)
            tried.append(event)
            await consumer.handle(unit, event)
            await store.move(unit, consumer.name, event.position)
            return True

        try:
            moved = await self._database.transact(work)
            if done == [None]:
                self._ends[consumer.name] = end
            return moved
        except StoreError:
            raise
        except Exception as error:
            # Whatever it is, it is recorded with the event and tried again; one event must not stop all that follow.
            if not tried:
                raise
            return await self._failed(consumer, tried[0], str(getattr(error, "code", type(error).__name__)))

    async def _position(self, unit: Unit, consumer: Consumer) -> int | None:
        """Where a consumer stands; None if it is another process's, or waits after a failure."""
        if await acquire(unit, f"outbox:{consumer.name}", self._holder, self._patience.lease) is None:
            return None
        row = await store.consumer_row(unit, consumer.name)
        if row.not_before is not None and row.not_before > unit.now:
            return None
        return int(row.position)

    async def _failed(self, consumer: Consumer, event: Recorded, error: str) -> bool:
        patience = self._patience

        async def work(unit: Unit) -> bool:
            row = await store.consumer_row(unit, consumer.name)
            if row.position >= event.position:
                return False  # Another process has got further meanwhile.
            failures = row.failures + 1
            if failures >= patience.most_failures:
                await store.bury(unit, consumer.name, event, error)
                await store.move(unit, consumer.name, event.position)
                return True
            first, longest = patience.first_pause.total_seconds(), patience.longest_pause.total_seconds()
            pause = timedelta(seconds=backoff(failures, first=first, longest=longest))
            await store.fail(unit, consumer.name, failures, pause, error)
            return False

        return await self._database.transact(work)
