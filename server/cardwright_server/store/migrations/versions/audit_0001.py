"""Tables of the audit domain."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "audit_0001"
down_revision = None
branch_labels = ("audit",)
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "audit_block",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("previous", sa.LargeBinary(length=32), nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("prepared_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=True),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_block")),
    )
    op.create_table(
        "audit_detail",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=True),
        sa.Column("about", sa.Uuid(), nullable=True),
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_detail")),
    )
    with op.batch_alter_table("audit_detail", schema=None) as batch_op:
        batch_op.create_index("ix_audit_detail_about", ["about"], unique=False)
        batch_op.create_index("ix_audit_detail_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_audit_detail_person", ["person"], unique=False)

    op.create_table(
        "audit_entry",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.String(length=80), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("who_kind", sa.String(length=20), nullable=False),
        sa.Column("who", sa.Uuid(), nullable=True),
        sa.Column("person", sa.Uuid(), nullable=True),
        sa.Column("methods", sa.String(length=200), nullable=False),
        sa.Column("front", sa.String(length=40), nullable=False),
        sa.Column("target_kind", sa.String(length=40), nullable=False),
        sa.Column("target", sa.Uuid(), nullable=True),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("commitment", sa.LargeBinary(length=32), nullable=True),
        sa.Column("correlation", sa.Uuid(), nullable=True),
        sa.Column("session", sa.Uuid(), nullable=True),
        sa.Column("block", sa.BigInteger(), nullable=True),
        sa.Column("place", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entry")),
        sa.UniqueConstraint("block", "place", name=op.f("uq_audit_entry_block_place")),
    )
    with op.batch_alter_table("audit_entry", schema=None) as batch_op:
        batch_op.create_index("ix_audit_entry_target", ["target_kind", "target", "created_at"], unique=False)
        batch_op.create_index(
            "ix_audit_entry_unsealed",
            ["created_at"],
            unique=False,
            postgresql_where=sa.text("block IS NULL"),
            sqlite_where=sa.text("block IS NULL"),
        )
        batch_op.create_index("ix_audit_entry_who", ["who", "created_at"], unique=False)


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("audit_entry", schema=None) as batch_op:
        batch_op.drop_index("ix_audit_entry_who")
        batch_op.drop_index(
            "ix_audit_entry_unsealed", postgresql_where=sa.text("block IS NULL"), sqlite_where=sa.text("block IS NULL")
        )
        batch_op.drop_index("ix_audit_entry_target")

    op.drop_table("audit_entry")
    with op.batch_alter_table("audit_detail", schema=None) as batch_op:
        batch_op.drop_index("ix_audit_detail_person")
        batch_op.drop_index("ix_audit_detail_created_at")
        batch_op.drop_index("ix_audit_detail_about")

    op.drop_table("audit_detail")
    op.drop_table("audit_block")
