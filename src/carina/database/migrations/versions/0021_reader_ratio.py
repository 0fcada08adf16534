"""Lists show the ratio as readers corrected it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """From version 0020 to 0021; what was corrected before is taken from the runs when the node starts."""
    with op.batch_alter_table("job") as job:
        job.add_column(sa.Column("reader_ratio_percent", sa.Float()))
