"""Rows of jobs that lists are still to learn from files: those of uploads that have ended, those of before 0020."""

from __future__ import annotations

from typing import Any

from sqlalchemy import or_, update

from carina.database import JOB, read_only
from carina.errors import CarinaError
from carina.jobs.listing import JOBS, Job, job_of
from carina.jobs.queue import JobEnd, JobState
from carina.jobs.scan import scan_columns
from carina.service.node import RunningNode
from carina.service.pages.inputs import files_to_read, read_input

ROWS_FILLED = 50


def fill_rows(node: RunningNode, at_most: int = ROWS_FILLED) -> int:
    """Write into the latest rows that lack it what their files say; gives how many there were.

    What was uploaded, or handed in by path, waits until its run has ended, which chooses the series.

    Raises:
        FolderAway: the node's folder is not there any more, which says nothing of the files.
    """
    is_known = or_(JOB.c.arrival_id.is_not(None), JOB.c.state == JobState.STOPPED)
    wanted = JOBS.where(JOB.c.described.is_(None), is_known).order_by(JOB.c.id.desc()).limit(at_most)
    with read_only(node.engine) as connection:
        jobs = [job_of(row) for row in connection.execute(wanted)]
        files = files_to_read(connection, jobs)
    if not jobs:
        return 0
    filled = {job.id: _columns(node, job, files.get(job.arrival_id or 0)) for job in jobs}
    with node.own.begin() as connection:
        for job in jobs:
            same = (JOB.c.id == job.id) & (JOB.c.attempt == job.attempt) & (JOB.c.state == job.state)
            connection.execute(update(JOB).where(same).values(filled[job.id]))
    return len(jobs)


def _columns(node: RunningNode, job: Job, file: str | None) -> dict[str, Any]:
    found = read_input(node, job, file)
    known = scan_columns(found.scan, found.words)  # what its arrival said stays where the files are gone
    columns = {name: value for name, value in known.items() if value or name == "described"}
    if job.ended != JobEnd.HEALTHY:
        return columns
    from carina.api.result import Run  # what it needs takes memory of a server whose rows are filled
    from carina.jobs.outcome import outcome_columns

    columns |= {"series_uid": job.series_uid or found.series_uid[:64]}
    try:
        return columns | outcome_columns(Run(node.folder / job.folder))
    except CarinaError:  # its run was removed, or damaged since
        return columns
