"""Tables of events and mail: the outbox, where each consumer stands, messages and an organization's own texts."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Text, UniqueConstraint, Uuid

from .columns import Document
from .retention import Retention
from .tables import bare_table, moment, table

outbox = table(
    "notify",
    "outbox",
    Column("name", String(80), nullable=False),
    Column("subject_kind", String(40), nullable=False),
    Column("subject", Uuid, nullable=False),
    Column("person", Uuid),
    Column("data", Document, nullable=False),
    Column("correlation", Uuid),
    # Place in the one order that consumers read; NULL until the sequencer gave one. Never a database sequence, which
    # numbers transactions that commit later below those that a consumer has passed already.
    Column("position", BigInteger, unique=True),
    moment("read_at"),
    retention=Retention.EVENTS,
    counts_from="read_at",
    versioned=False,
)
Index(
    "ix_outbox_unplaced",
    outbox.c.created_at,
    postgresql_where=outbox.c.position.is_(None),
    sqlite_where=outbox.c.position.is_(None),
)

consumer = bare_table(
    "notify",
    "outbox_consumer",
    Column("name", String(40), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    moment("not_before"),
    Column("error", String(200), nullable=False),
    retention=Retention.PERMANENT,
)

dead_event = table(
    "notify",
    "outbox_dead",
    Column("consumer", String(40), nullable=False),
    Column("event", Uuid, nullable=False),
    Column("error", String(200), nullable=False),
    UniqueConstraint("consumer", "event"),
    retention=Retention.EVENTS,
    counts_from="created_at",
    versioned=False,
)

mail = table(
    "notify",
    "mail",
    Column("event", Uuid, nullable=False),
    Column("template", String(80), nullable=False),
    Column("recipient", String(320), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("body", Text, nullable=False),
    Column("message_id", String(200), nullable=False, unique=True),
    Column("state", String(10), nullable=False),
    Column("attempts", Integer, nullable=False),
    moment("due_at", nullable=False),
    moment("closed_at"),
    Column("claimed_by", Uuid),
    moment("claimed_until"),
    Column("error", String(200), nullable=False),
    Index("ix_mail_due", "state", "due_at"),
    Index("ix_mail_closed_at", "closed_at"),
    retention=Retention.MESSAGES,
    counts_from="closed_at",
)

mail_template = table(
    "notify",
    "mail_template",
    Column("name", String(80), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("org", "name"),
    retention=Retention.PERMANENT,
)
