"""Tables of the audit: entries, their personal detail, and the sealed blocks."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Text, UniqueConstraint, Uuid

from .columns import Document
from .retention import Retention
from .tables import bare_table, moment, table

audit_entry = table(
    "audit",
    "audit_entry",
    Column("action", String(80), nullable=False),
    Column("outcome", String(10), nullable=False),
    Column("who_kind", String(20), nullable=False),
    Column("who", Uuid),
    Column("person", Uuid),
    Column("methods", String(200), nullable=False),
    Column("front", String(40), nullable=False),
    Column("target_kind", String(40), nullable=False),
    Column("target", Uuid),
    Column("facts", Document, nullable=False),
    Column("commitment", LargeBinary(32)),
    Column("correlation", Uuid),
    Column("session", Uuid),
    # Place in the chain; NULL until sealed. Set once, by the one sealer.
    Column("block", BigInteger),
    Column("place", Integer),
    UniqueConstraint("block", "place"),
    retention=Retention.PERMANENT,
    versioned=False,
)
Index("ix_audit_entry_target", audit_entry.c.target_kind, audit_entry.c.target, audit_entry.c.created_at)
Index("ix_audit_entry_who", audit_entry.c.who, audit_entry.c.created_at)
Index(
    "ix_audit_entry_unsealed",
    audit_entry.c.created_at,
    postgresql_where=audit_entry.c.block.is_(None),
    sqlite_where=audit_entry.c.block.is_(None),
)

audit_detail = table(
    "audit",
    "audit_detail",
    # The row's id is the entry's. Without key and detail the commitment says nothing any more.
    Column("person", Uuid),
    Column("about", Uuid),
    Column("key", LargeBinary(32), nullable=False),
    Column("detail", Text, nullable=False),
    Index("ix_audit_detail_person", "person"),
    Index("ix_audit_detail_about", "about"),
    Index("ix_audit_detail_created_at", "created_at"),
    retention=Retention.PERSONAL_DETAIL,
    counts_from="created_at",
    versioned=False,
)

audit_block = bare_table(
    "audit",
    "audit_block",
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("previous", LargeBinary(32), nullable=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("entries", Integer, nullable=False),
    moment("prepared_at", nullable=False),
    # NULL between the commit that fixes what is in the block and the one that keeps its signature.
    Column("signed", LargeBinary),
    Column("signature", LargeBinary),
    retention=Retention.PERMANENT,
)
