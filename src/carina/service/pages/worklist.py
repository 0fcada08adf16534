"""What the worklist shows: a page of jobs with their progress and deliveries, quarantine, destinations, the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec

from carina.config import Priority
from carina.database import read_only
from carina.jobs.listing import Job, JobOrder
from carina.jobs.projects import project_names
from carina.jobs.queue import JobState
from carina.jobs.reading import Reading
from carina.pipeline.manifest import State
from carina.receive.store import ArrivalState
from carina.receive.uploads import LARGEST_CHUNK
from carina.service.access.caller import Caller
from carina.service.arrivals import HELD_BACK, Arrival, arrivals_of, first_files, list_arrivals
from carina.service.health import readiness
from carina.service.node import RunningNode
from carina.service.pages.deliveries import Sending, reasons_to_wait, sendings_of
from carina.service.pages.inputs import NOT_DESCRIBED, described_file, job_input, told_apart
from carina.service.pipelines import offered_pipelines
from carina.service.progress import manifest_of, operators_of
from carina.service.rest.job_pages import JobsAsked, ShownState, page_of_jobs
from carina.service.rest.operation import understood
from carina.service.upload_series import is_of_upload

ROWS = 50

READING_WORDS: Mapping[Reading, str] = {
    Reading.UNREAD: "to read",
    Reading.ACCEPTED: "accepted",
    Reading.REJECTED: "rejected",
    Reading.CORRECTED: "corrected",
}
"""What pages call what readers decided."""


class WorklistAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What part of the worklist is asked for: empty fields are those of a form that was left alone."""

    state: str = ""
    reading: str = ""
    pipeline: str = ""
    before: str = ""
    order: str = ""
    project: str = ""

    def jobs(self) -> JobsAsked:
        """As the REST interface asks.

        Raises:
            NotUnderstood: a value is wrong.
        """
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value}
        given.pop("project", None)  # it says which node is looked at, and not what of it
        return understood(given | {"limit": ROWS}, JobsAsked)

    def link(self, **changed: object) -> str:
        """The address of another part."""
        values = {**msgspec.structs.asdict(self), **changed}
        project = values.pop("project")
        query = urlencode({name: value for name, value in values.items() if value})
        place = f"/projects/{project}" if project else "/"
        return f"{place}?{query}" if query else place


def upload_values(node: RunningNode, caller: Caller) -> dict[str, Any]:
    """The values of the worklist's part that takes files: unfinished uploads of whoever looks, and pipelines."""
    with read_only(node.engine) as connection:
        projects = [name for name in project_names(connection) if caller.may_operate(name)]
    return {
        "takes_uploads": node.settings.uploads.gb > 0 and bool(projects),
        "upload_projects": projects,
        "unfinished": node.uploads.open_of(caller.name),
        "chunk_bytes": LARGEST_CHUNK,
    }


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job as a row: ``done`` of ``operators`` have ended, ``busy`` are at work; ``series`` describes its input."""

    job: Job
    series: str
    is_uploaded: bool
    arrival: Arrival | None
    done: int
    operators: int
    busy: str
    deliveries: Mapping[str, Sending]


def worklist(node: RunningNode, asked: WorklistAsked) -> dict[str, Any]:
    """The values of the live part of the worklist."""
    wanted = asked.jobs()
    with read_only(node.engine) as connection:
        jobs = page_of_jobs(connection, wanted)
        ids = [job.arrival_id for job in jobs if job.arrival_id is not None]
        arrivals, files = arrivals_of(connection, ids), first_files(connection, ids)
        sent = sendings_of(connection, [job.id for job in jobs])
        held = list_arrivals(connection, states=HELD_BACK, at_most=ROWS)
        files |= first_files(connection, [one.id for one in held])
        values: dict[str, Any] = {
            "most": ROWS,
            "quarantine": held,
            "arriving": list_arrivals(connection, states=[ArrivalState.ARRIVING], at_most=ROWS),
        }
    tally = node.tallies.now()
    with read_only(node.engine) as connection:
        values["resting"] = reasons_to_wait(connection, tally.deliveries)
    return values | {
        "described": _described(node, held, files),
        "counts": tally.jobs,
        "sent": tally.deliveries,
        "asked": asked,
        "rows": _rows(node, jobs, arrivals, files, sent),
        "following": asked.link(before=jobs[-1].id) if len(jobs) == ROWS else "",
        "first": asked.link(before="") if asked.before else "",
        "is_oldest_first": wanted.order is JobOrder.OLDEST,
        "orders": tuple(JobOrder),
        "pipelines": offered_pipelines(node.settings),
        "states": tuple(ShownState),
        "readings": READING_WORDS,
        "priorities": tuple(Priority),
        "node": readiness(node),
        "destinations": node.settings.destinations,
        "sources": tuple(node.settings.sources),
        "doors": node.settings.sources,
    }


def _rows(
    node: RunningNode,
    jobs: Sequence[Job],
    arrivals: Mapping[int, Arrival],
    files: Mapping[int, str],
    sent: Mapping[int, Mapping[str, Sending]],
) -> list[JobRow]:
    series = told_apart([job_input(node, job, files.get(job.arrival_id or 0)) for job in jobs])
    return [
        _row(node, job, arrivals.get(job.arrival_id or 0), words, sent.get(job.id, {}))
        for job, words in zip(jobs, series, strict=True)
    ]


def _row(node: RunningNode, job: Job, arrival: Arrival | None, series: str, sent: Mapping[str, Sending]) -> JobRow:
    found = operators_of(manifest_of(node, job)) if job.state is JobState.RUNNING else ()
    return JobRow(
        job=job,
        series=series,
        is_uploaded=arrival is None and is_of_upload(job),
        arrival=arrival,
        done=sum(one.state in (State.DONE, State.SKIPPED, State.FAILED) for one in found),
        operators=len(found),
        busy=", ".join(one.name for one in found if one.state is State.RUNNING),
        deliveries=sent,
    )


def _described(node: RunningNode, held: Sequence[Arrival], files: Mapping[int, str]) -> Mapping[int, str]:
    """What a page says of series that wait, by their arrival's id."""
    return {one.id: described_file(node.folder / files[one.id]) if one.id in files else NOT_DESCRIBED for one in held}
