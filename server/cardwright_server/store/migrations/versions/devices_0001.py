"""Tables of devices.."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "devices_0001"
down_revision = None
branch_labels = ("devices",)
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "device_lot",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("source", sa.String(length=20), nullable=False),
        sa.Column("derivation", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_lot")),
        sa.UniqueConstraint("org", "name", name=op.f("uq_device_lot_org_name")),
    )
    op.create_table(
        "device_number",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("value", sa.String(length=50), nullable=False),
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_number")),
        sa.UniqueConstraint("kind", "value", name=op.f("uq_device_number_kind_value")),
    )
    with op.batch_alter_table("device_number", schema=None) as batch_op:
        batch_op.create_index("ix_device_number_device", ["device"], unique=False)

    op.create_table(
        "device_secret",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=20), nullable=False),
        sa.Column("master", sa.String(length=30), nullable=False),
        sa.Column("master_version", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_secret")),
        sa.UniqueConstraint("owner", "name", name=op.f("uq_device_secret_owner_name")),
    )
    op.create_table(
        "device",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("serial", sa.String(length=80), nullable=False),
        sa.Column("lot", sa.Uuid(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=20), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=True),
        sa.Column("policy", sa.Uuid(), nullable=True),
        sa.Column("policy_number", sa.Integer(), nullable=True),
        sa.Column("replaces", sa.Uuid(), nullable=True),
        sa.Column("temporary", sa.Boolean(), nullable=False),
        sa.Column("guid", sa.Uuid(), nullable=True),
        sa.Column("fascn", sa.String(length=50), nullable=True),
        sa.Column("session", sa.Uuid(), nullable=True),
        sa.Column("life", sa.Integer(), nullable=False),
        sa.Column("card_locked", sa.Boolean(), nullable=False),
        sa.Column("bound_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("activate_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disposition", sa.String(length=30), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_device_version")),
        sa.ForeignKeyConstraint(["lot"], ["device_lot.id"], name=op.f("fk_device_lot")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device")),
        sa.UniqueConstraint("kind", "serial", name=op.f("uq_device_kind_serial")),
    )
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.create_index("ix_device_activate_by", ["activate_by"], unique=False)
        batch_op.create_index("ix_device_expires_at", ["expires_at"], unique=False)
        batch_op.create_index("ix_device_guid", ["guid"], unique=True)
        batch_op.create_index("ix_device_lot", ["lot"], unique=False)
        batch_op.create_index("ix_device_org_state", ["org", "state"], unique=False)
        batch_op.create_index("ix_device_person", ["person"], unique=False)
        batch_op.create_index("ix_device_policy", ["policy", "state"], unique=False)
        batch_op.create_index("ix_device_replaces", ["replaces"], unique=False)

    op.create_table(
        "device_due",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.Column("what", sa.String(length=20), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("warned_days", sa.Integer(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_device_due_version")),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("fk_device_due_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_due")),
        sa.UniqueConstraint("device", "what", name=op.f("uq_device_due_device_what")),
    )
    with op.batch_alter_table("device_due", schema=None) as batch_op:
        batch_op.create_index("ix_device_due_ends_at", ["what", "ends_at"], unique=False)
        batch_op.create_index("ix_device_due_unrequested", ["what", "requested_at", "due_at"], unique=False)

    op.create_table(
        "device_hold",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("device", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.String(length=20), nullable=False),
        sa.Column("who", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("fk_device_hold_device"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_hold")),
        sa.UniqueConstraint("device", "reason", name=op.f("uq_device_hold_device_reason")),
    )
    op.create_table(
        "device_transition",
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
            ["subject"], ["device.id"], name=op.f("fk_device_transition_subject"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_transition")),
        sa.UniqueConstraint("subject", "number", name=op.f("uq_device_transition_subject_number")),
    )


def downgrade() -> None:
    """Back from this revision."""
    op.drop_table("device_transition")
    op.drop_table("device_hold")
    with op.batch_alter_table("device_due", schema=None) as batch_op:
        batch_op.drop_index("ix_device_due_unrequested")
        batch_op.drop_index("ix_device_due_ends_at")

    op.drop_table("device_due")
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.drop_index("ix_device_replaces")
        batch_op.drop_index("ix_device_policy")
        batch_op.drop_index("ix_device_person")
        batch_op.drop_index("ix_device_org_state")
        batch_op.drop_index("ix_device_lot")
        batch_op.drop_index("ix_device_guid")
        batch_op.drop_index("ix_device_expires_at")
        batch_op.drop_index("ix_device_activate_by")

    op.drop_table("device")
    op.drop_table("device_secret")
    with op.batch_alter_table("device_number", schema=None) as batch_op:
        batch_op.drop_index("ix_device_number_device")

    op.drop_table("device_number")
    op.drop_table("device_lot")
