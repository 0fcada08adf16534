"""What readers decided about the masks of a job's run is said in its row; what ended before waits for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """From version 0013 to 0014; what was decided before is read from the runs when the node starts."""
    op.add_column("job", sa.Column("reading", sa.String(16), nullable=False, server_default=""))
    op.add_column("job", sa.Column("decisions", sa.Text(), nullable=False, server_default="[]"))
    superseded = "select supersedes from job where supersedes > 0 and ended = 'healthy'"
    removed = "select subject_id from removal where kind = 'run'"
    left_out = f"id not in ({superseded}) and id not in ({removed})"
    op.execute(f"update job set reading = 'unread' where ended = 'healthy' and is_prior = 0 and {left_out}")
    op.create_index("ix_job_reading", "job", ["reading", "id"])
    op.create_index("ix_job_project_reading", "job", ["project", "reading", "id"])
