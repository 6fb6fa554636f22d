"""Locking a card under the guard: its PIN is blocked, once, as agreed by name, and nothing else happens to it.

The judge is the card's own log and state; what the guard answered is not asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.guard import (
    Act,
    Deny,
    Entry,
    GuardRefused,
    Operation,
    Permit,
    Rule,
    State,
    begin,
    covers,
    in_order,
    judge,
)
from cardwright_cardops.guard import operations as o
from cardwright_cardops.guard.preview import PreviewUnfit, permit_for
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.vendor import yubico
from cardwright_cardops.program.items import (
    Apdu,
    Batch,
    Block,
    Group,
    Item,
    ItemRefused,
    Outcome,
    Prove,
    SetPin,
    SetPuk,
    Unblock,
    VerifyPin,
)
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardRemoved
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.log import KeyUse, Verify
from cardwright_simulators.card.state import CardState
from tests.support import guarded as g
from tests.support.batch_mutants import kinds_with

ISSUED = g.issue()
BARE = g.issue(card_key=False)
KEYS = {slot: g.fingerprint(public) for slot, public in ISSUED.keys.items()}
TRIES = 3
CARD = {"guid": None, "fascn": None, "serial": str(ISSUED.serial), "card_key": None}
INVENTORY: dict[str, Any] = {
    "format": 1,
    "identity": CARD,
    "keys": [],
    "certificates": [],
    "management_key": {"algorithm": "0A"},
}
LOCK = {"kind": "lock-card"}
STATE = Apdu(commands.pin_state(0x80), accept=frozenset((0x6983, 0x63C0)))
LOOK = Batch((g.group(Apdu(commands.select())), Group((
    Apdu(commands.get_data(0x5FC102)), Apdu(yubico.get_serial()), Prove(0x9E, 0x11, bytes(16)),
))))  # fmt: skip
LOCKING = Batch((g.group(Apdu(commands.select()), Block(0x80)), g.group(STATE)), g.STAGE)
SESSION = (LOOK, LOCKING)


def plan(*kinds: str) -> dict[str, Any]:
    return {"format": 1, "name": "lock", "card": CARD, "steps": [{"kind": kind} for kind in kinds]}


def locks(*, confirmed: bool = True) -> Permit:
    """What the preview of a lock shows."""
    acts = frozenset({Act.LOCK_CARD}) if confirmed else frozenset[Act]()
    return replace(permit_for(plan("lock-card"), INVENTORY, locks=True, confirmed=acts), keys=KEYS)


def bench(permit: Permit | None = None, *, issued: g.Issued = ISSUED, unbroken: bool = False) -> g.Bench:
    return g.bench(issued, None, locks() if permit is None else permit, unbroken=unbroken)


def beyond(one: g.Bench) -> list[str]:
    """What the card itself says was done beyond a lock."""
    card, before = one.card, CardState.decode(one.issued.snapshot)
    after = CardState.decode(card.snapshot())
    tried = [entry for entry in card.log if isinstance(entry, Verify)]
    wrong = [f"a value for {entry.reference:02X}" for entry in tried if entry.reference != 0x80 or entry.ok]
    wrong += [f"{len(tried)} values"] if len(tried) > TRIES else []
    wrong += [f"key {entry.slot:02X}" for entry in card.log if isinstance(entry, KeyUse) and entry.slot != 0x9E]
    blocked = replace(before.references[0x80], tries=after.references[0x80].tries)
    same = replace(before, references={**before.references, 0x80: blocked})
    return wrong if after == same else [*wrong, "something was written"]


def is_locked(card: VirtualCard) -> bool:
    return CardState.decode(card.snapshot()).references[0x80].tries == 0


def untouched(card: VirtualCard) -> bool:
    """Whether no value was tried on it, and all is as it was."""
    return not any(isinstance(entry, Verify) for entry in card.log)


# ---------------------------------------------------------------------------------------------------- the permit


def test_the_permit_of_a_lock_holds_the_lock_and_nothing_else() -> None:
    permit = permit_for(plan("lock-card"), INVENTORY, locks=True)
    assert permit.entries == (Entry(o.Lock(), 1),)
    assert permit.acts == {Act.LOCK_CARD}
    assert permit.confirmed == frozenset()
    assert permit_for(plan(), INVENTORY, locks=True).entries == ()


@pytest.mark.parametrize(
    ("kinds", "locking", "wiping"),
    [
        (("lock-card",), False, False),
        (("set-puk", "lock-card"), False, False),
        (("lock-card", "set-pin"), True, False),
        (("set-pin",), True, False),
        (("lock-card", "lock-card"), True, False),
        (("reset-card",), True, False),
        (("lock-card",), False, True),
        (("lock-card", "reset-card"), False, True),
        (("lock-card",), True, True),
        (("lock-card", "reset-card"), True, True),
    ],
)
def test_a_lock_stands_alone(kinds: tuple[str, ...], locking: bool, wiping: bool) -> None:
    with pytest.raises(PreviewUnfit, match="operation of its own"):
        permit_for(plan(*kinds), INVENTORY, locks=locking, wipes=wiping)


@pytest.mark.parametrize("extra", [{"reference": "81"}, {"tries": 3}, {"slot": "9A"}])
def test_a_lock_has_no_fields(extra: dict[str, Any]) -> None:
    document = {**plan(), "steps": [{**LOCK, **extra}]}
    with pytest.raises(PreviewUnfit):
        permit_for(document, INVENTORY, locks=True)


def state_for(*operations: Operation, confirmed: Iterable[Act]) -> State:
    permit = Permit(bytes(32), in_order(*operations), KEYS, frozenset(confirmed))
    state = begin(permit, g.identity(ISSUED), plan=bytes(32))
    assert isinstance(state, State)
    return state


def rule_of(state: State, *items: Item) -> Rule | None:
    verdict = judge(state, Batch((g.group(Apdu(commands.select()), *items),), g.STAGE))
    return verdict.rule if isinstance(verdict, Deny) else None


def test_the_act_is_confirmed_by_its_own_name() -> None:
    assert o.act_of(o.Lock()) is Act.LOCK_CARD
    assert Act("lock card") is Act.LOCK_CARD
    assert rule_of(state_for(o.Lock(), confirmed={Act.LOCK_CARD}), Block(0x80)) is None
    assert rule_of(state_for(o.Lock(), confirmed=set(Act) - {Act.LOCK_CARD}), Block(0x80)) is Rule.FLOOR
    assert rule_of(state_for(o.Block(0x80), confirmed={Act.LOCK_CARD}), Block(0x80)) is Rule.FLOOR
    assert rule_of(state_for(o.EnterPin(), confirmed=Act), Block(0x80)) is Rule.FLOOR


@pytest.mark.parametrize(
    "item",
    [
        *(Block(reference) for reference in (0x00, 0x81, 0x82, 0x9B)),
        *(VerifyPin(), SetPin(), Unblock(Secret(g.PUK)), SetPuk(Secret(g.PUK), Secret(g.NEW_PUK))),
        *(Apdu(yubico.reset()), Apdu(yubico.set_retries(1, 1)), Prove(0x9A, 0x11, bytes(16))),
        Apdu(commands.management_witness(g.MANAGER.algorithm)),
        Apdu(commands.put_data(0x5FC102, b"")),
    ],
    ids=repr,
)
def test_a_lock_pays_for_the_tries_of_the_pin_alone(item: Item) -> None:
    state = state_for(o.Lock(), confirmed=Act)
    assert rule_of(state, item) is not None
    assert rule_of(state, Block(0x80), item) is not None


def test_a_lock_is_done_once() -> None:
    state = state_for(o.Lock(), confirmed=Act)
    assert rule_of(state, Block(0x80), Block(0x80)) is Rule.FLOOR
    one = bench()
    one.execute(LOCKING)
    count = one.card.apdu_count
    with pytest.raises(GuardRefused):
        one.execute(LOCKING)
    assert one.card.apdu_count == count


def test_consent_to_a_lock_covers_a_lock_and_no_confirmation_more() -> None:
    assert covers(locks(), locks(), frozenset())
    assert not covers(locks(confirmed=False), locks(), frozenset())
    erasing = permit_for(plan("reset-card"), INVENTORY, wipes=True)
    assert not covers(erasing, locks(confirmed=False), frozenset())
    assert not covers(locks(), erasing, frozenset())


# ------------------------------------------------------------------------------------------------- on the card


def test_an_honest_lock_blocks_the_pin_and_nothing_else() -> None:
    one = bench()
    answers = [one.execute(batch) for batch in SESSION]
    one.guarded.end_stage()
    assert all(answer.outcome is Outcome.ANSWERED for batch in answers for group in batch for answer in group)
    assert is_locked(one.card)
    assert beyond(one) == []
    assert sum(isinstance(entry, Verify) for entry in one.card.log) == TRIES
    # The PUK brings it back, with another PIN.
    g.send(one.card, commands.select())
    g.send(one.card, commands.reset_retry_counter(Secret(g.PUK), Secret(g.NEW_PIN)))
    g.send(one.card, commands.verify(0x80, Secret(g.NEW_PIN)))


def test_nothing_is_tried_without_the_confirmation() -> None:
    one = bench(locks(confirmed=False))
    one.execute(LOOK)
    with pytest.raises(GuardRefused) as caught:
        one.execute(LOCKING)
    assert caught.value.rule is Rule.FLOOR
    assert untouched(one.card) and not is_locked(one.card)


def test_nothing_is_tried_before_anybody_agreed() -> None:
    one = bench(Permit(b""))
    one.execute(LOOK)
    with pytest.raises(GuardRefused) as caught:
        one.execute(LOCKING)
    assert caught.value.rule is Rule.FLOOR
    assert untouched(one.card)


def test_nothing_is_tried_for_another_plan_than_the_shown_one() -> None:
    verdict = begin(locks(), g.identity(ISSUED), plan=bytes(32))
    assert isinstance(verdict, Deny) and verdict.rule is Rule.PLAN


@pytest.mark.parametrize("clone", [True, False], ids=["clone", "another card"])
@pytest.mark.parametrize("looked", [True, False], ids=["after the look", "before the look"])
def test_a_card_that_takes_its_place_loses_no_try(clone: bool, looked: bool) -> None:
    other = VirtualCard.restore((g.issue() if clone else g.issue(guid=g.NEW_GUID)).snapshot)
    one = bench()
    if looked:
        one.execute(LOOK)
    one.socket.card = other
    other.log.clear()
    with pytest.raises(GuardRefused) as caught:
        one.execute(LOCKING)
    assert caught.value.rule is Rule.PLAN
    assert untouched(other) and not is_locked(other) and not is_locked(one.card)


def test_a_card_without_a_key_of_its_own_needs_an_unbroken_session() -> None:
    one = bench(issued=BARE)
    with pytest.raises(GuardRefused):
        one.execute(LOCKING)
    assert untouched(one.card)
    whole = bench(issued=BARE, unbroken=True)
    whole.execute(LOCKING)
    assert is_locked(whole.card) and beyond(whole) == []


@pytest.mark.parametrize("tried", range(TRIES + 1))
def test_a_card_that_leaves_in_the_middle_is_locked_by_a_session_of_its_own(tried: int) -> None:
    """Where it is not known how many tries are left the old permit does nothing more, and a new one the rest."""
    one, sent = bench(), 0

    def pulled(command: bytes) -> None:
        nonlocal sent
        if command[:4] == bytes.fromhex("00200080") and len(command) > 5:
            sent += 1
            if sent == tried:
                raise CardRemoved("It was taken out.")

    one.socket.before = pulled
    one.execute(LOCKING)
    assert is_locked(one.card) is (tried == 0)
    one.socket.before = lambda command: None
    count = sum(isinstance(entry, Verify) for entry in one.card.log)
    with pytest.raises(GuardRefused):
        one.execute(LOCKING)
    assert sum(isinstance(entry, Verify) for entry in one.card.log) == count
    if tried:
        again = bench()
        again.socket.card = again.card = one.card
        again.execute(LOCKING)
    assert is_locked(one.card) and beyond(one) == []


# ------------------------------------------------------------------------------------------------------ mutants


def recorded_update() -> list[Batch]:
    """The batches of an honest update of another copy of the card."""
    imported = ec.generate_private_key(ec.SECP256R1())
    other, program = g.bench(ISSUED, imported), g.session(imported)
    batches = [next(program)]
    with contextlib.suppress(StopIteration):
        while True:
            batches.append(program.send(other.local.execute(batches[-1])))
    return batches


KINDS = kinds_with(recorded_update())


def at(place: int) -> g.Bench:
    """A live session before its batch ``place``."""
    one = bench()
    for batch in SESSION[:place]:
        one.execute(batch)
    return one


@pytest.mark.parametrize("place", range(len(SESSION)))
@pytest.mark.parametrize("kind", KINDS)
def test_mutants_do_nothing_beyond_a_lock(kind: str, place: int) -> None:
    one = at(place)
    for what, change in KINDS[kind](SESSION[place]):
        seen = one.card.apdu_count, len(one.card.log)
        try:
            one.execute(change(SESSION[place]))
        except ItemRefused:
            assert (one.card.apdu_count, len(one.card.log)) == seen, f"{kind}: {what}"
            continue
        with contextlib.suppress(ItemRefused):
            for batch in SESSION[place + 1 :]:
                one.execute(batch)
        assert beyond(one) == [], f"{kind}: {what}"
        one = at(place)


@pytest.mark.parametrize(
    "item",
    [Block(0x81), VerifyPin(), SetPin(), Unblock(Secret(g.PUK)), SetPuk(Secret(g.PUK), Secret(g.NEW_PUK))],
    ids=repr,
)
def test_witness_sees_what_the_guard_prevents(item: Item) -> None:
    one = bench()
    one.execute(Batch((g.group(Apdu(commands.select()), item),), g.STAGE), guarded=False)
    assert beyond(one) != []
