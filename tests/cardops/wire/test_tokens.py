"""Steps for PKCS#11 tokens and their answers on the wire: there and back, and nothing that does not belong there."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops import wire_tokens as wire
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.token import StepNotDone, TokenAnswer, TokenFeatures, TokenName, is_number
from cardwright_cardops.program import token_items as t
from cardwright_cardops.program.items import Outcome
from cardwright_cardops.secret import Secret
from cardwright_cardops.wire_reading import WireMalformed, WireUnsupported, parse
from cardwright_proto.card.v1 import tokens_pb2

SLOTS, ALGORITHMS = st.sampled_from(list(Slot)), st.sampled_from(list(Algorithm))
SECRETS = st.binary(min_size=1, max_size=64).map(Secret)
TEXTS = st.text(st.characters(categories=("L", "N", "Zs"), exclude_characters="\xa0\u3000"), max_size=32).filter(
    str.isprintable
)
ITEMS: st.SearchStrategy[t.TokenItem] = st.one_of(
    st.just(t.ReadToken()),
    st.builds(t.ProveToken, st.binary(min_size=8, max_size=64)),
    st.builds(t.SetSoPin, SECRETS, SECRETS),
    st.builds(t.InitPin, SECRETS),
    st.builds(t.MakeTokenKey, SLOTS, ALGORITHMS, st.booleans()),
    st.builds(t.RequestTokenCertificate, SLOTS, st.binary(min_size=2, max_size=99)),
    st.builds(t.PutTokenKey, SLOTS, ALGORITHMS, st.binary(min_size=16, max_size=99).map(Secret)),
    st.builds(t.PutTokenCertificate, SLOTS, st.binary(min_size=16, max_size=99)),
    st.builds(t.RemoveToken, SLOTS, st.text("0123456789abcdef", max_size=64)),
)
FEATURES = st.builds(
    TokenFeatures,
    st.builds(TokenName, TEXTS, TEXTS.filter(bool), TEXTS, TEXTS),
    TEXTS,
    st.frozensets(ALGORITHMS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    TEXTS,
)


@given(st.lists(ITEMS, min_size=1, max_size=9))
def test_steps_come_back_as_they_were(items: list[t.TokenItem]) -> None:
    batch = t.TokenBatch(tuple(items))
    raw = wire.steps_to_wire(batch).SerializeToString()
    assert wire.steps_from_wire(parse(raw, tokens_pb2.TokenBatch)) == batch


@given(FEATURES)
def test_what_a_token_is_comes_back_as_it_was(features: TokenFeatures) -> None:
    raw = wire.token_to_wire(features).SerializeToString()
    assert wire.token_from_wire(parse(raw, tokens_pb2.Token)) == features


@given(st.binary(max_size=300))
def test_any_octets_are_steps_or_a_documented_error(raw: bytes) -> None:
    with contextlib.suppress(WireMalformed, WireUnsupported):
        wire.steps_from_wire(parse(raw, tokens_pb2.TokenBatch))


def test_every_kind_of_step_has_a_name_and_a_field() -> None:
    fields = [field.name for field in tokens_pb2.TokenItem.DESCRIPTOR.oneofs_by_name["kind"].fields]
    assert list(t.TOKEN_ITEMS.values()) == fields


def test_answers_have_the_shape_of_their_steps() -> None:
    batch = t.TokenBatch((t.ReadToken(), t.InitPin(Secret(b"1234"))))
    cause = StepNotDone("It was not done.")
    answers = (
        TokenAnswer(Outcome.ANSWERED, seen=Inventory(), broken=frozenset({Slot.SIGNATURE})),
        TokenAnswer(Outcome.IN_DOUBT, cause=cause),
    )
    message = wire.step_answers_to_wire(answers)
    back = wire.step_answers_from_wire(message, batch)
    assert (back[0], back[1].outcome) == (answers[0], Outcome.IN_DOUBT)
    assert back[1].cause is not None and back[1].cause.code == cause.code
    with pytest.raises(WireMalformed):
        wire.step_answers_from_wire(message, t.TokenBatch(batch.items[:1]))
    with pytest.raises(WireMalformed):
        wire.step_answers_from_wire(message, t.TokenBatch(batch.items[::-1]))


def _changed(**values: Any) -> tokens_pb2.TokenAnswers:
    message = tokens_pb2.TokenAnswers()
    row = message.answers.add(outcome=1)
    for name, value in values.items():
        if name == "error":
            row.error.code = "X"
        else:
            setattr(row, name, value)
    return message


@pytest.mark.parametrize(
    "message",
    [_changed(outcome=0), _changed(error=True), _changed(data=b"1", outcome=3), _changed(data=bytes(1 << 16))],
    ids=["no outcome", "done with an error", "data of a step that was not done", "too long"],
)
def test_answers_that_contradict_themselves_are_refused(message: tokens_pb2.TokenAnswers) -> None:
    with pytest.raises(WireMalformed):
        wire.step_answers_from_wire(message, t.TokenBatch((t.InitPin(Secret(b"1234")),)))


def test_a_token_without_any_name_is_none() -> None:
    with pytest.raises(WireMalformed):
        wire.token_from_wire(tokens_pb2.Token(module="softhsm2"))


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_a_name_gives_one_uuid_and_a_number_that_fits(label: str, serial: str, maker: str, model: str) -> None:
    name = TokenName(label, serial, maker, model)
    assert name.guid == TokenName(label, serial, maker, model).guid
    assert len(name.number) <= 40 and name.number.isascii() and name.number.isprintable()
    assert is_number(name.number), "it could not be registered"
    assert TokenName(label + "x", serial, maker, model).guid != name.guid
    assert TokenName(label, serial + "x", maker, model).guid != name.guid


def test_long_names_of_makers_still_tell_tokens_apart() -> None:
    maker = "M" * 32
    numbers = {TokenName("", serial, maker, "").number for serial in ("0123456789abcdef", "0123456789abcdee")}
    numbers |= {TokenName("", "0123456789abcdef", "M" * 31 + "N", "").number}
    assert len(numbers) == 3 and max(map(len, numbers)) <= 40
