"""Counters that never give a number twice and leave no gap: a locked row each, no database sequence."""

from __future__ import annotations

from sqlalchemy import select, update

from .system_tables import counter
from .unit import Unit


async def take(unit: Unit, name: str, numbers: int = 1) -> int:
    """The first of ``numbers`` consecutive ones, from 1. Waits for other takers; a rollback gives them back."""
    statement = update(counter).where(counter.c.name == name).values(value=counter.c.value + numbers)
    last: int | None = await unit.value(statement.returning(counter.c.value))
    if last is None:
        if await unit.insert_if_absent(counter, {"name": name, "value": numbers}, ["name"]) is not None:
            return 1
        last = await unit.value(statement.returning(counter.c.value))
        assert last is not None
    return last - numbers + 1


async def raise_to(unit: Unit, name: str, value: int) -> int:
    """See that no number up to ``value`` is given any more (after a restore). Gives the counter's value."""
    present = await current(unit, name)
    if value > present:
        await take(unit, name, value - present)
    return max(value, present)


async def current(unit: Unit, name: str) -> int:
    """The last number given, 0 if none."""
    return await unit.value(select(counter.c.value).where(counter.c.name == name)) or 0
