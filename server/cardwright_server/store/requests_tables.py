"""Tables of requests. Nothing is deleted before its retention is over; what is closed has ``closed_at``."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, String, UniqueConstraint, Uuid

from .retention import Retention
from .tables import moment, table
from .transitions import transition_table

device_request = table(
    "requests",
    "device_request",
    Column("kind", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    # The device that it is about, and for a replacement the new one, once it is bound.
    Column("device", Uuid, nullable=False),
    Column("card", Uuid),
    Column("person", Uuid),
    Column("reason", String(20), nullable=False),
    Column("temporary", Boolean, nullable=False),
    Column("strict", Boolean, nullable=False),
    Column("made_by", Uuid, nullable=False),
    Column("made_by_kind", String(20), nullable=False),
    Column("approved_by", Uuid),
    Column("issued_by", Uuid),
    Column("session", Uuid),
    Column("attempts", Integer, nullable=False),
    moment("expires_at"),
    moment("closed_at"),
    Column("idempotency_key", String(80)),
    Column("fingerprint", String(64), nullable=False),
    UniqueConstraint("org", "made_by", "idempotency_key"),
    Index("ix_device_request_device", "device"),
    Index("ix_device_request_card", "card"),
    Index("ix_device_request_person", "person"),
    Index("ix_device_request_org_state", "org", "state"),
    retention=Retention.HISTORY,
    counts_from="closed_at",
)
_OPEN = device_request.c.closed_at.is_(None)
Index(
    "ix_device_request_open",
    device_request.c.device,
    device_request.c.kind,
    unique=True,
    postgresql_where=_OPEN,
    sqlite_where=_OPEN,
)
Index("ix_device_request_ending", device_request.c.expires_at, postgresql_where=_OPEN, sqlite_where=_OPEN)

device_request_transition = transition_table("requests", device_request)
