"""A delivery counts the reports on storage commitment that contradicted themselves about it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """From version 0022 to 0023; none was counted before."""
    with op.batch_alter_table("delivery") as delivery:
        delivery.add_column(sa.Column("contradicted", sa.Integer(), nullable=False, server_default="0"))
