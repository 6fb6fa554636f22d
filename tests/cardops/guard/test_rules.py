"""The rules one by one, with permits made by hand: what is allowed reaches the card, what is not does not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.guard import (
    Act,
    Allowed,
    Deny,
    Entry,
    GuardRefused,
    Identity,
    Operation,
    Permit,
    Rule,
    State,
    begin,
    in_order,
    judge,
    observe,
)
from cardwright_cardops.guard import operations as o
from cardwright_cardops.guard.rules import MAX_FREE_PROOFS
from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.iso7816.exchange import BrokenExchange
from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm, PinPolicy, TouchPolicy
from cardwright_cardops.piv.management_key import answer_witness
from cardwright_cardops.piv.responses import encode_public_key
from cardwright_cardops.piv.vendor import yubico
from cardwright_cardops.program.items import (
    NOT_SENT,
    Answer,
    Apdu,
    Batch,
    Group,
    Item,
    Outcome,
    Prove,
    SetPin,
    SetPuk,
    SignIn,
    SignRequest,
    Unblock,
    VerifyPin,
    Want,
)
from cardwright_cardops.secret import Secret
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.log import KeyUse, Verify, Write
from tests.support import guarded as g

KEY = ec.generate_private_key(ec.SECP256R1())
ISSUED = g.issue()
KEYS = {slot: g.fingerprint(public) for slot, public in ISSUED.keys.items()}
SELECT = Apdu(commands.select())
DONE = Answer(Outcome.ANSWERED, 0x9000)
MANAGE = Entry(o.Manage(0x0A), None, 9)


def state_for(*operations: Operation, confirmed: Iterable[Act] = (), identity: Identity | None = None) -> State:
    """A session in which these are permitted in this order, and the management key at any time."""
    permit = Permit(bytes(32), (*in_order(*operations), MANAGE), KEYS, frozenset(confirmed))
    state = begin(permit, identity or g.identity(ISSUED), plan=bytes(32))
    assert isinstance(state, State)
    return state


def batch(*items: Item, stage: str = g.STAGE) -> Batch:
    return Batch((Group((SELECT, *items), True),), stage)


def rule_of(state: State, *items: Item) -> Rule | None:
    """The rule by which the items are denied, None where they are allowed."""
    verdict = judge(state, batch(*items))
    return verdict.rule if isinstance(verdict, Deny) else None


def after(state: State, *pairs: tuple[Item, Answer]) -> State:
    """The state after these items were allowed and answered."""
    asked = batch(*(item for item, _ in pairs))
    assert isinstance(judge(state, asked), Allowed)
    return observe(state, asked, ((DONE, *(answer for _, answer in pairs)),))


def managed(operations: tuple[Operation, ...], *items: Item, confirmed: Iterable[Act] = ()) -> g.Bench:
    """The items executed under the guard on a managed card, the permit's own order."""
    permit = Permit(bytes(32), (*in_order(*operations), MANAGE), KEYS, frozenset(confirmed))
    bench = g.bench(ISSUED, KEY, permit)
    (answers,) = bench.execute(batch(Apdu(commands.management_witness(g.MANAGER.algorithm))))
    answer, _ = answer_witness(g.MANAGER, answers[1].data)
    result = bench.execute(Batch((Group((Apdu(answer), *items), True),), g.STAGE))
    assert [one.sw for one in result[0]] == [0x9000] * (1 + len(items))
    return bench


def writes(bench: g.Bench) -> list[Write]:
    return [one for one in bench.card.log if isinstance(one, Write)]


# ---------------------------------------------------------------------------------------------- acts that are typed

DISCOVERY = encode(0x7E, encode(0x4F, g.PIV_AID) + encode(0x5F2F, b"\x40\x00"))
SIGNER = g.container(g.certificate(KEY.public_key()))
ACTS: dict[str, tuple[Act, Operation, CommandAPDU, Write]] = {
    "pairing code": (
        Act.PAIRING_CODE, o.PutNamed(Act.PAIRING_CODE, g.sha256(b"code")),
        commands.put_data(0x5FC123, b"code"), Write("object", 0x5FC123),
    ),
    "signer": (
        Act.SM_SIGNER, o.PutNamed(Act.SM_SIGNER, g.sha256(SIGNER)),
        commands.put_data(0x5FC122, SIGNER), Write("object", 0x5FC122),
    ),
    "empty object": (
        Act.DELETE, o.Clear(0x5FC105), commands.put_data(0x5FC105, b""), Write("object deleted", 0x5FC105),
    ),
    "move": (Act.MOVE_KEY, o.MoveKey(0x9A, 0x82), yubico.move_key(0x9A, 0x82), Write("key moved", 0x82)),
    "delete": (Act.DELETE, o.DeleteKey(0x9C, KEYS[0x9C]), yubico.delete_key(0x9C), Write("key deleted", 0x9C)),
}  # fmt: skip


@pytest.mark.parametrize(("act", "operation", "command", "write"), ACTS.values(), ids=ACTS)
def test_acts_need_their_own_typed_confirmation(
    act: Act, operation: Operation, command: CommandAPDU, write: Write
) -> None:
    bench = managed((operation,), Apdu(command), confirmed=(act,))
    assert write.number in [one.number for one in writes(bench)]
    others = set(Act) - {act}
    assert rule_of(state_for(operation, confirmed=others), Apdu(command)) is Rule.FLOOR
    assert rule_of(state_for(confirmed=Act), Apdu(command)) in (Rule.FLOOR, Rule.ITEM)
    assert state_for(operation).permit.acts == {act}


def test_discovery_needs_its_own_typed_confirmation() -> None:
    # No card here takes it, so the guard alone is asked.
    operation, put = o.PutNamed(Act.DISCOVERY, g.sha256(DISCOVERY)), Apdu(commands.put_data(0x7E, DISCOVERY))
    assert rule_of(state_for(operation, confirmed=(Act.DISCOVERY,)), put) is None
    assert rule_of(state_for(operation, confirmed=set(Act) - {Act.DISCOVERY}), put) is Rule.FLOOR
    assert rule_of(state_for(o.PutObject(0x7E, g.sha256(DISCOVERY)), confirmed=Act), put) is Rule.FLOOR


def test_permits_hold_no_text_for_prompts() -> None:
    texts = [
        (kind.__name__, row.name)
        for kind in (*get_args(Operation), Entry, Permit, Identity)
        for row in fields(kind)
        if "str" in str(row.type)
    ]
    assert texts == [("SignIn", "audience")], "a URI that must be equal, not a sentence"


def test_acts_of_operations() -> None:
    assert {o.act_of(one) for one in (o.Manage(3), o.EnterPin(), o.MakeKey(0x9A, 0x11), o.PutObject(1, b""))} == {None}
    assert o.act_of(o.Reset()) is Act.RESET
    assert o.act_of(o.SetRetries(3, 3)) is Act.SET_RETRIES
    assert o.act_of(o.ChangeChannelKeys()) is Act.CHANNEL_KEYS


def test_tries_are_set_with_the_factory_puk_directly_after() -> None:
    operations = (o.SetRetries(5, 5), o.ChangePuk(), o.UnblockPin())
    permit = Permit(bytes(32), (*in_order(*operations), MANAGE, Entry(o.EnterPin(), None)), KEYS, frozenset(Act))
    bench = g.bench(ISSUED, KEY, permit)
    (answers,) = bench.execute(batch(Apdu(commands.management_witness(g.MANAGER.algorithm))))
    answer, _ = answer_witness(g.MANAGER, answers[1].data)
    renewal = SetPuk(Secret(b"12345678"), Secret(g.NEW_PUK))
    for early in ((Apdu(answer), renewal), (Apdu(answer), VerifyPin(), renewal)):
        with pytest.raises(GuardRefused):
            bench.execute(Batch((Group(early, True),), g.STAGE))
    tries = Apdu(yubico.set_retries(5, 5))
    with pytest.raises(GuardRefused):
        bench.execute(Batch((Group((Apdu(answer), VerifyPin(), tries)), Group((renewal,), True)), g.STAGE))
    items = (Apdu(answer), VerifyPin(), tries, renewal, Unblock(Secret(g.NEW_PUK)))
    (done,) = bench.execute(Batch((Group(items, True),), g.STAGE))
    assert [one.sw for one in done] == [0x9000] * 5
    assert [one for one in bench.card.log if isinstance(one, Verify)] == [
        Verify(0x80, True, 3), Verify(0x81, True, 5), Verify(0x81, True, 5)
    ]  # fmt: skip
    assert rule_of(bench.guarded.state, SetPuk(Secret(b"12345678"), Secret(g.PUK))) is Rule.PIN


# -------------------------------------------------------------------------------------------------------- policies

STRENGTH = {1: 0, 2: 1, 3: 2}


@pytest.mark.parametrize(("slot", "default"), [(0x9A, 2), (0x9C, 3), (0x9D, 2), (0x9E, 1), (0x82, 2)])
@pytest.mark.parametrize("imports", [False, True])
def test_pin_policy_is_no_weaker_than_shown(slot: int, default: int, imports: bool) -> None:
    if imports and slot in (0x9A, 0x9C, 0x9E):
        assert rule_of(state_for(o.ImportKey(slot, 0x11)), Apdu(yubico.import_key(slot, KEY))) is Rule.FLOOR
        return
    replaces = KEYS.get(slot)
    for shown, asked in itertools.product(PinPolicy, PinPolicy):
        if imports:
            state = state_for(o.ImportKey(slot, 0x11, shown, 0, replaces))
            command = yubico.import_key(slot, KEY, pin_policy=asked)
        else:
            state = state_for(o.MakeKey(slot, 0x11, shown, 0, replaces))
            command = commands.generate(slot, Algorithm.P256, pin_policy=asked)
        one, two = int(shown) or default, int(asked) or default
        fine = one == two if {one, two} & {4, 5} else STRENGTH[two] >= STRENGTH[one]
        assert rule_of(state, Apdu(command)) == (None if fine else Rule.ITEM), (slot, shown, asked)


def test_touch_policy_is_no_weaker_than_shown() -> None:
    strength = {0: 0, 1: 0, 3: 1, 2: 2}
    for shown, asked in itertools.product(TouchPolicy, TouchPolicy):
        state = state_for(o.MakeKey(0x9A, 0x11, 0, shown, KEYS[0x9A]))
        fine = strength[asked] >= strength[shown]
        command = commands.generate(0x9A, Algorithm.P256, touch_policy=asked)
        assert rule_of(state, Apdu(command)) == (None if fine else Rule.ITEM), (shown, asked)


@pytest.mark.parametrize("shown", [0, 9])
def test_policies_that_do_not_exist_are_refused(shown: int) -> None:
    for tag in (0xAA, 0xAB):
        data = encode(0xAC, encode(0x80, b"\x11") + encode(tag, b"\x09"))
        state = state_for(o.MakeKey(0x9A, 0x11, shown, shown, KEYS[0x9A]))
        assert rule_of(state, Apdu(CommandAPDU(0, 0x47, 0, 0x9A, data, 256))) is Rule.ITEM


@pytest.mark.parametrize("touch", [False, True])
def test_management_key_touch_is_no_weaker(touch: bool) -> None:
    for asked in (False, True):
        command = Apdu(yubico.set_management_key(g.NEW_MANAGER, touch=asked))
        wanted = None if asked or not touch else Rule.ITEM
        assert rule_of(state_for(o.SetManagementKey(0x0A, touch)), command) == wanted


# --------------------------------------------------------------------------------------------------- what is replaced

GENERATE = Apdu(commands.generate(0x9A, Algorithm.P256))


@pytest.mark.parametrize(
    ("shown", "allowed"),
    [(KEYS[0x9A], True), (KEYS[0x9C], False), (None, False), (b"", False)],
    ids=["named", "another", "none", "unread"],
)
def test_overwriting_needs_the_fingerprint(shown: bytes | None, allowed: bool) -> None:
    assert rule_of(state_for(o.MakeKey(0x9A, 0x11, replaces=shown)), GENERATE) == (None if allowed else Rule.ITEM)
    moved = o.MoveKey(0x9C, 0x9A, shown)
    move = Apdu(yubico.move_key(0x9C, 0x9A))
    assert rule_of(state_for(moved, confirmed=Act), move) == (None if allowed else Rule.FLOOR)


def test_metadata_of_another_key_in_the_slot_takes_the_permission_away() -> None:
    state = state_for(o.MakeKey(0x9A, 0x11, replaces=KEYS[0x9A]), o.MakeKey(0x9D, 0x11))
    ask = Apdu(yubico.get_metadata(0x9A))

    def told(key: Any) -> Answer:
        return replace(DONE, data=encode(0x01, b"\x11") + encode(0x04, encode_public_key(key)))

    assert rule_of(after(state, (ask, told(ISSUED.keys[0x9A]))), GENERATE) is None
    assert rule_of(after(state, (ask, told(KEY.public_key()))), GENERATE) is Rule.ITEM
    empty = Apdu(yubico.get_metadata(0x9A), frozenset((0x9000, 0x6A88)))
    gone = after(state, (empty, Answer(Outcome.ANSWERED, 0x6A88)))
    assert rule_of(gone, GENERATE) is Rule.ITEM
    there = replace(DONE, data=encode(0x01, b"\x53") + encode(0x04, b"?"))
    unread = after(state, (Apdu(yubico.get_metadata(0x9D)), there))
    assert rule_of(replace(unread, facts=replace(unread.facts, done=(1, 0, 0)), used=(1, 0, 0)),
                   Apdu(commands.generate(0x9D, Algorithm.P256))) is Rule.ITEM  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"\x01", encode(0x01, b"\x11"), encode(0x01, b"\x11\x11") + encode(0x04, b"x")])
def test_damaged_metadata_takes_the_permission_away(data: bytes) -> None:
    state = state_for(o.MakeKey(0x9A, 0x11, replaces=KEYS[0x9A]))
    told = after(state, (Apdu(yubico.get_metadata(0x9A)), replace(DONE, data=data)))
    assert rule_of(told, GENERATE) is Rule.ITEM
    other = after(state, (Apdu(yubico.get_metadata(0x81)), replace(DONE, data=data)))
    assert other.facts.factory == frozenset()
    assert rule_of(other, GENERATE) is None


# ------------------------------------------------------------------------------------------------- order and counts

CHUID = Apdu(commands.put_data(0x5FC102, b"chuid"))
PRINTED = Apdu(commands.put_data(0x5FC109, b"name"))
PUTS = (o.PutObject(0x5FC102, g.sha256(b"chuid")), o.PutObject(0x5FC109, g.sha256(b"name")))


def test_order_and_count() -> None:
    state = state_for(*PUTS)
    assert rule_of(state, CHUID, PRINTED) is None
    assert rule_of(state, PRINTED) is Rule.ITEM
    assert rule_of(state, PRINTED, CHUID) is Rule.ITEM
    assert rule_of(state, CHUID, CHUID) is Rule.ITEM
    first = after(state, (CHUID, DONE))
    assert rule_of(first, PRINTED) is None
    assert rule_of(first, CHUID) is Rule.ITEM
    second = after(first, (PRINTED, DONE))
    assert rule_of(second, PRINTED) is Rule.ITEM


def test_optional_entries_may_be_left_out_but_not_made_up_for() -> None:
    one, two = in_order(*PUTS)
    permit = Permit(bytes(32), (replace(one, optional=True), two))
    state = begin(permit, g.identity(ISSUED), plan=bytes(32))
    assert isinstance(state, State)
    assert rule_of(state, PRINTED) is None
    assert rule_of(state, PRINTED, CHUID) is Rule.ITEM
    assert rule_of(state, CHUID, PRINTED) is None


def test_entries_of_one_rank_come_in_any_order() -> None:
    permit = Permit(bytes(32), tuple(Entry(one, 1) for one in PUTS))
    state = begin(permit, g.identity(ISSUED), plan=bytes(32))
    assert isinstance(state, State)
    assert rule_of(state, PRINTED, CHUID) is rule_of(state, CHUID, PRINTED) is None


def test_attempts_of_a_ranked_entry_end_with_the_first_success() -> None:
    permit = Permit(bytes(32), (Entry(o.ChangePuk(), 0, 3),))
    state = begin(permit, g.identity(ISSUED), plan=bytes(32))
    assert isinstance(state, State)
    change, wrong = SetPuk(Secret(g.PUK), Secret(g.NEW_PUK)), Answer(Outcome.ANSWERED, 0x63C2)
    assert rule_of(after(state, (change, DONE)), change) is Rule.PIN
    twice = after(after(state, (change, wrong)), (change, wrong))
    assert rule_of(twice, change) is None
    assert rule_of(after(twice, (change, wrong)), change) is Rule.PIN


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (Answer(Outcome.ANSWERED, 0x6982), True),
        (Answer(Outcome.ANSWERED, 0x6A84), True),
        (Answer(Outcome.ANSWERED, 0x6700), True),
        (Answer(Outcome.ANSWERED, 0x6D00), True),
        (Answer(Outcome.ANSWERED, 0x6581), False),
        (Answer(Outcome.ANSWERED, 0x6400), False),
        (Answer(Outcome.ANSWERED, 0x9100), False),
        (Answer(Outcome.IN_DOUBT, 0x6581), False),
        (Answer(Outcome.IN_DOUBT), False),
        (NOT_SENT, True),
    ],
)
def test_only_what_surely_did_nothing_may_be_tried_again(answer: Answer, again: bool) -> None:
    state = after(state_for(*PUTS), (CHUID, answer))
    assert rule_of(state, CHUID) == (None if again else Rule.ITEM)
    assert rule_of(state, CHUID, PRINTED) == (None if again else Rule.ITEM)
    assert rule_of(state, PRINTED) is Rule.ITEM
    expected: set[bytes | None] = {g.GUID} if again else {g.GUID, None}
    assert state.guids == expected


@pytest.mark.parametrize("sw", [0x63C2, 0x6983, 0x6982, 0x6A80])
@pytest.mark.parametrize(
    ("item", "operation"),
    [
        (VerifyPin(), o.EnterPin()),
        (SetPin(), o.ChangePin()),
        (VerifyPin(0), o.EnterPin(0)),
        (Unblock(Secret(g.PUK)), o.UnblockPin()),
        (SetPuk(Secret(g.PUK), Secret(g.NEW_PUK)), o.ChangePuk()),
        (Prove(0x9A, 0x11, bytes(16)), o.ProveKey(0x9A)),
    ],
)
def test_refused_values_count(item: Item, operation: Operation, sw: int) -> None:
    state = state_for(operation)
    assert rule_of(state, item) is None
    denied = Rule.KEY if isinstance(item, Prove) else Rule.PIN
    assert rule_of(after(state, (item, Answer(Outcome.ANSWERED, sw))), item) is denied
    assert rule_of(after(state, (item, NOT_SENT)), item) is None


def test_management_key_attempts_count_whatever_is_answered() -> None:
    state = state_for()
    block = encode(0x7C, encode(0x80, bytes(16)) + encode(0x81, bytes(16)))
    attempt = Apdu(CommandAPDU(0, 0x87, 0x0A, 0x9B, block, 256))
    for _ in range(9):
        assert rule_of(state, attempt) is None
        state = after(state, (attempt, Answer(Outcome.ANSWERED, 0x6982)))
    assert rule_of(state, attempt) is Rule.ITEM
    assert rule_of(state_for(), Apdu(CommandAPDU(0, 0x87, 0x08, 0x9B, block, 256))) is Rule.ITEM


def test_free_proofs_have_a_limit() -> None:
    state, proof = state_for(), Prove(0x9E, 0x11, bytes(16))
    for number in range(MAX_FREE_PROOFS):
        assert rule_of(state, proof) is None
        state = after(state, (proof, DONE if number else Answer(Outcome.ANSWERED, 0x6982)))
    assert rule_of(state, proof) is Rule.KEY


def test_sign_in_is_for_the_audience_that_was_shown() -> None:
    state = state_for(o.SignIn("https://portal.example"))
    assert rule_of(state, SignIn(0x11, "https://portal.example", bytes(16))) is None
    for other in ("https://portal.example/", "http://portal.example", "https://portal.example.evil", ""):
        assert rule_of(state, SignIn(0x11, other, bytes(16))) is Rule.KEY


# --------------------------------------------------------------------------------------------------- what is certain


def test_selection_must_be_certain() -> None:
    state = state_for(*PUTS)
    other = Apdu(commands.select(), frozenset((0x9000, 0x6A82)))

    def denied(*groups: Group) -> bool:
        return isinstance(judge(state, Batch(groups, g.STAGE)), Deny)

    assert not denied(Group((SELECT, CHUID)))
    assert not denied(Group((SELECT,), True), Group((CHUID,)))
    assert denied(Group((SELECT,)), Group((CHUID,)))
    assert denied(Group((other, CHUID), True))
    assert denied(Group((CHUID,), True))
    selected = observe(state, Batch((Group((other,)),), g.STAGE), ((DONE,),))
    assert not isinstance(judge(selected, Batch((Group((CHUID,)),), g.STAGE)), Deny)
    assert isinstance(judge(selected, Batch((Group((CHUID,)),), "other")), Deny)
    failed = observe(state, Batch((Group((other,)),), g.STAGE), ((Answer(Outcome.ANSWERED, 0x6A82),),))
    assert isinstance(judge(failed, Batch((Group((CHUID,)),), g.STAGE)), Deny)


def test_what_may_fail_is_no_ground_for_what_follows() -> None:
    state = state_for(*PUTS)
    lenient = replace(CHUID, accept=frozenset((0x9000, 0x6982)))
    read = Apdu(commands.get_data(0x5FC109), want=Want.DIGEST)
    assert rule_of(state, CHUID, PRINTED, read) is None
    assert rule_of(state, lenient, PRINTED) is Rule.ITEM
    assert rule_of(state, CHUID, replace(PRINTED, accept=lenient.accept), read) is Rule.FLOOR
    apart = Batch((Group((SELECT,), True), Group((CHUID,)), Group((PRINTED,))), g.STAGE)
    assert isinstance(judge(state, apart), Deny)
    bound = Batch((Group((SELECT,), True), Group((CHUID,), True), Group((PRINTED,))), g.STAGE)
    assert isinstance(judge(state, bound), Allowed)


@pytest.mark.parametrize("want", [Want.DATA, Want.DIGEST, Want.STATUS])
def test_what_was_written_is_read_back_as_digest_only(want: Want) -> None:
    state = after(state_for(*PUTS), (CHUID, DONE), (PRINTED, DONE))
    read = Apdu(commands.get_data(0x5FC109), want=want)
    assert rule_of(state, read) == (Rule.FLOOR if want is Want.DATA else None)
    doubtful = after(state_for(*PUTS), (CHUID, DONE), (PRINTED, Answer(Outcome.IN_DOUBT)))
    assert rule_of(doubtful, read) is Rule.FLOOR


def test_requests_are_signed_for_keys_of_this_session_only() -> None:
    request = SignRequest(0x9A, g.NAME.public_bytes())
    state = state_for(o.MakeKey(0x9A, 0x11, replaces=KEYS[0x9A]), o.RequestCertificate(0x9A))
    assert rule_of(state, request) is Rule.KEY
    assert rule_of(state, GENERATE, request) is None
    assert rule_of(state, replace(GENERATE, accept=frozenset((0x9000, 0x6982))), request) is Rule.KEY
    for answer in (Answer(Outcome.IN_DOUBT), Answer(Outcome.ANSWERED, 0x6982)):
        assert rule_of(after(state, (GENERATE, answer)), request) is Rule.KEY


def test_answers_to_another_batch_end_the_session() -> None:
    state = state_for(*PUTS)
    for answers in ((), ((DONE, DONE), (DONE,)), ((DONE,),)):
        with pytest.raises(ValueError, match="zip"):
            observe(state, batch(CHUID), answers)
    odd = observe(state, batch(PRINTED), ((DONE, DONE),))
    assert rule_of(odd, CHUID) is Rule.PLAN


def test_a_broken_answer_of_one_group_does_not_undo_the_selection() -> None:
    state = state_for(*PUTS)
    both = Batch((Group((SELECT,), True), Group((Apdu(commands.get_data(0x5FC105)),)), Group((CHUID,))), g.STAGE)
    assert isinstance(judge(state, both), Allowed)
    broken = Answer(Outcome.IN_DOUBT, 0x6F00, cause=BrokenExchange("stopped", 0x6F00))
    seen = observe(state, both, ((DONE,), (broken,), (DONE,)))
    assert rule_of(seen, PRINTED) is None
    assert not isinstance(judge(seen, Batch((Group((PRINTED,)),), g.STAGE)), Deny)
    lost = observe(state, both, ((DONE,), (replace(broken, sw=None),), (NOT_SENT,)))
    assert isinstance(judge(lost, Batch((Group((CHUID,)),), g.STAGE)), Deny)
    assert rule_of(lost, CHUID) is None


def test_touched_slots_are_those_whose_key_may_be_another() -> None:
    state = state_for(o.MakeKey(0x9A, 0x11, replaces=KEYS[0x9A]))
    assert state.touched == frozenset()
    for answer in (DONE, Answer(Outcome.IN_DOUBT), Answer(Outcome.ANSWERED, 0x6581)):
        assert after(state, (GENERATE, answer)).touched == {0x9A}
    for answer in (NOT_SENT, Answer(Outcome.ANSWERED, 0x6982)):
        assert after(state, (GENERATE, answer)).touched == frozenset()


def test_an_executing_end_that_fails_ends_the_session() -> None:
    bench = g.bench(ISSUED, KEY)

    def fail(command: bytes) -> None:
        raise RuntimeError("out of memory")

    bench.socket.before = fail
    with pytest.raises(RuntimeError):
        bench.execute(batch(Apdu(commands.get_data(0x5FC102))))
    bench.socket.before = lambda command: None
    count = bench.card.apdu_count
    with pytest.raises(GuardRefused) as caught:
        bench.execute(batch(Apdu(commands.get_data(0x5FC102))))
    assert (caught.value.rule, bench.card.apdu_count) == (Rule.PLAN, count)


def test_changes_need_a_stage() -> None:
    state = state_for(*PUTS)
    denied = judge(state, Batch((Group((SELECT, CHUID), True),)))
    assert isinstance(denied, Deny)
    assert (denied.rule, denied.index) == (Rule.PLAN, 1)


# ---------------------------------------------------------------------------------------------------- factory values


def test_factory_puk_only_where_the_card_says_so() -> None:
    fresh = VirtualCard("yubikey-5.7")
    g.send(fresh, commands.select())
    change = SetPuk(Secret(b"12345678"), Secret(g.NEW_PUK))
    answer = replace(DONE, data=g.send(fresh, yubico.get_metadata(0x81)))
    ask = Apdu(yubico.get_metadata(0x81))
    state = state_for(o.ChangePuk())
    assert rule_of(state, change) is Rule.PIN
    told = after(state, (ask, answer))
    assert rule_of(told, change) is None
    assert rule_of(after(told, (change, DONE)), change) is Rule.PIN
    otherwise = replace(answer, data=answer.data.replace(b"\x05\x01\x01", b"\x05\x01\x00"))
    assert rule_of(after(told, (ask, otherwise)), change) is Rule.PIN
    assert rule_of(after(state, (Apdu(yubico.get_metadata(0x80)), answer)), change) is Rule.PIN


def test_factory_puk_once_on_a_card_without_chuid() -> None:
    permit = Permit(bytes(32), (Entry(o.ChangePuk(), 0, 5),))
    state = begin(permit, Identity(None, None, None), plan=bytes(32))
    assert isinstance(state, State)
    change = SetPuk(Secret(b"12345678"), Secret(g.NEW_PUK))
    assert rule_of(state, change) is None
    assert rule_of(state, change, change) is Rule.PIN
    assert rule_of(after(state, (change, Answer(Outcome.ANSWERED, 0x63C2))), change) is Rule.PIN
    own = SetPuk(Secret(g.PUK), Secret(g.NEW_PUK))
    assert rule_of(after(state, (change, Answer(Outcome.ANSWERED, 0x63C2))), own) is None


@given(
    st.builds(
        CommandAPDU, st.sampled_from((0x00, 0x80, 0x84)), st.integers(0, 255), st.integers(0, 255), st.integers(0, 255),
        st.binary(max_size=60), st.just(256),
    )
)  # fmt: skip
def test_any_command_is_judged_without_an_error(command: CommandAPDU) -> None:
    verdict = judge(state_for(*PUTS, confirmed=Act), batch(Apdu(command)))
    assert isinstance(verdict, (Allowed, Deny))
    if command.ins in (0x24, 0x2C) or (command.ins == 0x20 and command.data):
        assert isinstance(verdict, Deny)


def test_proof_uses_one_key_only() -> None:
    bench = managed(PUTS, CHUID, PRINTED)
    assert [one.slot for one in bench.card.log if isinstance(one, KeyUse)] == [0x9E]




# ------------------------------------------------------------------------------------------- certificates of slots


def put_certificate(public: Any, slot: int = 0x9A) -> Apdu:
    return Apdu(commands.put_data(g.certificate_tag(slot), g.container(g.certificate(public))))


def test_a_certificate_is_written_for_the_key_in_its_slot_only() -> None:
    allowed = state_for(o.PutCertificate(0x9A))
    assert rule_of(allowed, put_certificate(ISSUED.keys[0x9A])) is None
    for public in (ISSUED.keys[0x9C], KEY.public_key()):
        verdict = judge(allowed, batch(put_certificate(public)))
        assert isinstance(verdict, Deny) and verdict.rule is Rule.ITEM
        assert verdict.reason == "the certificate is not for the key in the slot"
    assert rule_of(allowed, put_certificate(ISSUED.keys[0x9C], 0x9C)) is Rule.ITEM, "another slot was shown"


def test_a_certificate_that_the_preview_knew_is_that_one() -> None:
    content = g.container(g.certificate(ISSUED.keys[0x9A]))
    kept = Apdu(commands.put_data(g.certificate_tag(0x9A), content))
    assert rule_of(state_for(o.PutCertificate(0x9A, g.sha256(content))), kept) is None
    assert rule_of(state_for(o.PutCertificate(0x9A, bytes(32))), kept) is Rule.ITEM


@pytest.mark.parametrize("content", [b"\x30\x00", encode(0x70, b"\x30\x00")])
def test_what_is_no_certificate_is_not_written_as_one(content: bytes) -> None:
    verdict = judge(state_for(o.PutCertificate(0x9A)), batch(Apdu(commands.put_data(g.certificate_tag(0x9A), content))))
    assert isinstance(verdict, Deny) and verdict.reason == "this is no certificate in the form of PIV"
