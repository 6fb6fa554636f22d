"""Putting a card back to where it came from, and knowing that it is there."""

from __future__ import annotations

from ..piv.references import ACTIVE_SLOTS, RETIRED_SLOTS, PinReference
from ..piv.vendor import yubico
from ..program.items import Apdu, Block
from .acts import Act, Session
from .capabilities import Backend, CapabilityMissing, backend_of
from .conduct import Execution
from .inventory import Inventory
from .observe import Look
from .records import Entry, Kind, Records
from .steps import Plan, ResetCard


def wipe(name: str, inventory: Inventory, records: Records | None = None, *, backend: Backend | None = None) -> Plan:
    """The step that erases a card, none when it is erased. Raises CapabilityMissing where the card has no such command.

    Whatever a card shows, it is erased once by us: keys without certificates are not seen on every card. A reset that
    was begun and not confirmed is believed to a card that tells it all outright, and repeated on every other.
    """
    known = records or Records()
    if is_wiped(inventory, known):
        return Plan(name, inventory.identity, ())
    if not (backend or backend_of(inventory.features)).resets:
        raise CapabilityMissing(
            "This card has no command that erases all of it: what its holder had would stay on it.", "reset"
        )
    return Plan(name, inventory.identity, (ResetCard(),))


def is_wiped(inventory: Inventory, records: Records) -> bool:
    """Whether the card is as its reset left it, by what was recorded and what it shows."""
    if inventory.is_bound or inventory.keys or inventory.certificates:
        return False
    told = (inventory.pin, inventory.puk, inventory.management_key)
    fresh = all(state.is_default for state in told)
    if inventory.features.metadata:
        return fresh and (records.reset or records.resetting)
    return records.reset


def all_slots(stage: str) -> Look:
    """What is read to see that nothing is left."""
    return Look(slots=(*ACTIVE_SLOTS, *RETIRED_SLOTS), one_batch=True, stage=stage)


def reset(session: Session) -> Execution[None]:
    """Carry out the one step. Recorded before, since a card without metadata cannot tell it."""
    for step in session.steps(ResetCard):
        yield from session.note(Entry(Kind.RESET))
        items = (Block(PinReference.PIN), Block(PinReference.PUK), Apdu(yubico.reset()))
        yield from session.send(Act(step, items, "resetting the card", (Entry(Kind.RESET_DONE),)))
