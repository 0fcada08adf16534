"""The runs of the node's jobs as the viewer needs them: where they are, who corrects, where objects are sent."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from starlette.requests import Request

from carina.api.result import Run
from carina.corrections.masks import CORRECTIONS
from carina.database import database_now, read_only
from carina.deliver.ledger import enter
from carina.deliver.register import states_of_objects
from carina.deliver.withdrawing import withdraw
from carina.dicom.series import Source
from carina.errors import BadSeries
from carina.jobs.comparison import removed_words
from carina.jobs.decided import note_reading
from carina.jobs.earlier import earlier_scans
from carina.jobs.kept import FilesState, JobFiles, job_files
from carina.jobs.listing import Job, find_job
from carina.jobs.queue import JobEnd, JobState
from carina.jobs.sources import GoneSource, gone_source, source_of
from carina.jobs.superseding import successor_of, successor_words
from carina.sections import RUNS
from carina.service.access.caller import caller_of
from carina.service.changes import audit
from carina.service.node import RunningNode, seen_node
from carina.service.pages.deliveries import sent_lines
from carina.service.peer_names import told_to
from carina.service.problems import Conflict, NotThere, without_source
from carina.service.viewer.looked_at import RunsLookedAt
from carina.service.viewer.routes import Above, Successor
from carina.service.viewer.ways_to_correct import Correcting, source_of_run

MOST_LOOKED_AT = 500
"""Runs that the page of agreement takes into account: their masks are read for it."""


def run_of(request: Request) -> Path:
    """The folder of the run that a request is about.

    Raises:
        NotThere: there is no such job, or its run is not here (any more).
        FolderAway: the node's folder is not there now.
    """
    node, job = job_asked(request)
    with read_only(node.engine) as connection:
        files = job_files(connection, node.folder, job)
    if files.state is FilesState.AWAY:
        raise node.own.away
    if files.state is not FilesState.HERE:
        told = told_to(job, caller_of(request), node.every_setting)
        raise NotThere(files.code, _without_results(told, files))
    return node.folder / job.folder


def _without_results(job: Job, files: JobFiles) -> str:
    """Why a job has no results, in a sentence."""
    if job.ended == JobEnd.FAULTED and files.state is FilesState.NOT_BEGUN:
        return f"job {job.id} failed before it had any result: {without_source(job.error, job.source)}"
    if job.ended == JobEnd.CANCELED and files.state is FilesState.NOT_BEGUN:
        return f"job {job.id} was canceled before it had any result."
    if job.state is not JobState.STOPPED:
        return f"job {job.id} has no results yet: it {'runs' if job.state is JobState.RUNNING else 'waits'}."
    return f"job {job.id} has no results here: {files.said}"


def job_asked(request: Request) -> tuple[RunningNode, Job]:
    """The job that a request is about.

    Raises:
        NotThere: there is no such job.
    """
    node = seen_node(request)
    job_id = int(request.path_params["job"])
    with read_only(node.engine) as connection:
        job = find_job(connection, job_id)
    if job is None:
        raise NotThere("job.unknown", f"there is no job {job_id}.")
    return node, job


def earlier_runs(request: Request) -> dict[int, Path]:
    """The runs on earlier scans of the patient of the job that a request is about, by their jobs' ids.

    Raises:
        NotThere: there is no such job.
    """
    node, job = job_asked(request)
    with read_only(node.engine) as connection:
        return {one.job_id: node.folder / one.folder for one in earlier_scans(connection, job.id)}


def removed_runs(request: Request) -> Mapping[int, str]:
    """Of the runs that would be among those, had they not been removed, which, when and why, by their jobs' ids.

    Raises:
        NotThere: there is no such job.
    """
    node, job = job_asked(request)
    with read_only(node.engine) as connection:
        return removed_words(connection, job.id)


def looked_at(request: Request) -> RunsLookedAt:
    """The runs whose masks a reader has looked at, the latest first, `MOST_LOOKED_AT` at most."""
    node = seen_node(request)
    runs = (path.parent for path in (node.folder / RUNS).glob(f"*/{CORRECTIONS}"))
    numbers = sorted((int(run.name) for run in runs if run.name.isdecimal()), reverse=True)
    with read_only(node.engine) as connection:
        seen = (job for number in numbers if (job := find_job(connection, number)))
        latest = {f"/jobs/{job.id}/view": node.folder / job.folder for job in islice(seen, MOST_LOOKED_AT)}
        return RunsLookedAt(runs=latest, is_cut=next(seen, None) is not None)


def page_of_job(request: Request) -> Above:
    """The page of the job that a request is about."""
    number = int(request.path_params["job"])
    return Above(href=f"/jobs/{number}", name=f"Job {number}")


def following_job(request: Request) -> str:
    """The address that leads to the next job to be read."""
    return f"/jobs/{int(request.path_params['job'])}/next"


def events_of_job(request: Request) -> str:
    """The address of the events that say whether another job came in place of the one that a request is about."""
    return f"/jobs/{int(request.path_params['job'])}/superseded"


def superseded_job(request: Request) -> Successor | None:
    """The job in place of the one that a request is about; None where there is none.

    Raises:
        NotThere: there is no such job.
    """
    node, job = job_asked(request)
    with read_only(node.engine) as connection:
        found = successor_of(connection, job)
    if found is None:
        return None
    return Successor(page=Above(href=f"/jobs/{found.id}", name=f"Job {found.id}"), words=successor_words(found))


def sent_of_job(request: Request) -> list[str]:
    """What became of the results of the job that a request is about, a line for each destination.

    Raises:
        NotThere: there is no such job.
    """
    node, job = job_asked(request)
    with read_only(node.engine) as connection:
        return sent_lines(connection, job, caller_of(request), node.every_setting)


def corrections_of_jobs() -> Correcting:
    """How the masks of jobs are corrected."""
    return Correcting(
        source=_source,
        reader=_reader,
        note=_note,
        decided=_decided,
        send=send_correction,
        may_send=_may_send,
        withdraw=_withdraw,
        destinations=_destinations,
        sendings=_sendings,
        gone=_gone,
    )


def _source(request: Request, run: Run) -> Source | None:
    node, job = job_asked(request)
    place = source_of(node.folder, job)
    try:
        return source_of_run(run, place)
    except BadSeries as error:
        raise BadSeries(error.code, without_source(error.message, str(place)).replace(f"{place}/", "")) from error


def _gone(request: Request, _: Run) -> GoneSource | None:
    node, job = job_asked(request)
    with read_only(node.engine) as connection:
        return gone_source(connection, node.folder, job)


def _reader(request: Request) -> str:
    """Who is logged in; empty where whoever sits at this machine may do everything, and gives a name on the page."""
    node = seen_node(request)
    return caller_of(request).name if node.settings.web.login else ""


def _note(request: Request, deed: str) -> None:
    node, job = job_asked(request)
    with node.engine.begin() as connection:
        audit(connection, "corrected", f"job {job.id}: {deed}")


def _decided(request: Request, run: Run) -> None:
    node, job = job_asked(request)
    note_reading(node.own, job.id, run)


def _destinations(request: Request) -> list[str]:
    return list(job_asked(request)[1].destinations)


def _may_send(request: Request) -> bool:
    return caller_of(request).may_operate(job_asked(request)[1].project)


def _withdraw(request: Request, path: Path) -> tuple[str, ...]:
    node, job = job_asked(request)
    with node.engine.begin() as connection:
        waited = withdraw(connection, job.id, path, folder=node.folder)
        if waited:
            audit(connection, "corrected", f"job {job.id}: {path.parents[1].name} withdrawn from {', '.join(waited)}")
    node.count_anew()
    return waited


def _sendings(request: Request) -> dict[str, str]:
    node, job = job_asked(request)
    with read_only(node.engine) as connection:
        objects = states_of_objects(connection, job.id)
    return {uid: ", ".join(f"{name}: {state}" for name, state in states.items()) for uid, states in objects.items()}


def send_correction(request: Request, path: Path) -> str:
    """Enter an object into the delivery ledger, for each destination of its job that takes it; says which.

    Raises:
        Conflict: the job has no destination.
    """
    node, job = job_asked(request)
    wanted = {name: node.every_destination.get(name) for name in job.destinations}
    if not wanted:
        raise Conflict("corrections.nowhere", f"job {job.id} has no destination to which its objects are sent.")
    with node.engine.begin() as connection:
        now = database_now(connection)
        count = enter(connection, job.id, wanted, [path], folder=node.folder, now=now)
    node.count_anew()
    unknown = [name for name, known in wanted.items() if known is None]
    waits = f" The settings don't have {', '.join(unknown)}, for which it waits." if unknown else ""
    return f"It will be sent to {', '.join(wanted)}.{waits}" if count else "It was entered for sending before."
