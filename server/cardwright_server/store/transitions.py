"""What a machine did to a row, step by step: the same table for every domain, beside the row itself.

``number`` is the row's version after the step, so that the order of steps is that of commits and none is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Integer, String, Table, UniqueConstraint, Uuid, insert

from .ids import new_id
from .retention import Retention
from .tables import reference, table
from .unit import Unit


def transition_table(domain: str, subject: Table) -> Table:
    """``<subject>_transition``: goes when its subject is erased."""
    return table(
        domain,
        f"{subject.name}_transition",
        reference(subject, "subject", cascade=True),
        Column("number", Integer, nullable=False),
        Column("source", String(30)),
        Column("event", String(30), nullable=False),
        Column("target", String(30), nullable=False),
        Column("actor", String(30), nullable=False),
        Column("who", Uuid),
        Column("reason", String(60), nullable=False),
        Column("session", Uuid),
        UniqueConstraint("subject", "number"),
        retention=Retention.ACCOUNT,
        versioned=False,
    )


async def note(
    unit: Unit, transitions: Table, org: UUID, subject: UUID, number: int, values: Mapping[str, Any]
) -> None:
    """Write one step. ``values``: source, event, target, actor, and what else is known of who, reason, session."""
    row = {"who": None, "reason": "", "session": None, **values}
    await unit.execute(
        insert(transitions).values(id=new_id(), org=org, created_at=unit.now, subject=subject, number=number, **row)
    )
