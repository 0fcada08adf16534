"""A database has an identity, which the node's folder has too: neither is used with another."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """From version 0014 to 0015; the identity is drawn when the first folder is given it."""
    op.create_table(
        "identity",
        sa.Column("uuid", sa.String(32), nullable=False, comment="as the node's folder keeps it"),
        sa.PrimaryKeyConstraint("uuid", name="pk_identity"),
    )
