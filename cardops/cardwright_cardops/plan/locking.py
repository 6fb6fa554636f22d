"""Taking the PIN from a card that is not to be used, and knowing that it is gone. The PUK stays: it is the way back."""

from __future__ import annotations

from ..piv.references import PinReference, Slot
from ..program.items import Block
from .acts import Act, Session
from .conduct import Execution
from .inventory import Inventory
from .observe import Look
from .steps import LockCard, Plan


def lock(name: str, inventory: Inventory) -> Plan:
    """The step that blocks the PIN; none where the card says that it is blocked."""
    return Plan(name, inventory.identity, () if inventory.pin.is_blocked else (LockCard(),))


def state_of_pin(stage: str) -> Look:
    """What is read to see which card it is, and how many tries its PIN has."""
    return Look(slots=(Slot.CARD_AUTHENTICATION,), objects=(), thorough=True, one_batch=True, stage=stage)


def block(session: Session) -> Execution[None]:
    """Carry out the one step. The values that are tried are made up by the executing end, so nobody knows them."""
    for step in session.steps(LockCard):
        yield from session.send(Act(step, (Block(PinReference.PIN),), "blocking the PIN"))
