"""Rights that were taken away, on the second medium (S11): keys, roles, accounts, persons; a restore takes them again.

What was given is not written: whoever lost rights that they should have asks for them.
"""

from __future__ import annotations

from uuid import UUID

from ..notify.model import DomainEvent
from ..store.second_medium import JournalEvent, JournalKind, Remembered, Settled
from ..store.unit import Unit
from . import store
from .model import Grant, PersonStatus, Reach, Role, Scope

KEY_REMOVED = "operator.key-removed"
STATUS_CHANGED = "person.status-changed"
_KEY, _GRANT, _ACTIVE, _STATUS = "key", "grant", "active", "status"
_ERASED = "erased"


def key_event(org: UUID, account: UUID, spki: bytes) -> JournalEvent:
    """Of an operator's key that is about to be removed. ``spki``: SHA-256."""
    return JournalEvent(JournalKind.RIGHTS, org, account, {"what": _KEY, "spki": spki.hex()})


def grant_event(org: UUID, account: UUID, grant: Grant) -> JournalEvent:
    """Of a role that is about to be withdrawn."""
    data: dict[str, str | int | bool | None] = {
        "what": _GRANT,
        "role": grant.role.value,
        "reach": grant.scope.reach.value,
        "group": None if grant.scope.group is None else str(grant.scope.group),
        "branch": grant.scope.branch,
    }
    return JournalEvent(JournalKind.RIGHTS, org, account, data)


def active_event(org: UUID, account: UUID, active: bool) -> JournalEvent:
    """Of an account that is about to be closed, or opened again."""
    return JournalEvent(JournalKind.RIGHTS, org, account, {"what": _ACTIVE, "active": active})


def status_event(org: UUID, person: UUID, status: PersonStatus) -> JournalEvent:
    """Of a person who is about to be suspended, to come back or to leave."""
    return JournalEvent(JournalKind.RIGHTS, org, person, {"what": _STATUS, "status": status.value})


def erased_event(org: UUID, person: UUID) -> JournalEvent:
    """Of a person who is about to be erased: a restore must not bring them back (S13). The id names nobody then."""
    return JournalEvent(JournalKind.RIGHTS, org, person, {"what": _ERASED})


def erased(remembered: Remembered) -> UUID | None:
    """The person whom an event erased, for every domain that keeps something of persons; None for other events."""
    event = remembered.event
    is_it = event.kind is JournalKind.RIGHTS and event.data.get("what") == _ERASED
    return event.subject if is_it and remembered.settled is not Settled.ABANDONED else None


async def replay(unit: Unit, remembered: Remembered) -> bool:
    """Take away again what a restored database still gives. Gives whether there was anything to do.

    What was given, or changed, after the event stays. Other domains are told as they were then. Events of other
    domains, and those that took no effect, are passed over. All of them may be replayed again.
    """
    event, data, at = remembered.event, remembered.event.data, remembered.at
    if event.kind is not JournalKind.RIGHTS or remembered.settled is Settled.ABANDONED:
        return False
    told: DomainEvent | None = None
    match data["what"]:
        case what if what == _ERASED:
            return await store.forget_person(unit, event.org, event.subject)
        case what if what == _KEY:
            spki = bytes.fromhex(str(data["spki"]))
            if not await store.delete_key(unit, event.subject, spki, before=at):
                return False
            told = DomainEvent(event.org, KEY_REMOVED, "operator", event.subject, None, {"spki": spki.hex()})
        case what if what == _GRANT:
            group = UUID(str(data["group"])) if data["group"] else None
            grant = Grant(Role(str(data["role"])), Scope(Reach(str(data["reach"])), group, str(data["branch"])))
            if not await store.delete_grant(unit, event.subject, grant, before=at):
                return False
        case what if what == _ACTIVE:
            return await store.activate_again(unit, event.subject, bool(data["active"]), at)
        case _:
            status = PersonStatus(str(data["status"]))
            if not await store.status_again(unit, event.subject, status, at):
                return False
            facts = {"after": status.value}
            unit.emit(DomainEvent(event.org, STATUS_CHANGED, "person", event.subject, event.subject, facts))
            return True
    await store.bump_roles(unit, event.subject, changed_at=at)
    if told is not None:
        unit.emit(told)
    return True
