"""Which job runs on more instances of the series of another, and so in its place."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, func, select

from carina.database import JOB
from carina.jobs.listing import Job, find_job
from carina.jobs.queue import JobEnd, JobState

_ENDINGS: Mapping[str, str] = {JobEnd.FAULTED: "failed", JobEnd.CANCELED: "was canceled"}


def successor_of(connection: Connection, job: Job) -> Job | None:
    """The latest job in place of another, at once or by those between them; None where there is none."""
    found, number = None, job.id
    while job.series_uid:
        same = JOB.c.series_uid == job.series_uid, JOB.c.pipeline == job.pipeline, JOB.c.supersedes == number
        later = connection.execute(select(func.max(JOB.c.id)).where(*same)).scalar()
        if later is None or later <= number:
            break
        number = int(later)
        found = find_job(connection, number)
    return found


def successor_words(successor: Job) -> str:
    """What pages say of it behind its number."""
    if successor.state is not JobState.STOPPED:
        return "runs on more instances of this series, and has not ended yet"
    if successor.ended == JobEnd.HEALTHY:
        return "holds more instances of this series, and counts in place of this one"
    return f"was to run on more instances of this series, and {_ENDINGS.get(successor.ended, 'has ended')}"
