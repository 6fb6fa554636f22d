"""Cards that are erased: the plan, the item that spends tries, what is recorded, and every fault on the way."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.guard import Act, GuardedExecutor, GuardRefused, Permit, Rule, State, begin
from cardwright_cardops.guard.preview import PreviewUnfit, identity_of, permit_for
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.acts import STAGE, Circumstances
from cardwright_cardops.plan.apply import apply
from cardwright_cardops.plan.authority import Granted, Preflight
from cardwright_cardops.plan.capabilities import CapabilityMissing
from cardwright_cardops.plan.conduct import Execution, conduct
from cardwright_cardops.plan.execute import Report, execute
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.observe import EVERYTHING, Look, observe
from cardwright_cardops.plan.records import DEFAULT, Entry, Kind, MemoryJournal, Records, fold
from cardwright_cardops.plan.steps import Plan, ResetCard, SetPin
from cardwright_cardops.plan.wiping import all_slots, is_wiped, wipe
from cardwright_cardops.program.items import Block, ItemRefused
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.transport.direct import DirectCard, DirectConnection
from cardwright_simulators.card import Verify, VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from tests.support import guarded as g

RESET = frozenset((Act.RESET,))
CARDS = ("yubikey-5.7", "yubikey-5.4", "pivapplet", "tdes-only", "t0-short")
ISSUED = {profile: g.issue(profile) for profile in ("yubikey-5.7",)}


class Office:
    """An authority that only says yes: nothing else is asked of one when a card is erased."""

    def answer(self, questions: tuple[Any, ...]) -> tuple[Any, ...]:
        assert [type(one) for one in questions] == [Preflight]
        return (Granted(None),)


def issued(profile: str) -> VirtualCard:
    """A card in use; those that others make of it have its factory's other management key."""
    card = VirtualCard(profile, serial=12345678)
    if profile == "yubikey-5.7":
        return VirtualCard.restore(ISSUED[profile].snapshot)
    send = card.transmit
    send(bytes.fromhex("00A4040009A00000030800001000"))
    send(bytes.fromhex("0024008010") + b"123456\xff\xff" + b"314159\xff\xff")
    send(bytes.fromhex("0024008110") + b"12345678" + b"27182818")
    memory = json.loads(card.snapshot())
    memory["objects"]["5FC102"] = json.loads(ISSUED["yubikey-5.7"].snapshot)["objects"]["5FC102"]
    memory["keys"]["9E"] = json.loads(ISSUED["yubikey-5.7"].snapshot)["keys"]["9E"]
    memory["objects"]["5FC101"] = json.loads(ISSUED["yubikey-5.7"].snapshot)["objects"]["5FC101"]
    return VirtualCard.restore(json.dumps(memory).encode())


def memory_of(card: VirtualCard) -> dict[str, Any]:
    """What the card keeps, without the count of what it was sent."""
    found: dict[str, Any] = json.loads(card.snapshot())
    return {name: found[name] for name in ("references", "management", "keys", "objects")}


def session(
    card: DirectCard, journal: MemoryJournal, confirmed: frozenset[Act] = RESET, wanted: Plan | None = None
) -> Report:
    """Look, plan, and carry out under the guard, as daemon and server do together."""
    local = LocalExecutor(DirectConnection(card), KeyItems(FixedPins(None)))
    seen = run(observe(EVERYTHING), local)
    steps = wanted or wipe("test", seen, fold(journal.entries()))
    permit = permit_for(steps.document(), seen.document(), confirmed=confirmed, wipes=True)
    state = begin(permit, identity_of(seen.document()), plan=bytes.fromhex(steps.digest))
    assert isinstance(state, State)
    guarded = GuardedExecutor(local, state, unbroken=lambda: True)
    return conduct(carried_out(steps, journal), guarded, Office(), journal)


def carried_out(steps: Plan, journal: MemoryJournal) -> Execution[Report]:
    """Look again, in the transaction of the work, and do it."""
    seen = yield from observe(all_slots(STAGE))
    return (yield from execute(steps, seen, Circumstances(fold(journal.entries()))))


@pytest.mark.parametrize("profile", CARDS)
def test_a_card_in_use_becomes_one_of_the_factory(profile: str) -> None:
    card, journal = issued(profile), MemoryJournal()
    before = len(card.log)
    report = session(card, journal)
    assert report.done == (ResetCard(),)
    assert memory_of(card) == memory_of(VirtualCard(profile, serial=12345678))
    records = fold(journal.entries())
    assert records == Records(reset=True)
    assert is_wiped(report.inventory, records) and wipe("test", report.inventory, records).steps == ()
    tried = [row for row in card.log[before:] if isinstance(row, Verify)]
    assert [(row.reference, row.ok) for row in tried] == [(0x80, False)] * 3 + [(0x81, False)] * 3


@pytest.mark.parametrize("fault", ["apdu={0}+:remove", "apdu={0}:remove-after,apdu={1}+:remove"])
@pytest.mark.parametrize("profile", ("yubikey-5.7", "tdes-only"))
def test_one_more_session_ends_right_after_every_fault(profile: str, fault: str) -> None:
    factory = memory_of(VirtualCard(profile, serial=12345678))
    for number in count(1):
        card, journal = issued(profile), MemoryJournal()
        faulty = FaultyCard(card, fault.format(number, number + 1))
        try:
            session(faulty, journal)
        except CardwrightError as error:
            assert error.explain()
        if not faulty.struck:
            assert number > 20
            break
        card.power_off()
        report = session(card, journal)
        assert memory_of(card) == factory, f"after a fault at APDU {number}"
        assert is_wiped(report.inventory, fold(journal.entries()))


def test_a_reset_is_believed_only_where_it_was_recorded_and_the_card_shows_it() -> None:
    fresh = run(observe(EVERYTHING), LocalExecutor(DirectConnection(VirtualCard(serial=1)), KeyItems(FixedPins(None))))
    silent = run(
        observe(EVERYTHING),
        LocalExecutor(DirectConnection(VirtualCard("tdes-only", serial=1)), KeyItems(FixedPins(None))),
    )
    begun, done = fold([Entry(Kind.RESET)]), fold([Entry(Kind.RESET), Entry(Kind.RESET_DONE)])
    assert [is_wiped(fresh, one) for one in (Records(), begun, done)] == [False, True, True]
    assert [is_wiped(silent, one) for one in (Records(), begun, done)] == [False, False, True]
    again = fold([Entry(Kind.RESET), Entry(Kind.RESET_DONE), Entry(Kind.GENERATING, slot=Slot.AUTHENTICATION)])
    assert not is_wiped(fresh, again)
    in_use = run(observe(EVERYTHING), LocalExecutor(DirectConnection(issued("yubikey-5.7")), KeyItems(FixedPins(None))))
    assert not is_wiped(in_use, done)


def test_secrets_in_doubt_during_a_reset() -> None:
    before = [Entry(Kind.MANAGEMENT_KEY, "1.1"), Entry(Kind.MANAGEMENT_KEY_SET, "1.1"), Entry(Kind.PUK, "1.1"),
              Entry(Kind.PUK_SET, "1.1"), Entry(Kind.PIN_SET)]  # fmt: skip
    begun = fold([*before, Entry(Kind.RESET)])
    assert begun.management_key.names == begun.puk.names == (DEFAULT, "1.1")
    assert begun.management_key.in_flight and begun.puk.in_flight and begun.pin_in_flight and not begun.pin_settled
    assert fold([*before, Entry(Kind.RESET), Entry(Kind.RESET_DONE)]) == Records(reset=True)


@pytest.mark.parametrize("profile", ["sp800-73-5", "globalplatform"])
def test_a_card_that_has_no_reset_is_refused_before_anything_is_sent(profile: str) -> None:
    card = VirtualCard(profile)
    before = card.snapshot()
    with pytest.raises(CapabilityMissing, match="no command that erases all of it"):
        session(card, MemoryJournal())
    assert memory_of(card) == memory_of(VirtualCard.restore(before))


def test_the_model_of_the_step() -> None:
    card = issued("yubikey-5.7")
    look = Look(objects=EVERYTHING.objects)

    def seen() -> Inventory:
        return run(observe(look), LocalExecutor(DirectConnection(card), KeyItems(FixedPins(None))))

    modelled = apply(ResetCard(), seen())
    session(card, MemoryJournal())
    real = seen()
    assert (modelled.identity, modelled.keys, modelled.certificates) == (real.identity, real.keys, real.certificates)
    assert modelled.pin_usage == real.pin_usage
    for state, shown in ((modelled.pin, real.pin), (modelled.puk, real.puk)):
        assert (state.is_default, shown.is_default) == (True, True)
    told = {row.tag: row.presence for row in real.objects}
    assert {row.tag: row.presence for row in modelled.objects if row.tag in told} == told


# ----------------------------------------------------------------------------------------------------------- the guard


def test_nothing_happens_unless_the_reset_was_confirmed_by_name() -> None:
    card = issued("yubikey-5.7")
    before = memory_of(card)
    with pytest.raises(GuardRefused) as refused:
        session(card, MemoryJournal(), confirmed=frozenset(set(Act) - {Act.RESET}))
    assert refused.value.rule is Rule.FLOOR
    assert memory_of(card) == before


def test_erasing_is_an_operation_of_its_own() -> None:
    card = issued("yubikey-5.7")
    seen = run(observe(EVERYTHING), LocalExecutor(DirectConnection(card), KeyItems(FixedPins(None))))
    alone = Plan("test", seen.identity, (ResetCard(),))
    mixed, other = (Plan("test", seen.identity, steps) for steps in ((ResetCard(), SetPin()), (SetPin(),)))
    document = seen.document()
    assert permit_for(alone.document(), document, wipes=True).acts == RESET
    for steps, wipes in ((alone, False), (mixed, False), (mixed, True), (other, True)):
        with pytest.raises(PreviewUnfit, match="an operation of its own"):
            permit_for(steps.document(), document, wipes=wipes)
    assert isinstance(permit_for(other.document(), document), Permit)


def test_a_clone_put_in_after_the_preview_is_not_erased() -> None:
    card = issued("yubikey-5.7")
    clone = g.issue("yubikey-5.7")
    seen = run(observe(EVERYTHING), LocalExecutor(DirectConnection(card), KeyItems(FixedPins(None))))
    steps = wipe("test", seen)
    permit = permit_for(steps.document(), seen.document(), confirmed=RESET, wipes=True)
    state = begin(permit, identity_of(seen.document()), plan=bytes.fromhex(steps.digest))
    assert isinstance(state, State)
    swapped = VirtualCard.restore(clone.snapshot)
    before = memory_of(swapped)
    local = LocalExecutor(DirectConnection(swapped), KeyItems(FixedPins(None)))
    with pytest.raises(GuardRefused) as refused:
        conduct(
            carried_out(steps, MemoryJournal()),
            GuardedExecutor(local, state, unbroken=lambda: True),
            Office(),
            MemoryJournal(),
        )
    assert refused.value.rule is Rule.PLAN
    assert memory_of(swapped) == before


# -------------------------------------------------------------------------------------------------------- the key item


def test_blocking_spends_every_try_of_the_one_reference() -> None:
    card = issued("yubikey-5.7")
    keys = KeyItems(FixedPins(None))
    executor = LocalExecutor(DirectConnection(card), keys)
    card.transmit(bytes.fromhex("00A4040009A00000030800001000"))
    assert keys.perform(Block(0x80), executor.plain).ok
    tries = {name: one["tries"] for name, one in json.loads(card.snapshot())["references"].items()}
    assert tries == {"80": 0, "81": 3}
    sent = card.apdu_count
    assert keys.perform(Block(0x80), executor.plain).ok
    assert card.apdu_count == sent + 1
    assert keys.perform(Block(0x81), executor.plain).ok
    tries = {name: one["tries"] for name, one in json.loads(card.snapshot())["references"].items()}
    assert tries == {"80": 0, "81": 0}


def test_a_value_that_fits_by_chance_costs_one_more_round() -> None:
    card = VirtualCard(serial=1)
    digits = iter([b"12345678", b"00000000"])  # of the factory's PUK, once
    keys = KeyItems(FixedPins(None), random=lambda size: bytes(one - 0x30 for one in next(digits, b"99999999")))
    card.transmit(bytes.fromhex("00A4040009A00000030800001000"))
    assert keys.perform(Block(0x81), LocalExecutor(DirectConnection(card), keys).plain).ok
    tried = [row.ok for row in card.log if isinstance(row, Verify)]
    assert tried == [True, False, False, False]


def test_a_card_that_answers_otherwise_is_not_blocked() -> None:
    card = VirtualCard(serial=1)  # without SELECT of the application
    keys = KeyItems(FixedPins(None))
    other = VirtualCard("sp800-73-5")
    other.transmit(bytes.fromhex("00A4040008A000000151000000"))
    answer = keys.perform(Block(0x80), LocalExecutor(DirectConnection(other), keys).plain)
    assert not answer.ok and answer.sw not in (None, 0x9000)
    with pytest.raises(ItemRefused):
        keys.perform(Block(0x00), LocalExecutor(DirectConnection(card), keys).plain)
