"""Notices are of each ending of a job, and say who by mail has not had them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """From version 0021 to 0022; a job that has stopped was told of, one that runs again was not."""
    with op.batch_alter_table("notice") as notice:
        notice.add_column(sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"))
        notice.add_column(sa.Column("mail_left", sa.Text(), nullable=False, server_default=""))
        notice.drop_constraint("uq_notice_job_id", type_="unique")
        notice.create_unique_constraint("uq_notice_job_id_attempt", ["job_id", "attempt"])
    latest = "select attempt - (case when state = 'running' then 1 else 0 end) from job where job.id = notice.job_id"
    op.execute(f"update notice set attempt = ({latest})")
