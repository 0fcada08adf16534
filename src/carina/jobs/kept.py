"""What became of the files of a job, its run and its logs: here, not begun, removed, set aside, or missing.

Whoever looks for them and finds none asks here, so that every door says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec
from sqlalchemy import Connection, select

from carina.database import REMOVAL, is_there
from carina.jobs.listing import Job
from carina.jobs.places import latest_log
from carina.jobs.queue import JobEnd, JobState
from carina.pipeline.folder import MANIFEST
from carina.sections import SET_ASIDE


class FilesState(StrEnum):
    """What became of a job's files; why ``missing`` ones are not where the node has them, it doesn't know."""

    HERE = "here"
    NOT_BEGUN = "not-begun"
    REMOVED = "removed"
    SET_ASIDE = "set-aside"
    AWAY = "away"
    MISSING = "missing"


class JobFiles(msgspec.Struct, frozen=True, kw_only=True):
    """``said`` is a sentence, empty where the files are here; ``log_said`` the same of a log that isn't."""

    state: FilesState
    said: str = ""
    log_said: str = ""

    @property
    def code(self) -> str:
        """The code of an error that says so."""
        return f"job.{self.state}"


def job_files(connection: Connection, folder: Path, job: Job) -> JobFiles:
    """Where a job's files are, or why they are not there; ``folder`` is the node's.

    From the moment that a removal is said, its files are nobody's, though some may still lie there.
    """
    if removed := removals_of(connection, [job.id]).get(job.id):
        return JobFiles(state=FilesState.REMOVED, said=removed, log_said=removed)
    if not is_there(folder, connection):
        return JobFiles(state=FilesState.AWAY, said=_AWAY, log_said=_AWAY)
    log_said = "" if latest_log(folder, job.id, job.attempt) else _NO_LOG if job.attempt else _NOT_TAKEN
    if (folder / job.folder / MANIFEST).is_file():
        return JobFiles(state=FilesState.HERE, log_said=log_said)
    state, said = _without_run(folder, job)
    return JobFiles(state=state, said=said, log_said=log_said)


_AWAY = "the node's folder is not there now: is its disk mounted?"
_NOT_TAKEN = "it has not begun: no worker has taken it."
_NO_LOG = (
    "its log is not in logs/ of the node's folder, and the node did not remove it: it was deleted, or not restored."
)


def _without_run(folder: Path, job: Job) -> tuple[FilesState, str]:
    if not job.attempt:
        return FilesState.NOT_BEGUN, _NOT_TAKEN
    if job.state is not JobState.STOPPED:
        return FilesState.NOT_BEGUN, "its run has stored nothing yet."
    aside = f"{SET_ASIDE}/run-{job.id}"
    if (folder / aside).exists():
        words = f"what lay in {job.folder} was moved to {aside}, since the database did not know this job then."
        return FilesState.SET_ASIDE, words
    if job.ended != JobEnd.HEALTHY:
        return FilesState.NOT_BEGUN, "its run ended before it stored anything."
    words = f"its run is not in {job.folder} of the node's folder, and the node did not remove it"
    return FilesState.MISSING, f"{words}: it was deleted, not restored, or made by a worker with another folder."


def removals_of(connection: Connection, job_ids: Sequence[int]) -> Mapping[int, str]:
    """Of those jobs whose files were removed, when and why, in a sentence."""
    wanted = select(REMOVAL.c.subject_id, REMOVAL.c.begun_at, REMOVAL.c.why)
    found = connection.execute(wanted.where(REMOVAL.c.kind == "run", REMOVAL.c.subject_id.in_(job_ids)))
    return {row.subject_id: _removed_words(row.begun_at, row.why) for row in found}


def _removed_words(at: datetime, why: str) -> str:
    return f"its run and logs were removed by retention on {at.astimezone():%Y-%m-%d}: {why}."
