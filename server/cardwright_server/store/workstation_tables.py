"""Tables of workstations: enrolment tokens, workstations, their certificates."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, String, UniqueConstraint

from .retention import Retention
from .tables import moment, reference, table

workstation = table(
    "workstations",
    "workstation",
    Column("host", String(253), nullable=False),
    Column("station_class", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    moment("revoked_at"),
    Column("reason", String(40), nullable=False),
    Index("ix_workstation_org", "org", "host"),
    Index("ix_workstation_revoked_at", "revoked_at"),
    retention=Retention.ACCOUNT,
)

workstation_certificate = table(
    "workstations",
    "workstation_certificate",
    reference(workstation, cascade=True),
    Column("fingerprint", LargeBinary(32), nullable=False, unique=True),
    Column("spki", LargeBinary(32), nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    moment("not_before", nullable=False),
    moment("not_after", nullable=False),
    Index("ix_workstation_certificate_workstation", "workstation"),
    UniqueConstraint("spki"),
    retention=Retention.ACCOUNT,
    versioned=False,
)

enrolment_token = table(
    "workstations",
    "enrolment_token",
    Column("secret", LargeBinary(32), nullable=False),
    Column("host", String(253), nullable=False),
    Column("station_class", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    moment("expires_at", nullable=False),
    # SHA-256 of the SubjectPublicKeyInfo that claimed it: only that key may ask again.
    Column("spki", LargeBinary(32)),
    reference(workstation, nullable=True),
    Index("ix_enrolment_token_workstation", "workstation"),
    Index("ix_enrolment_token_expires_at", "expires_at"),
    retention=Retention.TRANSIENT,
    counts_from="expires_at",
)
