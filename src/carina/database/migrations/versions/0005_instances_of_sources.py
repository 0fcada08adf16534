"""An instance is known by its source as well: the same one to another source is run there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """From version 0004 to 0005."""
    with op.batch_alter_table("instance") as instance:
        instance.add_column(sa.Column("source", sa.String(64), nullable=False, server_default=""))
    op.execute("update instance set source = (select source from arrival where arrival.id = instance.arrival_id)")
    with op.batch_alter_table("instance") as instance:
        instance.drop_constraint("uq_instance_sop_instance_uid_sha256", type_="unique")
        instance.create_unique_constraint(
            "uq_instance_sop_instance_uid_sha256_source", ["sop_instance_uid", "sha256", "source"]
        )
