"""What lists show of a job, and find it by, is in its row: its scan, and what its run came to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

_OF_SCANS = (("study_uid", 64), ("study_date", 10), ("modality", 16), ("received_by", 64))
_TEXTS = ("study_description", "series_description", "searched", "first_warning")


def upgrade() -> None:
    """From version 0019 to 0020; what only files say is read from them while the node runs, the latest jobs first."""
    with op.batch_alter_table("arrival") as arrival:
        arrival.add_column(sa.Column("modality", sa.String(16), nullable=False, server_default=""))
        arrival.add_column(sa.Column("study_description", sa.Text(), nullable=False, server_default=""))
        arrival.add_column(sa.Column("series_description", sa.Text()))
    with op.batch_alter_table("job") as job:
        for name, length in _OF_SCANS:
            job.add_column(sa.Column(name, sa.String(length), nullable=False, server_default=""))
        for name in _TEXTS:
            job.add_column(sa.Column(name, sa.Text(), nullable=False, server_default=""))
        job.add_column(sa.Column("described", sa.Text()))
        job.add_column(sa.Column("warnings", sa.Integer(), nullable=False, server_default="0"))
        job.add_column(sa.Column("ratio_percent", sa.Float()))
        job.add_column(sa.Column("is_classified", sa.Integer()))
    _take_from_arrivals()
    _make_indexes()


def _take_from_arrivals() -> None:
    date = "substr(studied, 1, 4) || '-' || substr(studied, 5, 2) || '-' || substr(studied, 7, 2)"
    values = f"study_uid, source, case when studied = '' then '' else {date} end"
    of_arrival = f"select {values} from arrival where arrival.id = job.arrival_id"
    op.execute(
        f"update job set (study_uid, received_by, study_date) = ({of_arrival}) "
        "where arrival_id in (select id from arrival)"
    )


def _make_indexes() -> None:
    op.drop_index("ix_job_series_uid", "job")
    op.create_index("ix_job_series_uid", "job", ["series_uid", "project"])
    op.create_index("ix_job_study_uid", "job", ["study_uid", "project"])
    op.create_index("ix_job_study_date", "job", ["study_date"])
    op.create_index("ix_job_project_study_date", "job", ["project", "study_date"])
    op.create_index("ix_job_received_by", "job", ["received_by", "id"])
    partly = (("warned", ["id"], "warnings > 0"), ("project_warned", ["project", "id"], "warnings > 0"))
    for name, columns, condition in (*partly, ("not_described", ["id"], "described is null")):
        only = sa.text(condition)
        op.create_index(f"ix_job_{name}", "job", columns, sqlite_where=only, postgresql_where=only)
