"""Whether an instance's file is known to be on the disk; rows are written beside their files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_UNFLUSHED = sa.text("flushed = 0")


def upgrade() -> None:
    """From version 0009 to 0010; every instance of before was on the disk before its row."""
    with op.batch_alter_table("instance") as instance:
        instance.add_column(sa.Column("flushed", sa.Integer(), nullable=False, server_default="1"))
    op.create_index("ix_instance_unflushed", "instance", ["id"], sqlite_where=_UNFLUSHED, postgresql_where=_UNFLUSHED)
