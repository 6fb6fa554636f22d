"""Events as they come, for parts of a process that only pass a hint on: nothing is kept, and nothing is owed."""

from __future__ import annotations

from sqlalchemy import func, select

from ..store.notify_tables import outbox
from ..store.unit import Unit
from .store import Recorded

AT_ONCE = 500


async def last(unit: Unit) -> int:
    """The place of the newest event in the one order; 0 before the first."""
    return await unit.value(select(func.max(outbox.c.position))) or 0


async def since(unit: Unit, after: int, limit: int = AT_ONCE) -> list[Recorded]:
    """Events that follow a place, in order. One statement, by an index."""
    query = select(outbox).where(outbox.c.position > after).order_by(outbox.c.position).limit(limit)
    return [
        Recorded(
            row.id,
            row.org,
            row.position,
            row.created_at,
            row.name,
            row.subject_kind,
            row.subject,
            row.person,
            row.data,
            row.correlation,
        )
        for row in await unit.rows(query)
    ]
