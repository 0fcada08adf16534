"""Jobs and series are listed through an index by whatever is chosen: project, pipeline, state, what readers decided."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """From version 0015 to 0016."""
    op.create_index("ix_arrival_state", "arrival", ["state", "id"])
    op.create_index("ix_arrival_project_state", "arrival", ["project", "state", "id"])
    op.create_index("ix_job_project_id", "job", ["project", "id"])
    op.create_index("ix_job_pipeline", "job", ["pipeline", "id"])
    op.create_index("ix_job_pipeline_shown", "job", ["pipeline", "state", "ended", "id"])
    op.create_index("ix_job_pipeline_reading", "job", ["pipeline", "reading", "id"])
