"""In which order a session tells of its steps, lets card keys sign, and keeps its journal."""

from __future__ import annotations

import pytest

from cardwright_cardops.piv.algorithms import Algorithm, PinPolicy
from cardwright_cardops.piv.management_key import DEFAULT_KEY
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.acts import Pace
from cardwright_cardops.plan.conduct import conduct
from cardwright_cardops.plan.execute import Report
from cardwright_cardops.plan.init import Secrets, initialize, personalize
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.local_authority import LocalAuthority
from cardwright_cardops.plan.policy import DevicePolicy, SlotPolicy
from cardwright_cardops.plan.records import Kind, MemoryJournal
from cardwright_cardops.plan.steps import Step
from cardwright_cardops.secret import Secret
from cardwright_simulators.card import KeyUse, Verify, VirtualCard
from tests.support.card_init import NOW, P256, PUK, Case, executor


def carried_out(case: Case, pace: Pace, journal: MemoryJournal) -> tuple[VirtualCard, Report, list[tuple[Step, bool]]]:
    card, told = case.card(), list[tuple[Step, bool]]()
    report = conduct(
        personalize(case.policy, now=NOW, pace=pace), executor(card),
        LocalAuthority(journal=journal, new_puk=Secret(PUK), now=NOW), journal,
        lambda step, done: told.append((step, done)),
    )  # fmt: skip
    return card, report, told


def uses(card: VirtualCard) -> list[str]:
    """Each comparison of the PIN, and each use of a key by its slot."""
    seen = [one for one in card.log if isinstance(one, KeyUse) or (isinstance(one, Verify) and one.reference == 0x80)]
    return [f"{one.slot:02X}" if isinstance(one, KeyUse) else "PIN" for one in seen]


@pytest.mark.parametrize("pace", Pace)
def test_every_step_is_told_before_and_after(pace: Pace) -> None:
    _, report, told = carried_out(Case("yubikey-5.7", "9a=p256,9d=p256:import", {}), pace, MemoryJournal())
    assert len(report.done) == 9
    assert [step for step, done in told if done] == list(report.done)
    assert sorted(map(repr, (step for step, done in told if not done))) == sorted(map(repr, report.done))
    for step in report.done:
        assert told.index((step, False)) < told.index((step, True))
    if pace is Pace.STEP:
        assert [done for _, done in told] == [False, True] * len(report.done)


def test_keys_that_ask_once_sign_first_and_those_that_never_ask_last() -> None:
    """9A, 82 and 9D share one PIN, 9C wants one of its own, 9E wants none: two PINs for five signatures."""
    case = Case("yubikey-5.7", "9e=p256,9c=p256,9a=p256,82=p256,9d=p256", {})
    card, report, _ = carried_out(case, Pace.STEP, MemoryJournal())
    assert len(report.done) == 15
    assert uses(card) == ["PIN", "9A", "82", "9D", "PIN", "9C", "9E"]


def test_policies_of_the_plan_go_before_those_of_the_slots() -> None:
    def row(slot: Slot, pin: PinPolicy) -> SlotPolicy:
        return SlotPolicy(slot, Algorithm.P256, pin_policy=pin)

    rows = (
        row(Slot.AUTHENTICATION, PinPolicy.ALWAYS), row(Slot.SIGNATURE, PinPolicy.ONCE),
        row(Slot.KEY_MANAGEMENT, PinPolicy.NEVER), row(Slot.CARD_AUTHENTICATION, PinPolicy.ONCE),
    )  # fmt: skip
    card, journal = VirtualCard("yubikey-5.7", serial=12345678), MemoryJournal()
    initialize(executor(card), DevicePolicy(slots=rows), Secrets(new_puk=Secret(PUK)), journal, now=NOW)
    assert uses(card) == ["PIN", "9C", "9E", "PIN", "9A", "9D"]


def test_the_journal_runs_ahead_of_the_card() -> None:
    journal = MemoryJournal()
    card, report, _ = carried_out(Case("yubikey-5.7", "9a=p256", {0x9A: (P256, True)}), Pace.STEP, journal)
    guid = report.inventory.identity.guid
    assert guid is not None
    kept = [(one.kind, one.reference, one.slot, one.guid) for one in journal.entries()]
    slot = Slot.AUTHENTICATION
    assert kept == [
        (Kind.CARD, "", None, guid),
        (Kind.MANAGEMENT_KEY, "default", None, None), (Kind.MANAGEMENT_KEY_SET, "default", None, None),
        (Kind.PUK, "default", None, None), (Kind.PUK, "1", None, None), (Kind.PUK_SET, "1", None, None),
        (Kind.PIN, "", None, None), (Kind.PIN_SET, "", None, None),
        (Kind.GENERATING, "", slot, None), (Kind.CERTIFICATE, "", slot, None),
        (Kind.MANAGEMENT_KEY, "1", None, None),
        (Kind.WRITTEN, "", None, guid), (Kind.WRITTEN, "", slot, None),
        (Kind.MANAGEMENT_KEY_SET, "1", None, None),
    ]  # fmt: skip
    new_key = next(one.value for one in journal.entries() if one.reference == "1" and one.kind is Kind.MANAGEMENT_KEY)
    assert new_key is not None and new_key.reveal() == card._core.state.management.value != DEFAULT_KEY


def test_a_card_that_shows_its_uuid_is_recorded_with_it() -> None:
    journal = MemoryJournal()
    first = Case("yubikey-5.7", "9a=p256", {})
    card, report, _ = carried_out(first, Pace.STEP, journal)
    before = len(journal.entries())
    Case("yubikey-5.7", "9a=p256,9e=p256", {}).run(card, journal)
    guid = report.inventory.identity.guid
    later = [(one.kind, one.guid) for one in journal.entries()[before:]]
    assert later[:2] == [(Kind.CARD, guid), (Kind.WRITTEN, guid)]
    assert [one for one in later[2:] if one[1] is not None] == []


def test_an_inventory_reads_back_from_its_document() -> None:
    _, report, _ = carried_out(Case("yubikey-5.7", "9a=p256,82=p256", {}), Pace.STEP, MemoryJournal())
    assert Inventory.from_document(report.inventory.document()) == report.inventory
    counted = Inventory(retired_counts=(3, 4))
    assert Inventory.from_document(counted.document()) == counted
