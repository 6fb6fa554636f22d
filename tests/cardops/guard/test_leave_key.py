"""A key that leaves the card for good: shown as a step, confirmed by name, and not overwritten before."""

from __future__ import annotations

import pytest

from cardwright_cardops.guard import Act, Allowed, Deny, Entry, Permit, Rule, State, begin, in_order, judge
from cardwright_cardops.guard import operations as o
from cardwright_cardops.guard.preview import PreviewUnfit, permit_for
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Evidence, Identity, Inventory, KeyState
from cardwright_cardops.plan.steps import GenerateKey, LeaveKey, Plan, Step
from cardwright_cardops.program.items import Apdu, Batch, Group
from tests.support import guarded as g

ISSUED = g.issue()
OLD = g.fingerprint(ISSUED.keys[0x9C])
KEYS = {slot: g.fingerprint(public) for slot, public in ISSUED.keys.items()}
LEFT = frozenset((Act.LEAVE_KEY,))
MAKES = o.MakeKey(0x9C, 0x11, replaces=OLD)


def state(*operations: o.Operation, confirmed: frozenset[Act] = frozenset()) -> State:
    loses, manages = Entry(o.LoseKey(0x9C, OLD), None), Entry(o.Manage(0x0A), None, 9)
    permit = Permit(bytes(32), (loses, *in_order(*operations), manages), KEYS, confirmed)
    made = begin(permit, g.identity(ISSUED), plan=bytes(32))
    assert isinstance(made, State)
    return made


def verdict(of: State, slot: int) -> Rule | None:
    asked = Apdu(commands.generate(slot, Algorithm.P256))
    found = judge(of, Batch((Group((Apdu(commands.select()), asked), essential=True),), g.STAGE))
    return found.rule if isinstance(found, Deny) else None


def test_the_key_is_overwritten_only_when_that_was_confirmed() -> None:
    other = o.MakeKey(0x9A, 0x11, replaces=KEYS[0x9A])
    assert verdict(state(MAKES), 0x9C) is Rule.FLOOR
    assert verdict(state(MAKES, confirmed=frozenset(set(Act) - LEFT)), 0x9C) is Rule.FLOOR
    assert verdict(state(MAKES, confirmed=LEFT), 0x9C) is None
    assert verdict(state(other), 0x9A) is None
    assert state(MAKES).permit.acts == LEFT
    assert isinstance(judge(state(), Batch((Group((Apdu(commands.select()),)),))), Allowed)


def plan(*steps: Step) -> tuple[dict[str, object], dict[str, object]]:
    """Documents of a plan and of its card, which has a key in 9D."""
    card = Inventory(
        identity=Identity(serial="1"), keys=(KeyState(Slot.KEY_MANAGEMENT, Evidence.METADATA, 0x11, "ab" * 32),)
    )
    return Plan("p", card.identity, steps).document(), card.document()


def test_a_preview_names_the_key_that_is_there() -> None:
    makes = GenerateKey(Slot.KEY_MANAGEMENT, Algorithm.P256, replaces="ab" * 32)
    shown = permit_for(*plan(LeaveKey(Slot.KEY_MANAGEMENT, "ab" * 32), makes))
    assert shown.acts == LEFT
    for wrong in (LeaveKey(Slot.KEY_MANAGEMENT, "cd" * 32), LeaveKey(Slot.KEY_MANAGEMENT, ""),
                  LeaveKey(Slot.SIGNATURE, "ab" * 32)):  # fmt: skip
        with pytest.raises(PreviewUnfit, match="not in slot"):
            permit_for(*plan(wrong, makes))
