"""Batches and answers on the wire: both ways without loss, strict and bounded on the way in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops import wire, wire_reading
from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.program.items import (
    Answer,
    Answers,
    AnyBatch,
    Apdu,
    Batch,
    Block,
    Group,
    Item,
    Outcome,
    Prove,
    SealedBatch,
    SealedItem,
    SetPin,
    SetPuk,
    SignIn,
    SignRequest,
    Unblock,
    UseKey,
    VerifyPin,
    Want,
)
from cardwright_cardops.secret import Secret
from cardwright_proto.card.v1 import programs_pb2 as pb

octet = st.integers(0, 255)
word = st.integers(0x6000, 0x9FFF)
stage = st.text(st.characters(categories=("L", "N")), max_size=10)
puk = st.binary(min_size=8, max_size=8).map(Secret)
nonce = st.binary(min_size=8, max_size=64)
commands = st.builds(CommandAPDU, octet, octet, octet, octet, st.binary(max_size=40), st.integers(0, 65536))
apdus = st.builds(
    Apdu,
    commands,
    st.frozensets(word, min_size=1, max_size=5),
    st.sampled_from(Want),
    st.none() | st.binary(min_size=32, max_size=32),
)
reference = st.sampled_from((0x80, 0x00))
items: st.SearchStrategy[Item] = st.one_of(
    apdus,
    st.builds(VerifyPin, reference),
    st.builds(SetPin, reference),
    st.builds(Unblock, puk),
    st.builds(Block, st.sampled_from((0x80, 0x81))),
    st.builds(SetPuk, puk, puk),
    st.builds(Prove, octet, octet, nonce),
    st.builds(SignRequest, octet, st.binary(min_size=2, max_size=60)),
    st.builds(SignIn, octet, st.text(st.characters(categories=("L", "N")), max_size=30), nonce),
)
groups = st.builds(Group, st.lists(items, min_size=1, max_size=4).map(tuple), st.booleans())
sealed_items = st.builds(
    SealedItem,
    st.binary(min_size=4, max_size=4),
    st.lists(st.binary(min_size=4, max_size=40), min_size=1, max_size=3).map(tuple),
)
batches: st.SearchStrategy[AnyBatch] = st.one_of(
    st.builds(Batch, st.lists(groups, max_size=4).map(tuple), stage),
    st.builds(SealedBatch, st.lists(sealed_items, max_size=4).map(tuple), stage),
)


def wants(batch: AnyBatch) -> list[list[Want]]:
    if isinstance(batch, SealedBatch):
        return [[Want.DATA for _ in batch.items]]
    return [[item.want if isinstance(item, Apdu) else Want.DATA for item in group.items] for group in batch.groups]


@st.composite
def answered(draw: st.DrawFn) -> tuple[AnyBatch, Answers]:
    def one(want: Want) -> Answer:
        outcome = draw(st.sampled_from(Outcome))
        if outcome is Outcome.NOT_SENT:
            return Answer(outcome)
        data = {
            Want.DATA: st.binary(max_size=40),
            Want.DIGEST: st.just(b"") | st.binary(min_size=32, max_size=32),
            Want.STATUS: st.just(b""),
        }[want]
        sw = word if outcome is Outcome.ANSWERED else st.none() | word
        return Answer(outcome, draw(sw), draw(data))

    batch = draw(batches)
    return batch, tuple(tuple(one(want) for want in group) for group in wants(batch))


@given(batches)
def test_batch_round_trip(batch: AnyBatch) -> None:
    raw = wire.batch_to_wire(batch).SerializeToString()
    assert wire.batch_from_wire(wire.parse(raw, pb.Batch)) == batch


@given(answered())
def test_answers_round_trip(case: tuple[AnyBatch, Answers]) -> None:
    batch, answers = case
    raw = wire.answers_to_wire(answers).SerializeToString()
    assert wire.answers_from_wire(wire.parse(raw, pb.Answers), batch) == answers


def test_free_use_of_a_key_has_no_wire_form() -> None:
    with pytest.raises(wire.WireUnsupported) as caught:
        wire.batch_to_wire(Batch((Group((UseKey(0x9A, 0x11, bytes(32)),)),)))
    assert caught.value.code == "WIRE_UNSUPPORTED"


SIZES = {
    "GET DATA of a CHUID": (Apdu(CommandAPDU(0, 0xCB, 0x3F, 0xFF, bytes.fromhex("5c035fc102"), 65536)), 26),
    "VERIFY": (VerifyPin(), 5),
    "new PUK": (SetPuk(Secret(bytes(8)), Secret(bytes(8))), 22),
    "proof": (Prove(0x9E, 0x11, bytes(16)), 25),
    "PUT DATA of 1000 octets": (Apdu(CommandAPDU(0, 0xDB, 0x3F, 0xFF, bytes(1000)), want=Want.STATUS), 1021),
}


@pytest.mark.parametrize(("item", "octets"), SIZES.values(), ids=SIZES)
def test_sizes_on_the_wire(item: Item, octets: int) -> None:
    message = wire.batch_to_wire(Batch((Group((item,)),)))
    assert message.open.groups[0].items[0].ByteSize() == octets


# ------------------------------------------------------------------------------------------- what is refused


def good() -> pb.Batch:
    apdu = Apdu(CommandAPDU(0, 0xCB, 0x3F, 0xFF, b"\x5c\x01\x7e", 256), expect=bytes(32))
    some = (apdu, VerifyPin(), SetPin(), Unblock(Secret(bytes(8))), SetPuk(Secret(bytes(8)), Secret(bytes(8))))
    more = (Prove(0x9E, 0x11, bytes(16)), SignRequest(0x9A, b"\x30\x00"), SignIn(0x11, "https://a.example", bytes(16)))
    return wire.batch_to_wire(Batch((Group(some + more),), "stage"))


def item(message: pb.Batch, index: int) -> pb.Item:
    return message.open.groups[0].items[index]


def unknown_field(message: Message) -> None:
    message.MergeFromString(b"\xfa\x3f\x01x")


Change = Callable[[pb.Batch], object]

UNSUPPORTED: dict[str, Change] = {
    "unknown field of the batch": unknown_field,
    "unknown field of a group": lambda m: unknown_field(m.open.groups[0]),
    "unknown kind of item": lambda m: unknown_field(m.open.groups[0].items.add()),
    "unknown field of an item": lambda m: unknown_field(item(m, 0).apdu),
    "unknown field of a key item": lambda m: unknown_field(item(m, 1).verify_pin),
    "unknown want": lambda m: item(m, 0).apdu.MergeFromString(b"\x28\x09"),
}
MALFORMED: dict[str, Change] = {
    "neither open nor sealed": lambda m: m.ClearField("open"),
    "item of no kind": lambda m: m.open.groups[0].items.add(),
    "empty group": lambda m: m.open.groups.add(),
    "too many groups": lambda m: [m.open.groups.add().items.add() for _ in range(wire_reading.MAX_ITEMS)],
    "too many items": lambda m: [m.open.groups[0].items.add() for _ in range(wire_reading.MAX_ITEMS)],
    "stage too long": lambda m: setattr(m, "stage", "s" * 65),
    "stage with a control character": lambda m: setattr(m, "stage", "a\nb"),
    "short header": lambda m: setattr(item(m, 0).apdu, "header", b"\x00\xcb\x3f"),
    "long header": lambda m: setattr(item(m, 0).apdu, "header", bytes(5)),
    "no header": lambda m: item(m, 0).apdu.ClearField("header"),
    "data too long": lambda m: setattr(item(m, 0).apdu, "data", bytes(65536)),
    "Le too large": lambda m: setattr(item(m, 0).apdu, "le", 65537),
    "nothing expected": lambda m: item(m, 0).apdu.ClearField("accept"),
    "too much expected": lambda m: item(m, 0).apdu.accept.extend([0x9000] * 64),
    "no status word": lambda m: item(m, 0).apdu.accept.append(0x5FFF),
    "status word too large": lambda m: item(m, 0).apdu.accept.append(0xA000),
    "want not given": lambda m: item(m, 0).apdu.ClearField("want"),
    "digest of 31": lambda m: setattr(item(m, 0).apdu, "expect", bytes(31)),
    "digest of 0": lambda m: setattr(item(m, 0).apdu, "expect", b""),
    "PIN reference not given": lambda m: item(m, 1).verify_pin.ClearField("reference"),
    "PUK as PIN": lambda m: setattr(item(m, 1).verify_pin, "reference", 0x81),
    "PUK as new PIN": lambda m: setattr(item(m, 2).set_pin, "reference", 0x81),
    "PUK of 7": lambda m: setattr(item(m, 3).unblock, "puk", bytes(7)),
    "old PUK of 9": lambda m: setattr(item(m, 4).set_puk, "old", bytes(9)),
    "no new PUK": lambda m: item(m, 4).set_puk.ClearField("new"),
    "no slot to prove": lambda m: item(m, 5).prove.ClearField("slot"),
    "slot of two octets": lambda m: setattr(item(m, 5).prove, "slot", 256),
    "algorithm of two octets": lambda m: setattr(item(m, 5).prove, "algorithm", 256),
    "nonce of 7": lambda m: setattr(item(m, 5).prove, "nonce", bytes(7)),
    "nonce of 65": lambda m: setattr(item(m, 7).sign_in, "nonce", bytes(65)),
    "no slot to sign for": lambda m: item(m, 6).sign_request.ClearField("slot"),
    "subject too long": lambda m: setattr(item(m, 6).sign_request, "subject", bytes(2049)),
    "no audience": lambda m: item(m, 7).sign_in.ClearField("audience"),
    "audience too long": lambda m: setattr(item(m, 7).sign_in, "audience", "a" * 601),
    "audience with a line end": lambda m: setattr(item(m, 7).sign_in, "audience", "https://a\n"),
}


@pytest.mark.parametrize("change", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unknown_things_in_a_batch_are_unsupported(change: Change) -> None:
    message = good()
    assert isinstance(wire.batch_from_wire(message), Batch)
    change(message)
    with pytest.raises(wire.WireUnsupported):
        wire.batch_from_wire(message)


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_broken_batches_are_malformed(change: Change) -> None:
    message = good()
    change(message)
    with pytest.raises(wire.WireMalformed):
        wire.batch_from_wire(message)


def test_limits_of_a_batch_are_reached() -> None:
    read = Apdu(CommandAPDU(0, 0xCB, 0x3F, 0xFF, bytes(65535), 65536))
    full = Batch((*tuple(Group((VerifyPin(),)) for _ in range(wire_reading.MAX_ITEMS - 1)), Group((read,))), "s" * 64)
    assert wire.batch_from_wire(wire.batch_to_wire(full)) == full


@pytest.mark.parametrize(
    "broken",
    [
        pb.SealedItem(header=bytes(4)),
        pb.SealedItem(header=bytes(3), apdus=[bytes(4)]),
        pb.SealedItem(header=bytes(4), apdus=[bytes(3)]),
        pb.SealedItem(header=bytes(4), apdus=[bytes(65545)]),
        pb.SealedItem(header=bytes(4), apdus=[bytes(4)] * 513),
    ],
    ids=["no commands", "short header", "short command", "long command", "too many commands"],
)
def test_broken_sealed_items_are_malformed(broken: pb.SealedItem) -> None:
    with pytest.raises(wire.WireMalformed):
        wire.batch_from_wire(pb.Batch(sealed=pb.SealedBatch(items=[broken])))


def test_too_many_sealed_items_are_malformed() -> None:
    fine = pb.SealedItem(header=bytes(4), apdus=[bytes(4)])
    with pytest.raises(wire.WireMalformed):
        wire.batch_from_wire(pb.Batch(sealed=pb.SealedBatch(items=[fine] * 513)))


OK = pb.Answer(outcome=pb.OUTCOME_ANSWERED, sw=0x9000)
ASKED = Batch((Group((Apdu(CommandAPDU(0, 0xCB, 0, 0)), Apdu(CommandAPDU(0, 0xCB, 0, 0), want=Want.STATUS))),))
DIGEST = Batch((Group((Apdu(CommandAPDU(0, 0xCB, 0, 0)), Apdu(CommandAPDU(0, 0xCB, 0, 0), want=Want.DIGEST))),))


def reply(*answers: pb.Answer) -> pb.Answers:
    return pb.Answers(groups=[pb.GroupAnswers(answers=answers)])


@pytest.mark.parametrize(
    ("message", "batch"),
    [
        (pb.Answers(), ASKED),
        (reply(OK), ASKED),
        (reply(OK, OK, OK), ASKED),
        (pb.Answers(groups=[pb.GroupAnswers(answers=[OK]), pb.GroupAnswers(answers=[OK])]), ASKED),
        (reply(OK, pb.Answer(outcome=pb.OUTCOME_ANSWERED)), ASKED),
        (reply(OK, pb.Answer(sw=0x9000)), ASKED),
        (reply(OK, pb.Answer(outcome=pb.OUTCOME_ANSWERED, sw=0x19000)), ASKED),
        (reply(OK, pb.Answer(outcome=pb.OUTCOME_NOT_SENT, sw=0x9000)), ASKED),
        (reply(pb.Answer(outcome=pb.OUTCOME_NOT_SENT, data=b"x"), OK), ASKED),
        (reply(pb.Answer(outcome=pb.OUTCOME_ANSWERED, sw=0x9000, data=bytes(65537)), OK), ASKED),
        (reply(OK, pb.Answer(outcome=pb.OUTCOME_ANSWERED, sw=0x9000, data=b"x")), ASKED),
        (reply(OK, pb.Answer(outcome=pb.OUTCOME_ANSWERED, sw=0x9000, data=bytes(31))), DIGEST),
        (reply(OK, pb.Answer(outcome=pb.OUTCOME_ANSWERED, sw=0x9000, data=bytes(33))), DIGEST),
    ],
)
def test_answers_that_do_not_fit_are_malformed(message: pb.Answers, batch: Batch) -> None:
    assert len(wire.answers_from_wire(reply(OK, OK), batch)[0]) == 2
    with pytest.raises(wire.WireMalformed):
        wire.answers_from_wire(message, batch)


def test_unknown_outcome_is_unsupported() -> None:
    odd = pb.Answer(sw=0x9000)
    odd.MergeFromString(b"\x08\x09")
    with pytest.raises(wire.WireUnsupported):
        wire.answers_from_wire(reply(OK, odd), ASKED)
    unknown = reply(OK, OK)
    unknown_field(unknown.groups[0].answers[1])
    with pytest.raises(wire.WireUnsupported):
        wire.answers_from_wire(unknown, ASKED)


# ------------------------------------------------------------------------------------------------------ fuzz


def decoded(raw: bytes) -> None:
    """Decode octets as everything; only the two documented errors may come out."""
    for decode in (
        lambda: wire.batch_from_wire(wire.parse(raw, pb.Batch)),
        lambda: wire.answers_from_wire(wire.parse(raw, pb.Answers), ASKED),
    ):
        with contextlib.suppress(wire.WireMalformed, wire.WireUnsupported):
            decode()


@given(st.binary(max_size=200))
def test_random_octets_raise_only_the_documented_errors(raw: bytes) -> None:
    decoded(raw)


@given(batches, st.data())
def test_damaged_messages_raise_only_the_documented_errors(batch: AnyBatch, data: st.DataObject) -> None:
    raw = bytearray(wire.batch_to_wire(batch).SerializeToString(deterministic=True))
    for _ in range(data.draw(st.integers(1, 4))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(octet)
    decoded(bytes(raw))


def test_messages_have_a_size() -> None:
    with pytest.raises(wire.WireMalformed):
        wire.parse(bytes(wire_reading.MAX_MESSAGE + 1), pb.Batch)
