"""What was fetched to compare with is told from what was sent, and may be there beside it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """From version 0011 to 0012; what was run only to be compared with was fetched."""
    op.add_column("arrival", sa.Column("is_prior", sa.Integer(), nullable=False, server_default="0"))
    op.execute("update arrival set is_prior = 1 where id in (select arrival_id from job where is_prior = 1)")
    with op.batch_alter_table("instance") as instance:
        instance.add_column(sa.Column("is_prior", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "update instance set is_prior = 1 where arrival_id in (select id from arrival where arrival.is_prior = 1)"
    )
    with op.batch_alter_table("instance") as instance:
        instance.drop_constraint("uq_instance_sop_instance_uid_sha256_source", type_="unique")
        instance.create_unique_constraint(
            "uq_instance_sop_instance_uid_sha256_source_is_prior",
            ["sop_instance_uid", "sha256", "source", "is_prior"],
        )
