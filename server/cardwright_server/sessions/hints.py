"""Hints to workstations that something about a card changed: one question to the database for all streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from ..notify import feed
from ..notify.store import Recorded
from ..store.errors import StoreError
from ..store.unit import Database, Unit

INTERVAL = timedelta(seconds=2)


class Watcher:
    """One stream: the devices that it is about, and those of them that changed since it was asked last."""

    def __init__(self, devices: Iterable[UUID]) -> None:
        self.devices = frozenset(devices)
        self._changed: set[UUID] = set()
        self._wake = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """No more changes."""
        self._closed = True
        self._wake.set()

    def tell(self, device: UUID) -> None:
        """Something about a device changed."""
        self._changed.add(device)
        self._wake.set()

    async def changes(self) -> AsyncIterator[UUID]:
        """Devices that changed, as often as they do, until it is closed; several changes at once are one."""
        while True:
            await self._wake.wait()
            if self._closed:
                return
            self._wake.clear()
            changed, self._changed = self._changed, set()
            for device in changed:
                yield device


class Hints:
    """Reads events for all streams of one process. A hint that is lost is no harm: workstations ask by themselves."""

    def __init__(self, database: Database, interval: timedelta = INTERVAL) -> None:
        self._database = database
        self._interval = interval.total_seconds()
        self._watchers: dict[UUID, set[Watcher]] = {}
        self._position: int | None = None

    @contextmanager
    def watching(self, devices: Iterable[UUID]) -> Iterator[Watcher]:
        """A watcher for as long as the block runs."""
        watcher = Watcher(devices)
        for device in watcher.devices:
            self._watchers.setdefault(device, set()).add(watcher)
        try:
            yield watcher
        finally:
            for device in watcher.devices:
                here = self._watchers[device]
                here.discard(watcher)
                if not here:
                    del self._watchers[device]

    async def step(self) -> int:
        """Pass on what came since the last step; the first only finds out where the events stand. How many came.

        One statement. Raises StoreError.
        """
        position = self._position
        if position is None:
            self._position = await self._database.glance(feed.last)
            return 0

        async def read(unit: Unit) -> list[Recorded]:
            return await feed.since(unit, position)

        events = await self._database.glance(read)
        for event in events:
            self._position = event.position
            device = device_of(event)
            if device is not None:
                for watcher in self._watchers.get(device, ()):
                    watcher.tell(device)
        return len(events)

    async def run(self) -> None:
        """Until cancelled. With the database gone, try again."""
        while True:
            try:
                while await self.step() == feed.AT_ONCE:
                    pass
            except StoreError:
                pass  # asked again at the next turn
            await asyncio.sleep(self._interval)


def device_of(event: Recorded) -> UUID | None:
    """The device that an event is about, if any: its subject, or what a request names."""
    if event.subject_kind == "device":
        return event.subject
    named = event.data.get("device")
    try:
        return UUID(named) if isinstance(named, str) else None
    except ValueError:
        return None
