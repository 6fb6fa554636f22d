"""SQL of the tables of events and mail."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, bindparam, delete, func, or_, select, update

from ..store import counters
from ..store.notify_tables import consumer, dead_event, mail, mail_template, outbox
from ..store.unit import Unit
from .model import Datum

QUEUED, SENDING, SENT, DEAD = "queued", "sending", "sent", "dead"
_POSITION = "outbox"


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as a consumer gets it: with its id, its place in the order, and when it was committed."""

    id: UUID
    org: UUID
    position: int
    at: datetime
    name: str
    subject_kind: str
    subject: UUID
    person: UUID | None
    data: Mapping[str, Datum] = field(repr=False)
    correlation: UUID | None


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that was claimed for sending."""

    id: UUID
    org: UUID
    recipient: str = field(repr=False)
    subject: str = field(repr=False)
    body: str = field(repr=False)
    message_id: str
    attempts: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Sending:
    """How far a mail is: ``state`` as above. ``due_at``: when it is tried next, while it is queued."""

    id: UUID
    template: str
    recipient: str = field(repr=False)
    state: str
    attempts: int
    created_at: datetime
    due_at: datetime
    closed_at: datetime | None
    error: str


async def place(unit: Unit, limit: int) -> int:
    """Give committed events their place in the order. Gives their number. Only under the sequencer's lease."""
    waiting = select(outbox.c.id).where(outbox.c.position.is_(None))
    rows = await unit.rows(waiting.order_by(outbox.c.created_at, outbox.c.id).limit(limit))
    if rows:
        first = await counters.take(unit, _POSITION, len(rows))
        placed = update(outbox).where(outbox.c.id == bindparam("event")).values(position=bindparam("at"))
        await unit.execute(placed, [{"event": row.id, "at": first + number} for number, row in enumerate(rows)])
    return len(rows)


async def consumer_row(unit: Unit, name: str) -> Row[Any]:
    """Where a consumer stands; made at the beginning of the order if it is new."""
    start = {"name": name, "position": 0, "failures": 0, "not_before": None, "error": ""}
    await unit.insert_if_absent(consumer, start, ["name"])
    row = await unit.row(select(consumer).where(consumer.c.name == name))
    assert row is not None
    return row


async def next_event(unit: Unit, after: int, names: Collection[str] | None = None) -> Recorded | None:
    """The event that follows a position, of those with one of the names if any are given."""
    query = select(outbox).where(outbox.c.position > after).order_by(outbox.c.position).limit(1)
    row = await unit.row(query if names is None else query.where(outbox.c.name.in_(sorted(names))))
    if row is None:
        return None
    who = (row.subject_kind, row.subject, row.person)
    return Recorded(row.id, row.org, row.position, row.created_at, row.name, *who, row.data, row.correlation)


async def move(unit: Unit, name: str, position: int) -> None:
    """A consumer is done with everything up to a position."""
    done = {"position": position, "failures": 0, "not_before": None, "error": ""}
    await unit.execute(update(consumer).where(consumer.c.name == name).values(done))


async def pass_rest(unit: Unit, name: str, position: int) -> bool:
    """Nothing behind a position concerns a consumer: it moves to the end. Whether there was anything."""
    last = await unit.value(select(func.max(outbox.c.position)).where(outbox.c.position > position))
    if last is None:
        return False
    await move(unit, name, last)
    return True


async def fail(unit: Unit, name: str, failures: int, pause: timedelta, error: str) -> None:
    """A consumer could not handle its next event; it tries again after a pause."""
    state = {"failures": failures, "not_before": unit.now + pause, "error": error[:200]}
    await unit.execute(update(consumer).where(consumer.c.name == name).values(state))


async def bury(unit: Unit, name: str, event: Recorded, error: str) -> None:
    """Put an event that a consumer cannot handle aside, so that others get through."""
    row = {"org": event.org, "consumer": name, "event": event.id, "error": error[:200]}
    await unit.insert_if_absent(dead_event, row, ["consumer", "event"])


async def mark_read(unit: Unit) -> int:
    """Mark events that every consumer has passed; from then on their retention counts. Gives their number."""
    passed = select(func.min(consumer.c.position)).scalar_subquery()
    unread = update(outbox).where(outbox.c.read_at.is_(None), outbox.c.position <= passed)
    return (await unit.execute(unread.values(read_at=unit.now))).rowcount


async def own_template(unit: Unit, org: UUID, name: str) -> Row[Any] | None:
    """An organization's own text for an event."""
    return await unit.row(select(mail_template).where(mail_template.c.org == org, mail_template.c.name == name))


async def keep_template(unit: Unit, org: UUID, name: str, subject: str, body: str) -> None:
    """Keep an organization's own text for an event."""
    row = await own_template(unit, org, name)
    if row is None:
        await unit.insert(mail_template, {"org": org, "name": name, "subject": subject, "body": body})
    else:
        await unit.update(mail_template, row.id, row.version, {"subject": subject, "body": body})


async def forget_template(unit: Unit, org: UUID, name: str) -> bool:
    """Remove an organization's own text for an event; whether there was one."""
    own = (mail_template.c.org == org, mail_template.c.name == name)
    return (await unit.execute(delete(mail_template).where(*own))).rowcount > 0


async def queue(unit: Unit, org: UUID, values: Mapping[str, Any]) -> bool:
    """Queue a mail, unless one with its message id is there. Whether it is new."""
    row = {
        "org": org,
        "state": QUEUED,
        "attempts": 0,
        "due_at": unit.now,
        "closed_at": None,
        "claimed_by": None,
        "claimed_until": None,
        "error": "",
    }
    return await unit.insert_if_absent(mail, row | dict(values), ["message_id"]) is not None


async def claim(unit: Unit, holder: UUID, length: timedelta) -> Mail | None:
    """Take the next mail that is due, or whose sender has not been heard of, and count the attempt."""
    waiting = and_(mail.c.state == QUEUED, mail.c.due_at <= unit.now)
    forsaken = and_(mail.c.state == SENDING, mail.c.claimed_until <= unit.now)
    chosen = select(mail.c.id).where(or_(waiting, forsaken)).order_by(mail.c.due_at, mail.c.id).limit(1)
    row = await unit.row(
        update(mail)
        .where(mail.c.id == chosen.with_for_update(skip_locked=True).scalar_subquery())
        .values(
            state=SENDING,
            attempts=mail.c.attempts + 1,
            claimed_by=holder,
            claimed_until=unit.now + length,
            changed_at=unit.now,
            version=mail.c.version + 1,
        )
        .returning(mail)
    )
    if row is None:
        return None
    text = (row.recipient, row.subject, row.body, row.message_id)
    return Mail(row.id, row.org, *text, row.attempts, row.created_at)


async def find(
    unit: Unit,
    org: UUID,
    *,
    template: str | None,
    state: str | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Sending]:
    """Mails of an organization, newest first, from beyond a place."""
    at, identifier = mail.c.created_at, mail.c.id
    query = select(mail).where(mail.c.org == org)
    if template is not None:
        query = query.where(mail.c.template == template)
    if state is not None:
        query = query.where(mail.c.state == state)
    if before is not None:
        query = query.where(or_(at < before[0], and_(at == before[0], identifier < before[1])))
    return [
        Sending(
            row.id,
            row.template,
            row.recipient,
            row.state,
            row.attempts,
            row.created_at,
            row.due_at,
            row.closed_at,
            row.error,
        )
        for row in await unit.rows(query.order_by(at.desc(), identifier.desc()).limit(limit))
    ]


async def close(unit: Unit, claimed: Mail, holder: UUID, state: str, error: str = "") -> bool:
    """A claimed mail was sent, or is given up; its text goes. Whether it was still ours."""
    done = {"state": state, "closed_at": unit.now, "error": error[:200], "subject": "", "body": ""}
    return await _end(unit, claimed, holder, done)


async def put_back(unit: Unit, claimed: Mail, holder: UUID, pause: timedelta, error: str) -> bool:
    """A claimed mail could not be sent now. Whether it was still ours."""
    return await _end(unit, claimed, holder, {"state": QUEUED, "due_at": unit.now + pause, "error": error[:200]})


async def count_mail(unit: Unit) -> dict[str, int]:
    """Number of mails by state: for metrics."""
    rows = await unit.rows(select(mail.c.state, func.count().label("mails")).group_by(mail.c.state))
    return {row.state: row.mails for row in rows}


async def _end(unit: Unit, claimed: Mail, holder: UUID, values: Mapping[str, Any]) -> bool:
    mine = (mail.c.id == claimed.id, mail.c.claimed_by == holder, mail.c.attempts == claimed.attempts)
    freed = {"claimed_by": None, "claimed_until": None, "changed_at": unit.now, "version": mail.c.version + 1}
    statement = update(mail).where(*mine, mail.c.state == SENDING).values(dict(values) | freed)
    return (await unit.execute(statement)).rowcount == 1
