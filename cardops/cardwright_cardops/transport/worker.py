"""A thread that makes blocking calls so that whoever waits for them can stop waiting.

A call into PC/SC cannot be interrupted, so a deadline needs two threads: one that may hang, one that waits.
Handing over costs 17 µs of CPU each time (two futex wake-ups and the interpreter's lock), two thirds of what
a whole item may cost. So a piece of work is handed over, not a call: inside it each call is a plain one and
only writes down when it has to be back. The waiting thread reads that note when it wakes, at most once per
shortest deadline; nothing else supervises.

Giving up sets one flag. The worker reads it before and after each blocking call: before, nothing is sent;
after, the late answer is dropped, ``clean_up`` runs at once, and the thread ends. Plain attribute writes
are enough, in this order: note the deadline, then look at the flag, then call.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

NEVER: Final = math.inf


class Late(Exception):
    """The deadline passed; the work goes on without us. Becomes a TransportError one level up."""


class Over(Exception):
    """The worker has ended, or was given up."""


class Worker:
    """One thread, started at once, which ends when told to or given up.

    ``shortest`` is the least number of seconds that work ever allows itself by ``allow``. ``clean_up`` runs on
    the thread as its last act.
    """

    __slots__ = (
        "_alone", "_clean_up", "_done", "_go", "_outcome", "_shortest", "_work", "abandoned", "expires", "ident",
    )  # fmt: skip

    def __init__(self, name: str, clean_up: Callable[[], None], shortest: float) -> None:
        self._clean_up = clean_up
        self._shortest = shortest
        self._alone = threading.Lock()
        # Two bare locks as signals: a third of the cost of two queues.
        self._go = threading.Lock()
        self._done = threading.Lock()
        self._go.acquire()
        self._done.acquire()
        self._work: Callable[[], Any] | None = None
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        self.abandoned = False
        """Nobody waits any more: unwind without touching the card."""
        self.expires = NEVER
        """When the call that blocks now has to be back, by time.monotonic()."""
        thread = threading.Thread(target=self._loop, name=name, daemon=True)
        thread.start()
        self.ident = thread.ident

    def call(self, work: Callable[[], T]) -> T:
        """Have ``work`` done on the thread and return its value; its errors pass through.

        On the thread itself this is a plain call. Raises Late when ``work`` missed a deadline that it set,
        Over when there is no thread any more. Being interrupted (Ctrl-C) gives the work up too.
        """
        if threading.get_ident() == self.ident:
            return work()
        with self._alone:
            if self.abandoned:
                raise Over
            self._work = work
            _signal(self._go)
            try:
                self._wait()
            except BaseException:
                self._abandon()
                raise
            value, error = self._outcome
            self._outcome = (None, None)
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    def allow(self, seconds: float) -> None:
        """Called by work before each blocking call. Raises Over when it was given up."""
        self.expires = time.monotonic() + seconds
        if self.abandoned:
            raise Over

    def returned(self) -> None:
        """Called by work after each blocking call. Raises Over when nobody waits for the result."""
        self.expires = NEVER
        if self.abandoned:
            raise Over

    def stop(self, seconds: float) -> None:
        """Let the thread clean up and end, waiting ``seconds`` for it at most. Never raises.

        While work of another thread runs, that work is given up instead.
        """
        alone = threading.get_ident() != self.ident and self._alone.acquire(blocking=False)
        if self.abandoned:
            seconds = 0.0
        self._abandon()
        if alone:
            self._done.acquire(timeout=seconds)  # if it hangs in a call, the rest happens when that returns
            self._alone.release()

    def _abandon(self) -> None:
        self.abandoned = True
        _signal(self._go)

    def _wait(self) -> None:
        while True:
            seconds = min(self.expires - time.monotonic(), self._shortest)
            if self._done.acquire(timeout=max(seconds, 0.0)):
                return
            if time.monotonic() >= self.expires:
                raise Late

    def _loop(self) -> None:
        try:
            while not self.abandoned:
                self._go.acquire()
                work, self._work = self._work, None
                if work is None:
                    return
                try:
                    self._outcome = work(), None
                except BaseException as error:  # raised again where somebody waits for it
                    self._outcome = None, error
                del work
                self.expires = NEVER
                if not self.abandoned:
                    _signal(self._done)
        finally:
            try:
                self._clean_up()
            finally:
                if self.abandoned:
                    self._outcome = None, Over()
                _signal(self._done)


def _signal(lock: threading.Lock) -> None:
    """Let whoever waits for ``lock`` go on; signalled twice is signalled once."""
    try:
        lock.release()
    except RuntimeError:
        return
