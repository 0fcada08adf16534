"""Notices of jobs that have ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From version 0002 to 0003."""
    key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "notice",
        sa.Column("id", key, primary_key=True),
        sa.Column("job_id", key, sa.ForeignKey("job.id", name="fk_notice_job_id"), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("job_id", name="uq_notice_job_id"),
    )
    op.create_index("ix_notice_queue", "notice", ["state", "not_before"])
    op.create_index("ix_job_stopped_at", "job", ["stopped_at"])
