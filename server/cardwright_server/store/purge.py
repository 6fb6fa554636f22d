"""The purge: removes rows whose time is over, by the retention rule of their table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from sqlalchemy import Table, delete, select

from .retention import PERIODS, Retention
from .tables import load, rule_of
from .unit import Database, Unit

BATCH = 500
"""Rows removed by one transaction, so that nobody waits long."""


async def purge(database: Database, periods: Mapping[Retention, timedelta | None] = PERIODS) -> dict[str, int]:
    """Remove what is over and give the number of rows by table, tables without any left out.

    Children go before their parents; a parent that something kept still points to stays. Safe to run at any time, by
    several at once, and to interrupt. Raises KeyError if ``periods`` lacks a class.
    """
    removed: dict[str, int] = {}
    for table in reversed(load().sorted_tables):
        rule = rule_of(table)
        period = periods[rule.retention]
        if period is None or rule.counts_from is None:
            continue
        while count := await database.transact(partial(_batch, table=table, period=period)):
            removed[table.name] = removed.get(table.name, 0) + count
    return removed


async def _batch(unit: Unit, table: Table, period: timedelta) -> int:
    since = table.c[rule_of(table).counts_from or ""]
    (key,) = table.primary_key.columns
    over = select(key).where(since < unit.now - period)
    for child in load().tables.values():
        for reference in child.foreign_keys:
            if reference.column.table is table and reference.ondelete != "CASCADE" and child is not table:
                over = over.where(~select(reference.parent).where(reference.parent == key).exists())
    statement = delete(table).where(key.in_(over.limit(BATCH).scalar_subquery()))
    return (await unit.execute(statement)).rowcount
