"""What is due for a device: facts that other domains keep current, read by one indexed query.

A row says what becomes due and when. Certificates are due from the beginning of their renewal window, a new version of
a policy from its publication, and so on; what is done with is removed. So asking costs one statement, and the answer
"nothing" comes with the moment until which it is true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, bindparam, delete, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ..notify.model import DomainEvent
from ..policies.model import DeviceKind
from ..store.columns import UtcTime
from ..store.devices_tables import device, device_due
from ..store.ids import new_id
from ..store.unit import Unit
from .model import IN_USE, DeviceState


class What(StrEnum):
    """What can be due, the most pressing first."""

    REVOKED = "revoked"
    """Its certificates are revoked; the card is to be taken out of use."""
    LOCK = "lock"
    UNLOCK = "unlock"
    REPLACEMENT = "replacement"
    """This device replaces another one and waits to be issued."""
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
    """What is due for the card that says a card UUID."""

    device: UUID
    state: DeviceState
    due: Due
    life: int = 1
    policy_number: int | None = None


PIV_KINDS = (DeviceKind.SMART_CARD, DeviceKind.USB_KEY, DeviceKind.VIRTUAL_CARD)
"""Kinds of devices that show a card UUID and a maker's number."""
WARNINGS = (30, 14, 7, 3, 1)
"""Days before the end on which holders are warned."""


def _of_card(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Made once: it is asked at every insertion, and making it takes longer than carrying it out."""
    joined = device.outerjoin(device_due, device_due.c.device == device.c.id)
    facts = (device.c.id.label("of"), device.c.state, device.c.life, device.c.policy_number)
    now = func.coalesce(bindparam("now", type_=UtcTime), func.now(type_=UtcTime), type_=UtcTime)
    mine = (device.c.org == bindparam("org", type_=device.c.org.type), *conditions)
    return select(now.label("now"), *facts, device_due).select_from(joined).where(*mine)


_OF_CARD: Final = _of_card(device.c.guid == bindparam("guid", type_=device.c.guid.type))
_OF_BLANK: Final = _of_card(
    device.c.kind.in_(PIV_KINDS),
    device.c.serial == bindparam("serial", type_=device.c.serial.type),
    device.c.guid.is_(None),
    device.c.person.is_not(None),
)


class DueList:
    """The list. Stateless; a ``PolicyFollower``."""

    async def due(self, unit: Unit, org: UUID, identifier: UUID) -> Due:
        """What is due for a device: one statement."""
        rows = await unit.rows(
            select(unit.time.label("now"), device_due).where(device_due.c.device == identifier, device_due.c.org == org)
        )
        return _due(rows)

    async def of_card(self, unit: Unit, org: UUID, guid: UUID) -> DueOfCard | None:
        """The same by what the card says it is, with the device; None for a card that is not ours. One statement."""
        found = await self._of(unit, _OF_CARD, {"org": org, "guid": guid})
        return found[0] if found else None

    async def of_blank(self, unit: Unit, org: UUID, serial: str) -> DueOfCard | None:
        """The same for a bound card that has no card UUID yet, by its maker's number. One statement.

        None also where several kinds of devices have this number.
        """
        found = await self._of(unit, _OF_BLANK, {"org": org, "serial": serial})
        return found[0] if len(found) == 1 else None

    async def _of(self, unit: Unit, statement: Select[Any], parameters: dict[str, Any]) -> list[DueOfCard]:
        by_device: dict[UUID, list[Any]] = {}
        for row in (await unit.execute(statement, parameters | {"now": unit.known_time})).all():
            by_device.setdefault(row.of, []).append(row)
        return [
            DueOfCard(
                identifier,
                DeviceState(rows[0].state),
                _due([row for row in rows if row.what is not None]),
                rows[0].life,
                rows[0].policy_number,
            )
            for identifier, rows in by_device.items()
        ]

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
    ) -> None:
        """Say when something becomes due, in place of what was said of it before."""
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

    async def policy_published(self, unit: Unit, org: UUID, policy: UUID, number: int) -> None:
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
            literal({"number": number}, device_due.c.detail.type),
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


def _due(rows: Any) -> Due:
    now = [row for row in rows if row.due_at <= row.now]
    later = [row.due_at for row in rows if row.due_at > row.now]
    items = sorted(
        (DueItem(What(row.what), row.due_at, row.ends_at, row.detail) for row in now),
        key=lambda item: _ORDER[item.what],
    )
    return Due(tuple(items), min(later, default=None))
