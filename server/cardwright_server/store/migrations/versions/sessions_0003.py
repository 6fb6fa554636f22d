"""The proof that a session runs on from when its plan was agreed to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "sessions_0003"
down_revision = "sessions_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.add_column("card_session", sa.Column("proof", sa.Uuid(), nullable=True))


def downgrade() -> None:
    """Back from this revision."""
    op.drop_column("card_session", "proof")
