"""Tables of the workstations domain."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "workstations_0001"
down_revision = None
branch_labels = ("workstations",)
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "workstation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("station_class", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_workstation_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workstation")),
    )
    with op.batch_alter_table("workstation", schema=None) as batch_op:
        batch_op.create_index("ix_workstation_org", ["org", "host"], unique=False)
        batch_op.create_index("ix_workstation_revoked_at", ["revoked_at"], unique=False)

    op.create_table(
        "enrolment_token",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("secret", sa.LargeBinary(length=32), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("station_class", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spki", sa.LargeBinary(length=32), nullable=True),
        sa.Column("workstation", sa.Uuid(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_enrolment_token_version")),
        sa.ForeignKeyConstraint(["workstation"], ["workstation.id"], name=op.f("fk_enrolment_token_workstation")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_token")),
    )
    with op.batch_alter_table("enrolment_token", schema=None) as batch_op:
        batch_op.create_index("ix_enrolment_token_expires_at", ["expires_at"], unique=False)
        batch_op.create_index("ix_enrolment_token_workstation", ["workstation"], unique=False)

    op.create_table(
        "workstation_certificate",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("workstation", sa.Uuid(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(length=32), nullable=False),
        sa.Column("spki", sa.LargeBinary(length=32), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workstation"], ["workstation.id"], name=op.f("fk_workstation_certificate_workstation"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workstation_certificate")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_workstation_certificate_fingerprint")),
        sa.UniqueConstraint("spki", name=op.f("uq_workstation_certificate_spki")),
    )
    with op.batch_alter_table("workstation_certificate", schema=None) as batch_op:
        batch_op.create_index("ix_workstation_certificate_workstation", ["workstation"], unique=False)


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("workstation_certificate", schema=None) as batch_op:
        batch_op.drop_index("ix_workstation_certificate_workstation")

    op.drop_table("workstation_certificate")
    with op.batch_alter_table("enrolment_token", schema=None) as batch_op:
        batch_op.drop_index("ix_enrolment_token_workstation")
        batch_op.drop_index("ix_enrolment_token_expires_at")

    op.drop_table("enrolment_token")
    with op.batch_alter_table("workstation", schema=None) as batch_op:
        batch_op.drop_index("ix_workstation_revoked_at")
        batch_op.drop_index("ix_workstation_org")

    op.drop_table("workstation")
