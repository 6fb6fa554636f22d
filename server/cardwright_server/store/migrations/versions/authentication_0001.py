"""Tables of the authentication domain."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "authentication_0001"
down_revision = None
branch_labels = ("authentication",)
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "attempt_counter",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("method", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("window_began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idle_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_attempt_counter_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempt_counter")),
        sa.UniqueConstraint("org", "subject", "method", name=op.f("uq_attempt_counter_org_subject_method")),
    )
    with op.batch_alter_table("attempt_counter", schema=None) as batch_op:
        batch_op.create_index("ix_attempt_counter_idle_at", ["idle_at"], unique=False)

    op.create_table(
        "first_credential",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("administrator", sa.Uuid(), nullable=True),
        sa.Column("security_officer", sa.Uuid(), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_first_credential_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_first_credential")),
        sa.UniqueConstraint("hash", name=op.f("uq_first_credential_hash")),
        sa.UniqueConstraint("org", name=op.f("uq_first_credential_org")),
    )
    op.create_table(
        "given_password",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=False),
        sa.Column("method", sa.String(length=40), nullable=False),
        sa.Column("hash", sa.String(length=300), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request", sa.Uuid(), nullable=True),
        sa.Column("single_use", sa.Boolean(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_given_password_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_given_password")),
        sa.UniqueConstraint("org", "person", "method", name=op.f("uq_given_password_org_person_method")),
    )
    with op.batch_alter_table("given_password", schema=None) as batch_op:
        batch_op.create_index("ix_given_password_expires_at", ["expires_at"], unique=False)

    op.create_table(
        "proof",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("methods", sa.String(length=200), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("network", sa.String(length=100), nullable=False),
        sa.Column("device", sa.Uuid(), nullable=True),
        sa.Column("request", sa.Uuid(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_proof_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proof")),
    )
    with op.batch_alter_table("proof", schema=None) as batch_op:
        batch_op.create_index("ix_proof_expires_at", ["expires_at"], unique=False)
        batch_op.create_index("ix_proof_subject", ["subject"], unique=False)

    op.create_table(
        "security_question",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.String(length=300), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_security_question_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_security_question")),
    )
    with op.batch_alter_table("security_question", schema=None) as batch_op:
        batch_op.create_index("ix_security_question_org", ["org"], unique=False)

    op.create_table(
        "security_answer",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("org", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("person", sa.Uuid(), nullable=False),
        sa.Column("question", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.String(length=300), nullable=False),
        sa.ForeignKeyConstraint(["question"], ["security_question.id"], name=op.f("fk_security_answer_question")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_security_answer")),
        sa.UniqueConstraint("person", "question", name=op.f("uq_security_answer_person_question")),
    )
    with op.batch_alter_table("security_answer", schema=None) as batch_op:
        batch_op.create_index("ix_security_answer_question", ["question"], unique=False)


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("security_answer", schema=None) as batch_op:
        batch_op.drop_index("ix_security_answer_question")

    op.drop_table("security_answer")
    with op.batch_alter_table("security_question", schema=None) as batch_op:
        batch_op.drop_index("ix_security_question_org")

    op.drop_table("security_question")
    with op.batch_alter_table("proof", schema=None) as batch_op:
        batch_op.drop_index("ix_proof_subject")
        batch_op.drop_index("ix_proof_expires_at")

    op.drop_table("proof")
    with op.batch_alter_table("given_password", schema=None) as batch_op:
        batch_op.drop_index("ix_given_password_expires_at")

    op.drop_table("given_password")
    op.drop_table("first_credential")
    with op.batch_alter_table("attempt_counter", schema=None) as batch_op:
        batch_op.drop_index("ix_attempt_counter_idle_at")

    op.drop_table("attempt_counter")
