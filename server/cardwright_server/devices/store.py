"""SQL of the tables of devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, delete, func, or_, select
from sqlalchemy import update as sql_update

from ..policies.model import DeviceKind
from ..store.devices_tables import device, device_hold, device_lot, device_number, device_secret, device_transition
from ..store.transitions import note
from ..store.unit import Unit
from .model import IN_USE, LIVE, STANDING_IN, Derivation, Device, DeviceState, HoldReason, Lot, Reason, SecretSource


def _device(row: Row[Any]) -> Device:
    return Device(
        id=row.id,
        org=row.org,
        kind=DeviceKind(row.kind),
        serial=row.serial,
        lot=row.lot,
        state=DeviceState(row.state),
        reason=Reason(row.reason),
        person=row.person,
        policy=row.policy,
        policy_number=row.policy_number,
        replaces=row.replaces,
        temporary=row.temporary,
        guid=row.guid,
        fascn=row.fascn,
        session=row.session,
        life=row.life,
        card_locked=row.card_locked,
        issued_at=row.issued_at,
        expires_at=row.expires_at,
        activate_by=row.activate_by,
        disposition=row.disposition,
        version=row.version,
    )


async def by_id(unit: Unit, org: UUID, identifier: UUID) -> Device | None:
    """A device of an organization."""
    row = await unit.row(select(device).where(device.c.id == identifier, device.c.org == org))
    return None if row is None else _device(row)


async def serials(unit: Unit, org: UUID, identifiers: Collection[UUID]) -> dict[UUID, str]:
    """Serial numbers by ids, of those devices that an organization has."""
    statement = select(device.c.id, device.c.serial).where(device.c.org == org, device.c.id.in_(identifiers))
    return {row.id: row.serial for row in await unit.rows(statement)}


async def by_guid(unit: Unit, org: UUID, guid: UUID) -> Device | None:
    """The device whose card says this card UUID now."""
    row = await unit.row(select(device).where(device.c.guid == guid, device.c.org == org))
    return None if row is None else _device(row)


async def by_serial(unit: Unit, org: UUID, kind: DeviceKind, serial: str) -> Device | None:
    """A device by what is printed on it."""
    row = await unit.row(select(device).where(device.c.kind == kind, device.c.serial == serial, device.c.org == org))
    return None if row is None else _device(row)


async def find(
    unit: Unit,
    org: UUID,
    *conditions: ColumnElement[bool],
    after: UUID | None = None,
    limit: int = 50,
) -> list[Device]:
    """Devices that meet every condition, in the order of their ids, from beyond ``after``."""
    statement = select(device).where(device.c.org == org, *conditions).order_by(device.c.id).limit(limit)
    if after is not None:
        statement = statement.where(device.c.id > after)
    return [_device(row) for row in await unit.rows(statement)]


def person_is(person: UUID) -> ColumnElement[bool]:
    """Whose it is."""
    return device.c.person == person


def person_in(people: Any, *, stock: bool) -> ColumnElement[bool]:
    """Whose it is, by a subquery; with ``stock`` also nobody's."""
    inside: ColumnElement[bool] = device.c.person.in_(people)
    return inside | device.c.person.is_(None) if stock else inside


def state_is(states: Collection[DeviceState]) -> ColumnElement[bool]:
    """In which states."""
    return device.c.state.in_(states)


def serial_is(serial: str) -> ColumnElement[bool]:
    """With which serial number."""
    return device.c.serial == serial


async def of_person(unit: Unit, org: UUID, person: UUID) -> list[Device]:
    """The live devices of a person, oldest first."""
    rows = await unit.rows(
        select(device)
        .where(device.c.org == org, device.c.person == person, device.c.state.in_(LIVE))
        .order_by(device.c.id)
    )
    return [_device(row) for row in rows]


async def count_live(unit: Unit, org: UUID, person: UUID, policy: UUID) -> int:
    """Live devices of a person under a policy that count: no stand-ins, and no replacement before it is in use."""
    found: int = await unit.value(
        select(func.count())
        .select_from(device)
        .where(
            device.c.org == org,
            device.c.person == person,
            device.c.policy == policy,
            device.c.state.in_(LIVE),
            device.c.temporary.is_(False),
            device.c.replaces.is_(None) | device.c.state.in_(IN_USE),
        )
    )
    return found


async def has_live_stand_in(unit: Unit, org: UUID, original: UUID) -> bool:
    """Whether a device that replaces this one is in use or on its way."""
    found = select(device.c.id).where(
        device.c.org == org, device.c.replaces == original, device.c.state.in_(STANDING_IN)
    )
    return await unit.value(found.limit(1)) is not None


async def overdue(unit: Unit, event_column: str, states: Collection[DeviceState], limit: int) -> list[Device]:
    """Devices of every organization in these states whose moment in a column has passed, locked for this unit."""
    column = device.c[event_column]
    statement = (
        select(device)
        .where(column <= unit.time, device.c.state.in_(states))
        .order_by(column)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [_device(row) for row in await unit.rows(statement)]


async def insert(unit: Unit, org: UUID, values: Mapping[str, Any]) -> UUID | None:
    """Add a device; None if one of the kind and serial number is there."""
    base = {"org": org, "reason": Reason.NONE, "temporary": False, "life": 1, "card_locked": False, "disposition": ""}
    added: UUID | None = await unit.insert_if_absent(device, {**base, **values}, ["kind", "serial"])
    return added


async def update(unit: Unit, identifier: UUID, version: int, values: Mapping[str, Any]) -> int:
    """Change a device. Raises StaleVersion."""
    return await unit.update(device, identifier, version, values)


async def put_back(unit: Unit, org: UUID, identifier: UUID, kind: str, values: Mapping[str, Any]) -> bool:
    """Make a device what it was at ``changed_at``, one of ``values``; False if it is, or was changed later."""
    row = await unit.row(select(device).where(device.c.id == identifier))
    if row is None:
        made = {"id": identifier, "org": org, "kind": kind, "created_at": values["changed_at"], **values}
        return await unit.insert_if_absent(device, made, ["kind", "serial"]) is not None
    # One transaction may have moved it twice, both at the same time.
    same = row.changed_at == values["changed_at"] and (row.state, row.reason) == (values["state"], values["reason"])
    if same or row.changed_at > values["changed_at"]:
        return False
    changed = sql_update(device).where(device.c.id == identifier, device.c.version == row.version)
    await unit.execute(changed.values(**values, version=row.version + 1))
    return True


async def put_back_lock(unit: Unit, org: UUID, identifier: UUID, locked: bool, at: datetime) -> bool:
    """Say of a device whether its card was locked at ``at``; False if it is not known, or was changed later."""
    # One transaction may have written the device, and then this.
    same = and_(device.c.changed_at == at, device.c.card_locked.is_not(locked))
    earlier = or_(device.c.changed_at < at, same)
    changed = sql_update(device).where(device.c.id == identifier, device.c.org == org, earlier)
    values = {"card_locked": locked, "changed_at": at, "version": device.c.version + 1}
    return (await unit.execute(changed.values(**values))).rowcount > 0


async def note_step(unit: Unit, org: UUID, subject: UUID, number: int, values: Mapping[str, Any]) -> None:
    """Write a step of a device's machine."""
    await note(unit, device_transition, org, subject, number, values)


async def history(unit: Unit, org: UUID, subject: UUID) -> list[Row[Any]]:
    """Every step of a device, in order."""
    statement = select(device_transition).where(device_transition.c.subject == subject, device_transition.c.org == org)
    return list(await unit.rows(statement.order_by(device_transition.c.number)))


async def holds(unit: Unit, identifier: UUID) -> frozenset[HoldReason]:
    """Why a device is held."""
    rows = await unit.rows(select(device_hold.c.reason).where(device_hold.c.device == identifier))
    return frozenset(HoldReason(row.reason) for row in rows)


async def add_hold(unit: Unit, org: UUID, identifier: UUID, reason: HoldReason, who: UUID | None) -> bool:
    """Hold a device for one more reason; whether that changed anything."""
    values = {"org": org, "device": identifier, "reason": reason, "who": who}
    return await unit.insert_if_absent(device_hold, values, ["device", "reason"]) is not None


async def remove_hold(unit: Unit, identifier: UUID, reason: HoldReason) -> None:
    """Lift one hold."""
    await unit.execute(delete(device_hold).where(device_hold.c.device == identifier, device_hold.c.reason == reason))


async def remove_holds(unit: Unit, identifier: UUID) -> None:
    """Forget every hold: a new life begins."""
    await unit.execute(delete(device_hold).where(device_hold.c.device == identifier))


async def insert_lot(unit: Unit, lot: Lot) -> bool:
    """Add a lot; whether its name was free."""
    values = {
        "id": lot.id,
        "org": lot.org,
        "name": lot.name,
        "kind": lot.kind,
        "source": lot.source,
        "derivation": lot.derivation,
    }
    return await unit.insert_if_absent(device_lot, values, ["org", "name"]) is not None


async def lot(unit: Unit, org: UUID, identifier: UUID) -> Lot | None:
    """A lot of an organization."""
    row = await unit.row(select(device_lot).where(device_lot.c.id == identifier, device_lot.c.org == org))
    return None if row is None else _lot(row)


async def lots(unit: Unit, org: UUID, after: UUID | None, limit: int) -> list[Lot]:
    """Lots of an organization in the order of their ids, from beyond ``after``."""
    statement = select(device_lot).where(device_lot.c.org == org).order_by(device_lot.c.id).limit(limit)
    if after is not None:
        statement = statement.where(device_lot.c.id > after)
    return [_lot(row) for row in await unit.rows(statement)]


def _lot(row: Row[Any]) -> Lot:
    return Lot(row.id, row.org, row.name, DeviceKind(row.kind), SecretSource(row.source), Derivation(row.derivation))


async def insert_secrets(unit: Unit, rows: list[dict[str, Any]]) -> None:
    """Keep sealed secrets."""
    await unit.insert_many(device_secret, rows)


async def secrets(unit: Unit, org: UUID, owners: Collection[UUID]) -> list[Row[Any]]:
    """Sealed secrets of owners, by name."""
    statement = select(device_secret).where(device_secret.c.owner.in_(owners), device_secret.c.org == org)
    return list(await unit.rows(statement.order_by(device_secret.c.name)))


async def secrets_before(unit: Unit, version: int, limit: int) -> list[Row[Any]]:
    """Sealed secrets of every organization under older versions of their master key, oldest first."""
    older = select(device_secret).where(device_secret.c.master_version < version)
    return list(await unit.rows(older.order_by(device_secret.c.id).limit(limit)))


async def reseal(unit: Unit, org: UUID, owner: UUID, name: str, version: int, sealed: bytes) -> bool:
    """Put another seal in place of one by an older version; False if there is none."""
    mine = (device_secret.c.org == org, device_secret.c.owner == owner, device_secret.c.name == name)
    statement = sql_update(device_secret).where(*mine, device_secret.c.master_version < version)
    return (await unit.execute(statement.values(master_version=version, sealed=sealed))).rowcount > 0


async def count_secrets(unit: Unit, *, version: int | None = None, before: int | None = None) -> int:
    """How many sealed secrets of every organization are by that version of the master key, or by an older one."""
    column = device_secret.c.master_version
    wanted = column == version if version is not None else column < before
    return await unit.value(select(func.count()).select_from(device_secret).where(wanted)) or 0


async def newest_number(unit: Unit, org: UUID, identifier: UUID, kind: str, since: datetime) -> str | None:
    """The last number that a device was given after a moment, None if it was given none."""
    n = device_number.c
    mine = (n.org == org, n.device == identifier, n.kind == kind, n.created_at >= since)
    found: str | None = await unit.value(select(n.value).where(*mine).order_by(n.created_at.desc(), n.id).limit(1))
    return found


async def take_number(unit: Unit, org: UUID, identifier: UUID, kind: str, value: str) -> bool:
    """Remember a number for ever; False if it was given out before."""
    row = {"org": org, "device": identifier, "kind": kind, "value": value}
    return await unit.insert_if_absent(device_number, row, ["kind", "value"]) is not None
