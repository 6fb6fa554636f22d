"""Taking the PIN from a card that is not to be used, and knowing that it is gone. The PUK stays: it is the way back."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..iso7816.status import SW, tries_left
from ..piv import commands
from ..piv.references import PinReference, Slot
from ..program.items import Answer, Apdu, Block
from .acts import Act, Session
from .conduct import Execution
from .inventory import Inventory
from .observe import Look
from .steps import LockCard, Plan

_TELLS: Final = frozenset((SW.OK, *(sw for sw in range(0x6300, 0x7000) if tries_left(sw) is not None)))
"""What a card answers when it is asked for the tries of its PIN."""


def lock(name: str, inventory: Inventory) -> Plan:
    """The step that blocks the PIN; none where the card says that it is blocked."""
    return Plan(name, inventory.identity, () if inventory.pin.is_blocked else (LockCard(),))


def state_of_pin(stage: str) -> Look:
    """What is read to see which card it is, and how many tries its PIN has."""
    return Look(slots=(Slot.CARD_AUTHENTICATION,), objects=(), thorough=True, one_batch=True, stage=stage)


def block(session: Session) -> Execution[None]:
    """Carry out the one step, and read back how many tries the PIN has.

    The values that are tried are made up by the executing end, so nobody knows them.
    """

    def read(answers: tuple[Answer, ...]) -> None:
        sw = answers[0].sw
        left = None if sw is None else tries_left(sw)
        session.inventory = replace(session.inventory, pin=replace(session.inventory.pin, tries_left=left))

    state = Apdu(commands.pin_state(), _TELLS)
    for step in session.steps(LockCard):
        yield from session.send(
            Act(step, (Block(PinReference.PIN),), "blocking the PIN"),
            Act(None, (state,), "reading how many tries the PIN has", take=read, accept=_TELLS),
        )
