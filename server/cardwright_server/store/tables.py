"""The one ``metadata``, and the conventions that every table of every domain follows.

A domain's tables stand in ``store/<domain>_tables.py``; only the domain's own ``store.py`` imports that module. Each
table is made by ``table``, which adds the columns that all share, its retention rule and its domain.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, MetaData, Table, Uuid
from sqlalchemy.schema import SchemaItem

from .columns import UtcTime
from .retention import PERIODS, Retention, Rule

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=NAMES)
"""All tables. ``load`` fills it with those of every domain."""


def table(
    domain: str,
    name: str,
    *items: SchemaItem,
    retention: Retention,
    counts_from: str | None = None,
    versioned: bool = True,
) -> Table:
    """A table of a domain: ``id``, ``org``, ``created_at``, then ``items``, then ``changed_at`` and ``version``.

    ``versioned=False`` is for rows that are written once and never updated; they lack the last two columns.
    ``retention`` and ``counts_from`` say when the purge removes a row (``retention.Rule``); a class with a period
    needs ``counts_from``, else ValueError.
    """
    common: list[SchemaItem] = [
        Column("id", Uuid, primary_key=True),
        Column("org", Uuid, nullable=False),
        Column("created_at", UtcTime, nullable=False),
    ]
    tail: list[SchemaItem] = []
    if versioned:
        tail = [
            Column("changed_at", UtcTime, nullable=False),
            Column("version", Integer, nullable=False),
            CheckConstraint("version > 0", name="version"),
        ]
    made = Table(name, metadata, *common, *items, *tail, info=_info(domain, retention, counts_from))
    return _checked(made)


def bare_table(
    domain: str, name: str, *items: SchemaItem, retention: Retention, counts_from: str | None = None
) -> Table:
    """A table of the installation itself (leases, counters): nothing but ``items``, and no organization."""
    info = _info(domain, retention, counts_from) | {"installation": True}
    return _checked(Table(name, metadata, *items, info=info))


def reference(target: Table, name: str = "", *, nullable: bool = False, cascade: bool = False) -> Column[Any]:
    """A foreign key to a table of the same domain, called ``<table>`` unless named. Not indexed by itself."""
    return Column(
        name or target.name,
        Uuid,
        ForeignKey(target.c.id, ondelete="CASCADE" if cascade else None),
        nullable=nullable,
    )


def moment(name: str, *, nullable: bool = True) -> Column[Any]:
    """A column for a moment in UTC."""
    return Column(name, UtcTime, nullable=nullable)


def rule_of(made: Table) -> Rule:
    """The retention rule of a table."""
    rule: Rule = made.info["retention"]
    return rule


def load() -> MetaData:
    """``metadata`` with the tables of every domain in it: imports each ``*_tables`` module beside this one."""
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.endswith("_tables"):
            importlib.import_module(f"{__package__}.{module.name}")
    return metadata


def _info(domain: str, retention: Retention, counts_from: str | None) -> dict[str, Any]:
    return {"domain": domain, "retention": Rule(retention, counts_from)}


def _checked(made: Table) -> Table:
    rule = rule_of(made)
    if (PERIODS[rule.retention] is None) != (rule.counts_from is None):
        raise ValueError(f"{made.name}: {rule.retention} and counts_from={rule.counts_from} do not go together")
    if rule.counts_from is not None and not isinstance(made.c[rule.counts_from].type, UtcTime):
        raise ValueError(f"{made.name}: {rule.counts_from} is no moment")
    return made
