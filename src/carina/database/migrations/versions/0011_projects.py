"""Projects: which one each arrival and job is in, who may do what there. What is there is in the usual one."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_USUAL = "default"


def upgrade() -> None:
    """From version 0010 to 0011."""
    project = op.create_table(
        "project",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.bulk_insert(project, [{"name": _USUAL, "created_at": datetime.now(UTC)}])
    op.create_table(
        "member",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("account_id", _KEY, sa.ForeignKey("account.id", name="fk_member_account_id"), nullable=False),
        sa.Column("project", sa.String(64), sa.ForeignKey("project.name", name="fk_member_project"), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.UniqueConstraint("account_id", "project", name="uq_member_account_id_project"),
    )
    op.create_index("ix_member_project", "member", ["project"])
    for table, usual in (("arrival", _USUAL), ("job", _USUAL), ("token", "")):
        op.add_column(table, sa.Column("project", sa.String(64), nullable=False, server_default=usual))
    op.create_index("ix_arrival_project", "arrival", ["project", "id"])
    op.create_index("ix_job_project", "job", ["project", "state", "ended", "id"])
