"""Leases: what one process of several does, until it stops renewing. By the time of the database only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import case, or_, update

from .ids import new_id
from .system_tables import lease
from .unit import Unit


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was just got or renewed. ``fence`` grows with each change of holder."""

    name: str
    holder: UUID
    until: datetime
    fence: int


async def acquire(unit: Unit, name: str, holder: UUID, length: timedelta) -> Lease | None:
    """Get or renew the lease; None while another holds it. The row is locked until the unit ends.

    So what is done in the same unit is done by one holder only, also by one that slept past its time. A lease that ends
    much later than one that is got now is from before the clock was set back: else nobody could have it until then.
    """
    until = unit.now + length
    free = or_(lease.c.until <= unit.now, lease.c.until > until + length, lease.c.holder == holder)
    found = await unit.row(
        update(lease)
        .where(lease.c.name == name, free)
        .values(holder=holder, until=until, fence=lease.c.fence + case((lease.c.holder == holder, 0), else_=1))
        .returning(lease.c.fence)
    )
    if found is not None:
        return Lease(name, holder, until, found.fence)
    first = {"name": name, "holder": holder, "until": until, "fence": 1}
    made = await unit.insert_if_absent(lease, first, ["name"])
    return None if made is None else Lease(name, holder, until, 1)


async def release(unit: Unit, held: Lease) -> None:
    """Give the lease back before its time, if it is still held."""
    mine = (lease.c.name == held.name, lease.c.holder == held.holder, lease.c.fence == held.fence)
    await unit.execute(update(lease).where(*mine).values(until=unit.now))


def new_holder() -> UUID:
    """A name for a process that will hold leases: made once at its start."""
    return new_id()
