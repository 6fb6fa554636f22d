"""What sessions can do with a PIV card that only ykcs11 or OpenSC's module reaches: read it, and refuse the rest.

The card's own log is the judge: nothing is written and no PIN is sent before the refusal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.pkcs11 import Module, Token
from cardwright_cardops.plan.capabilities import CapabilityMissing
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.policy import DevicePolicy, SlotPolicy
from cardwright_cardops.plan.records import MemoryJournal, Records
from cardwright_cardops.plan.steps import Plan, SetPin, SetPuk
from cardwright_cardops.plan.token import TokenFeatures, plan_token, require_able, token_policy
from cardwright_cardops.plan.token_state import features_of, inventory_of
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.log import Verify, Write
from tests.support.card_init import CASES, NOW
from tests.support.pcscd import Pcscd

pytestmark = [
    pytest.mark.pcscd,
    pytest.mark.filterwarnings("ignore:Parsed a serial number"),
]
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
MODULES = {
    "ykcs11": ("libykcs11.so.2", "it writes only for its security officer"),
    "opensc": ("opensc-pkcs11.so", "OpenSC's module does not write PIV cards"),
}


@pytest.fixture(params=MODULES)
def name(request: pytest.FixtureRequest) -> str:
    """Of the module."""
    return str(request.param)


@pytest.fixture
def card(pcscd: Pcscd) -> VirtualCard:
    """A card with four keys and their certificates, in a reader."""
    case = CASES["yubikey-5.7"]
    made = case.card()
    case.run(made, MemoryJournal())
    made.power_off()
    made.log.clear()
    pcscd.insert(made)
    return made


@pytest.fixture
def token(card: VirtualCard, name: str) -> Iterator[Token]:
    """The card through the module."""
    library = LIBRARIES / MODULES[name][0]
    if not library.exists():
        pytest.skip(f"{library.name} is not installed")
    with Module(library) as module:
        (found,) = module.tokens()
        yield found


def seen(token: Token) -> tuple[TokenFeatures, Inventory]:
    return features_of(token), inventory_of(token, token.inventory())


def touched(card: VirtualCard) -> list[object]:
    """Writes and PINs that the card noted."""
    return [record for record in card.log if isinstance(record, Write | Verify)]


WANTED = DevicePolicy(
    slots=(SlotPolicy(Slot.AUTHENTICATION, Algorithm.P256), SlotPolicy(Slot.SIGNATURE, Algorithm.P256)), replace=True
)


def test_what_is_there_is_read_by_key_reference_and_needs_no_steps(token: Token, card: VirtualCard, name: str) -> None:
    features, inventory = seen(token)
    assert (features.module, features.unlocks) == (name, False)
    assert {Slot.AUTHENTICATION, Slot.SIGNATURE} <= {row.slot for row in inventory.keys}
    assert {row.slot: row.key for row in inventory.certificates}[Slot.AUTHENTICATION] == next(
        row.fingerprint for row in inventory.keys if row.slot is Slot.AUTHENTICATION
    )
    policy = token_policy(WANTED, so_pin=False)
    assert plan_token(policy, inventory, features, Records(), now=NOW).steps == ()
    assert touched(card) == []


def test_what_a_module_lacks_is_refused_before_the_first_write(token: Token, card: VirtualCard, name: str) -> None:
    features, inventory = seen(token)
    assert features.refusal.startswith(MODULES[name][1])
    longer = replace(WANTED, slots=(SlotPolicy(Slot.AUTHENTICATION, Algorithm.P384),))
    policy = token_policy(longer, so_pin=False)
    with pytest.raises(CapabilityMissing, match=name if name == "ykcs11" else "makes no key"):
        plan_token(policy, inventory, features, Records(), now=NOW)
    unlocking = Plan("unlock", inventory.identity, (SetPuk(), SetPin()))
    with pytest.raises(CapabilityMissing, match="sets no PIN by the security officer"):
        require_able(unlocking, features)
    assert touched(card) == []
