"""How long calls wait until this process takes them up, found out by waiting with them.

gRPC takes the calls of one procedure up one after the other; those that wait are seen by nobody outside of it, and what
it does with too many is to end them without a word. So the process makes the call that comes in crowds itself now and
then. While that waits for too long, others that come are told at once when to come again, which takes a fraction of the
work.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

import grpc

from ..limits import ServerBusy, jittered
from .calling import Context

INTERVAL: Final = 0.5
PATIENCE: Final = 60.0
"""Seconds for one call to itself."""
CROWDED: Final = "SessionService.Due"
"""The procedure that is measured: all workstations may call it in the same minute."""
_MARK: Final = "cardwright-own"
"""Metadata: a secret of the process, by which it knows its own call."""
CORE_OPTIONS: Final = (
    # What is too much is for ``Backlog`` to say; gRPC would begin to end calls at a thousand. These bound memory.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
)


class Backlog:
    """Measures, and turns away. ``longest``: seconds that a call may wait. ``clock``: monotonic seconds."""

    def __init__(self, longest: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest = longest
        self._clock = clock
        self._mark = secrets.token_hex(16)
        self._last = 0.0
        self._asked_at: float | None = None

    @property
    def seconds(self) -> float:
        """How long a call waits now."""
        waiting = 0.0 if self._asked_at is None else self._clock() - self._asked_at
        return max(self._last, waiting)

    @property
    def mark(self) -> tuple[str, str]:
        """Metadata of the call to itself."""
        return _MARK, self._mark

    def own(self, name: str, context: Context) -> bool:
        """Whether this is the process's own call: it was taken up, and that was all."""
        return name == CROWDED and self.mark in (context.invocation_metadata() or ())

    def admit(self, name: str) -> None:
        """Raises ServerBusy for the procedure whose calls wait for too long."""
        if name == CROWDED and self.seconds > self._longest:
            raise ServerBusy("calls", jittered(self._longest))

    async def measure(self, ask: Callable[[], Awaitable[object]]) -> None:
        """One call to itself. How it ends is not judged here; how long it took is."""
        self._asked_at = self._clock()
        try:
            async with asyncio.timeout(PATIENCE):
                await ask()
        except (grpc.aio.AioRpcError, TimeoutError):
            pass  # taken up, or the process is being started or stopped
        self._last = self._clock() - self._asked_at
        self._asked_at = None

    async def run(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Until cancelled."""
        while True:
            await self.measure(ask)
            await asyncio.sleep(INTERVAL)
