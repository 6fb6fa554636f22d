"""What is due for a device: facts that other domains keep current, read by one indexed query.

A row says what becomes due and when. Certificates are due from the beginning of their renewal window, a new version of
a policy from its publication, and so on; what is done with is removed. So asking costs one statement, and the answer
"nothing" comes with the moment until which it is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from ..notify.model import DomainEvent
from ..policies.model import DeviceKind
from ..store.columns import UtcTime
from ..store.devices_tables import device, device_due
from ..store.ids import new_id
from ..store.question import Among, Question
from ..store.unit import Unit
from .model import IN_USE, DeviceState


class What(StrEnum):
    """What can be due, the most pressing first."""

    REVOKED = "revoked"
    """Its certificates are revoked; the card is to be taken out of use."""
    LOCK = "lock"
    """It is out of use, and its PIN is to be blocked."""
    UNLOCK = "unlock"
    """It was locked, and is in use again: its holder is to set a new PIN."""
    REPLACEMENT = "replacement"
    """This device replaces another one and waits to be issued."""
    ACTIVATION = "activation"
    """It was written, and waits until its holder activates it."""
    RECOVERED_KEYS = "recovered-keys"
    POLICY = "policy"
    RENEWAL = "renewal"
    SECRETS = "secrets"
    """PUK or management key are to be changed at the next sealed or trusted contact."""
    REQUEST = "request"
    """Someone asked for an update or re-issue."""


_ORDER = {what: place for place, what in enumerate(What)}


@dataclass(frozen=True, slots=True)
class DueItem:
    """One thing that is due: since when, and when it is too late, if ever."""

    what: What
    since: datetime
    ends_at: datetime | None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Due:
    """What is due now, the most pressing first. ``until``: when more becomes due; None if nothing is known."""

    what: tuple[DueItem, ...]
    until: datetime | None


@dataclass(frozen=True, slots=True)
class DueOfCard:
    """What is due for a card at ``now``, the time of the database. ``beside``: what was asked along."""

    device: UUID
    kind: DeviceKind
    state: DeviceState
    due: Due
    life: int
    policy_number: int | None
    now: datetime
    beside: Any = field(default=None, repr=False)


NUMBERED = (DeviceKind.SMART_CARD, DeviceKind.USB_KEY, DeviceKind.VIRTUAL_CARD, DeviceKind.PKCS11_TOKEN)
"""Kinds of devices that show a card UUID and a maker's number."""
MANDATORY_AFTER: Final = "mandatory_after_days"
"""In the detail of what is due: so many days after its beginning it cannot be put off any more."""
REPLACE_BEFORE: Final = timedelta(days=30)
"""How long before the end of a card whose certificates end with it a replacement is asked for."""
WARNINGS = (30, 14, 7, 3, 1)
"""Days before the end on which holders are warned."""


class RowOfCard(NamedTuple):
    """One thing that is or becomes due for a card; a card of which nothing is known has one row without ``what``."""

    now: datetime
    device: UUID
    guid: UUID | None
    kind: str
    state: str
    life: int
    policy_number: int | None
    beside: Any
    what: str | None
    due_at: datetime
    ends_at: datetime | None
    detail: Any


Beside = Callable[[ColumnElement[UUID], ColumnElement[int]], ColumnElement[Any]]
"""What another domain asks along, from tables of its own, about a device (its id) in its life."""


def _of_card(beside: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Select[Any]:
    """In the order of ``RowOfCard``."""
    joined = device.outerjoin(device_due, device_due.c.device == device.c.id)
    now = func.coalesce(bindparam("now", type_=UtcTime), func.now(type_=UtcTime), type_=UtcTime)
    facts = (device.c.id, device.c.guid, device.c.kind, device.c.state, device.c.life, device.c.policy_number)
    due = (device_due.c.what, device_due.c.due_at, device_due.c.ends_at, type_coerce(device_due.c.detail, Text))
    # Said so that no index serves it: that of the card UUID is always the better one, and a plan is kept for long.
    mine = device.c.org.is_not_distinct_from(bindparam("org", type_=device.c.org.type))
    return select(now, *facts, beside, *due).select_from(joined).where(mine, *conditions)


_OF_BLANK: Final = _of_card(
    null(),
    device.c.kind.in_(NUMBERED),
    device.c.serial == bindparam("serial", type_=device.c.serial.type),
    # One that was erased shows none any more, until it is back in stock.
    or_(device.c.guid.is_(None), device.c.state == DeviceState.TERMINATED),
    device.c.person.is_not(None),
)


class DueOfCards:
    """What is due for cards that say their card UUIDs: one statement for all of them, made once.

    ``beside`` is asked along, so that what another domain knows of the same cards costs no statement of its own.
    """

    def __init__(self, beside: Beside) -> None:
        def make(among: Among) -> Select[Any]:
            return _of_card(beside(device.c.id, device.c.life), among(device.c.guid, "guids"))

        self._question = Question(make)

    async def ask(self, unit: Unit, org: UUID, guids: Sequence[UUID]) -> dict[UUID, Sequence[RowOfCard]]:
        """By card UUID what ``due_of`` reads; without cards that are not ours."""
        asked = {"now": unit.known_time, "org": org, "guids": list(guids)}
        found = _by_device(await unit.ask(self._question, asked))
        return {rows[0].guid: rows for rows in found if rows[0].guid is not None}


class DueList:
    """The list. Stateless; a ``PolicyFollower``."""

    async def due(self, unit: Unit, org: UUID, identifier: UUID) -> Due:
        """What is due for a device: one statement."""
        rows = await unit.rows(
            select(unit.time.label("now"), device_due).where(device_due.c.device == identifier, device_due.c.org == org)
        )
        return _due(rows)

    async def of_blank(self, unit: Unit, org: UUID, serial: str) -> DueOfCard | None:
        """The same for a bound card that has no card UUID yet, by its maker's number. One statement.

        None also where several kinds of devices have this number.
        """
        asked = {"now": unit.known_time, "org": org, "serial": serial}
        found = _by_device((await unit.execute(_OF_BLANK, asked)).all())
        return due_of(found[0]) if len(found) == 1 else None

    async def put(
        self,
        unit: Unit,
        org: UUID,
        identifier: UUID,
        what: What,
        due_at: datetime,
        *,
        ends_at: datetime | None = None,
        detail: Mapping[str, Any] | None = None,
        keep: bool = False,
    ) -> None:
        """Say when something becomes due, in place of what was said of it before; with ``keep`` that stays."""
        values = {
            "id": new_id(),
            "org": org,
            "created_at": unit.now,
            "changed_at": unit.now,
            "version": 1,
            "device": identifier,
            "what": what,
            "due_at": due_at,
            "ends_at": ends_at,
            "detail": dict(detail or {}),
        }
        statement = (postgresql if unit.postgresql else sqlite).insert(device_due).values(values)
        if keep:
            await unit.execute(statement.on_conflict_do_nothing(index_elements=["device", "what"]))
            return
        changed = {
            "due_at": due_at,
            "ends_at": ends_at,
            "detail": dict(detail or {}),
            "requested_at": None,
            "warned_days": None,
            "changed_at": unit.now,
            "version": device_due.c.version + 1,
        }
        await unit.execute(statement.on_conflict_do_update(index_elements=["device", "what"], set_=changed))

    async def remove(self, unit: Unit, identifier: UUID, *what: What) -> None:
        """It is done with; without ``what``, everything of the device."""
        statement = delete(device_due).where(device_due.c.device == identifier)
        await unit.execute(statement.where(device_due.c.what.in_(what)) if what else statement)

    async def policy_published(
        self, unit: Unit, org: UUID, policy: UUID, number: int, mandatory_after: timedelta | None
    ) -> None:
        """Every device in use under an older version is due for an update: two statements, however many there are."""
        older = (
            device.c.org == org,
            device.c.policy == policy,
            or_(device.c.policy_number.is_(None), device.c.policy_number < number),
            device.c.state.in_(IN_USE),
        )
        affected = select(device.c.id).where(*older)
        await unit.execute(
            delete(device_due).where(device_due.c.what == What.POLICY, device_due.c.device.in_(affected))
        )
        # The key only has to be unique, so a device's own id serves; there is one such row for each device.
        names = ["id", "org", "created_at", "changed_at", "version", "device", "what", "due_at", "detail"]
        rows = select(
            device.c.id,
            device.c.org,
            unit.time,
            unit.time,
            literal(1),
            device.c.id,
            literal(What.POLICY.value),
            unit.time,
            literal(_published(number, mandatory_after), device_due.c.detail.type),
        ).where(*older)
        await unit.execute(insert(device_due).from_select(names, rows))

    async def to_request(self, unit: Unit, limit: int = 100) -> list[tuple[UUID, UUID, What]]:
        """Take what is due and has no request yet, of every organization: (organization, device, what).

        The rows are marked in this unit, so that two schedulers never take the same one.
        """
        chosen = await unit.rows(
            select(device_due.c.id, device_due.c.org, device_due.c.device, device_due.c.what)
            .select_from(device_due.join(device, device.c.id == device_due.c.device))
            .where(
                device_due.c.what.in_((What.RENEWAL, What.POLICY, What.RECOVERED_KEYS)),
                device_due.c.requested_at.is_(None),
                device_due.c.due_at <= unit.time,
                device.c.state == DeviceState.ISSUED,
            )
            .order_by(device_due.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True, of=device_due)
        )
        await self._set(unit, [row.id for row in chosen], {"requested_at": unit.now})
        return [(row.org, row.device, What(row.what)) for row in chosen]

    async def to_replace(self, unit: Unit, limit: int = 100) -> list[tuple[UUID, UUID]]:
        """Take (organization, device) of those that end soon and cannot be renewed, for whom nothing was asked yet."""
        chosen = await unit.rows(
            select(device_due.c.id, device_due.c.org, device_due.c.device)
            .select_from(device_due.join(device, device.c.id == device_due.c.device))
            .where(
                device_due.c.what == What.RENEWAL,
                device_due.c.requested_at.is_(None),
                device_due.c.due_at >= device_due.c.ends_at,
                device_due.c.ends_at <= unit.now + REPLACE_BEFORE,
                device.c.state == DeviceState.ISSUED,
                device.c.temporary.is_(False),
            )
            .order_by(device_due.c.ends_at)
            .limit(limit)
            .with_for_update(skip_locked=True, of=device_due)
        )
        await self._set(unit, [row.id for row in chosen], {"requested_at": unit.now})
        return [(row.org, row.device) for row in chosen]

    async def to_revoke(self, unit: Unit, limit: int = 100) -> list[tuple[UUID, UUID]]:
        """(organization, device) of those out of use whose revocation cannot wait, locked in this unit."""
        rows = await unit.rows(
            select(device_due.c.org, device_due.c.device)
            .select_from(device_due.join(device, device.c.id == device_due.c.device))
            .where(
                device_due.c.what == What.REVOKED,
                device_due.c.due_at <= unit.time,
                device.c.state == DeviceState.INVALID,
            )
            .order_by(device_due.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True, of=device_due)
        )
        return [(row.org, row.device) for row in rows]

    async def warn(self, unit: Unit, limit: int = 100) -> int:
        """Emit ``device.renewal-warning`` for each end that came closer than the next of ``WARNINGS``; how many."""
        now = unit.now
        closer = or_(
            *(
                and_(
                    device_due.c.ends_at <= now + timedelta(days=days),
                    or_(device_due.c.warned_days.is_(None), device_due.c.warned_days > days),
                )
                for days in WARNINGS
            )
        )
        chosen = await unit.rows(
            select(device_due.c.id, device_due.c.org, device_due.c.device, device_due.c.ends_at, device.c.person)
            .select_from(device_due.join(device, device.c.id == device_due.c.device))
            .where(
                device_due.c.what == What.RENEWAL,
                device_due.c.ends_at > now,
                device_due.c.ends_at <= now + timedelta(days=WARNINGS[0]),
                device.c.state.in_((DeviceState.ISSUED, DeviceState.SUSPENDED)),
                closer,
            )
            .order_by(device_due.c.ends_at)
            .limit(limit)
            .with_for_update(skip_locked=True, of=device_due)
        )
        for row in chosen:
            days = min(one for one in WARNINGS if row.ends_at <= now + timedelta(days=one))
            await self._set(unit, [row.id], {"warned_days": days})
            data = {"days": days, "ends_at": row.ends_at.isoformat()}
            unit.emit(DomainEvent(row.org, "device.renewal-warning", "device", row.device, row.person, data))
        return len(chosen)

    async def _set(self, unit: Unit, rows: list[UUID], values: Mapping[str, Any]) -> None:
        if rows:
            await unit.execute(
                update(device_due)
                .where(device_due.c.id.in_(rows))
                .values(**values, changed_at=unit.now, version=device_due.c.version + 1)
            )


def due_of(rows: Sequence[RowOfCard]) -> DueOfCard:
    """What the rows of one card say. Raises ValueError for what this program does not know."""
    first = rows[0]
    things = [row._replace(detail=msgspec.json.decode(row.detail)) for row in rows if row.what is not None]
    return DueOfCard(
        first.device,
        DeviceKind(first.kind),
        DeviceState(first.state),
        _due(things),
        first.life,
        first.policy_number,
        first.now,
        first.beside,
    )


def _by_device(rows: Iterable[Sequence[Any]]) -> list[Sequence[RowOfCard]]:
    found: dict[UUID, list[RowOfCard]] = {}
    for row in map(RowOfCard._make, rows):
        found.setdefault(row.device, []).append(row)
    return list(found.values())


def _due(rows: Any) -> Due:
    now = [row for row in rows if row.due_at <= row.now]
    later = [row.due_at for row in rows if row.due_at > row.now]
    items = sorted(
        (DueItem(What(row.what), row.due_at, row.ends_at, row.detail) for row in now),
        key=lambda item: _ORDER[item.what],
    )
    return Due(tuple(items), min(later, default=None))


def _published(number: int, mandatory_after: timedelta | None) -> dict[str, int]:
    """The detail of POLICY."""
    return {"number": number} if mandatory_after is None else {"number": number, MANDATORY_AFTER: mandatory_after.days}
