"""Files that retention removes are said to be before they go."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """From version 0005 to 0006."""
    op.create_table(
        "removal",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("subject_id", _KEY, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("kind", "subject_id", name="uq_removal_kind_subject_id"),
    )
    op.create_index("ix_removal_ended_at", "removal", ["ended_at"])
