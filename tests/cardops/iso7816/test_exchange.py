"""One logical command: chaining, GET RESPONSE, 6Cxx, extended length, and what a loss in the middle means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.iso7816.apdu import CommandAPDU, MalformedApdu
from cardwright_cardops.iso7816.exchange import MAX_ANSWER, BrokenExchange, Exchange, Limits
from cardwright_cardops.transport.connection import (
    CardRemoved,
    CardUnresponsive,
    Interface,
    Transmission,
    TransportError,
)
from tests.support.scripted import ScriptedCard

SHORT = Limits(extended=False)
EXTENDED = Limits(extended=True)
READ = CommandAPDU(0, 0xCB, 0x3F, 0xFF, b"\x5c\x01\x7e", 65536)
READ_SHORT = "00cb3fff 03 5c017e 00"
SELECT = CommandAPDU(0, 0xA4, 4, 0, b"\xa0\x00", 256)
SELECT_SHORT = "00a40400 02 a000 00"
SELECT_EXTENDED = "00a40400 000002 a000 0100"


def put(size: int) -> CommandAPDU:
    return CommandAPDU(0, 0xDB, 0x3F, 0xFF, bytes(index % 251 for index in range(size)))


def send(card: ScriptedCard, command: CommandAPDU, limits: Limits | None = SHORT) -> tuple[str, int]:
    response = Exchange(card, limits).send(command)
    card.done()
    return response.data.hex(), response.sw


def test_a_short_answer_takes_one_apdu() -> None:
    assert send(ScriptedCard([(READ_SHORT, "7e00 9000")]), READ) == ("7e00", 0x9000)


def test_get_response_collects_until_the_end() -> None:
    card = ScriptedCard(
        [(READ_SHORT, "aa" * 256 + "6100"), ("00c0000000", "bb" * 256 + "6102"), ("00c0000002", "cccc9000")]
    )
    assert send(card, READ) == ("aa" * 256 + "bb" * 256 + "cccc", 0x9000)


def test_an_overlong_fragment_is_taken() -> None:
    card = ScriptedCard([(READ_SHORT, "aa6101"), ("00c0000001", "bbbbbb9000")])
    assert send(card, READ) == ("aabbbbbb", 0x9000)


@pytest.mark.parametrize(
    ("cla", "get_response"),
    [(0x0C, "00c0000004"), (0x01, "01c0000004"), (0x0F, "03c0000004"), (0x3E, "02c0000004"), (0x3F, "03c0000004"),
     (0x41, "00c0000004"), (0x43, "00c0000004"), (0x84, "00c0000004")],
)  # fmt: skip
def test_get_response_is_plain_and_on_the_same_channel(cla: int, get_response: str) -> None:
    card = ScriptedCard([(f"{cla:02x}cb3fff 03 5c017e 00", "6104"), (get_response, "aabbccdd9000")])
    assert send(card, CommandAPDU(cla, 0xCB, 0x3F, 0xFF, b"\x5c\x01\x7e", 256)) == ("aabbccdd", 0x9000)


def test_a_card_that_never_ends_its_answer_is_stopped() -> None:
    idle = ScriptedCard([(READ_SHORT, "610a")] + [("00c000000a", "610a")] * 2)
    with pytest.raises(BrokenExchange) as caught:
        send(idle, READ)
    assert caught.value.sw == 0x610A
    data_first = ScriptedCard([(READ_SHORT, "aa610a")] + [("00c000000a", "610a")] * 3)
    with pytest.raises(BrokenExchange):
        send(data_first, READ)
    data_first.done()
    full = "aa" * 256 + "6100"
    endless = ScriptedCard([(READ_SHORT, full)] + [("00c0000000", full)] * (MAX_ANSWER // 256))
    with pytest.raises(BrokenExchange):
        send(endless, READ)
    endless.done()


def test_an_answer_as_large_as_allowed_is_taken() -> None:
    full = "aa" * 256 + "6100"
    script: list[tuple[str, str | TransportError]] = [(READ_SHORT, full)]
    script += [("00c0000000", full)] * (MAX_ANSWER // 256 - 2) + [("00c0000000", "aa" * 256 + "9000")]
    assert send(ScriptedCard(script), READ) == ("aa" * MAX_ANSWER, 0x9000)


def test_6c_sends_again_with_the_exact_le() -> None:
    card = ScriptedCard([(READ_SHORT, "6c05"), ("00cb3fff 03 5c017e 05", "01020304059000")])
    assert send(card, READ) == ("0102030405", 0x9000)
    whole = ScriptedCard([(READ_SHORT, "6c00"), (READ_SHORT, "01" * 256 + "9000")])
    assert send(whole, READ) == ("01" * 256, 0x9000)


def test_6c_twice_is_broken() -> None:
    card = ScriptedCard([(READ_SHORT, "6c05"), ("00cb3fff 03 5c017e 05", "6c06")])
    with pytest.raises(BrokenExchange, match="another length") as caught:
        send(card, READ)
    assert caught.value.sw == 0x6C06
    with_data = ScriptedCard([(READ_SHORT, "6c05"), ("00cb3fff 03 5c017e 05", "7e016c07")])
    with pytest.raises(BrokenExchange, match="another length") as caught:
        send(with_data, READ)
    assert caught.value.sw == 0x6C07


def test_6c_to_get_response() -> None:
    card = ScriptedCard([(READ_SHORT, "6100"), ("00c0000000", "6c03"), ("00c0000003", "0102039000")])
    assert send(card, READ) == ("010203", 0x9000)


def test_a_status_word_in_the_middle_of_an_answer_leaves_doubt() -> None:
    card = ScriptedCard([(READ_SHORT, "aa6101"), ("00c0000001", "6f00")])
    with pytest.raises(BrokenExchange) as caught:
        send(card, READ)
    assert caught.value.sw == 0x6F00
    warned = ScriptedCard([(READ_SHORT, "aa6101"), ("00c0000001", "bb6282")])
    assert send(warned, READ) == ("aabb", 0x6282)
    counted = ScriptedCard([(READ_SHORT, "aa6101"), ("00c0000001", "bb63c0")])
    assert send(counted, READ) == ("aabb", 0x63C0)
    nothing_yet = ScriptedCard([(READ_SHORT, "6104"), ("00c0000004", "6982")])
    assert send(nothing_yet, READ) == ("", 0x6982)


def test_a_long_command_is_chained() -> None:
    data = put(600).data
    card = ScriptedCard(
        [
            ("10db3fff ff" + data[:255].hex(), "9000"),
            ("10db3fff ff" + data[255:510].hex(), "9000"),
            ("00db3fff 5a" + data[510:].hex(), "9000"),
        ]
    )
    assert send(card, put(600)) == ("", 0x9000)


@pytest.mark.parametrize(("size", "blocks"), [(255, 1), (256, 2), (510, 2), (511, 3)])
def test_blocks_are_full(size: int, blocks: int) -> None:
    sent: list[int] = []

    class Counting(ScriptedCard):
        def transmit(self, command: bytes) -> bytes:
            sent.append(command[4])
            return b"\x90\x00"

    Exchange(Counting([]), SHORT).send(put(size))
    assert len(sent) == blocks and sum(sent) == size and set(sent[:-1]) <= {255}


def test_a_refused_block_leaves_doubt_and_names_its_word() -> None:
    data = put(300).data
    card = ScriptedCard([("10db3fff ff" + data[:255].hex(), "6a84")])
    with pytest.raises(BrokenExchange) as caught:
        send(card, put(300))
    assert caught.value.sw == 0x6A84


def test_a_refused_last_block_is_an_answer() -> None:
    data = put(300).data
    card = ScriptedCard([("10db3fff ff" + data[:255].hex(), "9000"), ("00db3fff 2d" + data[255:].hex(), "6a84")])
    assert send(card, put(300)) == ("", 0x6A84)


def test_the_first_apdu_lost_is_a_transport_error_a_later_one_a_doubt() -> None:
    lost = CardRemoved("gone", sent=False)
    with pytest.raises(CardRemoved) as first:
        send(ScriptedCard([(READ_SHORT, lost)]), READ)
    assert first.value.sent is False
    with pytest.raises(BrokenExchange) as second:
        send(ScriptedCard([(READ_SHORT, "6104"), ("00c0000004", lost)]), READ)
    assert second.value.sw is None and second.value.__cause__ is lost
    data = put(300).data
    head = ("10db3fff ff" + data[:255].hex(), "9000")
    with pytest.raises(BrokenExchange):
        send(ScriptedCard([head, ("00db3fff 2d" + data[255:].hex(), lost)]), put(300))
    with pytest.raises(CardRemoved):
        send(ScriptedCard([(head[0], lost)]), put(300))
    with pytest.raises(CardRemoved):
        send(ScriptedCard([(READ_SHORT, "6c05"), ("00cb3fff 03 5c017e 05", lost)]), READ)


def test_extended_length_is_used_where_it_saves_apdus() -> None:
    extended = "00cb3fff 000003 5c017e 0000"
    assert send(ScriptedCard([(extended, "aa" * 700 + "9000")]), READ, EXTENDED) == ("aa" * 700, 0x9000)
    assert send(ScriptedCard([("00200080", "63c3")]), CommandAPDU(0, 0x20, 0, 0x80), EXTENDED) == ("", 0x63C3)
    data = put(300).data.hex()
    assert send(ScriptedCard([("00db3fff 00012c" + data, "9000")]), put(300), EXTENDED) == ("", 0x9000)


def test_a_command_beyond_the_cards_limit_is_chained() -> None:
    data = put(300).data
    card = ScriptedCard([("10db3fff ff" + data[:255].hex(), "9000"), ("00db3fff 2d" + data[255:].hex(), "9000")])
    assert send(card, put(300), Limits(extended=True, max_command=299)) == ("", 0x9000)
    just = ScriptedCard([("00db3fff 00012c" + data.hex(), "9000")])
    assert send(just, put(300), Limits(extended=True, max_command=300)) == ("", 0x9000)
    unless_told = put(2038)
    card = ScriptedCard([("00db3fff 0007f6" + unless_told.data.hex(), "9000")])
    assert send(card, unless_told, EXTENDED) == ("", 0x9000)


def test_the_first_select_probes() -> None:
    card = ScriptedCard([(SELECT_EXTENDED, "61009000"), ("00cb3fff 000003 5c017e 0000", "7e009000")])
    exchange = Exchange(card)
    assert exchange.limits.extended is None
    assert exchange.send(SELECT).data.hex() == "6100"
    assert exchange.limits.extended is True
    assert exchange.send(READ).data.hex() == "7e00"
    card.done()


def test_6c_to_the_probe_stays_extended() -> None:
    card = ScriptedCard([(SELECT_EXTENDED, "6c05"), ("00a40400 000002 a000 0005", "01020304059000")])
    assert send(card, SELECT, None) == ("0102030405", 0x9000)


@pytest.mark.parametrize(
    "refusal", ["6700", "6e00", "6d00", "6a86", "6f00", "6883", "6f0284009000", "01026700"]
)
def test_a_card_that_refuses_or_misreads_the_probe_gets_short_apdus_for_good(refusal: str) -> None:
    card = ScriptedCard([(SELECT_EXTENDED, refusal), (SELECT_SHORT, "61009000"), (READ_SHORT, "7e009000")])
    exchange = Exchange(card)
    assert exchange.send(SELECT).data.hex() == "6100"
    assert exchange.limits.extended is False
    exchange.send(READ)
    card.done()


def test_a_card_without_the_application_still_tells_its_lengths() -> None:
    card = ScriptedCard([(SELECT_EXTENDED, "6a82")])
    exchange = Exchange(card)
    assert exchange.send(SELECT).sw == 0x6A82
    assert exchange.limits.extended is True


def test_a_reader_that_cannot_carry_the_probe_is_not_the_end() -> None:
    card = ScriptedCard([(SELECT_EXTENDED, CardUnresponsive("no answer")), (SELECT_SHORT, "61009000")])
    assert Exchange(card).send(SELECT).sw == 0x9000
    card.done()
    gone = ScriptedCard([(SELECT_EXTENDED, CardRemoved("gone"))])
    with pytest.raises(CardRemoved):
        Exchange(gone).send(SELECT)


def test_nothing_but_select_probes() -> None:
    card = ScriptedCard([(READ_SHORT, "7e009000")])
    exchange = Exchange(card)
    exchange.send(READ)
    assert exchange.limits.extended is None
    pin_first = ScriptedCard([("0020008008 3132333435360a0b", "63c2")])
    exchange = Exchange(pin_first)
    assert exchange.send(CommandAPDU(0, 0x20, 0, 0x80, b"123456\x0a\x0b")).sw == 0x63C2
    assert exchange.limits.extended is None
    pin_first.done()


def test_a_card_that_announced_too_much_falls_back_for_good() -> None:
    data = put(300).data
    card = ScriptedCard(
        [
            ("00db3fff 00012c" + data.hex(), "6700"),
            ("10db3fff ff" + data[:255].hex(), "9000"),
            ("00db3fff 2d" + data[255:].hex(), "9000"),
            (READ_SHORT, "7e009000"),
        ]
    )
    exchange = Exchange(card, EXTENDED)
    assert exchange.send(put(300)).sw == 0x9000
    assert exchange.limits.extended is False
    exchange.send(READ)
    card.done()


@pytest.mark.parametrize(
    ("transmission", "interface"),
    [(Transmission.T0, Interface.CONTACT), (Transmission.T1, Interface.CONTACTLESS)],
)
def test_t0_and_contactless_stay_short(transmission: Transmission, interface: Interface) -> None:
    le = "" if transmission is Transmission.T0 else "00"
    card = ScriptedCard(
        [("00a40400 02 a000" + le, "6102"), ("00c0000002", "61009000")], transmission=transmission, interface=interface
    )
    exchange = Exchange(card, EXTENDED)
    assert exchange.limits == SHORT
    assert exchange.send(SELECT).data.hex() == "6100"
    card.done()


def test_t0_keeps_le_of_a_command_without_data() -> None:
    card = ScriptedCard([("00fd000000", "6c03"), ("00fd000003", "0507009000")], transmission=Transmission.T0)
    assert Exchange(card).send(CommandAPDU(0, 0xFD, 0, 0, b"", 256)).data.hex() == "050700"
    card.done()


def test_an_answer_without_a_status_word_is_reported() -> None:
    for answer in ("", "90"):
        with pytest.raises(MalformedApdu):
            Exchange(ScriptedCard([(READ_SHORT, answer)]), SHORT).send(READ)


@given(size=st.integers(0, 5000), answer=st.integers(0, 3000), extended=st.booleans())
def test_any_sizes_arrive_whole(size: int, answer: int, extended: bool) -> None:
    """A tiny card that joins chains and hands out its answer by GET RESPONSE."""
    received: list[bytes] = []
    reply = bytes(index % 255 for index in range(answer))

    class Tiny(ScriptedCard):
        pending = b""
        chain = b""

        def transmit(self, command: bytes) -> bytes:
            apdu = CommandAPDU.parse(command)
            if apdu.ins != 0xC0:
                self.chain += apdu.data
                if apdu.cla & 0x10:
                    return b"\x90\x00"
                received.append(self.chain)
                self.chain, self.pending = b"", reply
            part, self.pending = self.pending[: apdu.le], self.pending[apdu.le :]
            left = min(len(self.pending), 256)
            return part + (bytes((0x61, left & 0xFF)) if left else b"\x90\x00")

    command = CommandAPDU(0, 0xDB, 0x3F, 0xFF, bytes(size), 65536)
    response = Exchange(Tiny([]), EXTENDED if extended else SHORT).send(command)
    assert received == [bytes(size)] and response.data == reply
