"""The trace: what it shows, and that no secret can appear in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.transport.connection import CardRemoved, Connection, Link
from cardwright_cardops.transport.trace import Entry, Trace, TracedConnection

T = TypeVar("T")
Pair = tuple[bytes, bytes | None]
"""A command and its answer; None: it was lost."""

OK = b"\x90\x00"
AID = bytes.fromhex("A00000030800001000")
SELECT = (CommandAPDU(0, 0xA4, 4, 0, AID, 256).encode(), b"\x61\x04" + OK)
PUBLIC = (0x5FC102, 0x5FC107, 0x5FC105, 0x5FC10D, 0x5FC10C, 0x5FC106, 0x5FC122, 0x5FFF01)
PROTECTED = (0x5FC109, 0x5FC103, 0x5FC108, 0x5FC121, 0x5FC123, 0x5FFF00, 0x5FC17F)


class Script:
    """A Connection that plays pairs back."""

    link = Link("R", b"\x3b\x00")

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = list(pairs)

    def transmit(self, command: bytes) -> bytes:
        expected, answer = self.pairs.pop(0)
        assert command == expected
        if answer is None:
            raise CardRemoved("The card is gone.")
        return answer

    def perform(self, work: Callable[[], T]) -> T:
        return work()

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()

    def reset(self) -> None: ...

    def close(self) -> None: ...


def play(pairs: list[Pair], trace: Trace | None = None) -> Trace:
    """The trace of a session."""
    trace = trace or Trace()
    connection: Connection = TracedConnection(Script(pairs), trace)
    for command, answer in pairs:
        if answer is None:
            with pytest.raises(CardRemoved):
                connection.transmit(command)
        else:
            assert connection.transmit(command) == answer
    return trace


def tag_list(tag: int) -> bytes:
    return encode(0x5C, tag.to_bytes((tag.bit_length() + 7) // 8, "big"))


def sent(command: CommandAPDU, *, extended: bool = False, answer: bytes = OK) -> list[Pair]:
    """The APDUs of ``command``: extended, or short and chained where it has to be."""
    if extended or len(command.data) <= 255:
        return [(command.encode(extended=extended), answer)]
    pairs: list[Pair] = []
    data = command.data
    while len(data) > 255:
        block = CommandAPDU(command.cla | 0x10, command.ins, command.p1, command.p2, data[:255])
        pairs.append((block.encode(), OK))
        data = data[255:]
    last = CommandAPDU(command.cla, command.ins, command.p1, command.p2, data, command.le)
    return [*pairs, (last.encode(), answer)]


def answered(command: CommandAPDU, answer: bytes, fragment: int = 256) -> list[Pair]:
    """``command`` and its answer in fragments fetched by GET RESPONSE."""
    parts = [answer[at : at + fragment] for at in range(0, len(answer), fragment)] or [b""]
    commands = [command.encode()] + [bytes.fromhex("00C0000000")] * (len(parts) - 1)
    return [
        (raw, part + (b"\x61\x00" if number < len(parts) - 1 else OK))
        for number, (raw, part) in enumerate(zip(commands, parts, strict=True))
    ]


def get_data(tag: int) -> CommandAPDU:
    return CommandAPDU(0, 0xCB, 0x3F, 0xFF, tag_list(tag), 256)


def put_data(tag: int, content: bytes) -> CommandAPDU:
    return CommandAPDU(0, 0xDB, 0x3F, 0xFF, tag_list(tag) + encode(0x53, content))


def test_a_public_object_is_shown_in_full_over_all_fragments() -> None:
    answer = encode(0x53, bytes(range(256)) * 3)
    entries = play([SELECT, *answered(get_data(0x5FC102), answer)]).entries
    assert [entry.instruction for entry in entries] == ["SELECT", "GET DATA", *["GET RESPONSE"] * 3]
    assert entries[0].data == AID and entries[0].answer == b"\x61\x04"
    assert b"".join(entry.answer or b"" for entry in entries[1:]) == answer
    assert {entry.tag for entry in entries[1:]} == {0x5FC102}
    assert [entry.sw for entry in entries[1:]] == [0x6100, 0x6100, 0x6100, 0x9000]


def test_what_is_written_to_a_public_object_is_shown_with_its_last_block() -> None:
    command = put_data(0x5FC105, bytes(600))
    entries = play([SELECT, *sent(command)]).entries
    assert [entry.data for entry in entries[1:]] == [None, None, command.data]
    assert [entry.tag for entry in entries[1:]] == [0x5FC105] * 3
    assert [entry.lc for entry in entries[1:]] == [255, 255, len(command.data) - 510]
    (whole,) = play([SELECT, *sent(command, extended=True)]).entries[1:]
    assert whole.data == command.data


def test_certificates_are_not_shown_where_nobody_is_to_be_named() -> None:
    answer, written = encode(0x53, bytes(range(256)) * 3), put_data(0x5FC10A, bytes(600))
    pairs = [SELECT, *answered(get_data(0x5FC105), answer), *sent(written), *answered(get_data(0x5FC102), answer)]
    shown, kept = (play(pairs, Trace(names=names)).entries for names in (True, False))
    assert [entry.lc for entry in kept] == [entry.lc for entry in shown]
    assert b"".join(entry.answer or b"" for entry in kept if entry.tag == 0x5FC105) == b""
    assert [entry.data for entry in kept if entry.tag == 0x5FC10A] == [None] * 3
    assert b"".join(entry.answer or b"" for entry in kept if entry.tag == 0x5FC102) == answer
    assert written.data in [entry.data for entry in shown]


@pytest.mark.parametrize("tag", [0x7E, 0x7F61])
def test_objects_without_a_template(tag: int) -> None:
    command = CommandAPDU(0, 0xDB, 0x3F, 0xFF, encode(tag, bytes(12)))
    (entry,) = play([SELECT, *sent(command)]).entries[1:]
    assert (entry.tag, entry.data) == (tag, command.data)


def test_a_new_public_key_version_serial_metadata_and_attestation_are_shown() -> None:
    key = encode(0x7F49, encode(0x86, bytes(65)))
    generate = CommandAPDU(0, 0x47, 0, 0x9A, bytes.fromhex("AC03800111"), 256)
    pairs = [SELECT, *answered(generate, key, 40)]
    for ins in (0xFD, 0xF8, 0xF7, 0xF9):
        pairs += answered(CommandAPDU(0, ins, 0, 0x9A, b"", 256), bytes((ins,)) * 5)
    entries = play(pairs).entries
    assert entries[1].data == generate.data
    assert (entries[1].answer or b"") + (entries[2].answer or b"") == key
    assert [entry.answer for entry in entries[3:]] == [bytes((ins,)) * 5 for ins in (0xFD, 0xF8, 0xF7, 0xF9)]


def test_what_is_protected_is_named_and_not_shown() -> None:
    secret = b"\xc5" * 300
    entries = play(
        [SELECT, *answered(get_data(0x5FC109), secret), *sent(put_data(0x5FC109, secret))]
    ).entries
    assert [(entry.tag, entry.answer) for entry in entries[1:]] == [(0x5FC109, None)] * 4
    assert [entry.data for entry in entries[1:]] == [tag_list(0x5FC109), None, None, None]


def test_nothing_is_shown_of_another_application() -> None:
    other = (CommandAPDU(0, 0xA4, 4, 0, bytes.fromhex("A0000005272101"), 256).encode(), OK)
    refused = (SELECT[0], b"\x6a\x82")
    asked = answered(get_data(0x5FC102), b"\x01\x02")
    for before in ([], [SELECT, other], [SELECT, refused]):
        assert play([*before, *asked]).entries[-1].answer is None
    assert play([SELECT, other, SELECT, *asked]).entries[-1].answer == b"\x01\x02"


@pytest.mark.parametrize("cla", [0x01, 0x04, 0x0C, 0x80, 0x84, 0x8C])
@pytest.mark.parametrize("ins", [0xCB, 0xDB, 0xF7, 0xA4, 0x47])
def test_nothing_is_shown_of_wrapped_commands(cla: int, ins: int) -> None:
    data = {0xCB: tag_list(0x5FC102), 0xDB: put_data(0x5FC102, b"\x01").data, 0xA4: AID, 0x47: b"\xac\x03\x80\x01\x11"}
    p1p2 = {0xA4: (4, 0)}.get(ins, (0x3F, 0xFF))
    command = CommandAPDU(cla, ins, *p1p2, data.get(ins, b""), 256)
    (entry,) = play([SELECT, (command.encode(), b"\x01" + OK)]).entries[1:]
    assert (entry.data, entry.answer, entry.tag) == (None, None, None)


def test_an_answer_that_nothing_announced_is_not_shown() -> None:
    more = (bytes.fromhex("00C0000000"), b"\xc5" * 8 + OK)
    finished = answered(get_data(0x5FC102), b"\x01")
    interrupted = [(get_data(0x5FC102).encode(), b"\x01\x61\x00"), (bytes.fromhex("00200080"), b"\x63\xc3")]
    for before in (finished, interrupted):
        assert play([SELECT, *before, more]).entries[-1].answer is None


def test_what_is_not_exactly_one_public_object_is_not_shown() -> None:
    public, secret = put_data(0x5FC105, bytes(600)), put_data(0x5FC109, b"\xc5" * 600)
    left_over = CommandAPDU(0, 0xDB, 0x3F, 0xFF, put_data(0x5FC102, b"\x01").data + b"\xc5" * 8)
    abandoned = sent(public)[:2] + sent(secret)
    for pairs in (sent(left_over), abandoned, sent(public)[:1] + sent(put_data(0x5FC109, b"\xc5" * 8))):
        assert all(entry.data is None for entry in play([SELECT, *pairs]).entries[1:])


def test_a_reset_and_a_new_transaction_are_forgotten_selections() -> None:
    trace = Trace()
    asked = answered(get_data(0x5FC102), b"\x01\x02")
    connection = TracedConnection(Script([SELECT, *asked, SELECT, *asked]), trace)
    connection.transmit(SELECT[0])
    connection.reset()
    connection.transmit(asked[0][0])
    connection.transmit(SELECT[0])
    with connection.transaction():
        connection.transmit(asked[0][0])
    assert [trace.entries[1].answer, trace.entries[3].answer] == [None, None]


def test_entries_tell_lengths_time_status_and_error() -> None:
    verify = CommandAPDU(0, 0x20, 0, 0x80, b"12345678").encode()
    trace = play([(verify, b"\x63\xc2"), (verify, None), (b"\x00\x20", b"\x67\x00")])
    wrong, lost, malformed = trace.entries
    assert (wrong.instruction, wrong.header.hex()) == ("VERIFY", "00200080")
    assert (wrong.lc, wrong.le, wrong.answered) == (8, 0, 0)
    assert (wrong.sw, wrong.error, wrong.data) == (0x63C2, "", None)
    assert (lost.sw, lost.error) == (None, "CARD_REMOVED")
    assert (malformed.instruction, malformed.header, malformed.lc) == ("no APDU", b"", 2)
    assert [entry.number for entry in trace.entries] == [1, 2, 3]
    assert wrong.seconds >= 0 and wrong.at <= lost.at
    assert trace.to_json()[0] == {
        "number": 1, "at": round(wrong.at, 6), "seconds": round(wrong.seconds, 6), "instruction": "VERIFY",
        "header": "00200080", "lc": 8, "le": 0, "answered": 0, "sw": "63C2",
    }  # fmt: skip
    assert "VERIFY" in wrong.text() and "63C2" in wrong.text() and "CARD_REMOVED" in lost.text()


def test_only_the_last_entries_are_kept() -> None:
    seen: list[Entry] = []
    trace = Trace(most_entries=5, most_octets=1000, on_entry=seen.append)
    asked = answered(get_data(0x5FC102), bytes(200))
    play([SELECT, *asked * 10], trace)
    assert [entry.number for entry in trace.entries] == [8, 9, 10, 11]
    assert sum(entry.octets for entry in trace.entries) <= 1000
    play([SELECT] * 20, trace)
    assert len(trace.entries) == 5 and len(seen) == 31


canaries = st.binary(min_size=8, max_size=40).map(lambda tail: b"\xc5\x5c" + tail).filter(lambda c: len(set(c)) > 5)
digits = st.text("0123456789", min_size=8, max_size=8).map(str.encode).filter(lambda pin: len(set(pin)) > 2)
fragments = st.sampled_from([7, 60, 256])
fill = st.sampled_from([0, 40, 250, 500])


@st.composite
def secret_operations(draw: st.DrawFn) -> tuple[list[Pair], bytes]:
    """Something that carries a secret, in one of the positions where secrets are."""
    secret = draw(st.one_of(canaries, digits))
    other = draw(digits)
    padded = bytes(draw(fill)) + secret
    extended = draw(st.booleans())
    kind = draw(st.integers(0, 12))
    match kind:
        case 0:
            pairs = sent(CommandAPDU(0, 0x20, 0, draw(st.sampled_from([0x80, 0x00, 0x98])), secret))
        case 1:
            pairs = sent(CommandAPDU(0, 0x24, 0, draw(st.sampled_from([0x80, 0x81])), other + secret))
        case 2:
            pairs = sent(CommandAPDU(0, 0x2C, 0, 0x80, secret + other))
        case 3:
            pairs = sent(CommandAPDU(0, 0x87, 7, 0x9D, encode(0x7C, encode(0x81, padded)), 256), extended=extended)
        case 4:
            command = CommandAPDU(0, 0x87, 7, 0x9D, encode(0x7C, b"\x82\x00"), 256)
            pairs = answered(command, encode(0x7C, encode(0x82, padded)), draw(fragments))
        case 5:
            pairs = sent(CommandAPDU(0, 0xFE, 7, 0x9C, encode(0x01, padded)), extended=extended)
        case 6:
            pairs = sent(CommandAPDU(0, 0xFF, 0xFF, 0xFF, b"\x0a\x9b\x18" + secret))
        case 7:
            pairs = sent(put_data(draw(st.sampled_from(PROTECTED)), padded), extended=extended)
        case 8:
            pairs = answered(get_data(draw(st.sampled_from(PROTECTED))), encode(0x53, padded), draw(fragments))
        case 9:
            cla = draw(st.sampled_from([0x0C, 0x04, 0x84, 0x80, 0x01]))
            ins = draw(st.sampled_from([0xCB, 0xDB, 0x47, 0xA4, 0x87, 0xF7, 0x50, 0xD8, 0xE2, 0xC0]))
            public = tag_list(0x5FC102)
            data = draw(st.sampled_from([padded[-200:], public, public + encode(0x53, padded[-200:])]))
            pairs = [(CommandAPDU(cla, ins, 0x3F, 0xFF, data, 256).encode(), padded[-200:] + OK)]
        case 10:
            raw = draw(st.sampled_from([b"\x00\x20\x00\x80\xf0", b"\x00\xdb\x3f\xff\xf0", b""])) + secret
            pairs = [(raw, OK)] if raw[:1] == b"\x00" else [(secret[:3], secret + OK)]
        case 11:  # asked for out of turn
            pairs = [(bytes.fromhex("00200080"), b"\x63\xc3"), (bytes.fromhex("00C0000000"), padded[-200:] + OK)]
        case _:  # another application answers
            select = CommandAPDU(0, 0xA4, 4, 0, bytes.fromhex("A0000005272101"), 256).encode()
            pairs = [(select, OK), *answered(get_data(0x5FC102), padded, draw(fragments)), SELECT]
    return pairs, secret


@st.composite
def public_operations(draw: st.DrawFn) -> list[Pair]:
    tag = draw(st.sampled_from(PUBLIC))
    if draw(st.booleans()):
        return answered(get_data(tag), encode(0x53, bytes(draw(fill))), draw(fragments))
    return sent(put_data(tag, bytes(draw(fill))), extended=draw(st.booleans()))


@st.composite
def sessions(draw: st.DrawFn) -> tuple[list[Pair], list[bytes]]:
    """Public and secret operations after each other; some stop in the middle, some commands are lost."""
    pairs: list[Pair] = [SELECT] if draw(st.booleans()) else []
    secrets: list[bytes] = []
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.booleans()):
            more = draw(public_operations())
        else:
            more, secret = draw(secret_operations())
            secrets.append(secret)
        if draw(st.integers(0, 3)) == 0:
            more = more[: draw(st.integers(0, len(more)))]
        if more and draw(st.integers(0, 5)) == 0:
            more[-1] = (more[-1][0], draw(st.sampled_from([None, b"\x69\x82", b"\x6f\x00"])))
        pairs += more
    return pairs, secrets


def forms(secret: bytes) -> list[str]:
    """The ways in which octets get into a text, each for the first and the last 6 octets, too."""
    found: list[str] = []
    for part in (secret, secret[:6], secret[-6:]):
        found += [part.hex(), part.hex().upper(), part.hex(" "), repr(part)[2:-1], str(list(part))[1:-1]]
    found += [base64.b64encode(secret).decode().rstrip("="), secret.decode("latin-1")]
    return found


@given(sessions())
def test_no_secret_appears_in_any_form(session: tuple[list[Pair], list[bytes]]) -> None:
    pairs, secrets = session
    trace = play(pairs)
    entries = [replace(entry, at=0.0, seconds=0.0) for entry in trace.entries]  # digits of clocks are no PINs
    texts = "\n".join(f"{json.dumps(entry.to_json())}\n{entry!r}\n{entry.text()}" for entry in entries)
    for secret in secrets:
        for form in forms(secret):
            assert form not in texts, f"{form!r} is in the trace"
    assert len(trace.entries) == len(pairs)


@given(st.lists(public_operations(), min_size=1, max_size=5))
def test_everything_public_appears(operations: list[list[Pair]]) -> None:
    trace = play([SELECT, *(pair for operation in operations for pair in operation)])
    shown = sum(len(entry.answer or b"") for entry in trace.entries)
    assert shown == sum(entry.answered for entry in trace.entries)
    written = sum(len(entry.data or b"") for entry in trace.entries)
    assert written == sum(entry.lc for entry in trace.entries)
