"""SQL of the tables of requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, or_, select

from ..devices.model import Reason
from ..store.requests_tables import device_request, device_request_transition
from ..store.transitions import note
from ..store.unit import Unit
from .model import WAITING, Request, RequestKind, RequestState


def _request(row: Row[Any]) -> Request:
    return Request(
        id=row.id,
        org=row.org,
        kind=RequestKind(row.kind),
        state=RequestState(row.state),
        device=row.device,
        card=row.card,
        person=row.person,
        reason=Reason(row.reason),
        temporary=row.temporary,
        strict=row.strict,
        made_by=row.made_by,
        made_by_kind=row.made_by_kind,
        approved_by=row.approved_by,
        issued_by=row.issued_by,
        session=row.session,
        attempts=row.attempts,
        expires_at=row.expires_at,
        closed_at=row.closed_at,
        created_at=row.created_at,
        version=row.version,
    )


async def by_id(unit: Unit, org: UUID, identifier: UUID) -> Request | None:
    """A request of an organization."""
    row = await unit.row(select(device_request).where(device_request.c.id == identifier, device_request.c.org == org))
    return None if row is None else _request(row)


async def open_of(unit: Unit, org: UUID, device: UUID, kind: RequestKind | None = None) -> list[Request]:
    """Open requests about a device, of one kind or all, oldest first."""
    statement = select(device_request).where(
        device_request.c.org == org, device_request.c.device == device, device_request.c.closed_at.is_(None)
    )
    if kind is not None:
        statement = statement.where(device_request.c.kind == kind)
    return [_request(row) for row in await unit.rows(statement.order_by(device_request.c.id))]


async def open_for_card(unit: Unit, org: UUID, card: UUID) -> list[Request]:
    """Open replacement requests that this device shall fulfil."""
    statement = select(device_request).where(
        device_request.c.org == org, device_request.c.card == card, device_request.c.closed_at.is_(None)
    )
    return [_request(row) for row in await unit.rows(statement.order_by(device_request.c.id))]


async def open_of_person(unit: Unit, org: UUID, person: UUID) -> list[Request]:
    """Open requests about a person's devices."""
    statement = select(device_request).where(
        device_request.c.org == org, device_request.c.person == person, device_request.c.closed_at.is_(None)
    )
    return [_request(row) for row in await unit.rows(statement.order_by(device_request.c.id))]


async def open_after(unit: Unit, after: UUID | None, limit: int) -> list[Request]:
    """Open requests of every organization, in the order of their ids, from beyond ``after``."""
    statement = select(device_request).where(device_request.c.closed_at.is_(None))
    if after is not None:
        statement = statement.where(device_request.c.id > after)
    return [_request(row) for row in await unit.rows(statement.order_by(device_request.c.id).limit(limit))]


async def by_key(unit: Unit, org: UUID, maker: UUID, key: str) -> tuple[Request, str] | None:
    """The request that a maker asked for under an idempotency key, and the fingerprint of what was asked."""
    row = await unit.row(
        select(device_request).where(
            device_request.c.org == org,
            device_request.c.made_by == maker,
            device_request.c.idempotency_key == key,
        )
    )
    return None if row is None else (_request(row), row.fingerprint)


async def find(
    unit: Unit, org: UUID, *conditions: ColumnElement[bool], after: UUID | None = None, limit: int = 50
) -> list[Request]:
    """Requests that meet every condition, in the order of their ids, from beyond ``after``."""
    statement = select(device_request).where(device_request.c.org == org, *conditions)
    if after is not None:
        statement = statement.where(device_request.c.id > after)
    return [_request(row) for row in await unit.rows(statement.order_by(device_request.c.id).limit(limit))]


def person_in(people: Any) -> ColumnElement[bool]:
    """Whose it is, by a subquery."""
    return device_request.c.person.in_(people)


def person_is(person: UUID) -> ColumnElement[bool]:
    """Whose it is."""
    return device_request.c.person == person


def device_is(device: UUID) -> ColumnElement[bool]:
    """Which device it is about or carried out on."""
    return or_(device_request.c.device == device, device_request.c.card == device)


def state_in(states: Collection[RequestState]) -> ColumnElement[bool]:
    """In which states."""
    return device_request.c.state.in_(states)


def kind_in(kinds: Collection[RequestKind]) -> ColumnElement[bool]:
    """Of which kinds."""
    return device_request.c.kind.in_(kinds)


async def lapsed(unit: Unit, limit: int) -> list[Request]:
    """Waiting requests of every organization whose time is over, locked for this unit."""
    statement = (
        select(device_request)
        .where(
            device_request.c.closed_at.is_(None),
            device_request.c.expires_at <= unit.time,
            device_request.c.state.in_(WAITING),
        )
        .order_by(device_request.c.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [_request(row) for row in await unit.rows(statement)]


async def insert(unit: Unit, org: UUID, values: Mapping[str, Any]) -> UUID:
    """Add a request. One that is open already for device and kind makes the unit begin again."""
    return await unit.insert(device_request, {"org": org, **values})


async def update(unit: Unit, request: Request, values: Mapping[str, Any]) -> int:
    """Change a request. Raises StaleVersion."""
    return await unit.update(device_request, request.id, request.version, values)


async def note_step(unit: Unit, org: UUID, subject: UUID, number: int, values: Mapping[str, Any]) -> None:
    """Write a step of a request's machine."""
    await note(unit, device_request_transition, org, subject, number, values)


async def history(unit: Unit, org: UUID, subject: UUID) -> list[Row[Any]]:
    """Every step of a request, in order."""
    table = device_request_transition
    return list(
        await unit.rows(select(table).where(table.c.subject == subject, table.c.org == org).order_by(table.c.number))
    )
