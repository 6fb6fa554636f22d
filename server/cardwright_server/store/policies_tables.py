"""Tables of device policies: names, versions of documents, and the groups that they are assigned to."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Text, UniqueConstraint, Uuid

from .retention import Retention
from .tables import moment, reference, table
from .transitions import transition_table

policy = table(
    "policies",
    "policy",
    Column("name", String(60), nullable=False),
    UniqueConstraint("org", "name"),
    retention=Retention.PERMANENT,
    versioned=False,
)

policy_version = table(
    "policies",
    "policy_version",
    reference(policy),
    Column("number", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    # TOML, as it was written: comments are part of what people agreed to.
    Column("text", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("drafted_by", Uuid, nullable=False),
    Column("published_by", Uuid),
    moment("published_at"),
    UniqueConstraint("policy", "number"),
    Index("ix_policy_version_state", "policy", "state"),
    retention=Retention.PERMANENT,
)

policy_version_transition = transition_table("policies", policy_version)

policy_assignment = table(
    "policies",
    "policy_assignment",
    reference(policy),
    Column("person_group", Uuid, nullable=False),
    UniqueConstraint("policy", "person_group"),
    Index("ix_policy_assignment_group", "person_group"),
    retention=Retention.ACCOUNT,
    versioned=False,
)
