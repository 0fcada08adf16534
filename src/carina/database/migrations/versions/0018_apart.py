"""What is kept apart is known as that after it was released, too: it is run by itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """From version 0017 to 0018; what was released before counts as part of its series, as it did."""
    op.add_column("arrival", sa.Column("is_apart", sa.Integer(), nullable=False, server_default="0"))
    op.execute("update arrival set is_apart = 1 where state = 'apart'")
