"""SQL of the audit's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, bindparam, delete, func, insert, or_, select, update

from ..store.audit_tables import audit_block, audit_detail, audit_entry
from ..store.unit import Unit

_CHAINED = audit_entry.c.block.is_not(None)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries to find; None: any. ``action`` may end with "." for a whole domain: ``device.``."""

    action: str | None = None
    target: UUID | None = None
    who: UUID | None = None
    person: UUID | None = None
    session: UUID | None = None
    correlation: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


async def last_block(unit: Unit) -> Row[Any] | None:
    """The newest block, signed or not."""
    return await unit.row(select(audit_block).order_by(audit_block.c.number.desc()).limit(1))


async def block(unit: Unit, number: int) -> Row[Any] | None:
    """The block of that number."""
    return await unit.row(select(audit_block).where(audit_block.c.number == number))


async def unsealed(unit: Unit, limit: int) -> Sequence[Row[Any]]:
    """Entries that are in no block yet, oldest first."""
    query = select(audit_entry).where(audit_entry.c.block.is_(None))
    return await unit.rows(query.order_by(audit_entry.c.created_at, audit_entry.c.id).limit(limit))


async def count_unsealed(unit: Unit, before: datetime) -> int:
    """How many entries older than that are in no block, or in one without signature."""
    unsigned = select(audit_block.c.number).where(audit_block.c.signed.is_(None))
    open_ = or_(audit_entry.c.block.is_(None), audit_entry.c.block.in_(unsigned))
    query = select(func.count()).select_from(audit_entry)
    found: int = await unit.value(query.where(open_, audit_entry.c.created_at < before))
    return found


async def count_outside(unit: Unit, last: int) -> int:
    """How many entries say that they are in a block that does not exist."""
    query = select(func.count()).select_from(audit_entry)
    known = select(audit_block.c.number).where(audit_block.c.number == audit_entry.c.block)
    found: int = await unit.value(query.where(_CHAINED, or_(audit_entry.c.block > last, ~known.exists())))
    return found


async def prepare(unit: Unit, values: Mapping[str, Any], entries: Sequence[UUID]) -> None:
    """Fix what is in a block, before it is signed."""
    await unit.execute(insert(audit_block).values(values))
    if entries:
        placed = update(audit_entry).where(audit_entry.c.id == bindparam("entry"))
        rows = [{"entry": entry, "number": values["number"], "at": place} for place, entry in enumerate(entries)]
        await unit.execute(placed.values(block=bindparam("number"), place=bindparam("at")), rows)


async def move_to_epoch(unit: Unit, number: int, epoch: int) -> None:
    """A block that is not signed yet belongs to a newer epoch."""
    pending = (audit_block.c.number == number, audit_block.c.signed.is_(None))
    await unit.execute(update(audit_block).where(*pending).values(epoch=epoch))


async def keep_signature(unit: Unit, number: int, signed: bytes, signature: bytes) -> None:
    """Keep a block's signature, unless another sealer did already."""
    pending = (audit_block.c.number == number, audit_block.c.signed.is_(None))
    await unit.execute(update(audit_block).where(*pending).values(signed=signed, signature=signature))


async def blocks(unit: Unit, after: int, limit: int) -> Sequence[Row[Any]]:
    """Signed blocks in order, from the one after a number."""
    query = select(audit_block).where(audit_block.c.number > after, audit_block.c.signed.is_not(None))
    return await unit.rows(query.order_by(audit_block.c.number).limit(limit))


async def count_blocks(unit: Unit, first: int) -> int:
    """How many signed blocks there are from that number on."""
    signed = select(func.count()).select_from(audit_block).where(audit_block.c.signed.is_not(None))
    found: int = await unit.value(signed.where(audit_block.c.number >= first))
    return found


async def entries_of(unit: Unit, first: int, last: int) -> Sequence[Row[Any]]:
    """Entries of some blocks, in order."""
    query = select(audit_entry).where(audit_entry.c.block.between(first, last))
    return await unit.rows(query.order_by(audit_entry.c.block, audit_entry.c.place))


async def details_of(unit: Unit, first: int, last: int) -> Sequence[Row[Any]]:
    """Personal detail that is still there, of the entries of some blocks."""
    query = select(audit_detail.c.id, audit_detail.c.key, audit_detail.c.detail)
    query = query.join(audit_entry, audit_entry.c.id == audit_detail.c.id)
    return await unit.rows(query.where(audit_entry.c.block.between(first, last)))


async def find(
    unit: Unit, org: UUID, wanted: Filter, *, before: tuple[datetime, UUID] | None, limit: int
) -> Sequence[Row[Any]]:
    """Entries of an organization, newest first, with their detail (``key`` and ``detail`` are None where erased)."""
    query = _filtered(org, wanted)
    at, identifier = audit_entry.c.created_at, audit_entry.c.id
    if before is not None:
        query = query.where(or_(at < before[0], (at == before[0]) & (identifier < before[1])))
    return await unit.rows(query.order_by(at.desc(), identifier.desc()).limit(limit))


async def erase(unit: Unit, org: UUID, person: UUID) -> int:
    """Remove the detail of everything the person did, and of what was said about them. Gives the number of rows."""
    theirs = or_(audit_detail.c.person == person, audit_detail.c.about == person)
    return (await unit.execute(delete(audit_detail).where(audit_detail.c.org == org, theirs))).rowcount


def _filtered(org: UUID, wanted: Filter) -> Select[Any]:
    detail = audit_entry.outerjoin(audit_detail, audit_entry.c.id == audit_detail.c.id)
    query = select(audit_entry, audit_detail.c.detail).select_from(detail).where(audit_entry.c.org == org)
    if wanted.action is not None:
        column = audit_entry.c.action
        domain = wanted.action.endswith(".")
        query = query.where(column.startswith(wanted.action, autoescape=True) if domain else column == wanted.action)
    for name in ("target", "who", "person", "session", "correlation"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(audit_entry.c[name] == value)
    if wanted.since is not None:
        query = query.where(audit_entry.c.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(audit_entry.c.created_at < wanted.until)
    return query
