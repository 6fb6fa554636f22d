"""Tables of devices: lots and their secrets, devices, holds, numbers given out, and what is due."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, LargeBinary, String, UniqueConstraint, Uuid

from .columns import Document
from .retention import Retention
from .tables import moment, reference, table
from .transitions import transition_table

device_lot = table(
    "devices",
    "device_lot",
    Column("name", String(60), nullable=False),
    Column("kind", String(20), nullable=False),
    # Where initial secrets come from: constant, per card, or a vendor's master key with the named derivation.
    Column("source", String(20), nullable=False),
    Column("derivation", String(40), nullable=False),
    UniqueConstraint("org", "name"),
    retention=Retention.PERMANENT,
    versioned=False,
)

device = table(
    "devices",
    "device",
    Column("kind", String(20), nullable=False),
    Column("serial", String(80), nullable=False),
    reference(device_lot, "lot", nullable=True),
    Column("state", String(20), nullable=False),
    Column("reason", String(20), nullable=False),
    Column("person", Uuid),
    Column("policy", Uuid),
    Column("policy_number", Integer),
    # The device that this one stands in for, and whether only for a while.
    Column("replaces", Uuid),
    Column("temporary", Boolean, nullable=False),
    Column("guid", Uuid),
    Column("fascn", String(50)),
    # Of the card session that works on it now; NULL between sessions.
    Column("session", Uuid),
    # How often it began a new life as stock.
    Column("life", Integer, nullable=False),
    Column("card_locked", Boolean, nullable=False),
    moment("bound_at"),
    moment("issued_at"),
    moment("expires_at"),
    moment("activate_by"),
    moment("ended_at"),
    Column("disposition", String(30), nullable=False),
    UniqueConstraint("kind", "serial"),
    Index("ix_device_lot", "lot"),
    Index("ix_device_person", "person"),
    Index("ix_device_guid", "guid", unique=True),
    Index("ix_device_policy", "policy", "state"),
    Index("ix_device_replaces", "replaces"),
    Index("ix_device_expires_at", "expires_at"),
    Index("ix_device_activate_by", "activate_by"),
    Index("ix_device_org_state", "org", "state"),
    retention=Retention.ACCOUNT,
)

device_transition = transition_table("devices", device)

device_hold = table(
    "devices",
    "device_hold",
    reference(device, cascade=True),
    Column("reason", String(20), nullable=False),
    Column("who", Uuid),
    UniqueConstraint("device", "reason"),
    retention=Retention.ACCOUNT,
    versioned=False,
)

device_secret = table(
    "devices",
    "device_secret",
    # A lot's, or one card's: the id that the vault's seal is bound to.
    Column("owner", Uuid, nullable=False),
    Column("name", String(20), nullable=False),
    # Sealed by the vault; never in clear.
    Column("master", String(30), nullable=False),
    Column("master_version", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    UniqueConstraint("owner", "name"),
    retention=Retention.ACCOUNT,
    versioned=False,
)

device_number = table(
    "devices",
    "device_number",
    Column("kind", String(20), nullable=False),
    Column("value", String(50), nullable=False),
    Column("device", Uuid, nullable=False),
    # Unique in the installation and for ever: rows are never removed.
    UniqueConstraint("kind", "value"),
    Index("ix_device_number_device", "device"),
    retention=Retention.PERMANENT,
    versioned=False,
)

device_due = table(
    "devices",
    "device_due",
    reference(device, cascade=True),
    Column("what", String(20), nullable=False),
    moment("due_at", nullable=False),
    # When it is too late: a certificate ends, a replacement lapses.
    moment("ends_at"),
    Column("detail", Document, nullable=False),
    moment("requested_at"),
    # Days before the end for which the last warning was given.
    Column("warned_days", Integer),
    UniqueConstraint("device", "what"),
    Index("ix_device_due_unrequested", "what", "requested_at", "due_at"),
    Index("ix_device_due_ends_at", "what", "ends_at"),
    retention=Retention.ACCOUNT,
)
