"""The tables of the escrow in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Table, and_, delete, func, or_, select

from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot

from ..machine import Actor, Transition
from ..store.escrow_tables import (
    escrow_release,
    escrowed_key,
    escrowed_key_transition,
    key_recovery,
    key_recovery_transition,
    pfx_offer,
    pfx_offer_transition,
)
from ..store.transitions import note
from ..store.unit import Unit
from ..vault.model import EscrowClass, MasterPurpose, Wrapped
from .model import Archived, KeyState, OfferState, PfxOffer, Recovery, RecoveryState

MOST_KEYS = 200
"""Keys of one person that are looked at; the oldest beyond are reached by the listing only."""

# ---------------------------------------------------------------------------------------------------------- keys


async def insert_key(unit: Unit, org: UUID, values: Mapping[str, Any]) -> UUID | None:
    """Add a key; None if its session made one for the slot already."""
    made: UUID | None = await unit.insert_if_absent(escrowed_key, {"org": org, **values}, ["session", "slot"])
    return made


async def key_by_id(unit: Unit, org: UUID, identifier: UUID) -> Archived | None:
    """A key of an organization."""
    return await _one(unit, org, escrowed_key.c.id == identifier)


async def key_by_fingerprint(unit: Unit, org: UUID, fingerprint: str) -> Archived | None:
    """A key of an organization."""
    return await _one(unit, org, escrowed_key.c.fingerprint == fingerprint)


async def key_of_session(unit: Unit, org: UUID, session: UUID, slot: Slot) -> Archived | None:
    """The key that a session had made for a slot."""
    return await _one(unit, org, and_(escrowed_key.c.session == session, escrowed_key.c.slot == int(slot)))


async def newest_of_slot(
    unit: Unit, org: UUID, device: UUID, life: int, slot: Slot, algorithm: Algorithm, but: Set[str]
) -> Archived | None:
    """The newest key that was made for a slot in one life of a device, but those with the fingerprints ``but``."""
    mine = (escrowed_key.c.org == org, escrowed_key.c.device == device, escrowed_key.c.life == life)
    made = (escrowed_key.c.slot == int(slot), escrowed_key.c.algorithm == algorithm.label)
    other = escrowed_key.c.fingerprint.not_in(sorted(but))
    newest = select(escrowed_key).where(*mine, *made, other).order_by(escrowed_key.c.id.desc()).limit(1)
    row = await unit.row(newest)
    return None if row is None else _key(row)


async def certified_of(unit: Unit, org: UUID, person: UUID) -> list[Archived]:
    """Keys of a person that have certificates, newest first."""
    wanted = select(escrowed_key).where(
        escrowed_key.c.org == org, escrowed_key.c.person == person, escrowed_key.c.certificate.is_not(None)
    )
    newest = wanted.order_by(escrowed_key.c.created_at.desc(), escrowed_key.c.id.desc()).limit(MOST_KEYS)
    return [_key(row) for row in await unit.rows(newest)]


async def current_of_slot(unit: Unit, key: Archived) -> list[Archived]:
    """Other certified keys of the same slot that nothing has superseded."""
    rows = await unit.rows(
        select(escrowed_key).where(
            escrowed_key.c.org == key.org,
            escrowed_key.c.device == key.device,
            escrowed_key.c.slot == int(key.slot),
            escrowed_key.c.certificate.is_not(None),
            escrowed_key.c.superseded_at.is_(None),
            escrowed_key.c.id != key.id,
        )
    )
    return [_key(row) for row in rows]


async def find(
    unit: Unit, org: UUID, *conditions: ColumnElement[bool], after: UUID | None, limit: int
) -> list[Archived]:
    """Keys that meet every condition, in the order of their ids, from beyond ``after``."""
    wanted = select(escrowed_key).where(escrowed_key.c.org == org, *conditions)
    if after is not None:
        wanted = wanted.where(escrowed_key.c.id > after)
    return [_key(row) for row in await unit.rows(wanted.order_by(escrowed_key.c.id).limit(limit))]


def person_is(person: UUID) -> ColumnElement[bool]:
    """Whose it is."""
    return escrowed_key.c.person == person


def person_in(people: Any) -> ColumnElement[bool]:
    """Whose it is, by a subquery."""
    return escrowed_key.c.person.in_(people)


async def update_key(unit: Unit, key: Archived, values: Mapping[str, Any]) -> int:
    """Change a key's row. Raises StaleVersion."""
    return await unit.update(escrowed_key, key.id, key.version, values)


async def note_key(unit: Unit, org: UUID, key: UUID, number: int, step: Mapping[str, Any]) -> None:
    """Write a step of a key's machine."""
    await note(unit, escrowed_key_transition, org, key, number, step)


async def insert_release(unit: Unit, org: UUID, values: Mapping[str, Any]) -> bool:
    """Record that a key leaves; False if it is recorded for this session and slot."""
    empty = {"actor": None, "request": None, "device": None, "session": None, "slot": None, "offer": None}
    row = {"org": org, **empty, **values}
    return await unit.insert_if_absent(escrow_release, row, ["key", "session", "slot"]) is not None


# ---------------------------------------------------------------------------------------------------- recoveries


async def insert_recovery(unit: Unit, org: UUID, values: Mapping[str, Any]) -> UUID:
    """Add an approved recovery."""
    return await unit.insert(key_recovery, {"org": org, **values})


async def recoveries_of(unit: Unit, org: UUID, request: UUID) -> list[Recovery]:
    """What was approved under a request."""
    rows = await unit.rows(
        select(key_recovery).where(key_recovery.c.org == org, key_recovery.c.request == request).order_by("id")
    )
    return [_recovery(row) for row in rows]


async def open_recoveries(unit: Unit, org: UUID, device: UUID) -> list[Recovery]:
    """Approved recoveries to a device whose time is not over."""
    rows = await unit.rows(
        select(key_recovery).where(
            key_recovery.c.org == org,
            key_recovery.c.device == device,
            key_recovery.c.state.in_((RecoveryState.RELEASED, RecoveryState.DELIVERED)),
            key_recovery.c.expires_at > unit.now,
        )
    )
    return [_recovery(row) for row in rows]


async def update_recovery(unit: Unit, recovery: Recovery, values: Mapping[str, Any]) -> int:
    """Change a recovery. Raises StaleVersion."""
    return await unit.update(key_recovery, recovery.id, recovery.version, values)


async def note_recovery(unit: Unit, org: UUID, recovery: UUID, number: int, step: Mapping[str, Any]) -> None:
    """Write a step of a recovery's machine."""
    await note(unit, key_recovery_transition, org, recovery, number, step)


async def count_recoveries(unit: Unit, org: UUID, since: datetime, operator: UUID, person: UUID) -> tuple[int, int]:
    """How many an operator approved, and how many were approved for a person."""
    recent = and_(key_recovery.c.org == org, key_recovery.c.created_at > since)
    by = select(func.count()).select_from(key_recovery).where(recent, key_recovery.c.approved_by == operator)
    of = select(func.count()).select_from(key_recovery).where(recent, key_recovery.c.person == person)
    return await unit.value(by) or 0, await unit.value(of) or 0


async def lapsed_recoveries(unit: Unit, limit: int) -> list[tuple[UUID, Recovery]]:
    """Recoveries of every organization whose time is over, locked for this unit, with their organizations."""
    over = key_recovery.c.expires_at <= unit.now
    states = (RecoveryState.RELEASED, RecoveryState.DELIVERED)
    return [(row.org, _recovery(row)) for row in await _lapsed(unit, key_recovery, states, over, limit)]


# -------------------------------------------------------------------------------------------------------- offers


async def sealed_before(unit: Unit, version: int, limit: int) -> list[Archived]:
    """Keys of every organization that older versions of the master key sealed, oldest first."""
    older = select(escrowed_key).where(escrowed_key.c.master < version).order_by(escrowed_key.c.id).limit(limit)
    return [_key(row) for row in await unit.rows(older)]


async def count_sealed(unit: Unit, *, version: int | None = None, before: int | None = None) -> int:
    """How many keys of every organization are sealed by that version of the master key, or by an older one."""
    wanted = escrowed_key.c.master == version if version is not None else escrowed_key.c.master < before
    return await unit.value(select(func.count()).select_from(escrowed_key).where(wanted)) or 0


async def insert_offer(unit: Unit, org: UUID, values: Mapping[str, Any]) -> UUID:
    """Add an offer."""
    return await unit.insert(pfx_offer, {"org": org, **values})


async def offer_by_id(unit: Unit, org: UUID, identifier: UUID) -> PfxOffer | None:
    """An offer of an organization."""
    row = await unit.row(select(pfx_offer).where(pfx_offer.c.id == identifier, pfx_offer.c.org == org))
    return None if row is None else _offer(row)


async def open_offers(unit: Unit, org: UUID, key: UUID) -> list[PfxOffer]:
    """Offers of a key that nobody claimed."""
    rows = await unit.rows(
        select(pfx_offer).where(pfx_offer.c.org == org, pfx_offer.c.key == key, pfx_offer.c.state == OfferState.OFFERED)
    )
    return [_offer(row) for row in rows]


async def update_offer(unit: Unit, offer: PfxOffer, values: Mapping[str, Any]) -> int:
    """Compare and set by the version that was read. Raises StaleVersion."""
    return await unit.update(pfx_offer, offer.id, offer.version, values)


async def note_offer(unit: Unit, org: UUID, offer: UUID, number: int, step: Mapping[str, Any]) -> None:
    """Write a step of an offer's machine."""
    await note(unit, pfx_offer_transition, org, offer, number, step)


async def count_offers(unit: Unit, org: UUID, since: datetime, person: UUID) -> int:
    """How many files a person was offered."""
    wanted = (pfx_offer.c.org == org, pfx_offer.c.person == person, pfx_offer.c.created_at > since)
    return await unit.value(select(func.count()).select_from(pfx_offer).where(*wanted)) or 0


async def lapsed_offers(unit: Unit, limit: int) -> list[PfxOffer]:
    """Offers of every organization whose time is over, locked for this unit."""
    # A clock that was set back must not give an offer a second life: one that begins in the future is over, too.
    over = or_(pfx_offer.c.expires_at <= unit.now, pfx_offer.c.created_at > unit.now)
    return [_offer(row) for row in await _lapsed(unit, pfx_offer, (OfferState.OFFERED,), over, limit)]


async def delete_offers(unit: Unit, org: UUID, person: UUID) -> bool:
    """Remove a person's offers; whether there were any."""
    gone = delete(pfx_offer).where(pfx_offer.c.org == org, pfx_offer.c.person == person)
    return (await unit.execute(gone)).rowcount > 0


# --------------------------------------------------------------------------------------------------------- shared


def step(row: Transition[Any, Any], actor: Actor, who: UUID | None, session: UUID | None = None) -> dict[str, Any]:
    """A step of a machine as it is noted."""
    return {
        "source": row.source,
        "event": row.event,
        "target": row.target,
        "actor": actor,
        "who": who,
        "session": session,
    }


async def _one(unit: Unit, org: UUID, condition: ColumnElement[bool]) -> Archived | None:
    row = await unit.row(select(escrowed_key).where(escrowed_key.c.org == org, condition))
    return None if row is None else _key(row)


async def _lapsed(
    unit: Unit, table: Table, states: Sequence[str], over: ColumnElement[bool], limit: int
) -> Sequence[Row[Any]]:
    wanted = select(table).where(table.c.state.in_(states), over).order_by(table.c.expires_at).limit(limit)
    return await unit.rows(wanted.with_for_update(skip_locked=True))


def _key(row: Row[Any]) -> Archived:
    return Archived(
        id=row.id,
        org=row.org,
        person=row.person,
        device=row.device,
        life=row.life,
        slot=Slot(row.slot),
        session=row.session,
        algorithm=Algorithm.named(row.algorithm),
        fingerprint=row.fingerprint,
        public_key=row.public_key,
        owner=row.owner,
        escrow_class=EscrowClass(row.escrow_class),
        wrapped=Wrapped(MasterPurpose.ARCHIVE, row.master, row.wrapped),
        certificate=row.certificate or b"",
        state=KeyState(row.state),
        created_at=row.created_at,
        certified_at=row.certified_at,
        superseded_at=row.superseded_at,
        version=row.version,
    )


def _recovery(row: Row[Any]) -> Recovery:
    return Recovery(
        row.id,
        row.key,
        row.request,
        row.device,
        row.person,
        row.approved_by,
        RecoveryState(row.state),
        row.expires_at,
        row.version,
    )


def _offer(row: Row[Any]) -> PfxOffer:
    return PfxOffer(
        id=row.id,
        org=row.org,
        key=row.key,
        person=row.person,
        authentication=row.authentication,
        workstation=row.workstation,
        commitment=row.commitment or b"",
        attempts=row.attempts,
        state=OfferState(row.state),
        created_at=row.created_at,
        expires_at=row.expires_at,
        version=row.version,
    )
