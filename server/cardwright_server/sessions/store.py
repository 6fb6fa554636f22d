"""The tables of card sessions in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, delete, func, literal_column, or_, select

from cardwright_cardops.piv.containers import CONTAINERS
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.records import Entry, Kind
from cardwright_cardops.secret import Secret

from ..machine import Actor
from ..policies.model import Origin
from ..store import transitions
from ..store.ids import new_id
from ..store.session_tables import card_key, card_object, card_record, card_session, card_session_transition
from ..store.unit import Unit
from .model import LIVE, SESSION, Agreed, CardKey, CardSession, Purpose, SessionEvent, SessionState

MOST_RECORDS = 10_000
_SECRETS = frozenset(
    {
        Kind.MANAGEMENT_KEY,
        Kind.MANAGEMENT_KEY_SET,
        Kind.MANAGEMENT_KEY_REFUSED,
        Kind.PUK,
        Kind.PUK_SET,
        Kind.RESET,
        Kind.RESET_DONE,
    }
)
_OF_KEYS = sorted(one for one in Purpose if one.follows_policy or one is Purpose.RECYCLE)
"""What sessions are for that make, release or erase keys and certificates."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What is recorded of a card, oldest first; ``last`` is the number of the last entry of all its lives."""

    entries: tuple[Entry, ...]
    last: int


async def insert(unit: Unit, org: UUID, values: Mapping[str, Any]) -> CardSession:
    """A new session, opened."""
    row = SESSION.next(None, SessionEvent.OPEN, Actor.SERVER)
    empty = {"outcome": "", "plan": "", "plan_document": "", "steps": 0, "done": 0, "ended_at": None, "proof": None}
    made = {"org": org, "state": row.target, **empty, **values}
    identifier = await unit.insert(card_session, made)
    await _note(unit, org, identifier, 1, row.source, row.event, row.target, Actor.SERVER)
    return CardSession(
        identifier,
        org,
        values["device"],
        Purpose(values["purpose"]),
        values["request"],
        values["workstation"],
        row.target,
        "",
        "",
        0,
        0,
        values["life"],
        1,
    )


async def move(
    unit: Unit, session: CardSession, event: SessionEvent, actor: Actor, values: Mapping[str, Any]
) -> CardSession:
    """One step of the machine. Raises IllegalTransition, StaleVersion."""
    row = SESSION.next(session.state, event, actor)
    ended = {"ended_at": unit.now} if row.target in SESSION.final else {}
    version = await unit.update(card_session, session.id, session.version, {"state": row.target, **ended, **values})
    reason = str(values.get("outcome", ""))
    await _note(unit, session.org, session.id, version, row.source, row.event, row.target, actor, reason)
    return await get(unit, session.org, session.id)


async def count(unit: Unit, session: CardSession, done: int) -> CardSession:
    """Record how many steps are done. Raises StaleVersion."""
    await unit.update(card_session, session.id, session.version, {"done": done})
    return await get(unit, session.org, session.id)


async def get(unit: Unit, org: UUID, identifier: UUID) -> CardSession:
    """One session. Raises NoResultFound."""
    found = await unit.execute(select(card_session).where(card_session.c.id == identifier, card_session.c.org == org))
    return _session(found.one())


async def live(unit: Unit, org: UUID, device: UUID) -> list[CardSession]:
    """Sessions of a device that did not end."""
    wanted = (card_session.c.org == org, card_session.c.device == device, card_session.c.state.in_(sorted(LIVE)))
    return [_session(row) for row in await unit.rows(select(card_session).where(*wanted))]


async def is_unfinished(unit: Unit, org: UUID, device: UUID, life: int) -> bool:
    """Whether the newest session of this life that showed a plan, or that ended well, did not end well. One that locked
    the card or set its PIN anew, or was to, finishes nothing of another: what that one made is still to be released.
    """
    told = or_(card_session.c.steps > 0, card_session.c.state == SessionState.DONE)
    told = and_(told, card_session.c.purpose.in_(_OF_KEYS))
    mine = (card_session.c.org == org, card_session.c.device == device, card_session.c.life == life, told)
    newest = select(card_session.c.state).where(*mine).order_by(card_session.c.id.desc()).limit(1)
    return await unit.value(newest) not in (None, SessionState.DONE)


async def last_agreed(unit: Unit, org: UUID, device: UUID, life: int) -> Agreed | None:
    """The newest session of this life that somebody agreed to, or that ended well. A plan that was only shown changed
    nothing.
    """
    steps = card_session_transition
    agreed = select(steps.c.id).where(steps.c.subject == card_session.c.id, steps.c.event == SessionEvent.CONSENT)
    mine = (card_session.c.org == org, card_session.c.device == device, card_session.c.life == life)
    wanted = select(card_session).where(*mine, or_(agreed.exists(), card_session.c.state == SessionState.DONE))
    row = await unit.row(wanted.order_by(card_session.c.id.desc()).limit(1))
    return None if row is None else Agreed(_session(row), row.proof)


async def fascn(unit: Unit, org: UUID, device: UUID, life: int) -> str:
    """The FASC-N that the first session of this life gave the card; "" before it."""
    mine = (card_session.c.org == org, card_session.c.device == device, card_session.c.life == life)
    first = select(card_session.c.fascn).where(*mine).order_by(card_session.c.id).limit(1)
    return await unit.value(first) or ""


async def records(unit: Unit, org: UUID, device: UUID, life: int = 1) -> Journal:
    """The card's journal in one life.

    Secrets are told of all lives: a card keeps them until a new value is set, and no generation comes twice.
    """
    wanted = select(card_record).where(card_record.c.org == org, card_record.c.device == device)
    rows = await unit.rows(wanted.order_by(card_record.c.number).limit(MOST_RECORDS))
    entries = tuple(_entry(row) for row in rows if row.life == life or Kind[row.kind.upper()] in _SECRETS)
    return Journal(entries, rows[-1].number if rows else 0)


async def add_records(
    unit: Unit, session: CardSession, after: int, entries: Sequence[Entry]
) -> list[dict[str, Any]]:
    """Append to the card's journal, whose last entry has number ``after``. Gives the rows."""
    rows = [
        {
            "id": new_id(),
            "org": session.org,
            "session": session.id,
            "device": session.device,
            "life": session.life,
            "number": after + place,
            "kind": entry.kind.name.lower(),
            "reference": entry.reference,
            "slot": None if entry.slot is None else int(entry.slot),
            "fingerprint": entry.fingerprint,
            "algorithm": entry.algorithm,
            "serial": entry.serial,
            "guid": entry.guid,
            # The only values that are kept: secrets are the vault's to give again.
            "certificate": entry.value.reveal() if entry.kind is Kind.CERTIFICATE and entry.value is not None else None,
        }
        for place, entry in enumerate(entries, 1)
    ]
    await unit.insert_many(card_record, rows)
    return rows


async def put_record(unit: Unit, row: Mapping[str, Any]) -> bool:
    """Put back one row of ``add_records``, at its number or, where another took that, at the end; False if it is there.
    """
    if await unit.value(select(card_record.c.id).where(card_record.c.id == row["id"])) is not None:
        return False
    numbers = [
        one.number
        for one in await unit.rows(select(card_record.c.number).where(card_record.c.device == row["device"]))
    ]
    number = max(numbers) + 1 if row["number"] in numbers else row["number"]
    await unit.insert(card_record, {**row, "number": number})
    return True


async def count_by_master(unit: Unit, kind: Kind, confirmed: Kind, version: int) -> int:
    """How many cards of every organization may have a PUK or MANAGEMENT_KEY by a version of its master key.

    Those that ``confirmed`` another value since have it no more.
    """
    later = card_record.alias()
    replaced = select(later.c.id).where(
        later.c.device == card_record.c.device,
        later.c.kind == confirmed.name.lower(),
        later.c.number > card_record.c.number,
        later.c.reference != card_record.c.reference,
    )
    mine = (card_record.c.kind == kind.name.lower(), card_record.c.reference.like(f"%.{version}"))
    counted = select(func.count(card_record.c.device.distinct())).where(*mine, ~replaced.exists())
    return await unit.value(counted) or 0


async def noted_puk(unit: Unit, org: UUID, session: UUID) -> bool:
    """Whether a session recorded a PUK that it was about to set."""
    mine = (card_record.c.org == org, card_record.c.session == session, card_record.c.kind == Kind.PUK.name.lower())
    return await unit.value(select(card_record.c.id).where(*mine).limit(1)) is not None


async def add_key(
    unit: Unit, session: CardSession, slot: Slot, fingerprint: str, public: bytes, origin: str
) -> dict[str, Any] | None:
    """Record where a key came from, unless it is recorded already: the first proof counts. Gives the row if it is new.
    """
    row = {
        "id": new_id(),
        "org": session.org,
        "session": session.id,
        "device": session.device,
        "life": session.life,
        "slot": int(slot),
        "fingerprint": fingerprint,
        "public_key": public,
        "origin": origin,
    }
    return row if await put_key(unit, row) else None


async def put_key(unit: Unit, row: Mapping[str, Any]) -> bool:
    """Put back one row of ``add_key``; False if the key is recorded."""
    return await unit.insert_if_absent(card_key, row, ["device", "life", "slot", "fingerprint"]) is not None


async def keys(unit: Unit, org: UUID, device: UUID, life: int = 1) -> tuple[CardKey, ...]:
    """Keys for which a certificate was asked in one life, oldest first."""
    mine = (card_key.c.org == org, card_key.c.device == device, card_key.c.life == life)
    rows = await unit.rows(select(card_key).where(*mine).order_by(card_key.c.id))
    return tuple(CardKey(Slot(row.slot), row.fingerprint, row.public_key, Origin(row.origin)) for row in rows)


async def made_for(unit: Unit, org: UUID, request: UUID) -> frozenset[str]:
    """Fingerprints of keys for which a certificate was asked in sessions of a request."""
    mine = (card_session.c.request == request, card_session.c.org == org)
    rows = await unit.rows(
        select(card_key.c.fingerprint)
        .select_from(card_session.join(card_key, card_key.c.session == card_session.c.id))
        .where(*mine, card_key.c.device == card_session.c.device)
    )
    return frozenset(row.fingerprint for row in rows)


def newest_key(device: ColumnElement[UUID], life: ColumnElement[int], slot: Slot) -> ColumnElement[bytes]:
    """The key that a slot of a device got last (SubjectPublicKeyInfo), as a part of another domain's question."""
    mine = (card_key.c.device == device, card_key.c.life == life, card_key.c.slot == literal_column(str(int(slot))))
    newest = select(card_key.c.public_key).where(*mine).order_by(card_key.c.id.desc()).limit(literal_column("1"))
    return newest.scalar_subquery()


async def put_objects(unit: Unit, session: CardSession, contents: Mapping[int, bytes]) -> None:
    """Record contents of data objects, by tag, in place of what was recorded of them before."""
    if not contents:
        return
    mine = (card_object.c.device == session.device, card_object.c.life == session.life)
    await unit.execute(delete(card_object).where(*mine, card_object.c.tag.in_(list(contents))))
    common = {"org": session.org, "session": session.id, "device": session.device, "life": session.life}
    await unit.insert_many(card_object, [{**common, "tag": tag, "content": one} for tag, one in contents.items()])


async def objects(unit: Unit, org: UUID, device: UUID, life: int = 1) -> dict[int, bytes]:
    """Contents of data objects as they were last written to the card, or were about to be, by tag.

    The card shows whether that came to pass, but of what it hides behind the PIN: of this only what was written by a
    session that reached its goal. Sessions that are forgotten are not in doubt any more.
    """
    mine = (card_object.c.org == org, card_object.c.device == device, card_object.c.life == life)
    joined = card_object.outerjoin(card_session, card_session.c.id == card_object.c.session)
    read = select(card_object.c.tag, card_object.c.content, card_session.c.state).select_from(joined).where(*mine)
    rows = await unit.rows(read)
    return {
        row.tag: row.content
        for row in rows
        if row.state in (None, SessionState.DONE) or not CONTAINERS[row.tag].contact.needs_person
    }


async def _note(
    unit: Unit,
    org: UUID,
    session: UUID,
    number: int,
    source: SessionState | None,
    event: SessionEvent,
    target: SessionState,
    actor: Actor,
    reason: str = "",
) -> None:
    values = {"source": source, "event": event, "target": target, "actor": actor, "reason": reason[:60]}
    await transitions.note(unit, card_session_transition, org, session, number, values)


def _session(row: Row[Any]) -> CardSession:
    return CardSession(
        row.id,
        row.org,
        row.device,
        Purpose(row.purpose),
        row.request,
        row.workstation,
        SessionState(row.state),
        row.outcome,
        row.plan,
        row.done,
        row.steps,
        row.life,
        row.version,
    )


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        Kind[row.kind.upper()],
        row.reference,
        None if row.slot is None else Slot(row.slot),
        row.fingerprint,
        row.algorithm,
        None if row.certificate is None else Secret(row.certificate),
        row.serial,
        row.guid,
    )
