"""Whose scan an arrival is, so that earlier ones are found, and which are fetched; arrivals before it are nobody's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """From version 0008 to 0009."""
    with op.batch_alter_table("arrival") as arrival:
        arrival.add_column(sa.Column("whose_sha256", sa.String(64), nullable=False, server_default=""))
        arrival.add_column(sa.Column("studied", sa.String(14), nullable=False, server_default=""))
        arrival.create_index("ix_arrival_whose_sha256", ["whose_sha256"])
    with op.batch_alter_table("job") as job:
        job.add_column(sa.Column("is_prior", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "prior",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("job_id", _KEY, sa.ForeignKey("job.id", name="fk_prior_job_id"), nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("job_id", name="uq_prior_job_id"),
    )
    op.create_index("ix_prior_state_peer", "prior", ["state", "peer"])
    op.create_table(
        "prior_series",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("prior_id", _KEY, sa.ForeignKey("prior.id", name="fk_prior_series_prior_id"), nullable=False),
        sa.Column("series_uid", sa.String(64), nullable=False),
        sa.Column("is_fetched", sa.Integer(), nullable=False),
        sa.UniqueConstraint("prior_id", "series_uid", name="uq_prior_series_prior_id_series_uid"),
    )
    op.create_index("ix_prior_series_prior_id", "prior_series", ["prior_id"])
    op.create_index("ix_prior_series_series_uid", "prior_series", ["series_uid"])
