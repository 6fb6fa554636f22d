"""Erasing a card under the guard: what the permit of a reset lets happen, and what is left of it afterwards."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cardwright_cardops.guard import Act, Allowed, Deny, Entry, Operation, Permit, Rule, State, begin, in_order, judge
from cardwright_cardops.guard import observe as observed
from cardwright_cardops.guard import operations as o
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.vendor import yubico
from cardwright_cardops.program.items import (
    Answer,
    Apdu,
    Batch,
    Block,
    Group,
    Item,
    Outcome,
    SetPuk,
    Unblock,
    VerifyPin,
)
from cardwright_cardops.secret import Secret
from tests.support import guarded as g

ISSUED = g.issue()
KEYS = {slot: g.fingerprint(public) for slot, public in ISSUED.keys.items()}
DONE = Answer(Outcome.ANSWERED, 0x9000)
MANAGE = Entry(o.Manage(0x0A), None, 9)


def state_for(*operations: Operation, confirmed: Iterable[Act] = ()) -> State:
    permit = Permit(bytes(32), (*in_order(*operations), MANAGE), KEYS, frozenset(confirmed))
    state = begin(permit, g.identity(ISSUED), plan=bytes(32))
    assert isinstance(state, State)
    return state


def batch(*items: Item) -> Batch:
    return Batch((Group((Apdu(commands.select()), *items), True),), g.STAGE)


def rule_of(state: State, *items: Item) -> Rule | None:
    verdict = judge(state, batch(*items))
    return verdict.rule if isinstance(verdict, Deny) else None


def after(state: State, *pairs: tuple[Item, Answer]) -> State:
    asked = batch(*(item for item, _ in pairs))
    assert isinstance(judge(state, asked), Allowed)
    return observed(state, asked, ((DONE, *(answer for _, answer in pairs)),))


def test_reset_ends_the_permit() -> None:
    state = state_for(o.Reset(), o.PutObject(0x5FC102, bytes(32)), confirmed=(Act.RESET,))
    assert rule_of(state, Apdu(yubico.reset())) is None
    assert rule_of(state_for(o.Reset()), Apdu(yubico.reset())) is Rule.FLOOR
    emptied = after(state, (Apdu(yubico.reset()), DONE))
    assert emptied.touched == KEYS.keys()
    writes = (Apdu(commands.put_data(0x5FC102, b"x")), Apdu(yubico.reset()), Block(0x80), Unblock(Secret(g.PUK)))
    for item in (*writes, Apdu(commands.management_witness(g.MANAGER.algorithm))):
        assert rule_of(emptied, item) is not None
        assert rule_of(state, Apdu(yubico.reset()), item) is not None
    assert rule_of(emptied, Apdu(commands.get_data(0x5FC102)), Apdu(yubico.get_metadata(0x9A))) is None
    assert rule_of(state, Apdu(yubico.reset()), Apdu(commands.get_data(0x5FC102))) is None


@pytest.mark.parametrize("reference", [0x80, 0x81])
def test_a_reference_is_blocked_once_as_shown_and_confirmed(reference: int) -> None:
    shown = state_for(o.Block(reference), confirmed=(Act.RESET,))
    assert rule_of(shown, Block(reference)) is None
    assert rule_of(shown, Block(reference ^ 1)) is rule_of(shown, Block(0x00)) is Rule.FLOOR
    assert rule_of(shown, Block(reference), Block(reference)) is Rule.FLOOR
    others = set(Act) - {Act.RESET}
    assert rule_of(state_for(o.Block(reference), confirmed=others), Block(reference)) is Rule.FLOOR
    assert rule_of(state_for(o.EnterPin(), o.ChangePuk(), confirmed=Act), Block(reference)) is Rule.FLOOR
    assert rule_of(shown, VerifyPin()) is rule_of(shown, SetPuk(Secret(g.PUK), Secret(g.NEW_PUK))) is Rule.PIN
