"""What users change on a node, by REST and by the buttons of its pages: the same functions, and each in the audit."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
from sqlalchemy import Connection, insert

from carina.config import Priority
from carina.database import AUDIT, database_now
from carina.errors import BadSeries, DeliveryFailed, unreadable
from carina.jobs import queue
from carina.jobs.estimate import cores_of, memory_mb, others_mb
from carina.jobs.listing import Job, find_job
from carina.jobs.projects import assign_job, assign_series
from carina.jobs.queue import JobState
from carina.jobs.sources import kept_source
from carina.jobs.terms import Terms
from carina.receive.complete import RUN_REFUSED, release
from carina.receive.parting import part, parts_of_arrival, taken_back
from carina.receive.project import project_of
from carina.receive.store import ArrivalState
from carina.service.access.caller import asking
from carina.service.access.members import see_project
from carina.service.arrivals import RELEASED_IN_VAIN, RELEASED_RESULTS, Arrival, ReleasedArrival, find_arrival
from carina.service.filters import has_job
from carina.service.node import RunningNode
from carina.service.pipelines import check_offered
from carina.service.problems import Conflict, NotThere, Refused
from carina.service.resending import SentAgain, send_what_holds

_IS = {JobState.PENDING: "waits", JobState.RUNNING: "runs", JobState.STOPPED: "has ended"}
"""What is said of a job that can't be changed, by REST and on pages alike."""


def audit(connection: Connection, action: str, subject: str, who: str = "") -> None:
    """Add a line to the audit trail, in the transaction of what it is about; by default of whoever is asking."""
    row = {"at": database_now(connection), "who": who or asking.get(), "action": action, "subject": subject}
    connection.execute(insert(AUDIT), row)


def cancel_job(node: RunningNode, job_id: int) -> Job:
    """Stop a job that waits, or ask whoever runs it to.

    Raises:
        NotThere: there is no such job.
        Conflict: it has stopped already.
    """
    why = "only what waits or runs is canceled"
    return _changed(node, job_id, "cancel", lambda it: queue.cancel(it, job_id, database_now(it)), why)


def retry_job(node: RunningNode, job_id: int) -> Job:
    """Let a job that is faulted or canceled run again; what it had finished is kept.

    Raises:
        NotThere: there is no such job.
        Conflict: it waits, runs, or is healthy, or its files were removed.
    """
    why = "only what failed or was canceled is tried again"
    return _changed(node, job_id, "retry", lambda it: queue.retry(it, job_id), why)


def prioritise_job(node: RunningNode, job_id: int, priority: Priority) -> Job:
    """Change the priority of a job that waits.

    Raises:
        NotThere: there is no such job.
        Conflict: it does not wait.
    """
    change = lambda it: queue.set_priority(it, job_id, priority)  # noqa: E731
    return _changed(node, job_id, f"priority {priority}", change, "only what waits has a priority")


def _changed(node: RunningNode, job_id: int, action: str, change: Callable[[Connection], bool], why: str) -> Job:
    with node.engine.begin() as connection:
        before = _job(connection, job_id)
        if not change(connection):
            words = (action == "retry" and queue.removal_words(connection, job_id)) or f"{why}."
            raise Conflict("job.state", f"job {job_id} {_IS[before.state]}: {words}")
        audit(connection, "changed", f"job {job_id}: {action}")
        after = _job(connection, job_id)
    node.count_anew()
    return after


def _job(connection: Connection, job_id: int) -> Job:
    job = find_job(connection, job_id)
    if job is None:
        raise NotThere("job.unknown", f"there is no job {job_id}.")
    return job


def submit_path(node: RunningNode, path: str, terms: Terms) -> Job:
    """Put a run on a folder or file of this machine into the queue, as ``submit_source``, where the settings allow it.

    Raises:
        Refused: it lies below no folder of ``node.submit_below``, wherever its links lead.
    """
    allowed = node.settings.node.submit_below
    source = _where_it_is(path)
    if source is None or not any(source.is_relative_to(os.path.realpath(folder)) for folder in allowed):
        words = f"{path}: lies below no folder that node.submit_below allows ({', '.join(allowed) or 'it is empty'})"
        raise Refused("job.outside", f"{words}: add the folder to the settings, or use carina submit.")
    return submit_source(node, source, terms)


def _where_it_is(path: str) -> Path | None:
    """A path without links; None where it is none."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return None


def submit_source(node: RunningNode, source: Path, terms: Terms, series_uid: str = "") -> Job:
    """Put a run on a folder or file into the queue; of an upload on the series of a UID, where one is given.

    Raises:
        BadSeries: there is nothing at the path, or it can't be read.
        BadConfig: no such pipeline is offered over the web, or it has mistakes.
        NotThere: there is no such destination, or no such project.
    """
    from carina.operators.catalogue import definition_file
    from carina.pipeline.definition import load_definition

    check_offered(node.settings, terms.pipeline)
    needed = memory_mb(_voxels_at_most(source)) + others_mb(terms.pipeline)
    load_definition(definition_file(terms.pipeline))
    unknown = [name for name in terms.destinations if name not in node.settings.destinations]
    if unknown:
        raise NotThere("delivery.unknown", f"no destination is called {unknown[0]!r}.")
    new = queue.NewJob(
        source=kept_source(node.folder, source),
        pipeline=terms.pipeline,
        memory_mb=needed,
        cores=cores_of(node.settings),
        priority=terms.priority,
        destinations=tuple(terms.destinations),
        series_uid=series_uid,
        project=terms.project,
    )
    with node.engine.begin() as connection:
        see_project(connection, terms.project)
        job_id = queue.submit(connection, new, database_now(connection))
        audit(connection, "changed", f"job {job_id}: submitted")
        after = _job(connection, job_id)
    node.count_anew()
    return after


def _voxels_at_most(source: Path) -> int:
    """About how many voxels a folder or file holds, without opening it: two bytes each."""
    try:
        if source.is_file():
            return source.stat().st_size // 2
        if source.is_dir():
            return sum(file.stat().st_size for file in source.rglob("*") if file.is_file()) // 2
    except (OSError, ValueError) as error:
        raise unreadable(error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error)), source) from error
    raise BadSeries("input.missing", f"{source}: is not there; expected a folder or file of the node's machine.")


def release_arrival(node: RunningNode, arrival_id: int, source: str) -> ReleasedArrival:
    """Let a series out of quarantine: it is run as what came from a source, in the project of what comes from there.

    Raises:
        NotThere: there is no such arrival, or no such source.
        Conflict: it is neither in quarantine nor apart, nor kept.
        FolderAway: the node's folder is not there.
        BadConfig: it holds several patients' instances, and these can't be parted on the disk.
    """
    own = node.own
    parting = parts_of_arrival(node.settings, node.engine, own, arrival_id, source)
    with taken_back(own) as made, node.engine.begin() as connection:
        before = _arrival(connection, arrival_id)
        name = source or before.source
        if name not in node.settings.sources:
            known = ", ".join(node.settings.sources) or "none"
            raise NotThere("arrival.source", f"no source is called {name!r}; release it as one of: {known}.")
        project = project_of(connection, before, name, node.settings.sources[name].project)
        if node.projects is not None and project not in node.projects:
            raise NotThere("arrival.source", f"source {name!r} takes this series to a project that you are not in.")
        if not release(connection, arrival_id, name, project):
            raise Conflict(
                "arrival.state",
                f"arrival {arrival_id} is {before.state}: what waits in quarantine or apart, or is kept, is released.",
            )
        parted = part(connection, own, parting, made)
        after = _arrival(connection, arrival_id)
        warning = parted.words or (RELEASED_RESULTS if before.state is ArrivalState.KEPT else "")
        if before.reason.endswith(RUN_REFUSED):
            warning = RELEASED_IN_VAIN.format(reason=before.reason.removesuffix(RUN_REFUSED).rstrip(" ."))
        became = msgspec.structs.asdict(after) | {"parts": (*parted.run, *parted.waiting)}
        released = ReleasedArrival(**became, project_before=before.project, warning=warning)
        audit(connection, "changed", f"arrival {arrival_id}: {released.told}")
        return released


def move_to_project(node: RunningNode, jobs: Collection[int], arrivals: Collection[int], project: str) -> int:
    """Put series, all that came of each and its jobs, and jobs by path into a project; gives how many of them.

    Raises:
        NotThere: there is no such job, arrival or project.
    """
    with node.engine.begin() as connection:
        see_project(connection, project)
        found = [_job(connection, job_id) for job_id in jobs]
        came = [_arrival(connection, one) for one in {*arrivals, *(job.arrival_id for job in found)} - {None}]
        series = {(one.study_uid, one.series_uid, one.source): one for one in came}
        for one in series.values():
            assign_series(connection, one, one.source, project)
            moved = f"series {one.series_uid} of source {one.source}"
            audit(connection, "changed", f"{moved}: moved to project {project}")
        by_path = [job.id for job in found if job.arrival_id is None]
        for job_id in by_path:
            assign_job(connection, job_id, project)
            audit(connection, "changed", f"job {job_id}: moved to project {project}")
    node.count_anew()
    return len(series) + len(by_path)


def _arrival(connection: Connection, arrival_id: int | None) -> Arrival:
    arrival = find_arrival(connection, arrival_id or 0)
    if arrival is None:
        raise NotThere("arrival.unknown", f"there is no arrival {arrival_id}.")
    return arrival


def send_again(node: RunningNode, destination: str, job_id: int | None) -> SentAgain:
    """Let deliveries that have failed, wait for their time, or are not confirmed be tried now; gives how many.

    Raises:
        NotThere: there is no such destination or job.
        Conflict: they are of corrections that don't hold any more.
    """
    if destination and destination not in node.settings.destinations:
        raise NotThere("delivery.unknown", f"no destination is called {destination!r}.")
    with node.engine.begin() as connection:
        if job_id is not None and not has_job(connection, job_id):
            raise NotThere("job.unknown", f"there is no job {job_id}.")
        known = node.every_destination
        sent = send_what_holds(connection, node.folder, destination=destination, job_id=job_id, among=known)
        if sent.deliveries:
            audit(connection, "changed", f"{sent.deliveries} deliveries: sent again")
    node.count_anew()
    return sent


def echo_source(node: RunningNode, name: str) -> str:
    """What is found out about who can reach a source.

    Raises:
        NotThere: there is no such source.
        DeliveryFailed: it can't be reached; the message says what was seen.
    """
    from carina.receive.source_echo import reach_of

    if name not in node.settings.sources:
        raise NotThere("arrival.source", f"no source is called {name!r}.")
    found = list(reach_of(name, node.settings))
    said = " ".join(one.words for one in found)
    if not all(one.is_well for one in found):
        raise DeliveryFailed("source.unreachable", said)
    return said


def echo_destination(node: RunningNode, name: str) -> None:
    """See whether a destination answers.

    Raises:
        NotThere: there is no such destination.
        DeliveryFailed: it does not answer; the message says what was seen.
    """
    from carina.deliver.deliver import echo

    if name not in node.settings.destinations:
        raise NotThere("delivery.unknown", f"no destination is called {name!r}.")
    echo(name, node.settings.destinations[name])
