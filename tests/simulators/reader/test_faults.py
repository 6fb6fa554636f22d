"""Faults: the script's grammar, and what each does to a command, its answer and the card."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.transport.connection import CardRemoved, CardReset, CardUnresponsive, TransportError
from cardwright_simulators.reader.faults import Effect, Fault, FaultSyntaxError, FaultyCard, parse
from tests.support.cards import SmallCard

SELECT = bytes.fromhex("00A4040005A000000308")
GET = bytes.fromhex("00CB3FFF055C035FC10200")
PUT = bytes.fromhex("00DB3FFF00")
ANSWER = bytes.fromhex("530401020304") + b"\x90\x00"


def faulty(script: str) -> tuple[SmallCard, FaultyCard]:
    card = SmallCard({0xCB: ANSWER})
    return card, FaultyCard(card, script)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("apdu=7:lost", Fault(Effect.LOST, 7)),
        ("ins=CB:remove", Fault(Effect.REMOVE, 1, 0xCB)),
        ("ins=db@3:full", Fault(Effect.FULL, 3, 0xDB)),
        ("apdu=2+:unsent", Fault(Effect.UNSENT, 2, lasting=True)),
        ("apdu=1:slow=1.5", Fault(Effect.SLOW, 1, value=1.5)),
        ("apdu=1:truncate=4", Fault(Effect.TRUNCATE, 1, value=4)),
        ("apdu=1:truncate", Fault(Effect.TRUNCATE, 1)),
        ("apdu=1:sw=6A84", Fault(Effect.STATUS, 1, value=0x6A84)),
        ("apdu=1:select=A000000527", Fault(Effect.SELECT, 1, aid=bytes.fromhex("A000000527"))),
    ],
)
def test_what_a_script_says(script: str, fault: Fault) -> None:
    assert parse(script) == (fault,)


def test_several_faults_in_one_script() -> None:
    assert parse("apdu=1:lost, ins=CB:remove") == (Fault(Effect.LOST, 1), Fault(Effect.REMOVE, 1, 0xCB))
    assert parse("") == ()


@pytest.mark.parametrize(
    "script",
    [
        "lost", "apdu=7", "apdu=x:lost", "apdu=0:lost", "ins=C:lost", "ins=CB@0:lost", "apdu=1:burn", "apdu=1:",
        "apdu=1:lost=3", "apdu=1:slow", "apdu=1:slow=", "apdu=1:slow=nan", "apdu=1:slow=-1", "apdu=1:slow=x",
        "apdu=1:sw=90", "apdu=1:truncate=", "apdu=1:truncate=-1", "apdu=1:select=A0", "apdu=1:select=zz",
        "apdu=-1:lost", "apdu=1:sw=+123",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(script: str) -> None:
    with pytest.raises(FaultSyntaxError) as caught:
        parse(script)
    assert caught.value.code == "SIM_FAULT_SYNTAX" and "apdu=N" in caught.value.advice


@given(st.text(alphabet="apduins=0123456789ABCDEF@+:,.losttruncateslow-xreset ", max_size=40))
def test_any_text_is_read_or_refused(script: str) -> None:
    with contextlib.suppress(FaultSyntaxError):
        assert all(fault.number >= 1 for fault in parse(script))


@pytest.mark.parametrize(
    ("effect", "error", "executed"),
    [
        ("unsent", CardUnresponsive, False), ("lost", CardUnresponsive, True),
        ("remove", CardRemoved, False), ("remove-after", CardRemoved, True),
    ],
)  # fmt: skip
def test_a_lost_command_and_a_lost_answer_look_the_same(
    effect: str, error: type[TransportError], executed: bool
) -> None:
    card, faulty_card = faulty(f"apdu=2:{effect}")
    faulty_card.transmit(SELECT)
    with pytest.raises(error) as caught:
        faulty_card.transmit(GET)
    assert caught.value.sent is True
    assert card.commands == [SELECT, GET][: 1 + executed]


def test_damaged_answers() -> None:
    card, faulty_card = faulty("ins=CB@1:corrupt,ins=CB@2:truncate=3,ins=CB@3:truncate,ins=A4:corrupt")
    assert faulty_card.transmit(GET) == bytes.fromhex("ACFBFEFDFCFB") + b"\x90\x00"
    assert faulty_card.transmit(GET) == ANSWER[:3]
    assert faulty_card.transmit(GET) == ANSWER[:4]
    assert faulty_card.transmit(GET) == ANSWER
    assert faulty_card.transmit(SELECT) == b"\x6f\xff"
    assert card.commands == [GET] * 4 + [SELECT]


def test_refusals_are_not_executed() -> None:
    card, faulty_card = faulty("ins=DB@2:full,ins=CB:sw=6982")
    assert [faulty_card.transmit(PUT) for _ in range(3)] == [b"\x90\x00", b"\x6a\x84", b"\x90\x00"]
    assert faulty_card.transmit(GET) == b"\x69\x82"
    assert card.commands == [PUT, PUT]


def test_lasting_faults_strike_until_the_end() -> None:
    _, faulty_card = faulty("ins=DB@2+:full")
    assert [faulty_card.transmit(PUT)[0] for _ in range(4)] == [0x90, 0x6A, 0x6A, 0x6A]
    assert len(faulty_card.struck) == 3


def test_a_reset_by_another_program_keeps_the_command_back() -> None:
    card, faulty_card = faulty("apdu=2:reset")
    faulty_card.transmit(SELECT)
    with pytest.raises(CardReset) as caught:
        faulty_card.transmit(GET)
    assert caught.value.sent is False
    assert card.log == [SELECT, "reset"]
    assert faulty_card.transmit(GET) == ANSWER


def test_a_select_by_another_program_comes_before() -> None:
    card, faulty_card = faulty("apdu=1:select=A0000005271001")
    faulty_card.transmit(GET)
    assert card.commands == [bytes.fromhex("00A4040007A000000527100100"), GET]


def test_slow_waits_and_then_executes() -> None:
    waits: list[float] = []
    card = SmallCard({0xCB: ANSWER})
    faulty_card = FaultyCard(card, "apdu=1:slow=2.5", sleep=waits.append)
    assert faulty_card.transmit(GET) == ANSWER
    assert waits == [2.5] and card.commands == [GET]
