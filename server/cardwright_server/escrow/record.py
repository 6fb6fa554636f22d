"""How the life of an archived key is written down: the row, its steps, the release, the audit, the owner's notice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cardwright_cardops.piv.references import Slot

from ..audit.model import SERVER, AuditEntry, Fact, Target, Who
from ..machine import Actor
from ..notify.model import DomainEvent
from ..store.unit import Unit
from . import store
from .model import KEY, Archived, KeyEvent, Way

PURPOSES: Mapping[Way, str] = {Way.RETIRED: "to a card of yours", Way.FILE: "to a file"}
"""What the owner is told of a release; a new key on its way to its own card is no news."""
RELEASED = "escrow.released"
"""The event that mail follows."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A key on its way out: by whom it was asked for, and to where."""

    way: Way
    who: Who = SERVER
    actor: UUID | None = None
    request: UUID | None = None
    device: UUID | None = None
    session: UUID | None = None
    slot: Slot | None = None
    offer: UUID | None = None


async def add_key(unit: Unit, org: UUID, values: Mapping[str, Any]) -> UUID | None:
    """Archive a key that goes to its card next: one row, both steps. None if its session made one already."""
    archived = KEY.next(None, KeyEvent.ARCHIVE, Actor.SERVER)
    delivered = KEY.next(archived.target, KeyEvent.DELIVER, Actor.SERVER)
    made = await store.insert_key(unit, org, {**values, "state": delivered.target, "version": 2})
    if made is not None:
        for number, row in enumerate((archived, delivered), 1):
            await store.note_key(unit, org, made, number, store.step(row, Actor.SERVER, None, values["session"]))
    return made


async def leave(unit: Unit, key: Archived, leaving: Leaving, *, new: bool = False) -> bool:
    """Record that a key leaves the archive, before it does; whether it was not recorded before.

    The same key for the same slot in the same session is recorded once. ``new``: its row says so already. Raises
    StaleVersion.
    """
    values = {
        "key": key.id,
        "way": leaving.way,
        "actor": leaving.actor,
        "request": leaving.request,
        "device": leaving.device,
        "session": leaving.session,
        "slot": None if leaving.slot is None else int(leaving.slot),
        "offer": leaving.offer,
    }
    if not await store.insert_release(unit, key.org, values):
        return False
    if not new:
        actor = Actor.USER if leaving.way is Way.FILE else Actor.SERVER
        event = KeyEvent.DELIVER if leaving.way is Way.CARD else KeyEvent.RECOVER
        row = KEY.next(key.state, event, actor)
        number = await store.update_key(unit, key, {"state": row.target})
        await store.note_key(unit, key.org, key.id, number, store.step(row, actor, leaving.actor, leaving.session))
    facts: dict[str, Fact] = {
        "way": leaving.way,
        "fingerprint": key.fingerprint,
        "device": None if leaving.device is None else str(leaving.device),
        "slot": None if leaving.slot is None else leaving.slot.label,
        "request": None if leaving.request is None else str(leaving.request),
        "offer": None if leaving.offer is None else str(leaving.offer),
    }
    target = Target("escrowed-key", key.id)
    action = "escrow.archived" if new else "escrow.released"
    unit.audit(AuditEntry(key.org, leaving.who, action, target, facts=facts, session=leaving.session))
    if leaving.way in PURPOSES:
        tell(unit, key, PURPOSES[leaving.way])
    return True


def tell(unit: Unit, key: Archived, purpose: str) -> None:
    """Have the owner of a key told, in this transaction."""
    unit.emit(DomainEvent(key.org, RELEASED, "escrowed-key", key.id, key.person, {"purpose": purpose}))


async def supersede(unit: Unit, org: UUID, identifier: UUID) -> None:
    """A key has its certificate: of those of its slot only the newest stays current. Raises StaleVersion."""
    key = await store.key_by_id(unit, org, identifier)
    assert key is not None
    for other in await store.current_of_slot(unit, key):
        older = other if other.created_at <= key.created_at else key
        await store.update_key(unit, older, {"superseded_at": unit.now})
        if older is key:
            return
