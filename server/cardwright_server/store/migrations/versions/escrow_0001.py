"""Archived keys, recoveries, offers of files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "escrow_0001"
down_revision = None
branch_labels = ("escrow",)
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "escrowed_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=True),
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.Column("life", sa.Integer(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("session", sa.Uuid(), nullable=False),
        sa.Column("algorithm", sa.String(length=20), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("escrow_class", sa.String(length=20), nullable=False),
        sa.Column("master", sa.Integer(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=True),
        sa.Column("certified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("superseded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_escrowed_key_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_escrowed_key")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_escrowed_key_fingerprint")),
        sa.UniqueConstraint("session", "slot", name=op.f("uq_escrowed_key_session_slot")),
    )
    with op.batch_alter_table("escrowed_key", schema=None) as batch_op:
        batch_op.create_index("ix_escrowed_key_device", ["device", "slot"], unique=False)
        batch_op.create_index("ix_escrowed_key_person", ["person"], unique=False)

    op.create_table(
        "escrow_release",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("way", sa.String(length=20), nullable=False),
        sa.Column("actor", sa.Uuid(), nullable=True),
        sa.Column("request", sa.Uuid(), nullable=True),
        sa.Column("device", sa.Uuid(), nullable=True),
        sa.Column("session", sa.Uuid(), nullable=True),
        sa.Column("slot", sa.Integer(), nullable=True),
        sa.Column("offer", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["key"], ["escrowed_key.id"], name=op.f("fk_escrow_release_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_escrow_release")),
        sa.UniqueConstraint("key", "session", "slot", name=op.f("uq_escrow_release_key_session_slot")),
    )
    op.create_table(
        "escrowed_key_transition",
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
            ["subject"], ["escrowed_key.id"], name=op.f("fk_escrowed_key_transition_subject"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_escrowed_key_transition")),
        sa.UniqueConstraint("subject", "number", name=op.f("uq_escrowed_key_transition_subject_number")),
    )
    op.create_table(
        "key_recovery",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("request", sa.Uuid(), nullable=False),
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=False),
        sa.Column("approved_by", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_key_recovery_version")),
        sa.ForeignKeyConstraint(["key"], ["escrowed_key.id"], name=op.f("fk_key_recovery_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_recovery")),
        sa.UniqueConstraint("request", "key", name=op.f("uq_key_recovery_request_key")),
    )
    with op.batch_alter_table("key_recovery", schema=None) as batch_op:
        batch_op.create_index("ix_key_recovery_approved_by", ["approved_by", "created_at"], unique=False)
        batch_op.create_index("ix_key_recovery_device", ["device"], unique=False)
        batch_op.create_index("ix_key_recovery_ending", ["state", "expires_at"], unique=False)
        batch_op.create_index("ix_key_recovery_key", ["key", "device"], unique=False)
        batch_op.create_index("ix_key_recovery_person", ["person", "created_at"], unique=False)

    op.create_table(
        "pfx_offer",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=False),
        sa.Column("authentication", sa.Uuid(), nullable=False),
        sa.Column("workstation", sa.Uuid(), nullable=True),
        sa.Column("commitment", sa.LargeBinary(length=32), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_pfx_offer_version")),
        sa.ForeignKeyConstraint(["key"], ["escrowed_key.id"], name=op.f("fk_pfx_offer_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pfx_offer")),
    )
    with op.batch_alter_table("pfx_offer", schema=None) as batch_op:
        batch_op.create_index("ix_pfx_offer_ending", ["state", "expires_at"], unique=False)
        batch_op.create_index("ix_pfx_offer_key", ["key"], unique=False)
        batch_op.create_index("ix_pfx_offer_person", ["person", "created_at"], unique=False)

    op.create_table(
        "key_recovery_transition",
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
            ["subject"], ["key_recovery.id"], name=op.f("fk_key_recovery_transition_subject"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_recovery_transition")),
        sa.UniqueConstraint("subject", "number", name=op.f("uq_key_recovery_transition_subject_number")),
    )
    op.create_table(
        "pfx_offer_transition",
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
            ["subject"], ["pfx_offer.id"], name=op.f("fk_pfx_offer_transition_subject"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pfx_offer_transition")),
        sa.UniqueConstraint("subject", "number", name=op.f("uq_pfx_offer_transition_subject_number")),
    )


def downgrade() -> None:
    """Back from this revision."""
    op.drop_table("pfx_offer_transition")
    op.drop_table("key_recovery_transition")
    with op.batch_alter_table("pfx_offer", schema=None) as batch_op:
        batch_op.drop_index("ix_pfx_offer_person")
        batch_op.drop_index("ix_pfx_offer_key")
        batch_op.drop_index("ix_pfx_offer_ending")

    op.drop_table("pfx_offer")
    with op.batch_alter_table("key_recovery", schema=None) as batch_op:
        batch_op.drop_index("ix_key_recovery_person")
        batch_op.drop_index("ix_key_recovery_key")
        batch_op.drop_index("ix_key_recovery_ending")
        batch_op.drop_index("ix_key_recovery_device")
        batch_op.drop_index("ix_key_recovery_approved_by")

    op.drop_table("key_recovery")
    op.drop_table("escrowed_key_transition")
    op.drop_table("escrow_release")
    with op.batch_alter_table("escrowed_key", schema=None) as batch_op:
        batch_op.drop_index("ix_escrowed_key_person")
        batch_op.drop_index("ix_escrowed_key_device")

    op.drop_table("escrowed_key")
