"""The reader in this process: connections as under PC/SC, without PC/SC."""

from __future__ import annotations

import threading

import pytest

from cardwright_cardops.transport.connection import (
    CardRemoved,
    CardReset,
    CardUnresponsive,
    Connection,
    Interface,
    Link,
    Transmission,
)
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_cardops.transport.pcsc_errors import ConnectionOver, NoCard
from cardwright_simulators.reader.faults import FaultyCard
from cardwright_simulators.reader.slot import SlotReader
from tests.support.cards import ATR_T0, ATR_T1, SmallCard

SELECT = bytes.fromhex("00A4040005A000000308")
GET = bytes.fromhex("00CB3FFF055C035FC10200")


def test_direct_connection_is_a_connection() -> None:
    card = SmallCard({0xCB: b"\x01\x90\x00"}, atr=ATR_T0)
    connection: Connection = DirectConnection(card, reader="R", interface=Interface.CONTACTLESS)
    assert connection.link == Link("R", ATR_T0, Transmission.T0, Interface.CONTACTLESS)
    with connection.transaction():
        assert connection.transmit(GET) == b"\x01\x90\x00"
    connection.reset()
    assert connection.perform(lambda: connection.transmit(SELECT)) == b"\x90\x00"
    assert card.log == [GET, "reset", SELECT]
    connection.close()
    with pytest.raises(ConnectionOver) as caught:
        connection.transmit(SELECT)
    assert caught.value.sent is False
    assert card.commands == [GET, SELECT]


def test_inserting_powers_and_removing_unpowers() -> None:
    reader, card = SlotReader(), SmallCard()
    with pytest.raises(NoCard):
        reader.connect()
    reader.insert(card)
    with pytest.raises(ValueError, match="there is a card"):
        reader.insert(card)
    with reader.connect() as connection:
        assert connection.link.atr == ATR_T1
        assert reader.remove() is card
        with pytest.raises(CardRemoved) as caught:
            connection.transmit(SELECT)
        assert caught.value.sent is False
    with pytest.raises(ValueError, match="no card"):
        reader.remove()
    assert card.log == ["on", "off"]


def test_a_card_that_comes_back_is_another_card() -> None:
    reader, card = SlotReader(), SmallCard()
    reader.insert(card)
    connection = reader.connect()
    reader.remove()
    reader.insert(card)
    with pytest.raises(CardRemoved):
        connection.transmit(SELECT)
    with pytest.raises(CardRemoved):
        connection.reconnect()
    assert reader.connect().transmit(SELECT) == b"\x90\x00"


def test_a_reset_by_one_is_told_to_the_others() -> None:
    reader = SlotReader()
    reader.insert(SmallCard())
    first, second = reader.connect(), reader.connect()
    first.reset()
    assert first.transmit(SELECT) == b"\x90\x00"
    with pytest.raises(CardReset) as caught:
        second.transmit(SELECT)
    assert caught.value.sent is False
    second.reconnect()
    assert second.transmit(SELECT) == b"\x90\x00"
    first.reset()
    with second.transaction():
        assert second.transmit(SELECT) == b"\x90\x00"


def test_a_transaction_keeps_other_threads_waiting() -> None:
    reader, card = SlotReader(), SmallCard()
    reader.insert(card)
    first, second = reader.connect(), reader.connect()
    asked = threading.Event()

    def other() -> None:
        asked.set()
        second.transmit(GET)

    with first.transaction():
        thread = threading.Thread(target=other)
        thread.start()
        assert asked.wait(30)
        for _ in range(50):
            first.transmit(SELECT)
    thread.join()
    assert card.commands == [SELECT] * 50 + [GET]


def test_a_card_that_a_fault_pulls_leaves_the_slot() -> None:
    reader, card = SlotReader(), SmallCard()
    reader.insert(FaultyCard(card, "apdu=1:lost,apdu=2:remove-after"))
    connection = reader.connect()
    with pytest.raises(CardUnresponsive):
        connection.transmit(SELECT)
    assert reader.card is not None
    with pytest.raises(CardRemoved):
        connection.transmit(SELECT)
    assert reader.card is None
    assert card.log == ["on", SELECT, SELECT, "off"]
