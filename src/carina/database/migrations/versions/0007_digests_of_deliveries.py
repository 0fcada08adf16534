"""The digest of an object to be sent, so that one that was damaged on the disk is not."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """From version 0006 to 0007."""
    with op.batch_alter_table("delivery") as delivery:
        delivery.add_column(sa.Column("sha256", sa.String(64), nullable=False, server_default=""))
