"""Tables of requests.."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "requests_0001"
down_revision = None
branch_labels = ("requests",)
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "device_request",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.Column("card", sa.Uuid(), nullable=True),
        sa.Column("person", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.String(length=20), nullable=False),
        sa.Column("temporary", sa.Boolean(), nullable=False),
        sa.Column("strict", sa.Boolean(), nullable=False),
        sa.Column("made_by", sa.Uuid(), nullable=False),
        sa.Column("made_by_kind", sa.String(length=20), nullable=False),
        sa.Column("approved_by", sa.Uuid(), nullable=True),
        sa.Column("issued_by", sa.Uuid(), nullable=True),
        sa.Column("session", sa.Uuid(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.String(length=80), nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_device_request_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_request")),
        sa.UniqueConstraint(
            "org", "made_by", "idempotency_key", name=op.f("uq_device_request_org_made_by_idempotency_key")
        ),
    )
    with op.batch_alter_table("device_request", schema=None) as batch_op:
        batch_op.create_index("ix_device_request_card", ["card"], unique=False)
        batch_op.create_index("ix_device_request_device", ["device"], unique=False)
        batch_op.create_index(
            "ix_device_request_ending",
            ["expires_at"],
            unique=False,
            postgresql_where=sa.text("closed_at IS NULL"),
            sqlite_where=sa.text("closed_at IS NULL"),
        )
        batch_op.create_index(
            "ix_device_request_open",
            ["device", "kind"],
            unique=True,
            postgresql_where=sa.text("closed_at IS NULL"),
            sqlite_where=sa.text("closed_at IS NULL"),
        )
        batch_op.create_index("ix_device_request_org_state", ["org", "state"], unique=False)
        batch_op.create_index("ix_device_request_person", ["person"], unique=False)

    op.create_table(
        "device_request_transition",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=30), nullable=True),
        sa.Column("event", sa.String(length=30), nullable=False),
        sa.Column("target", sa.String(length=30), nullable=False),
        sa.Column("actor", sa.String(length=30), nullable=False),
        sa.Column("who", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.Column("session", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["subject"], ["device_request.id"], name=op.f("fk_device_request_transition_subject"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_request_transition")),
        sa.UniqueConstraint("subject", "number", name=op.f("uq_device_request_transition_subject_number")),
    )


def downgrade() -> None:
    """Back from this revision."""
    op.drop_table("device_request_transition")
    with op.batch_alter_table("device_request", schema=None) as batch_op:
        batch_op.drop_index("ix_device_request_person")
        batch_op.drop_index("ix_device_request_org_state")
        batch_op.drop_index(
            "ix_device_request_open",
            postgresql_where=sa.text("closed_at IS NULL"),
            sqlite_where=sa.text("closed_at IS NULL"),
        )
        batch_op.drop_index(
            "ix_device_request_ending",
            postgresql_where=sa.text("closed_at IS NULL"),
            sqlite_where=sa.text("closed_at IS NULL"),
        )
        batch_op.drop_index("ix_device_request_device")
        batch_op.drop_index("ix_device_request_card")

    op.drop_table("device_request")
