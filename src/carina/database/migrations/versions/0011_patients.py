"""Whose scan an arrival is, so that an earlier one of the patient can be found; those from before it are nobody's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0008"


def upgrade() -> None:
    """From version 0008 to 0011."""
    with op.batch_alter_table("arrival") as arrival:
        arrival.add_column(sa.Column("whose_sha256", sa.String(64), nullable=False, server_default=""))
        arrival.add_column(sa.Column("studied", sa.String(14), nullable=False, server_default=""))
        arrival.create_index("ix_arrival_whose_sha256", ["whose_sha256"])
