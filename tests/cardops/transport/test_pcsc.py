"""PC/SC through a real pcscd: connect, transmit, share, and each way in which it ends badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from smartcard import scard

from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.transport.connection import (
    CardBusy,
    CardRemoved,
    CardReset,
    CardUnresponsive,
    Connection,
    Interface,
    Transmission,
    TransportError,
)
from cardwright_cardops.transport.deadlines import Deadlines
from cardwright_cardops.transport.pcsc import connect, readers
from cardwright_cardops.transport.pcsc_errors import (
    ConnectionOver,
    DeadlinePassed,
    NoCard,
    NoReader,
    PcscNotRunning,
)
from tests.support.cards import ATR_T0, ATR_T1, HangingCard, SmallCard
from tests.support.pcscd import Pcscd

pytestmark = [pytest.mark.pcscd]

SELECT = bytes.fromhex("00A4040005A000000308")
GET_DATA = bytes.fromhex("00CB3FFF055C035FC10200")
IMPATIENT = Deadlines(waiting=0.3, by_instruction={0xCB: 0.3}, by_algorithm={0x11: 0.3, 0x16: 60.0})


@contextmanager
def stranger(reader: str, ends: int = scard.SCARD_LEAVE_CARD) -> Iterator[int]:
    """Another program's connection to the card: a PC/SC handle. ``ends``: what it does with the card in the end."""
    _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
    code, handle, _ = scard.SCardConnect(
        context, reader, scard.SCARD_SHARE_SHARED, scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
    )
    assert code == scard.SCARD_S_SUCCESS
    try:
        yield handle
    finally:
        scard.SCardDisconnect(handle, ends)
        scard.SCardReleaseContext(context)


def reset_by_stranger(handle: int) -> None:
    code, _ = scard.SCardReconnect(
        handle, scard.SCARD_SHARE_SHARED, scard.SCARD_PROTOCOL_T1, scard.SCARD_RESET_CARD
    )
    assert code == scard.SCARD_S_SUCCESS


def test_commands_and_answers_pass_unchanged(pcscd: Pcscd) -> None:
    card = SmallCard({0xCB: bytes(range(256)) + b"\x61\x10", 0xC0: b"\x6a\x82"})
    reader = pcscd.insert(card)
    with connect(reader) as connection:
        as_protocol: Connection = connection
        assert as_protocol.transmit(GET_DATA) == bytes(range(256)) + b"\x61\x10"
        assert connection.transmit(bytes.fromhex("00C0000010")) == b"\x6a\x82"
    assert card.commands == [GET_DATA, bytes.fromhex("00C0000010")]


def test_extended_commands_and_answers_pass_unchanged(pcscd: Pcscd) -> None:
    answer = bytes(number % 251 for number in range(20_000)) + b"\x90\x00"
    card = SmallCard({0xDB: answer})
    command = CommandAPDU(0, 0xDB, 0x3F, 0xFF, answer[::-1], 65536).encode(extended=True)
    with connect(pcscd.insert(card)) as connection:
        assert connection.transmit(command) == answer
    assert card.commands == [command]


def test_link_tells_reader_atr_and_protocol(pcscd: Pcscd) -> None:
    contactless = bytes.fromhex("3B8D80018073C021C057597562694B6579F9")
    for atr, transmission, interface in (
        (ATR_T1, Transmission.T1, Interface.CONTACT),
        (ATR_T0, Transmission.T0, Interface.CONTACT),
        (contactless, Transmission.T1, Interface.CONTACTLESS),
    ):
        reader = pcscd.insert(SmallCard(atr=atr))
        with connect(reader) as connection:
            link = connection.link
        assert (link.reader, link.atr, link.transmission, link.interface) == (reader, atr, transmission, interface)
        pcscd.remove(reader)


def test_readers_lists_all_with_their_cards(pcscd: Pcscd) -> None:
    reader = pcscd.insert(SmallCard(), pcscd.readers[2])
    states = {state.reader: state for state in readers()}
    assert set(states) == set(pcscd.readers)
    assert states[reader].present and states[reader].atr == ATR_T1
    assert not states[reader].mute and not states[reader].gone
    assert [state.reader for state in states.values() if state.present] == [reader]


def test_nothing_that_is_done_powers_or_resets_the_card(pcscd: Pcscd) -> None:
    card = SmallCard()
    reader = pcscd.insert(card)
    with stranger(reader):
        before = [entry for entry in card.log if isinstance(entry, str)]
        for _ in range(2):
            with connect(reader) as connection, connection.transaction():
                connection.transmit(SELECT)
        assert [entry for entry in card.log if isinstance(entry, str)] == before


def test_another_program_waits_while_a_transaction_is_open(pcscd: Pcscd) -> None:
    card = SmallCard()
    reader = pcscd.insert(card)
    done = threading.Event()
    with connect(reader) as first, connect(reader) as second:

        def other() -> None:
            with second.transaction():
                second.transmit(GET_DATA)
            done.set()

        with first.transaction():
            thread = threading.Thread(target=other)
            thread.start()
            for _ in range(20):
                first.transmit(SELECT)
            assert not done.is_set()
        thread.join()
    assert card.commands == [SELECT] * 20 + [GET_DATA]


def test_a_transaction_is_not_re_entrant_and_can_follow_another(pcscd: Pcscd) -> None:
    reader = pcscd.insert(SmallCard())
    with connect(reader) as connection:
        with connection.transaction(), pytest.raises(RuntimeError), connection.transaction():
            raise AssertionError("entered twice")
        with connection.transaction():
            assert connection.transmit(SELECT) == b"\x90\x00"


def test_a_card_that_someone_keeps_is_busy(pcscd: Pcscd) -> None:
    card = SmallCard()
    reader = pcscd.insert(card)
    with stranger(reader) as handle:
        connection = connect(reader, IMPATIENT)
        assert scard.SCardBeginTransaction(handle) == scard.SCARD_S_SUCCESS
        with pytest.raises(CardBusy) as caught, connection.transaction():
            raise AssertionError("got the card")
        assert caught.value.code == "CARD_BUSY" and caught.value.sent is False
        scard.SCardEndTransaction(handle, scard.SCARD_LEAVE_CARD)
    # The abandoned wait ended its transaction as soon as it got it: others are not kept out.
    with connect(reader) as again, again.transaction():
        assert again.transmit(SELECT) == b"\x90\x00"
    assert card.commands == [SELECT]


def test_connecting_to_a_card_that_someone_keeps(pcscd: Pcscd) -> None:
    card = SmallCard()
    reader = pcscd.insert(card)
    with stranger(reader) as handle:
        assert scard.SCardBeginTransaction(handle) == scard.SCARD_S_SUCCESS
        with pytest.raises(CardBusy):
            connect(reader, IMPATIENT)
        scard.SCardEndTransaction(handle, scard.SCARD_LEAVE_CARD)
        with connect(reader) as connection, connection.transaction():
            assert connection.transmit(SELECT) == b"\x90\x00"


def test_reset_by_another_program_is_told_and_nothing_was_sent(pcscd: Pcscd) -> None:
    card = SmallCard()
    reader = pcscd.insert(card)
    with connect(reader) as connection, stranger(reader) as handle:
        connection.transmit(SELECT)
        reset_by_stranger(handle)
        with pytest.raises(CardReset) as caught:
            connection.transmit(GET_DATA)
        assert caught.value.sent is False
        assert card.commands == [SELECT]
        connection.reconnect()
        assert connection.transmit(GET_DATA) == b"\x90\x00"


def test_a_transaction_begins_on_a_card_that_was_reset(pcscd: Pcscd) -> None:
    card = SmallCard()
    reader = pcscd.insert(card)
    with connect(reader) as connection, stranger(reader) as handle:
        reset_by_stranger(handle)
        with connection.transaction():
            assert connection.transmit(SELECT) == b"\x90\x00"


def has_power(card: SmallCard) -> bool:
    """By the last word about it that came over the wire, before any command."""
    words = [entry for entry in card.log if isinstance(entry, str)]
    return words[-1] != "off" and not isinstance(card.log[card.log.index("off") + 1], bytes)


def test_a_card_that_another_program_powered_down_gets_its_power_back(pcscd: Pcscd) -> None:
    """As every program on pyscard does when it lets go, ykman among them."""
    card = SmallCard()
    reader = pcscd.insert(card)
    with connect(reader) as connection:
        card.log.clear()
        with stranger(reader, scard.SCARD_UNPOWER_CARD):
            pass
        with connection.transaction():
            assert connection.transmit(SELECT) == b"\x90\x00"
        assert has_power(card), card.log
        # Others are not kept out by a connection that was taken up so.
        with connect(reader) as another, another.transaction():
            assert another.transmit(SELECT) == b"\x90\x00"


def test_connecting_to_a_card_that_others_left_without_power(pcscd: Pcscd) -> None:
    card = SmallCard()
    reader = pcscd.insert(card)
    with stranger(reader) as handle:
        card.log.clear()
        with stranger(reader, scard.SCARD_UNPOWER_CARD):
            pass
        code, _ = scard.SCardReconnect(
            handle, scard.SCARD_SHARE_SHARED, scard.SCARD_PROTOCOL_T1, scard.SCARD_LEAVE_CARD
        )
        assert code == scard.SCARD_S_SUCCESS
        with connect(reader) as connection, connection.transaction():
            assert connection.transmit(SELECT) == b"\x90\x00"
        assert has_power(card), card.log


def test_our_reset_resets_and_the_connection_goes_on(pcscd: Pcscd) -> None:
    card = SmallCard()
    reader = pcscd.insert(card)
    with connect(reader) as connection, connection.transaction():
        card.log.clear()
        connection.reset()
        assert "reset" in card.log
        assert connection.transmit(SELECT) == b"\x90\x00"


@pytest.mark.parametrize("at", range(1, 5))
def test_card_pulled_at_each_command(pcscd: Pcscd, at: int) -> None:
    card = SmallCard()
    reader = pcscd.insert(card)

    def pull(command: bytes) -> None:
        if len(card.commands) + 1 == at:
            pcscd.pull(reader)

    card.before = pull
    answered = 0
    with connect(reader) as connection:
        with pytest.raises(CardRemoved) as caught, connection.transaction():
            for _ in range(5):
                connection.transmit(SELECT)
                answered += 1
        assert caught.value.sent and answered == at - 1
        # A card that comes back is another card for this connection.
        pcscd.wait_for_card(reader, present=False)
        pcscd.insert(SmallCard(), reader)
        with pytest.raises(CardRemoved):
            connection.transmit(SELECT)
        with pytest.raises(CardRemoved):
            connection.reconnect()
    with connect(reader) as connection:
        assert connection.transmit(SELECT) == b"\x90\x00"


def test_empty_slot_and_unknown_reader(pcscd: Pcscd) -> None:
    with pytest.raises(NoCard) as empty:
        connect(pcscd.readers[0])
    assert (empty.value.code, empty.value.sent, empty.value.reader) == ("NO_CARD", False, pcscd.readers[0])
    with pytest.raises(NoReader) as unknown:
        connect("No Such Reader")
    assert unknown.value.code == "NO_READER" and "No Such Reader" in str(unknown.value)


def test_pcscd_killed_and_started_again(pcscd: Pcscd) -> None:
    reader = pcscd.insert(SmallCard())
    connection = connect(reader)
    connection.transmit(SELECT)
    pcscd.kill()
    with pytest.raises(PcscNotRunning) as caught:
        connection.transmit(SELECT)
    assert caught.value.code == "PCSC_NOT_RUNNING" and caught.value.sent is False
    with pytest.raises(PcscNotRunning):
        readers()
    with pytest.raises(PcscNotRunning):
        connect(reader)
    pcscd.start()
    with pytest.raises(TransportError):
        connection.transmit(SELECT)
    connection.close()
    with connect(pcscd.insert(SmallCard())) as connection:
        assert connection.transmit(SELECT) == b"\x90\x00"


def test_pcscd_killed_in_the_middle_of_a_command_leaves_it_in_doubt(pcscd: Pcscd) -> None:
    card = HangingCard(0xCB)
    connection = connect(pcscd.insert(card))

    def kill() -> None:
        assert card.hangs.wait(10)
        card.release.set()
        pcscd.kill()

    threading.Thread(target=kill).start()
    with pytest.raises(PcscNotRunning) as caught, connection.transaction():
        connection.transmit(GET_DATA)
    assert caught.value.sent is True
    connection.close()


def test_a_command_that_does_not_come_back_in_time_is_given_up_and_cleaned_up(pcscd: Pcscd) -> None:
    card = HangingCard(0xCB)
    reader = pcscd.insert(card)
    connection = connect(reader, IMPATIENT)
    with pytest.raises(DeadlinePassed) as caught, connection.transaction():
        connection.transmit(SELECT)
        connection.transmit(GET_DATA)
    assert caught.value.sent is True and caught.value.code == "CARD_DEADLINE"
    assert card.hangs.is_set()
    with pytest.raises(ConnectionOver) as over:
        connection.transmit(SELECT)
    assert over.value.sent is False
    # When the call returns after all, its transaction ends and the card is let go without a reset.
    card.log.clear()
    card.release.set()
    with connect(reader) as other, other.transaction():
        other.transmit(SELECT)
    assert "reset" not in card.log and "off" not in card.log
    assert card.commands[-1] == SELECT
    connection.close()


def test_a_deadline_inside_handed_over_work_sends_nothing_more(pcscd: Pcscd) -> None:
    card = HangingCard(0xCB)
    reader = pcscd.insert(card)
    connection = connect(reader, IMPATIENT)
    answers: list[bytes] = []
    unwound = threading.Event()

    def work() -> None:
        try:
            for command in (SELECT, SELECT, GET_DATA, SELECT):
                answers.append(connection.transmit(command))
        finally:
            unwound.set()

    with pytest.raises(DeadlinePassed):
        connection.perform(work)
    assert answers == [b"\x90\x00"] * 2
    card.release.set()
    assert unwound.wait(10)
    assert card.commands == [SELECT, SELECT, GET_DATA] and len(answers) == 2
    connection.close()


def test_the_deadline_follows_the_algorithm_of_a_new_key(pcscd: Pcscd) -> None:
    card = HangingCard(0x47)
    reader = pcscd.insert(card)
    connection = connect(reader, IMPATIENT)

    def after_a_while() -> None:
        assert card.hangs.wait(10)
        threading.Timer(0.6, card.release.set).start()

    threading.Thread(target=after_a_while).start()
    assert connection.transmit(bytes.fromhex("0047009A05AC0380011600")) == b"\x90\x00"
    card.release.clear()
    with pytest.raises(DeadlinePassed):
        connection.transmit(bytes.fromhex("0047009A05AC0380011100"))
    card.release.set()
    connection.close()


def test_handed_over_work_runs_on_one_thread_and_returns_its_value(pcscd: Pcscd) -> None:
    with connect(pcscd.insert(SmallCard())) as connection:
        threads = {connection.perform(threading.get_ident) for _ in range(3)}
        assert len(threads) == 1 and threading.get_ident() not in threads
        assert connection.perform(lambda: connection.transmit(SELECT)) == b"\x90\x00"
        with pytest.raises(ZeroDivisionError):
            connection.perform(lambda: 1 // 0)


def test_close_is_final_quiet_and_repeatable(pcscd: Pcscd) -> None:
    connection = connect(pcscd.insert(SmallCard()))
    connection.close()
    connection.close()
    for use in (lambda: connection.transmit(SELECT), connection.reset, connection.reconnect):
        with pytest.raises(ConnectionOver) as caught:
            use()
        assert caught.value.sent is False


def test_a_frozen_pcscd_does_not_freeze_us(pcscd: Pcscd) -> None:
    pcscd.freeze()
    try:
        with pytest.raises(PcscNotRunning, match="does not answer"):
            readers(Deadlines(default=0.3))
    finally:
        pcscd.thaw()
    assert len(readers()) == 4


def test_an_empty_answer_is_a_card_that_broke_off(pcscd: Pcscd) -> None:
    with connect(pcscd.insert(SmallCard({0xA4: b""}))) as connection:
        with pytest.raises((CardRemoved, CardUnresponsive)) as caught:
            connection.transmit(SELECT)
        assert caught.value.sent is True
