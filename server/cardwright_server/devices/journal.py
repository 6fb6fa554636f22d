"""What became of devices on the second medium (S11), and how a restore puts it back; and the numbers they were given.

Written when a device comes into use, is held, out of use or at its end, and whenever one of these is over: a card that
was reported as stolen gets no PUK and no certificate from a restored database either.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from ..store.second_medium import JournalEvent, JournalKind, Remembered, Settled
from ..store.unit import Unit
from . import store
from .due import DueList, What
from .model import OUT_OF_REACH, REVOKE_AFTER, Device, DeviceEvent, DeviceState, HoldReason, Reason

REMEMBERED = frozenset(
    {
        DeviceState.STOCK,
        DeviceState.PRODUCED,
        DeviceState.ISSUED,
        DeviceState.SUSPENDED,
        DeviceState.INVALID,
        DeviceState.TERMINATED,
        DeviceState.DISPOSED,
    }
)
"""States whose beginning is written. Those in between pass over, or are begun again."""
_PLAIN = ("serial", "policy_number", "temporary", "life", "card_locked", "fascn", "disposition")
_NAMES = ("lot", "person", "policy", "replaces", "guid")
_MOMENTS = ("issued_at", "expires_at", "activate_by")


class LockStep(StrEnum):
    """How far the lock of a card itself is."""

    BEGUN = "begun"
    DONE = "done"
    OVER = "over"


def device_event(
    device: Device, event: DeviceEvent, values: Mapping[str, Any], hold: HoldReason, *, lock: bool = False
) -> JournalEvent:
    """Of a device that is about to take ``values`` by an event; ``hold``: which one, where that begins or ends one.

    ``lock``: its card is to be locked, too.
    """
    row = {name: values.get(name, getattr(device, name)) for name in (*_PLAIN, *_NAMES, *_MOMENTS)}
    data: dict[str, str | int | bool | None] = {
        "kind": device.kind.value,
        "state": str(values["state"]),
        "reason": str(values.get("reason", device.reason)),
        "event": event.value,
        "hold": hold.value if event in (DeviceEvent.SUSPEND, DeviceEvent.RESUME) else None,
        "lock": lock,
    }
    data |= {name: row[name] for name in _PLAIN}
    data |= {name: None if row[name] is None else str(row[name]) for name in _NAMES}
    data |= {name: None if row[name] is None else row[name].isoformat() for name in _MOMENTS}
    return JournalEvent(JournalKind.DEVICE, device.org, device.id, data)


def lock_event(device: Device, step: LockStep) -> JournalEvent:
    """Of a card whose PIN is about to be blocked, or is, or is set anew."""
    return JournalEvent(JournalKind.DEVICE, device.org, device.id, {"card_lock": step.value})


def number_event(org: UUID, device: UUID, kind: str, value: str) -> JournalEvent:
    """Of a number that is about to be given out, and never again."""
    return JournalEvent(JournalKind.DEVICE, org, device, {"number": kind, "value": value})


async def replay(unit: Unit, remembered: Remembered) -> bool:
    """Put back what a restored database does not know. Gives whether there was anything to do.

    A device that it does not know comes back as well. What was changed after the event stays. Requests are not put
    back, and of what is due only locks of cards and revocations that cannot wait. Events of other domains, and those
    that took no effect, are passed over. All of them may be replayed again. Raises StaleVersion.
    """
    event, data = remembered.event, remembered.event.data
    if event.kind is not JournalKind.DEVICE or remembered.settled is Settled.ABANDONED:
        return False
    if "seal" in data:
        sealed = base64.b64decode(str(data["sealed"]), validate=True)
        return await store.reseal(unit, event.org, event.subject, str(data["seal"]), int(str(data["master"])), sealed)
    if "number" in data:
        return await store.take_number(unit, event.org, event.subject, str(data["number"]), str(data["value"]))
    if "card_lock" in data:
        return await _repeat_lock(unit, event, LockStep(str(data["card_lock"])), remembered.at)
    values: dict[str, Any] = {name: data[name] for name in ("state", "reason", *_PLAIN)}
    values |= {name: UUID(str(data[name])) if data[name] else None for name in _NAMES}
    values |= {name: datetime.fromisoformat(str(data[name])) if data[name] else None for name in _MOMENTS}
    values |= {"session": None, "changed_at": remembered.at}
    if await store.lot(unit, event.org, values["lot"] or UUID(int=0)) is None:
        values["lot"] = None
    if not await store.put_back(unit, event.org, event.subject, str(data["kind"]), values):
        return False
    await _repeat_hold(unit, event)
    await _repeat_due(unit, event, remembered.at)
    return True


def seal_event(org: UUID, owner: UUID, name: str, version: int, sealed: bytes) -> JournalEvent:
    """Of an initial secret that is about to be sealed anew: the master key that sealed it may be destroyed then."""
    data: dict[str, str | int | bool | None] = {
        "seal": name,
        "master": version,
        "sealed": base64.b64encode(sealed).decode(),
    }
    return JournalEvent(JournalKind.DEVICE, org, owner, data)


async def expose(unit: Unit, cards: Mapping[tuple[UUID, UUID], datetime]) -> None:
    """Say of devices that their PUK is to be changed at the next trusted contact, since when; unknown ones not."""
    for (org, identifier), since in cards.items():
        if await store.by_id(unit, org, identifier) is not None:
            await DueList().put(unit, org, identifier, What.SECRETS, since)


async def state_of(unit: Unit, org: UUID, identifier: UUID) -> DeviceState | None:
    """Where a device stands after a restore; None for one that is not known."""
    found = await store.by_id(unit, org, identifier)
    return None if found is None else found.state


async def _repeat_due(unit: Unit, event: JournalEvent, at: datetime) -> None:
    """A loss that was reported before the restore gives no more time to revoke; a card that was to be locked is."""
    happened, reason = DeviceEvent(str(event.data["event"])), Reason(str(event.data["reason"]))
    out_of_use = event.data["state"] in (DeviceState.SUSPENDED, DeviceState.INVALID)
    await DueList().remove(unit, event.subject, What.UNLOCK, *(() if out_of_use else (What.LOCK,)))
    if event.data.get("lock"):
        await DueList().put(unit, event.org, event.subject, What.LOCK, at, keep=True)
    if event.data["card_locked"] and event.data["state"] == DeviceState.ISSUED:
        await DueList().put(unit, event.org, event.subject, What.UNLOCK, at)
    if happened is DeviceEvent.REPORT_INCIDENT and reason in OUT_OF_REACH:
        await DueList().put(unit, event.org, event.subject, What.REVOKED, at + REVOKE_AFTER, keep=True)
    if happened is DeviceEvent.RESTORE:
        await DueList().remove(unit, event.subject, What.REVOKED)


async def _repeat_lock(unit: Unit, event: JournalEvent, step: LockStep, at: datetime) -> bool:
    if not await store.put_back_lock(unit, event.org, event.subject, step is not LockStep.OVER, at):
        return False
    if step is not LockStep.BEGUN:
        await DueList().remove(unit, event.subject, What.UNLOCK if step is LockStep.OVER else What.LOCK)
    return True


async def _repeat_hold(unit: Unit, event: JournalEvent) -> None:
    match DeviceEvent(str(event.data["event"])):
        case DeviceEvent.SUSPEND:
            await store.add_hold(unit, event.org, event.subject, HoldReason(str(event.data["hold"])), None)
        case DeviceEvent.RESUME:
            await store.remove_hold(unit, event.subject, HoldReason(str(event.data["hold"])))
        case DeviceEvent.RECYCLE:
            await store.remove_holds(unit, event.subject)
