"""A delivery counts the reports on storage commitment that refused it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """From version 0025 to 0026; none was counted before."""
    with op.batch_alter_table("delivery") as delivery:
        for name in ("lost", "refused"):
            delivery.add_column(sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
