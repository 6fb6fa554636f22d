"""tables of issuance."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "issuance_0001"
down_revision = None
branch_labels = ("issuance",)
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "issuing_authority",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("foreign_backend", sa.Boolean(), nullable=False),
        sa.Column("subject", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("responder", sa.String(length=60), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("crl_floor", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_issuing_authority_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_issuing_authority")),
        sa.UniqueConstraint("name", name=op.f("uq_issuing_authority_name")),
    )
    op.create_table(
        "issued_certificate",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request", sa.Uuid(), nullable=False),
        sa.Column("authority", sa.Uuid(), nullable=False),
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("profile", sa.String(length=60), nullable=False),
        sa.Column("profile_version", sa.Integer(), nullable=False),
        sa.Column("holder_kind", sa.String(length=20), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("holder_part", sa.String(length=60), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=True),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("holds", sa.Text(), nullable=False),
        sa.Column("status_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(length=30), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("session", sa.Uuid(), nullable=True),
        sa.Column("tbs", sa.LargeBinary(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "state in ('prepared', 'held', 'good', 'revoked')", name=op.f("ck_issued_certificate_state")
        ),
        sa.CheckConstraint("version > 0", name=op.f("ck_issued_certificate_version")),
        sa.ForeignKeyConstraint(["authority"], ["issuing_authority.id"], name=op.f("fk_issued_certificate_authority")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_issued_certificate")),
        sa.UniqueConstraint("authority", "serial", name=op.f("uq_issued_certificate_authority_serial")),
        sa.UniqueConstraint("org", "request", name=op.f("uq_issued_certificate_org_request")),
    )
    with op.batch_alter_table("issued_certificate", schema=None) as batch_op:
        batch_op.create_index("ix_issued_certificate_holder", ["holder", "holder_part", "not_after"], unique=False)
        batch_op.create_index("ix_issued_certificate_key", ["key"], unique=False)
        batch_op.create_index("ix_issued_certificate_kind", ["holder_kind", "not_after"], unique=False)
        batch_op.create_index(
            "ix_issued_certificate_listed",
            ["authority", "not_after"],
            unique=False,
            postgresql_where=sa.text("state != 'good'"),
            sqlite_where=sa.text("state != 'good'"),
        )
        batch_op.create_index("ix_issued_certificate_person", ["person"], unique=False)
        batch_op.create_index("ix_issued_certificate_session", ["session"], unique=False)
        batch_op.create_index("ix_issued_certificate_status", ["authority", "status_at"], unique=False)

    op.create_table(
        "revocation_list",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("authority", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("this_update", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_update", sa.DateTime(timezone=True), nullable=False),
        sa.Column("entries", sa.String(length=64), nullable=False),
        sa.Column("tbs", sa.LargeBinary(), nullable=False),
        sa.Column("crl", sa.LargeBinary(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_revocation_list_version")),
        sa.ForeignKeyConstraint(["authority"], ["issuing_authority.id"], name=op.f("fk_revocation_list_authority")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revocation_list")),
        sa.UniqueConstraint("authority", "number", name=op.f("uq_revocation_list_authority_number")),
    )
    op.create_table(
        "certificate_order",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request", sa.Uuid(), nullable=False),
        sa.Column("asked", sa.String(length=64), nullable=False),
        sa.Column("backend", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("certificate", sa.Uuid(), nullable=True),
        sa.Column("reference", sa.String(length=200), nullable=False),
        sa.Column("refusal", sa.String(length=60), nullable=False),
        sa.Column("profile", sa.String(length=60), nullable=False),
        sa.Column("profile_version", sa.Integer(), nullable=False),
        sa.Column("holder_kind", sa.String(length=20), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("holder_part", sa.String(length=60), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=True),
        sa.Column("origin", sa.String(length=20), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("csr", sa.LargeBinary(), nullable=False),
        sa.Column("session", sa.Uuid(), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_certificate_order_version")),
        sa.ForeignKeyConstraint(
            ["certificate"], ["issued_certificate.id"], name=op.f("fk_certificate_order_certificate")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_certificate_order")),
        sa.UniqueConstraint("org", "request", name=op.f("uq_certificate_order_org_request")),
    )
    with op.batch_alter_table("certificate_order", schema=None) as batch_op:
        batch_op.create_index("ix_certificate_order_certificate", ["certificate"], unique=False)
        batch_op.create_index("ix_certificate_order_open", ["state", "created_at"], unique=False)


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("certificate_order", schema=None) as batch_op:
        batch_op.drop_index("ix_certificate_order_open")
        batch_op.drop_index("ix_certificate_order_certificate")

    op.drop_table("certificate_order")
    op.drop_table("revocation_list")
    with op.batch_alter_table("issued_certificate", schema=None) as batch_op:
        batch_op.drop_index("ix_issued_certificate_status")
        batch_op.drop_index("ix_issued_certificate_session")
        batch_op.drop_index("ix_issued_certificate_person")
        batch_op.drop_index(
            "ix_issued_certificate_listed",
            postgresql_where=sa.text("state != 'good'"),
            sqlite_where=sa.text("state != 'good'"),
        )
        batch_op.drop_index("ix_issued_certificate_kind")
        batch_op.drop_index("ix_issued_certificate_key")
        batch_op.drop_index("ix_issued_certificate_holder")

    op.drop_table("issued_certificate")
    op.drop_table("issuing_authority")
