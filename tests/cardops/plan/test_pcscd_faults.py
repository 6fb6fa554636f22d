"""``card init`` through a real pcscd: the card pulled at every APDU, and pcscd killed at every APDU.

Each time the operation ends in a documented error, the watcher tells what happened, and one more run ends well,
judged from the card's own store.
"""

from __future__ import annotations

import os
import signal

import pytest

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.plan.init import Secrets, initialize
from cardwright_cardops.plan.records import MemoryJournal
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport import pcsc
from cardwright_cardops.transport.connection import CardRemoved, TransportError
from cardwright_cardops.transport.pcsc_errors import NoReader, PcscNotRunning
from cardwright_cardops.transport.watcher import CardInserted, ServiceBack, ServiceLost, Watcher
from cardwright_cardops.transport.watcher import CardRemoved as Gone
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.around import Around
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.card_init import NOW, PIN, PUK, Case
from tests.support.pcscd import Pcscd

pytestmark = pytest.mark.pcscd

CASE = Case("yubikey-5.7", "9a=p256,9d=p256:import", {0x9A: (0x11, True), 0x9D: (0x11, False)})
APDUS = 28
"""What this ``card init`` takes in extended length; the last drops the statuses and may fail unnoticed."""


def init(reader: str, journal: MemoryJournal) -> None:
    with pcsc.connect(reader) as connection:
        executor = LocalExecutor(connection, KeyItems(FixedPins(Secret(PIN), Secret(PIN)), local=True))
        initialize(executor, CASE.policy, Secrets(new_puk=Secret(PUK)), journal, now=NOW)


def wait_for(watcher: Watcher, kind: type, reader: str = "") -> None:
    """Read events until the wanted one; a missing one ends in the test's own time limit."""
    for event in watcher:
        if isinstance(event, kind) and (not reader or getattr(event, "reader", "") == reader):
            return


@pytest.mark.parametrize("at", range(1, APDUS))
def test_the_card_is_pulled_at_any_apdu_and_the_next_run_ends_well(pcscd: Pcscd, at: int) -> None:
    card, journal = CASE.card(), MemoryJournal()
    with Watcher() as watcher:
        reader = pcscd.insert(FaultyCard(card, f"apdu={at}:remove"))
        wait_for(watcher, CardInserted, reader)
        with pytest.raises(CardwrightError) as caught:
            init(reader, journal)
        assert isinstance(caught.value, TransportError) or caught.value.code in ("EXCHANGE_BROKEN",), caught.value
        assert caught.value.effect and caught.value.advice
        wait_for(watcher, Gone, reader)
        pcscd.remove(reader)
        assert pcscd.insert(card, reader) == reader
        wait_for(watcher, CardInserted, reader)
        init(reader, journal)
    assert CASE.faults_of(card, journal) == []


@pytest.mark.parametrize("at", [1, 2, 10, 12, 14, 17, 20, APDUS - 1])
def test_pcscd_is_killed_and_the_next_run_ends_well(pcscd: Pcscd, at: int) -> None:
    card, journal = CASE.card(), MemoryJournal()
    with Watcher() as watcher:
        reader = pcscd.insert(_Killing(card, pcscd, at))
        wait_for(watcher, CardInserted, reader)
        with pytest.raises((TransportError, CardwrightError)) as caught:
            init(reader, journal)
        assert caught.value.code in {PcscNotRunning.code, NoReader.code, CardRemoved.code, "EXCHANGE_BROKEN",
                                     "CARD_UNRESPONSIVE", "READER_GONE"}, caught.value  # fmt: skip
        wait_for(watcher, ServiceLost)
        with pytest.raises(PcscNotRunning):
            pcsc.readers()
        pcscd.kill()
        pcscd.start()
        wait_for(watcher, ServiceBack)
        again = pcscd.insert(card)
        wait_for(watcher, CardInserted, again)
        init(again, journal)
    assert CASE.faults_of(card, journal) == []


def test_as_many_apdus_as_the_cases_above_cover(pcscd: Pcscd) -> None:
    card = CASE.card()
    reader = pcscd.insert(card)
    before, journal = card.apdu_count, MemoryJournal()
    init(reader, journal)
    assert card.apdu_count - before == APDUS
    assert CASE.faults_of(card, journal) == []


class _Killing(Around[VirtualCard]):
    """A card in front of which pcscd is killed at the given command; the card does not see that command."""

    def __init__(self, card: VirtualCard, pcscd: Pcscd, at: int) -> None:
        super().__init__(card)
        self._pcscd, self._left = pcscd, at

    def transmit(self, command: bytes) -> bytes:
        self._left -= 1
        if self._left == 0:
            os.kill(self._pcscd.pid, signal.SIGKILL)
        return self.inside.transmit(command)
