"""Tables of authentication: counted attempts, secrets given or chosen, proofs, the first credential."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, LargeBinary, String, UniqueConstraint, Uuid

from .retention import Retention
from .tables import moment, reference, table

attempt_counter = table(
    "authentication",
    "attempt_counter",
    # The person, or a number made of a login that nobody has: both are counted, so that neither shows.
    Column("subject", Uuid, nullable=False),
    Column("method", String(40), nullable=False),
    Column("state", String(20), nullable=False),
    Column("attempts", Integer, nullable=False),
    moment("window_began_at", nullable=False),
    # NULL while locked: until someone helps.
    moment("locked_until"),
    # When the row says nothing any more; NULL while it must be kept.
    moment("idle_at"),
    UniqueConstraint("org", "subject", "method"),
    Index("ix_attempt_counter_idle_at", "idle_at"),
    retention=Retention.TRANSIENT,
    counts_from="idle_at",
)

given_password = table(
    "authentication",
    "given_password",
    Column("person", Uuid, nullable=False),
    Column("method", String(40), nullable=False),
    Column("hash", String(300), nullable=False),
    moment("expires_at", nullable=False),
    # The one request that an emergency password is for.
    Column("request", Uuid),
    Column("single_use", Boolean, nullable=False),
    moment("used_at"),
    UniqueConstraint("org", "person", "method"),
    Index("ix_given_password_expires_at", "expires_at"),
    retention=Retention.TRANSIENT,
    counts_from="expires_at",
)

security_question = table(
    "authentication",
    "security_question",
    Column("text", String(300), nullable=False),
    Column("place", Integer, nullable=False),
    Column("active", Boolean, nullable=False),
    Index("ix_security_question_org", "org"),
    retention=Retention.PERMANENT,
)

security_answer = table(
    "authentication",
    "security_answer",
    Column("person", Uuid, nullable=False),
    reference(security_question, "question"),
    Column("hash", String(300), nullable=False),
    UniqueConstraint("person", "question"),
    Index("ix_security_answer_question", "question"),
    retention=Retention.ACCOUNT,
    versioned=False,
)

proof = table(
    "authentication",
    "proof",
    Column("subject", Uuid, nullable=False),
    Column("methods", String(200), nullable=False),
    moment("expires_at", nullable=False),
    moment("ended_at"),
    Column("network", String(100), nullable=False),
    Column("device", Uuid),
    Column("request", Uuid),
    Index("ix_proof_subject", "subject"),
    Index("ix_proof_expires_at", "expires_at"),
    retention=Retention.TRANSIENT,
    counts_from="expires_at",
)

first_credential = table(
    "authentication",
    "first_credential",
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    moment("expires_at", nullable=False),
    # The two persons, once they are enrolled; with both it is spent.
    Column("administrator", Uuid),
    Column("security_officer", Uuid),
    moment("closed_at"),
    UniqueConstraint("org"),
    retention=Retention.PERMANENT,
)
