"""The watcher against a PC/SC of a few lines: readers that come and go, and all that PC/SC does oddly."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from cardwright_cardops.transport.pcsc_api import PNP, Failure, ReaderState, Result, State
from cardwright_cardops.transport.watcher import (
    CardInserted,
    CardRemoved,
    Event,
    ReaderAdded,
    ReaderRemoved,
    ServiceBack,
    ServiceLost,
    Watcher,
)

ATR = bytes.fromhex("3B8001")


class Service:
    """PC/SC as pcsc-lite behaves, and as it misbehaves; satisfies pcsc_api.Waiting."""

    def __init__(self, *, pnp: bool = True) -> None:
        self.changed = threading.Condition()
        self.readers: dict[str, int] = {}
        self.pnp = pnp
        self.version = 0
        self.running = True
        self.contexts = 0
        self.cancelled: set[int] = set()
        self.fail_next: list[int] = []
        self.deaf = False
        """A change of readers is not told to who waits, as of a second reader on old pcsc-lite."""

    def set(self, reader: str, state: int | None) -> None:
        """Let ``reader`` have ``state`` (None: unplug it) and tell whoever waits."""
        with self.changed:
            if state is None:
                del self.readers[reader]
            else:
                self.readers[reader] = state
            if reader not in self.readers or not self.deaf:
                self.version += 1
            self.changed.notify_all()

    def die(self) -> None:
        with self.changed:
            self.running = False
            self.changed.notify_all()

    def establish(self) -> int:
        if not self.running:
            raise Failure("SCardEstablishContext", Result.NO_SERVICE)
        self.contexts += 1
        return self.contexts

    def release(self, context: int) -> None:
        self.cancelled.discard(context)

    def cancel(self, context: int) -> None:
        with self.changed:
            self.cancelled.add(context)
            self.changed.notify_all()

    def list_readers(self, context: int) -> tuple[str, ...]:
        if not self.running:
            raise Failure("SCardListReaders", Result.NO_SERVICE)
        return tuple(self.readers)

    def status_change(
        self, context: int, known: Sequence[tuple[str, int]], milliseconds: int | None
    ) -> tuple[ReaderState, ...]:
        with self.changed:
            version = self.version

            def ready() -> bool:
                return bool(
                    not self.running
                    or context in self.cancelled
                    or (self.fail_next and milliseconds != 0)
                    or (self.version != version and any(name == PNP for name, _ in known))
                    or any(self._differs(name, state) for name, state in known if name != PNP)
                )

            came = self.changed.wait_for(ready, None if milliseconds is None else milliseconds / 1000)
            if not self.running:
                raise Failure("SCardGetStatusChange", Result.COMM_ERROR)
            if context in self.cancelled:
                raise Failure("SCardGetStatusChange", Result.CANCELLED)
            if self.fail_next and milliseconds != 0:
                raise Failure("SCardGetStatusChange", self.fail_next.pop())
            if not self.pnp and any(name == PNP for name, _ in known):
                return tuple(ReaderState(name, State.UNKNOWN | State.CHANGED) for name, _ in known)
            if not came:
                raise Failure("SCardGetStatusChange", Result.TIMEOUT)
            return tuple(self._state(name, state) for name, state in known)

    def _differs(self, name: str, state: int) -> bool:
        return not state or self.readers.get(name) != state

    def _state(self, name: str, state: int) -> ReaderState:
        if name == PNP:
            return ReaderState(name, state | State.CHANGED)
        now = self.readers.get(name, State.UNKNOWN)
        return ReaderState(name, now | State.CHANGED, ATR if now & State.PRESENT else b"")


EMPTY = State.EMPTY
CARD = 0x10000 | State.PRESENT


def take(watcher: Watcher, count: int) -> list[Event]:
    """The next ``count`` events; the test's time limit is the only one."""
    events = iter(watcher)
    return [next(events) for _ in range(count)]


def test_what_is_there_at_the_start_is_announced() -> None:
    service = Service()
    service.set("A", CARD)
    service.set("B", EMPTY)
    with Watcher(api=service) as watcher:
        assert take(watcher, 3) == [ReaderAdded("A"), CardInserted("A", ATR), ReaderAdded("B")]


def test_cards_and_readers_come_and_go() -> None:
    service = Service()
    with Watcher(api=service) as watcher:
        service.set("A", EMPTY)
        assert take(watcher, 1) == [ReaderAdded("A")]
        service.set("A", CARD)
        assert take(watcher, 1) == [CardInserted("A", ATR)]
        service.set("A", CARD | State.IN_USE)
        service.set("A", 0x20000 | State.EMPTY)
        assert take(watcher, 1) == [CardRemoved("A")]
        service.set("A", 0x30000 | State.PRESENT)
        assert take(watcher, 1) == [CardInserted("A", ATR)]
        service.set("A", None)
        assert take(watcher, 2) == [CardRemoved("A"), ReaderRemoved("A")]


def test_a_card_that_was_changed_between_two_looks_is_another_card() -> None:
    service = Service()
    service.set("A", CARD)
    with Watcher(api=service) as watcher:
        assert take(watcher, 2) == [ReaderAdded("A"), CardInserted("A", ATR)]
        service.set("A", 0x30000 | State.PRESENT)
        assert take(watcher, 2) == [CardRemoved("A"), CardInserted("A", ATR)]


def test_a_mute_card_is_announced_without_an_atr() -> None:
    service = Service()
    service.set("A", CARD | State.MUTE)
    with Watcher(api=service) as watcher:
        assert take(watcher, 2) == [ReaderAdded("A"), CardInserted("A", b"")]


def test_the_second_of_two_readers_is_not_missed() -> None:
    service = Service()
    with Watcher(api=service) as watcher:
        service.set("A", EMPTY)
        assert take(watcher, 1) == [ReaderAdded("A")]
        service.deaf = True
        service.set("B", CARD)
        assert take(watcher, 2) == [ReaderAdded("B"), CardInserted("B", ATR)]


def test_readers_are_listed_where_they_are_not_announced() -> None:
    service = Service(pnp=False)
    with Watcher(api=service) as watcher:
        service.set("A", CARD)
        assert take(watcher, 2) == [ReaderAdded("A"), CardInserted("A", ATR)]
        service.set("A", None)
        assert take(watcher, 2) == [CardRemoved("A"), ReaderRemoved("A")]


def test_a_service_that_stops_and_comes_back() -> None:
    service = Service()
    service.set("A", CARD)
    with Watcher(api=service) as watcher:
        take(watcher, 2)
        service.die()
        lost = take(watcher, 3)
        assert lost[:2] == [CardRemoved("A"), ReaderRemoved("A")]
        assert isinstance(lost[2], ServiceLost) and lost[2].code == "PCSC_NOT_RUNNING"
        service.running = True
        assert take(watcher, 3) == [ServiceBack(), ReaderAdded("A"), CardInserted("A", ATR)]


def test_a_service_that_is_not_there_at_the_start() -> None:
    service = Service()
    service.running = False
    with Watcher(api=service) as watcher:
        (lost,) = take(watcher, 1)
        assert isinstance(lost, ServiceLost)
        service.running = True
        service.set("A", EMPTY)
        assert take(watcher, 2) == [ServiceBack(), ReaderAdded("A")]


@pytest.mark.parametrize("result", [Result.INVALID_HANDLE, Result.TIMEOUT, Result.UNKNOWN_READER])
def test_odd_results_are_no_loss(result: Result) -> None:
    service = Service()
    service.set("A", EMPTY)
    with Watcher(api=service) as watcher:
        take(watcher, 1)
        with service.changed:
            service.fail_next = [result] * 3
            service.changed.notify_all()
        service.set("A", CARD)
        assert take(watcher, 1) == [CardInserted("A", ATR)]


def test_stop_ends_the_iteration_and_the_thread() -> None:
    service = Service()
    watcher = Watcher(api=service).start()
    watcher.stop()
    assert list(watcher) == []
    watcher.stop()
    assert not any(thread.name == "pcsc:watcher" and thread.is_alive() for thread in threading.enumerate())


def test_events_go_to_a_callback_whose_failure_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    service.set("A", EMPTY)
    seen: list[Event] = []
    inserted = threading.Event()

    def on_event(event: Event) -> None:
        seen.append(event)
        if isinstance(event, CardInserted):
            inserted.set()
        raise ValueError("the callback is broken")

    with Watcher(on_event, api=service) as watcher:
        service.set("A", CARD)
        assert inserted.wait(30)
        with pytest.raises(TypeError):
            next(iter(watcher))
    assert seen[0] == ReaderAdded("A") and seen[-1] == CardInserted("A", ATR)
    assert "the callback is broken" in caplog.text


def test_a_slow_callback_misses_nothing_that_lasts() -> None:
    service = Service()
    service.set("A", EMPTY)
    go_on, told, done = threading.Event(), threading.Event(), threading.Event()
    seen: list[Event] = []

    def on_event(event: Event) -> None:
        seen.append(event)
        told.set()
        assert go_on.wait(30)
        if isinstance(event, CardInserted):
            done.set()

    with Watcher(on_event, api=service):
        assert told.wait(30)
        for number in range(1, 200, 2):
            service.set("A", number << 16 | State.PRESENT)
            service.set("A", number + 1 << 16 | State.EMPTY)
        service.set("A", 201 << 16 | State.PRESENT)
        go_on.set()
        assert done.wait(30)
    assert seen == [ReaderAdded("A"), CardInserted("A", ATR)]
