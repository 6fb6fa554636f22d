"""A circuit breaker: what failed several times in a row is left alone for a while, then tried by one caller."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta


class Breaker:
    """Counts failures in a row. One event loop or thread; ``clock`` in seconds, monotonic."""

    def __init__(self, failures: int, rest: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._rest = rest.total_seconds()
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    def enter(self) -> timedelta | None:
        """None: go ahead, and say how it went. Else: how long to stay away."""
        if self._open_until is None:
            return None
        left = self._open_until - self._clock()
        if left > 0:
            return timedelta(seconds=left)
        if self._probing:
            return timedelta(seconds=self._rest)
        self._probing = True
        return None

    def succeeded(self) -> None:
        """It answered."""
        self._failures = 0
        self._open_until = None
        self._probing = False

    def failed(self) -> None:
        """It did not answer."""
        self._failures += 1
        self._probing = False
        if self._failures >= self._limit:
            self._open_until = self._clock() + self._rest

    def abandoned(self) -> None:
        """Nobody waited for the outcome: it says nothing, but the next caller may try."""
        self._probing = False
