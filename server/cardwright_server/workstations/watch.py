"""Which workstations are revoked, known to every process within seconds; their streams close within a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from ..store.errors import StoreError
from ..store.unit import Database
from . import store
from .model import CERTIFICATE_LIFETIME

INTERVAL = timedelta(seconds=15)
PATIENCE = timedelta(seconds=60)
MEMORY = CERTIFICATE_LIFETIME + timedelta(days=1)


class RevocationWatch:
    """``authorize.Workstations``: asks the database every ``interval``, and holds for revoked what it cannot know.

    One loop. ``clock``: monotonic seconds. Before the first answer, and when the last one is older than ``patience``,
    every workstation counts as revoked.
    """

    def __init__(
        self,
        database: Database,
        *,
        interval: timedelta = INTERVAL,
        patience: timedelta = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._interval = interval.total_seconds()
        self._patience = patience.total_seconds()
        self._clock = clock
        self._revoked: frozenset[UUID] = frozenset()
        self._known_at: float | None = None
        self._streams: dict[UUID, set[asyncio.Event]] = {}
        self._wake = asyncio.Event()

    def is_revoked(self, workstation: UUID) -> bool:
        """Whether its certificate counts no more."""
        return self._stale() or workstation in self._revoked

    @contextmanager
    def stream(self, workstation: UUID) -> Iterator[asyncio.Event]:
        """An event that is set when the workstation is revoked: the stream that holds it must end then."""
        event = asyncio.Event()
        if self.is_revoked(workstation):
            event.set()
        self._streams.setdefault(workstation, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._streams[workstation]
            waiting.discard(event)
            if not waiting:
                del self._streams[workstation]

    def nudge(self) -> None:
        """Ask the database now: someone of this process revoked one (``Unit.afterwards``)."""
        self._wake.set()

    async def refresh(self) -> None:
        """Ask the database, and end the streams of what is revoked. Raises StoreError."""
        asked_at = self._clock()
        self._revoked = await self._database.read(lambda unit: store.revoked(unit, MEMORY))
        self._known_at = asked_at
        self._close()

    async def run(self) -> None:
        """Refresh for ever; a database that is away is asked again at the next turn. Runs until cancelled."""
        while True:
            try:
                await self.refresh()
            except StoreError:
                self._close()
            try:
                async with asyncio.timeout(self._interval):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    def _stale(self) -> bool:
        return self._known_at is None or self._clock() - self._known_at > self._patience

    def _close(self) -> None:
        for workstation, events in self._streams.items():
            if self.is_revoked(workstation):
                for event in events:
                    event.set()
