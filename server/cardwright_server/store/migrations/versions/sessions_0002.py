"""Lives of devices, the FASC-N of a session's card, and contents of data objects as they were written."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "sessions_0002"
down_revision = "sessions_0001"
branch_labels = None
depends_on = None


_ADDED = ("card_session", "card_record", "card_key")


def _add(table: str, name: str, kind: sa.types.TypeEngine[Any], value: object) -> None:
    """A column that must have a value, which for rows that are there already is ``value``."""
    op.add_column(table, sa.Column(name, kind))
    there = sa.table(table, sa.column(name))
    op.execute(there.update().values({name: value}))
    with op.batch_alter_table(table, schema=None) as batch_op:
        batch_op.alter_column(name, existing_type=kind, nullable=False)


def upgrade() -> None:
    """To this revision."""
    for table in _ADDED:
        _add(table, "life", sa.Integer(), 1)
    _add("card_session", "fascn", sa.String(length=50), "")
    with op.batch_alter_table("card_key", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("uq_card_key_device_slot_fingerprint"), type_="unique")
        batch_op.create_unique_constraint(
            op.f("uq_card_key_device_life_slot_fingerprint"), ["device", "life", "slot", "fingerprint"]
        )
    op.create_table(
        "card_object",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("session", sa.Uuid(), nullable=False),
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.Column("life", sa.Integer(), nullable=False),
        sa.Column("tag", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_card_object")),
        sa.UniqueConstraint("device", "life", "tag", name=op.f("uq_card_object_device_life_tag")),
    )


def downgrade() -> None:
    """Back from this revision."""
    op.drop_table("card_object")
    with op.batch_alter_table("card_key", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("uq_card_key_device_life_slot_fingerprint"), type_="unique")
        batch_op.create_unique_constraint(
            op.f("uq_card_key_device_slot_fingerprint"), ["device", "slot", "fingerprint"]
        )
        batch_op.drop_column("life")
    with op.batch_alter_table("card_record", schema=None) as batch_op:
        batch_op.drop_column("life")
    with op.batch_alter_table("card_session", schema=None) as batch_op:
        batch_op.drop_column("fascn")
        batch_op.drop_column("life")
