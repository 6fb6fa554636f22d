"""Errors on the wire keep code, texts and what the card said, and come back as a type that callers know."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops import wire, wire_reading
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.exchange import BrokenExchange
from cardwright_cardops.iso7816.status import error_for
from cardwright_cardops.piv.pins import LastTry, NoPin
from cardwright_cardops.program.items import ItemRefused, UnexpectedAnswer
from cardwright_cardops.transport import connection
from cardwright_cardops.transport.connection import TransportError
from cardwright_proto.card.v1 import errors_pb2 as pb


def travel(error: CardwrightError) -> CardwrightError:
    raw = wire.error_to_wire(error).SerializeToString()
    return wire.error_from_wire(wire.parse(raw, pb.Error))


@pytest.mark.parametrize(
    "error",
    [
        connection.CardRemoved("The card is gone.", reader="Reader 0", sent=False),
        connection.CardRemoved("The card is gone.", reader="Reader 0", sent=True),
        connection.CardReset("The card was reset.", effect="E.", advice="A."),
        connection.ReaderGone("The reader is gone."),
        connection.CardBusy("The card is busy.", holders=("gpg",)),
        ItemRefused("Refused."),
        UnexpectedAnswer("Other data."),
        NoPin("No PIN."),
        BrokenExchange("Stopped.", 0x6581),
        BrokenExchange("Stopped.", None),
    ],
)
def test_errors_that_callers_tell_apart_keep_their_type(error: CardwrightError) -> None:
    back = travel(error)
    assert type(back) is type(error)
    assert (back.code, back.message, back.effect, back.advice) == (
        error.code,
        error.message,
        error.effect,
        error.advice,
    )
    for name in ("reader", "sent", "sw"):
        assert getattr(back, name, None) == getattr(error, name, None)


def test_other_errors_keep_code_and_values() -> None:
    last = travel(LastTry(0x80, 1))
    assert isinstance(last, wire.RelayedError)
    assert (last.code, last.tries_left, last.sw) == ("LAST_TRY", 1, None)
    wrong = travel(error_for(0x63C2, "verifying the PIN"))
    assert isinstance(wrong, wire.RelayedError)
    assert (wrong.code, wrong.tries_left, wrong.sw) == ("VERIFICATION_FAILED", 2, 0x63C2)
    assert wire.RelayedError.code == "RELAYED", "the code of one error must not become that of all"


def test_unknown_transport_error_is_still_one() -> None:
    back = wire.error_from_wire(pb.Error(code="CARD_MELTED", message="Hot.", reader="R", sent=False))
    assert isinstance(back, TransportError)
    assert (back.code, back.reader, back.sent) == ("CARD_MELTED", "R", False)


def test_long_and_odd_texts_are_cut_and_cleaned_before_they_travel() -> None:
    back = travel(NoPin("line\nend\x1b[31m" + "x" * 1000))
    assert back.message.startswith("line end [31mx")
    assert len(back.message) == wire_reading.MAX_TEXT


@pytest.mark.parametrize(
    "message",
    [
        pb.Error(),
        pb.Error(code="", message="x"),
        pb.Error(code="lower", message="x"),
        pb.Error(code="A" * 65, message="x"),
        pb.Error(code="A", message="x" * 601),
        pb.Error(code="A", message="a\x1b[2J"),
        pb.Error(code="A", message="a", advice="\n"),
        pb.Error(code="A", message="a", effect="\x00"),
        pb.Error(code="A", message="a", reader="\x00", sent=True),
        pb.Error(code="A", message="a", sw=0x100),
        pb.Error(code="A", message="a", tries_left=256),
    ],
)
def test_broken_errors_are_malformed(message: pb.Error) -> None:
    with pytest.raises(wire.WireMalformed):
        wire.error_from_wire(message)


def test_unknown_field_of_an_error_is_unsupported() -> None:
    message = pb.Error(code="A", message="a")
    message.MergeFromString(b"\xfa\x3f\x01x")
    with pytest.raises(wire.WireUnsupported):
        wire.error_from_wire(message)


@given(st.binary(max_size=120))
def test_random_octets_raise_only_the_documented_errors(raw: bytes) -> None:
    with contextlib.suppress(wire.WireMalformed, wire.WireUnsupported):
        wire.error_from_wire(wire.parse(raw, pb.Error))
