"""Tables of card sessions: sessions, the journal of each card, where its keys came from, and what was written."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Text, UniqueConstraint, Uuid

from .retention import Retention
from .tables import moment, table
from .transitions import transition_table

card_session = table(
    "sessions",
    "card_session",
    Column("device", Uuid, nullable=False),
    Column("purpose", String(20), nullable=False),
    Column("request", Uuid),
    Column("person", Uuid),
    # Whose proof the session runs on, and through which workstation.
    Column("actor", Uuid, nullable=False),
    Column("workstation", Uuid),
    Column("trusted", Integer, nullable=False),
    Column("software", String(200), nullable=False),
    Column("reader", String(200), nullable=False),
    Column("state", String(20), nullable=False),
    # Stable code of the error, or how it ended well.
    Column("outcome", String(64), nullable=False),
    Column("policy", String(60), nullable=False),
    # SHA-256 and document of the plan that was shown.
    Column("plan", String(64), nullable=False),
    Column("plan_document", Text, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    moment("ended_at"),
    # Which life of the device, as its own table counts them.
    Column("life", Integer, nullable=False),
    # The FASC-N that the card has or is to get, 25 octets in hexadecimal.
    Column("fascn", String(50), nullable=False),
    # The proof of a person that it ran on, from when they agreed to its plan: what broke off is gone on with by it.
    Column("proof", Uuid),
    Index("ix_card_session_device", "device", "state"),
    retention=Retention.HISTORY,
    counts_from="ended_at",
)

card_session_transition = transition_table("sessions", card_session)

card_record = table(
    "sessions",
    "card_record",
    # No foreign key: what a card holds is remembered for longer than the session that wrote it.
    Column("session", Uuid, nullable=False),
    Column("device", Uuid, nullable=False),
    # Order within the card's journal; its uniqueness keeps two writers apart.
    Column("number", Integer, nullable=False),
    Column("kind", String(40), nullable=False),
    # Which secret: generation and version of the master key. Never the secret itself.
    Column("reference", String(60), nullable=False),
    Column("slot", Integer),
    Column("fingerprint", String(64), nullable=False),
    Column("algorithm", Integer),
    Column("serial", String(40), nullable=False),
    Column("guid", Uuid),
    # DER of a certificate.
    Column("certificate", LargeBinary),
    Column("life", Integer, nullable=False),
    UniqueConstraint("device", "number"),
    retention=Retention.ACCOUNT,
    versioned=False,
)

card_key = table(
    "sessions",
    "card_key",
    # No foreign key: what a card holds is remembered for longer than the session that wrote it.
    Column("session", Uuid, nullable=False),
    Column("device", Uuid, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("origin", String(20), nullable=False),
    Column("life", Integer, nullable=False),
    UniqueConstraint("device", "life", "slot", "fingerprint"),
    retention=Retention.ACCOUNT,
    versioned=False,
)

card_object = table(
    "sessions",
    "card_object",
    # No foreign key: what a card holds is remembered for longer than the session that wrote it.
    Column("session", Uuid, nullable=False),
    Column("device", Uuid, nullable=False),
    Column("life", Integer, nullable=False),
    Column("tag", Integer, nullable=False),
    # As its codec encodes it; never a biometric record.
    Column("content", LargeBinary, nullable=False),
    UniqueConstraint("device", "life", "tag"),
    retention=Retention.ACCOUNT,
    versioned=False,
)
