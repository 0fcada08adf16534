"""Deliveries that are asked about, jobs with destinations, priorities in the order in which the queue is sorted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """From version 0001 to 0002."""
    with op.batch_alter_table("delivery") as delivery:
        delivery.add_column(sa.Column("ask", sa.Integer(), nullable=False, server_default="0"))
        delivery.add_column(sa.Column("note", sa.Text(), nullable=False, server_default=""))
        delivery.add_column(sa.Column("doubt_until", sa.DateTime(timezone=True)))
        delivery.add_column(sa.Column("transaction_uid", sa.String(64), nullable=False, server_default=""))
        delivery.add_column(sa.Column("confirmed_by", sa.String(16), nullable=False, server_default=""))
        delivery.create_index("ix_delivery_object", ["destination", "sop_instance_uid"])
        delivery.create_index("ix_delivery_transaction_uid", ["transaction_uid"])
    with op.batch_alter_table("job") as job:
        job.add_column(sa.Column("destinations", sa.Text(), nullable=False, server_default="[]"))
        job.add_column(sa.Column("retries", sa.Integer(), nullable=False, server_default="0"))
        job.drop_index("ix_job_queue")
        job.create_index("ix_job_queue", ["state", "priority", "id"])
        job.create_index("ix_job_shown", ["state", "ended", "id"])
        job.create_index("ix_job_series_uid", ["series_uid"])
    op.execute("update job set priority = 3 - priority")
