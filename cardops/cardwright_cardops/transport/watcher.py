"""What happens at the readers, as events, for as long as the program lives.

One thread waits in SCardGetStatusChange without a timeout, on a context of its own, and compares what it sees
with what it announced: so cards that are there at the start are announced, nothing is announced twice, and
changes that come faster than somebody takes them melt into one. The service may be absent, stop, or come
back at any time.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from .connection import TransportError
from .pcsc_api import PNP, Failure, ReaderState, Result, Scard, State, Waiting
from .pcsc_errors import stopped, unavailable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReaderAdded:
    """A reader is there."""

    reader: str


@dataclass(frozen=True, slots=True)
class ReaderRemoved:
    """A reader is gone. A card in it was announced as removed before."""

    reader: str


@dataclass(frozen=True, slots=True)
class CardInserted:
    """A card is in the reader. ``atr`` is empty when it does not answer to reset."""

    reader: str
    atr: bytes


@dataclass(frozen=True, slots=True)
class CardRemoved:
    """The card is out."""

    reader: str


@dataclass(frozen=True, slots=True)
class ServiceLost:
    """The smart card service is not there or refuses; readers and cards were announced as gone before.

    ``error`` says why; two of these are equal when their codes are.
    """

    code: str
    error: TransportError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServiceLost) and other.code == self.code

    def __hash__(self) -> int:
        return hash(self.code)


@dataclass(frozen=True, slots=True)
class ServiceBack:
    """The service is there again."""


Event = ReaderAdded | ReaderRemoved | CardInserted | CardRemoved | ServiceLost | ServiceBack

BACK_OFF: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
"""Seconds between tries to reach an absent service; the last repeats."""
_SETTLE: Final = 500
"""Milliseconds after a change of readers until they are listed once more: pcsc-lite before 2.3 does not tell
of a reader that came between listing and waiting."""
_POLL: Final = 1000
"""Milliseconds between lists of readers where PC/SC does not announce them (macOS)."""
_QUEUED: Final = 256
_NUDGE: Final = 0.05


class Watcher:
    """Watches all readers from ``start`` to ``stop``; a context manager.

    With ``on_event``, each event is passed to it on the watcher's thread, in order; while it runs nothing else is
    announced, so it should be quick, and what it raises is logged. Without, the watcher is an iterator over
    events, which ends after ``stop``; at most 256 wait in line, then the watcher waits, too. Watching starts once.
    """

    def __init__(self, on_event: Callable[[Event], object] | None = None, *, api: Waiting | None = None) -> None:
        self._on_event = on_event
        self._api: Waiting = api or Scard()
        self._events: queue.Queue[Event | None] = queue.Queue(_QUEUED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pcsc:watcher", daemon=True)
        self._context: int | None = None
        self._known: dict[str, ReaderState] = {}
        self._lost = False

    def start(self) -> Watcher:
        """Begin to watch; the first events come at once."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop watching; no event is delivered afterwards, save those that wait in line. Never raises."""
        self._stop.set()
        own = threading.current_thread() is self._thread
        while not own and self._thread.is_alive():
            # A cancel that comes just before the wait begins is lost, so it is repeated until the thread is done.
            context = self._context
            if context is not None:
                self._api.cancel(context)
            self._thread.join(_NUDGE)

    def __enter__(self) -> Watcher:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Event]:
        if self._on_event is not None:
            raise TypeError("events go to on_event; there is nothing to iterate over")
        while not (self._stop.is_set() and self._events.empty()):
            event = self._events.get()
            if event is None:
                return
            yield event

    def _run(self) -> None:
        attempt = 0
        try:
            while not self._stop.is_set():
                try:
                    self._context = self._api.establish()
                except Failure as failure:
                    self._forget(unavailable(failure.result))
                    self._stop.wait(BACK_OFF[min(attempt, len(BACK_OFF) - 1)])
                    attempt += 1
                    continue
                try:
                    attempt = 0 if self._watch(self._context) else attempt
                finally:
                    context, self._context = self._context, None
                    self._api.release(context)
                self._stop.wait(BACK_OFF[min(attempt, len(BACK_OFF) - 1)])
                attempt += 1
        finally:
            self._end()

    def _watch(self, context: int) -> bool:
        """Watch until stopped or the context fails; True when it worked at all."""
        worked = False
        try:
            pnp = self._announces_readers(context)
            names = self._api.list_readers(context)
            worked = True
            if self._lost:
                self._lost = False
                self._deliver(ServiceBack())
            changed = self._compare(self._look(context, names))
            while not self._stop.is_set():
                states = self._wait(context, pnp, _SETTLE if changed else None)
                names = self._api.list_readers(context)
                before = set(self._known)
                if set(names) != before or states is None:
                    states = self._look(context, names)
                self._compare(states)
                changed = set(self._known) != before
        except Failure as failure:
            if self._stop.is_set():
                return worked  # cancelled; on some versions that looks like an invalid handle
            if failure.result in (Result.UNKNOWN_READER, Result.READER_UNAVAILABLE):
                return worked  # a reader left while it was asked about: look again at once
            _log.info("watching readers ended: %s", failure)
            self._forget(
                stopped("readers were watched", "", sent=False) if worked else unavailable(failure.result)
            )
            return worked
        return worked

    def _announces_readers(self, context: int) -> bool:
        """Whether PC/SC announces readers that come and go."""
        try:
            states = self._api.status_change(context, [(PNP, 0)], 0)
        except Failure as failure:
            if failure.result == Result.TIMEOUT:
                return True
            if failure.result in (Result.UNKNOWN_READER, Result.READER_UNAVAILABLE):
                return False
            raise
        return not states[0].gone

    def _wait(self, context: int, pnp: bool, milliseconds: int | None) -> tuple[ReaderState, ...] | None:
        """Wait for a change; the readers' states, or None when they have to be asked for."""
        known = [(state.reader, state.state & ~State.CHANGED) for state in self._known.values()]
        if pnp:
            known.append((PNP, len(known) << 16))  # Windows wants to be told how many readers are known
        else:
            milliseconds = _POLL
        if not known:
            self._stop.wait(_POLL / 1000)
            return None
        try:
            states = self._api.status_change(context, known, milliseconds)
        except Failure as failure:
            # pcsc-lite 1.9.9 says INVALID_HANDLE when an event meets a timeout; a dead context says it again.
            if failure.result in (Result.TIMEOUT, Result.INVALID_HANDLE) and not self._stop.is_set():
                return None
            raise
        return tuple(state for state in states if state.reader != PNP)

    def _look(self, context: int, names: tuple[str, ...]) -> tuple[ReaderState, ...]:
        """The states of ``names`` now."""
        if not names:
            return ()
        return self._api.status_change(context, [(name, 0) for name in names], 0)

    def _compare(self, states: tuple[ReaderState, ...]) -> bool:
        """Announce how ``states`` differ from what is known; True when readers came or went."""
        seen = {state.reader: state for state in states if not state.gone}
        gone = [reader for reader in self._known if reader not in seen]
        for reader in gone:
            self._drop(reader)
        came = False
        for reader, state in seen.items():
            before = self._known.get(reader)
            if before is None:
                came = True
                self._deliver(ReaderAdded(reader))
            elif before.present and (not state.present or state.events != before.events):
                self._deliver(CardRemoved(reader))
                before = None
            self._known[reader] = state
            if state.present and (before is None or not before.present):
                self._deliver(CardInserted(reader, b"" if state.mute else state.atr))
        return came or bool(gone)

    def _drop(self, reader: str) -> None:
        if self._known.pop(reader).present:
            self._deliver(CardRemoved(reader))
        self._deliver(ReaderRemoved(reader))

    def _forget(self, error: TransportError) -> None:
        """The service is gone, and all readers with it; said once."""
        for reader in tuple(self._known):
            self._drop(reader)
        if not self._lost:
            self._lost = True
            self._deliver(ServiceLost(error.code, error))

    def _deliver(self, event: Event) -> None:
        if self._stop.is_set():
            return
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                _log.exception("whoever was told of %s failed", event)
            return
        while not self._stop.is_set():
            try:
                self._events.put(event, timeout=_NUDGE)
                return
            except queue.Full:
                continue

    def _end(self) -> None:
        """Wake whoever iterates; a full line is seen to end by the flag."""
        try:
            self._events.put_nowait(None)
        except queue.Full:
            _log.debug("the line of events was full at the end")
