"""Tables of issuance: authorities, certificates, orders, revocation lists."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, Index, Integer, LargeBinary, String, UniqueConstraint, Uuid

from .columns import Document
from .retention import Retention
from .tables import moment, reference, table

issuing_authority = table(
    "issuance",
    "issuing_authority",
    # The name of its key in the vault; of a foreign one, the name that the configuration gives it.
    Column("name", String(60), nullable=False, unique=True),
    Column("purpose", String(20), nullable=False),
    Column("foreign_backend", Boolean, nullable=False),
    Column("subject", LargeBinary, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("responder", String(60), nullable=False),
    Column("active", Boolean, nullable=False),
    # OCSP has no answers until a CRL with a higher number is out: raised by a restore.
    Column("crl_floor", Integer, nullable=False),
    retention=Retention.PERMANENT,
)

issued_certificate = table(
    "issuance",
    "issued_certificate",
    Column("request", Uuid, nullable=False),
    reference(issuing_authority, "authority"),
    # Hex, lower case: 20 octets fit in no integer of a database.
    Column("serial", String(40), nullable=False),
    Column("profile", String(60), nullable=False),
    Column("profile_version", Integer, nullable=False),
    Column("holder_kind", String(20), nullable=False),
    Column("holder", Uuid, nullable=False),
    Column("holder_part", String(60), nullable=False),
    Column("person", Uuid),
    # Hex SHA-256 of the SubjectPublicKeyInfo.
    Column("key", String(64), nullable=False),
    Column("origin", String(20), nullable=False),
    Column("state", String(10), nullable=False),
    Column("holds", Document, nullable=False),
    moment("status_at", nullable=False),
    Column("reason", String(30)),
    moment("not_before", nullable=False),
    moment("not_after", nullable=False),
    Column("session", Uuid),
    Column("tbs", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    CheckConstraint("state in ('prepared', 'held', 'good', 'revoked')", name="state"),
    UniqueConstraint("authority", "serial"),
    UniqueConstraint("org", "request"),
    Index("ix_issued_certificate_holder", "holder", "holder_part", "not_after"),
    Index("ix_issued_certificate_person", "person"),
    Index("ix_issued_certificate_key", "key"),
    Index("ix_issued_certificate_session", "session"),
    Index("ix_issued_certificate_kind", "holder_kind", "not_after"),
    # What a revocation list is made of, and what changed since the last.
    Index("ix_issued_certificate_status", "authority", "status_at"),
    retention=Retention.PERMANENT,
)
Index(
    "ix_issued_certificate_listed",
    issued_certificate.c.authority,
    issued_certificate.c.not_after,
    postgresql_where=issued_certificate.c.state != "good",
    sqlite_where=issued_certificate.c.state != "good",
)

certificate_order = table(
    "issuance",
    "certificate_order",
    Column("request", Uuid, nullable=False),
    # Hex SHA-256 of what was asked: the same id with other content is an error.
    Column("asked", String(64), nullable=False),
    Column("backend", String(40), nullable=False),
    Column("state", String(10), nullable=False),
    reference(issued_certificate, "certificate", nullable=True),
    Column("reference", String(200), nullable=False),
    Column("refusal", String(60), nullable=False),
    Column("profile", String(60), nullable=False),
    Column("profile_version", Integer, nullable=False),
    Column("holder_kind", String(20), nullable=False),
    Column("holder", Uuid, nullable=False),
    Column("holder_part", String(60), nullable=False),
    Column("person", Uuid),
    Column("origin", String(20), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("csr", LargeBinary, nullable=False),
    Column("session", Uuid),
    moment("answered_at"),
    UniqueConstraint("org", "request"),
    Index("ix_certificate_order_certificate", "certificate"),
    Index("ix_certificate_order_open", "state", "created_at"),
    retention=Retention.HISTORY,
    counts_from="answered_at",
)

revocation_list = table(
    "issuance",
    "revocation_list",
    reference(issuing_authority, "authority"),
    Column("number", Integer, nullable=False),
    moment("this_update", nullable=False),
    moment("next_update", nullable=False),
    # SHA-256 (hex) of its entries: tells whether a new one would say anything else.
    Column("entries", String(64), nullable=False),
    Column("tbs", LargeBinary, nullable=False),
    Column("crl", LargeBinary, nullable=False),
    # Set once it is signed: only then it counts as published.
    moment("published_at"),
    UniqueConstraint("authority", "number"),
    retention=Retention.TRANSIENT,
    counts_from="next_update",
)
