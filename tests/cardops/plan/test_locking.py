"""Cards that are locked: the plan, what is sent, what stays, and every fault on the way."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.guard import Act, GuardedExecutor, GuardRefused, Rule, State, begin
from cardwright_cardops.guard.preview import identity_of, permit_for
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.plan.acts import STAGE, Circumstances
from cardwright_cardops.plan.apply import apply
from cardwright_cardops.plan.authority import Granted, Preflight
from cardwright_cardops.plan.conduct import Execution, conduct
from cardwright_cardops.plan.execute import Report, execute
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.locking import lock, state_of_pin
from cardwright_cardops.plan.observe import EVERYTHING, observe
from cardwright_cardops.plan.records import MemoryJournal, fold
from cardwright_cardops.plan.steps import LockCard, Plan
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectCard, DirectConnection
from cardwright_simulators.card import Verify, VirtualCard
from cardwright_simulators.card.profiles import PROFILES
from cardwright_simulators.reader.faults import FaultyCard

LOCKS = frozenset((Act.LOCK_CARD,))
SELECT = bytes.fromhex("00A4040009A00000030800001000")


class Office:
    """An authority that only says yes: nothing else is asked of one when a card is locked."""

    def answer(self, questions: tuple[Any, ...]) -> tuple[Any, ...]:
        assert [type(one) for one in questions] == [Preflight]
        return (Granted(None),)


def local(card: DirectCard) -> LocalExecutor:
    return LocalExecutor(DirectConnection(card), KeyItems(FixedPins(Secret(b"123456"), Secret(b"123456"))))


def seen(card: DirectCard) -> Inventory:
    return run(observe(state_of_pin("")), local(card))


def memory_of(card: VirtualCard) -> dict[str, Any]:
    """What the card keeps, but for the tries of the PIN."""
    found: dict[str, Any] = json.loads(card.snapshot())
    del found["references"]["80"]
    return {name: found[name] for name in ("references", "management", "keys", "objects")}


def session(card: DirectCard, confirmed: frozenset[Act] = LOCKS, wanted: Plan | None = None) -> Report:
    """Look, plan, and carry out under the guard, as daemon and server do together."""
    executor, journal = local(card), MemoryJournal()
    known = run(observe(EVERYTHING), executor)
    steps = wanted or lock("test", known)
    permit = permit_for(steps.document(), known.document(), confirmed=confirmed, locks=True)
    state = begin(permit, identity_of(known.document()), plan=bytes.fromhex(steps.digest))
    assert isinstance(state, State)
    guarded = GuardedExecutor(executor, state, unbroken=lambda: True)
    return conduct(carried_out(steps, journal), guarded, Office(), journal)


def carried_out(steps: Plan, journal: MemoryJournal) -> Execution[Report]:
    now = yield from observe(state_of_pin(STAGE))
    return (yield from execute(steps, now, Circumstances(fold(journal.entries()))))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_pin_is_blocked_and_nothing_else_is_another(profile: str) -> None:
    card = VirtualCard(profile, serial=12345678)
    before, others, tries = len(card.log), memory_of(card), seen(card).pin.tries_left
    report = session(card)
    assert report.done == (LockCard(),)
    assert report.inventory.pin.is_blocked and lock("test", report.inventory).steps == ()
    assert memory_of(card) == others
    tried = [row for row in card.log[before:] if isinstance(row, Verify)]
    assert [(row.reference, row.ok) for row in tried] == [(0x80, False)] * len(tried) and len(tried) == tries
    card.power_off()
    card.transmit(SELECT)
    assert card.transmit(bytes.fromhex("0020008008") + b"123456\xff\xff")[-2:].hex() == "6983"
    # The one way back: the PUK, which has lost no try.
    assert card.transmit(bytes.fromhex("002C008010") + b"12345678" + b"739146\xff\xff")[-2:].hex() == "9000"
    assert card.transmit(bytes.fromhex("0020008008") + b"739146\xff\xff")[-2:].hex() == "9000"


@pytest.mark.parametrize("profile", ("yubikey-5.7", "sp800-73-5"))
def test_a_card_whose_pin_is_blocked_is_left_alone(profile: str) -> None:
    card = VirtualCard(profile, serial=12345678)
    session(card)
    before = len(card.log)
    assert lock("test", seen(card)).steps == ()
    assert session(card).done == ()
    assert not [row for row in card.log[before:] if isinstance(row, Verify)]


@pytest.mark.parametrize("fault", ["apdu={0}+:remove", "apdu={0}:remove-after,apdu={1}+:remove"])
@pytest.mark.parametrize("profile", ("yubikey-5.7", "tdes-only"))
def test_one_more_session_ends_right_after_every_fault(profile: str, fault: str) -> None:
    for number in count(1):
        card = VirtualCard(profile, serial=12345678)
        others = memory_of(card)
        faulty = FaultyCard(card, fault.format(number, number + 1))
        try:
            session(faulty)
        except CardwrightError as error:
            assert error.explain()
        if not faulty.struck:
            assert number > 20
            break
        card.power_off()
        assert session(card).inventory.pin.is_blocked, f"after a fault at APDU {number}"
        assert memory_of(card) == others


@pytest.mark.parametrize("profile", ("yubikey-5.7", "tdes-only"))
def test_the_model_of_the_step(profile: str) -> None:
    card = VirtualCard(profile, serial=12345678)
    modelled = apply(LockCard(), seen(card))
    session(card)
    assert modelled == seen(card)


def test_nothing_is_tried_unless_the_lock_was_confirmed_by_name() -> None:
    card = VirtualCard("yubikey-5.7", serial=12345678)
    before = len(card.log)
    with pytest.raises(GuardRefused) as refused:
        session(card, confirmed=frozenset(set(Act) - LOCKS))
    assert refused.value.rule is Rule.FLOOR
    assert not [row for row in card.log[before:] if isinstance(row, Verify)]
