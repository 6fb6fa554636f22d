"""How often a PIN may be entered for keys that are made: as often as the executing end asks for it, not once more."""

from __future__ import annotations

import pytest

from cardwright_cardops.guard import operations
from cardwright_cardops.guard.preview import permit_for
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Identity, Inventory
from cardwright_cardops.plan.steps import GenerateKey, Plan, SetPin, SetPuk, Step, WriteCertificate

P256 = Algorithm.P256


@pytest.mark.parametrize(
    "slots, secrets, pins",
    [
        ([Slot.CARD_AUTHENTICATION], False, 0),
        ([Slot.AUTHENTICATION], False, 1),
        ([Slot.SIGNATURE], False, 2),
        ([Slot.SIGNATURE], True, 1),
        ([Slot.AUTHENTICATION, Slot.SIGNATURE], False, 2),
        ([Slot.AUTHENTICATION, Slot.SIGNATURE], True, 2),
    ],
)
def test_a_kept_pin_is_verified_before_a_key_is_made(slots: list[Slot], secrets: bool, pins: int) -> None:
    first: tuple[Step, ...] = (SetPuk(), SetPin()) if secrets else ()
    keys = [GenerateKey(slot, P256) for slot in slots]
    written = [WriteCertificate(slot, P256, "test") for slot in slots]
    steps = Plan("test", Identity(), (*first, *keys, *written))
    permit = permit_for(steps.document(), Inventory().document())
    assert sum(one.times for one in permit.entries if one.operation == operations.EnterPin()) == pins
