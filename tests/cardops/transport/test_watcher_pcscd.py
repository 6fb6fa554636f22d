"""The watcher on a real pcscd."""

from __future__ import annotations

import pytest

from cardwright_cardops.transport.pcsc import connect
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
from tests.support.cards import ATR_T0, ATR_T1, SmallCard
from tests.support.pcscd import Pcscd

pytestmark = [pytest.mark.pcscd]


def take(watcher: Watcher, count: int) -> list[Event]:
    events = iter(watcher)
    return [next(events) for _ in range(count)]


def test_readers_and_cards(pcscd: Pcscd) -> None:
    first = pcscd.insert(SmallCard())
    with Watcher() as watcher:
        events = take(watcher, 5)
        assert {event.reader for event in events if isinstance(event, ReaderAdded)} == set(pcscd.readers)
        assert CardInserted(first, ATR_T1) in events
        second = pcscd.insert(SmallCard(atr=ATR_T0), pcscd.readers[3])
        assert take(watcher, 1) == [CardInserted(second, ATR_T0)]
        with connect(second) as connection:
            connection.reset()
        pcscd.remove(second)
        assert take(watcher, 1) == [CardRemoved(second)]
        pcscd.remove(first)
        assert take(watcher, 1) == [CardRemoved(first)]


def test_pcscd_killed_and_started_again_with_other_readers(pcscd: Pcscd) -> None:
    card = pcscd.insert(SmallCard())
    before = set(pcscd.readers)
    with Watcher() as watcher:
        take(watcher, 5)
        pcscd.kill()
        lost = take(watcher, 6)
        assert lost.count(CardRemoved(card)) == 1
        assert {event.reader for event in lost if isinstance(event, ReaderRemoved)} == before
        assert isinstance(lost[-1], ServiceLost) and lost[-1].code == "PCSC_NOT_RUNNING"
        pcscd.restart("Another Reader")
        again = take(watcher, 3)
        assert again[0] == ServiceBack()
        assert {event.reader for event in again[1:] if isinstance(event, ReaderAdded)} == set(pcscd.readers)
        assert take_card(pcscd, watcher) == ATR_T1


def take_card(pcscd: Pcscd, watcher: Watcher) -> bytes:
    reader = pcscd.insert(SmallCard())
    (event,) = take(watcher, 1)
    assert isinstance(event, CardInserted) and event.reader == reader
    return event.atr


def test_pcscd_not_there_at_first(pcscd: Pcscd) -> None:
    pcscd.kill()
    with Watcher() as watcher:
        (lost,) = take(watcher, 1)
        assert isinstance(lost, ServiceLost)
        pcscd.start()
        assert take(watcher, 1) == [ServiceBack()]


def test_stopping_a_watcher_that_waits(pcscd: Pcscd) -> None:
    for _ in range(10):
        with Watcher() as watcher:
            take(watcher, 4)
        assert list(watcher) == []
