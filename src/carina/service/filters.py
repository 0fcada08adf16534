"""What jobs and deliveries may be asked for: a value that nothing can have is said, and not searched for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import Column, Connection, select

from carina.config import Settings
from carina.database import DELIVERY, JOB, each_project
from carina.deliver.ledger import counts
from carina.dicom.uids import is_uid
from carina.errors import BadConfig
from carina.jobs.filtering import JobFilter
from carina.service.pipelines import offered_pipelines, pipelines_called


def check_filter(connection: Connection, settings: Settings, filtered: JobFilter) -> JobFilter:
    """A filter that jobs can fit, with the pipelines that are called so.

    What the settings no longer name, but jobs do, is known.

    Raises:
        BadConfig: nothing is or was called so, or a UID is none.
    """
    if filtered.received_by:
        _check_name(connection, "source", filtered.received_by, settings.sources, JOB.c.received_by)
    pipelines = check_pipeline_filter(connection, settings, filtered.pipeline)
    uid = filtered.uid
    if (
        uid
        and not is_uid(uid)
        and not any(_is_there(connection, it, uid) for it in (JOB.c.study_uid, JOB.c.series_uid))
    ):
        words = (
            f"{uid[:64]!r} is no UID of a study or series: expected a whole one, digits and dots, without wild cards"
        )
        raise BadConfig("job.uid", f"{words}.")
    return replace(filtered, pipelines=pipelines)


def check_pipeline_filter(connection: Connection, settings: Settings, pipeline: str) -> tuple[str, ...]:
    """The pipelines that are called so, and of which there can be jobs; empty: any.

    Raises:
        BadConfig: none is offered or was run by that name.
    """
    pipelines = pipelines_called(connection, settings, pipeline)
    if pipeline and not pipelines:
        _check_name(connection, "pipeline", pipeline, offered_pipelines(settings), JOB.c.pipeline)
    return pipelines


def check_deliveries_filter(
    connection: Connection, settings: Settings, destination: str = "", job_id: int | None = None
) -> None:
    """See that there can be deliveries to a destination, and of a job.

    Raises:
        BadConfig: there is or was none of that name or number.
    """
    if destination and destination not in settings.destinations:
        known = {*counts(connection), *settings.destinations}
        if destination not in known:
            names = ", ".join(sorted(known)) or "none"
            words = f"destinations.{destination[:64]}: no destination is or was called so; known: {names}."
            raise BadConfig("delivery.unknown-destination", words)
    if job_id is not None and not has_job(connection, job_id):
        raise BadConfig("job.unknown", f"job {job_id}: there is none; carina jobs list shows those there are.")


def _check_name(connection: Connection, what: str, name: str, known: Collection[str], column: Column[str]) -> None:
    if name not in known and not _is_there(connection, column, name):
        names = ", ".join(known) or "none"
        raise BadConfig(f"job.unknown-{what}", f"no {what} is or was called {name[:64]!r}; known: {names}.")


def _is_there(connection: Connection, column: Column[str], value: str) -> bool:
    """Whether a job that is seen has a value; an index leads to it."""
    wanted = select(JOB.c.id).where(column == value).limit(1)
    every = (connection.execute(wanted.where(*of_project)).first() for of_project in each_project(connection, JOB))
    return any(row is not None for row in every)


def has_job(connection: Connection, job_id: int) -> bool:
    """Whether there is a job, or deliveries of one, among what is seen."""
    wanted = (select(JOB.c.id).where(JOB.c.id == job_id), select(DELIVERY.c.id).where(DELIVERY.c.job_id == job_id))
    return any(connection.execute(one.limit(1)).first() is not None for one in wanted)
