"""Tables of people: persons, groups, operators, their keys and grants."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, LargeBinary, String, UniqueConstraint, Uuid

from .columns import Document
from .retention import Retention
from .tables import reference, table

person = table(
    "people",
    "person",
    Column("login", String(200), nullable=False),
    Column("folded_login", String(400), nullable=False),
    Column("display_name", String(300), nullable=False),
    Column("mail", String(320), nullable=False),
    Column("status", String(20), nullable=False),
    Column("source", String(60), nullable=False),
    Column("entry", String(200), nullable=False),
    Column("dn", String(2000), nullable=False),
    # From the root of the directory down, so that a branch is a prefix.
    Column("path", String(4000), nullable=False),
    Column("attributes", Document, nullable=False),
    # Of lower case words of login and names: what people are found by.
    Column("search", String(2000), nullable=False),
    UniqueConstraint("org", "folded_login"),
    retention=Retention.ACCOUNT,
)
Index(
    "ix_person_entry",
    person.c.org,
    person.c.source,
    person.c.entry,
    unique=True,
    postgresql_where=person.c.entry != "",
    sqlite_where=person.c.entry != "",
)

person_group = table(
    "people",
    "person_group",
    Column("name", String(200), nullable=False),
    Column("folded_name", String(400), nullable=False),
    Column("source", String(60), nullable=False),
    # SHA-256 of its folded place in the directory; "" for our own groups, which are told apart by name.
    Column("entry", String(64), nullable=False),
    UniqueConstraint("org", "source", "folded_name", "entry"),
    retention=Retention.ACCOUNT,
)

membership = table(
    "people",
    "membership",
    reference(person, cascade=True),
    reference(person_group, "member_of", cascade=True),
    UniqueConstraint("person", "member_of"),
    Index("ix_membership_member_of", "member_of"),
    retention=Retention.ACCOUNT,
    versioned=False,
)

operator = table(
    "people",
    "operator",
    Column("kind", String(20), nullable=False),
    reference(person, nullable=True),
    Column("label", String(200), nullable=False),
    Column("active", Boolean, nullable=False),
    # Grows with every change of grants, keys or activity; what connections remember of an account is as old as this.
    Column("role_version", Integer, nullable=False),
    Index("ix_operator_person", "person"),
    retention=Retention.ACCOUNT,
)

operator_key = table(
    "people",
    "operator_key",
    reference(operator, cascade=True),
    # SHA-256 of the SubjectPublicKeyInfo: one key is one account, in the whole installation.
    Column("spki", LargeBinary(32), nullable=False, unique=True),
    Column("hardware", Boolean, nullable=False),
    Column("device", Uuid),
    Index("ix_operator_key_operator", "operator"),
    retention=Retention.ACCOUNT,
    versioned=False,
)

operator_grant = table(
    "people",
    "operator_grant",
    reference(operator, cascade=True),
    Column("role", String(30), nullable=False),
    Column("reach", String(20), nullable=False),
    Column("scope_group", Uuid),
    Column("branch", String(2000), nullable=False),
    Column("branch_path", String(4000), nullable=False),
    Index("ix_operator_grant_operator", "operator"),
    retention=Retention.ACCOUNT,
    versioned=False,
)
