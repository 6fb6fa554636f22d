"""Tables of the people domain."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "people_0001"
down_revision = None
branch_labels = ("people",)
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "person",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("login", sa.String(length=200), nullable=False),
        sa.Column("folded_login", sa.String(length=400), nullable=False),
        sa.Column("display_name", sa.String(length=300), nullable=False),
        sa.Column("mail", sa.String(length=320), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("source", sa.String(length=60), nullable=False),
        sa.Column("entry", sa.String(length=200), nullable=False),
        sa.Column("dn", sa.String(length=2000), nullable=False),
        sa.Column("path", sa.String(length=4000), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("search", sa.String(length=2000), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_person_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person")),
        sa.UniqueConstraint("org", "folded_login", name=op.f("uq_person_org_folded_login")),
    )
    with op.batch_alter_table("person", schema=None) as batch_op:
        batch_op.create_index(
            "ix_person_entry",
            ["org", "source", "entry"],
            unique=True,
            postgresql_where=sa.text("entry != ''"),
            sqlite_where=sa.text("entry != ''"),
        )

    op.create_table(
        "person_group",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("folded_name", sa.String(length=400), nullable=False),
        sa.Column("source", sa.String(length=60), nullable=False),
        sa.Column("entry", sa.String(length=64), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_person_group_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person_group")),
        sa.UniqueConstraint(
            "org", "source", "folded_name", "entry", name=op.f("uq_person_group_org_source_folded_name_entry")
        ),
    )
    op.create_table(
        "membership",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=False),
        sa.Column("member_of", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["member_of"], ["person_group.id"], name=op.f("fk_membership_member_of"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_membership_person"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_membership")),
        sa.UniqueConstraint("person", "member_of", name=op.f("uq_membership_person_member_of")),
    )
    with op.batch_alter_table("membership", schema=None) as batch_op:
        batch_op.create_index("ix_membership_member_of", ["member_of"], unique=False)

    op.create_table(
        "operator",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=True),
        sa.Column("label", sa.String(length=200), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("role_version", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_operator_version")),
        sa.ForeignKeyConstraint(["person"], ["person.id"], name=op.f("fk_operator_person")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator")),
    )
    with op.batch_alter_table("operator", schema=None) as batch_op:
        batch_op.create_index("ix_operator_person", ["person"], unique=False)

    op.create_table(
        "operator_grant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("operator", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(length=30), nullable=False),
        sa.Column("reach", sa.String(length=20), nullable=False),
        sa.Column("scope_group", sa.Uuid(), nullable=True),
        sa.Column("branch", sa.String(length=2000), nullable=False),
        sa.Column("branch_path", sa.String(length=4000), nullable=False),
        sa.ForeignKeyConstraint(
            ["operator"], ["operator.id"], name=op.f("fk_operator_grant_operator"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_grant")),
    )
    with op.batch_alter_table("operator_grant", schema=None) as batch_op:
        batch_op.create_index("ix_operator_grant_operator", ["operator"], unique=False)

    op.create_table(
        "operator_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("operator", sa.Uuid(), nullable=False),
        sa.Column("spki", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hardware", sa.Boolean(), nullable=False),
        sa.Column("device", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["operator"], ["operator.id"], name=op.f("fk_operator_key_operator"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_key")),
        sa.UniqueConstraint("spki", name=op.f("uq_operator_key_spki")),
    )
    with op.batch_alter_table("operator_key", schema=None) as batch_op:
        batch_op.create_index("ix_operator_key_operator", ["operator"], unique=False)


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("operator_key", schema=None) as batch_op:
        batch_op.drop_index("ix_operator_key_operator")

    op.drop_table("operator_key")
    with op.batch_alter_table("operator_grant", schema=None) as batch_op:
        batch_op.drop_index("ix_operator_grant_operator")

    op.drop_table("operator_grant")
    with op.batch_alter_table("operator", schema=None) as batch_op:
        batch_op.drop_index("ix_operator_person")

    op.drop_table("operator")
    with op.batch_alter_table("membership", schema=None) as batch_op:
        batch_op.drop_index("ix_membership_member_of")

    op.drop_table("membership")
    op.drop_table("person_group")
    with op.batch_alter_table("person", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_person_entry", postgresql_where=sa.text("entry != ''"), sqlite_where=sa.text("entry != ''")
        )

    op.drop_table("person")
