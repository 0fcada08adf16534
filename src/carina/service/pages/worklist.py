"""What the worklist shows: a page of jobs with their progress and deliveries, quarantine, destinations, the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any
from urllib.parse import urlencode

import msgspec
from sqlalchemy import Connection
from starlette.requests import Request

from carina.config import Priority
from carina.database import read_only
from carina.jobs.filtering import EVERY_JOB, ROWS_LOOKED_AT, JobFilter
from carina.jobs.kept import removals_of
from carina.jobs.listing import Job, JobOrder, list_job_ids
from carina.jobs.projects import project_names
from carina.jobs.queue import JobState
from carina.jobs.scan import NOT_DESCRIBED
from carina.pipeline.manifest import State
from carina.receive.store import ArrivalState
from carina.receive.uploads import LARGEST_CHUNK
from carina.service.access.caller import Caller, caller_of
from carina.service.access.roles import Need
from carina.service.arrivals import HELD_BACK, Arrival, arrivals_read, first_files, list_arrivals
from carina.service.health import Readiness, readiness
from carina.service.node import RunningNode, seen_node
from carina.service.pages.counted import found_jobs
from carina.service.pages.deliveries import Sending, reasons_to_wait, sendings_of, sendings_told
from carina.service.pages.inputs import described_file, files_to_read, job_input
from carina.service.pages.job_rows import JobRow, RunProgress
from carina.service.pages.rendering import html, shared_values, shown_part
from carina.service.pages.shared_parts import PagePart, nameless, rights_of
from carina.service.pages.state_words import READING_WORDS
from carina.service.peer_names import message_without_addresses, told_to
from carina.service.pipelines import offered_pipelines, pipeline_name, pipelines_called
from carina.service.problems import NotUnderstood
from carina.service.progress import manifest_of, operators_of
from carina.service.rest.job_pages import JobsAsked, ShownState, page_of_jobs
from carina.service.rest.operation import understood
from carina.service.rest.shown import arrival_shown
from carina.service.tallies import Tally
from carina.service.upload_series import is_of_upload
from carina.toml import mistakes

ROWS = 50

_SERIES_SEARCHED = 1000
"""The latest series that are no jobs yet among which a search looks."""

_AROUND = ("projects", "asked", "pipelines", "states", "sources", "orders")
"""Values that the page around its live part needs: the form that searches."""

SEARCH_FIELDS = frozenset(
    {"studied_from", "studied_to", "description", "pipeline", "order", "uid", "state", "received_by"}
)
"""Fields of the form beside which something can stand."""

_NO_SEARCH = frozenset({"before", "order", "project"})


_NO_DATE = "\u201c{value}\u201d is no date: choose one, or write it as 2026-03-04."
_NOT_OFFERED = "There is no choice \u201c{value}\u201d here: choose another."
_WRONG_WORDS: Mapping[str, str] = {
    "studied_from": _NO_DATE,
    "studied_to": _NO_DATE,
    "uid": "A UID has 64 characters at most, and this is longer: copy the whole UID of one study or series.",
    "description": "This is longer than 200 characters: a part of a description is enough.",
    "received_by": "The name of a source has 64 characters at most, and this is longer: choose one.",
    "before": "\u201c{value}\u201d is no job from which on to list: begin with the first page.",
}


class WorklistAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What part of the worklist is asked for: empty fields are those of a form that was left alone."""

    state: str = ""
    reading: str = ""
    pipeline: str = ""
    received_by: str = ""
    uid: str = ""
    studied_from: str = ""
    studied_to: str = ""
    description: str = ""
    is_warned: str = ""
    before: str = ""
    order: str = ""
    project: str = ""

    @property
    def is_searched(self) -> bool:
        """Whether anything is asked of the jobs but where to begin and in which order."""
        return bool({name for name, value in msgspec.structs.asdict(self).items() if value} - _NO_SEARCH)

    @property
    def given(self) -> dict[str, str]:
        """What is asked of the jobs; ``project`` says which node is looked at, and not what of it."""
        values = {name: value.strip() for name, value in msgspec.structs.asdict(self).items()}
        return {name: value for name, value in values.items() if value and name != "project"}

    @property
    def troubles(self) -> dict[str, str]:
        """What is wrong with the values, a sentence for each field, which stands beside it."""
        given = self.given
        wrong = {wrong.key[0]: given[wrong.key[0]] for wrong in mistakes(given, JobsAsked)}
        found = {name: _WRONG_WORDS.get(name, _NOT_OFFERED).format(value=value[:40]) for name, value in wrong.items()}
        if "uid" not in found and any(sign in given.get("uid", "") for sign in "*?,\\ "):
            found["uid"] = "A UID is looked for whole, without wild cards: copy that of one study or series."
        is_swapped = given.get("studied_from", "") > given.get("studied_to", "9999")
        if is_swapped and not found.keys() & {"studied_from", "studied_to"}:
            found["studied_to"] = "This day is before the first one: swap the two dates."
        return found

    def jobs(self) -> JobsAsked:
        """As the REST interface asks.

        Raises:
            NotUnderstood: a value is wrong.
        """
        if troubles := self.troubles:
            raise NotUnderstood("web.asked", *(f"{name}: {words}" for name, words in troubles.items()))
        return understood({**self.given, "limit": ROWS}, JobsAsked)

    @property
    def all(self) -> str:
        """The address where nothing is searched for."""
        return f"/projects/{self.project}" if self.project else "/"

    def link(self, **changed: object) -> str:
        """The address of another part."""
        values = {**msgspec.structs.asdict(self), **changed}
        project = values.pop("project")
        query = urlencode({name: value for name, value in values.items() if value})
        place = f"/projects/{project}" if project else "/"
        return f"{place}?{query}" if query else place


def upload_values(node: RunningNode, caller: Caller, projects: Sequence[str]) -> dict[str, Any]:
    """The values of the worklist's part that takes files: unfinished uploads of whoever looks, and pipelines."""
    projects = [name for name in projects if caller.may_operate(name)]
    return {
        "takes_uploads": node.settings.uploads.gb > 0 and bool(projects),
        "upload_projects": projects,
        "offered": offered_pipelines(node.seen_in(caller.projects(Need.OPERATE)).settings),
        "unfinished": node.uploads.open_of(caller.name) if node.own.is_there() else [],
        "chunk_bytes": LARGEST_CHUNK,
    }


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What the worklist shows that is in no row: the node, counts that may be old, and by job how far its run is."""

    ready: Readiness
    tally: Tally
    progress: Mapping[int, RunProgress]


@dataclass(frozen=True, kw_only=True)
class WaitingSeries:
    """Series that are no jobs yet: held back, with words by id, or arriving."""

    held: Sequence[Arrival]
    described: Mapping[int, str]
    arriving: Sequence[Arrival]


def move_values(node: RunningNode, caller: Caller, version: object) -> dict[str, Any]:
    """What the form needs that moves rows: projects to choose from, and whether rows can be chosen."""
    names = node.known_projects.get(version, partial(_project_names, node))
    operated = [name for name in names if caller.may_operate(name)]
    return {"projects": names, "move_to": operated if len(operated) > 1 else []}


def _project_names(node: RunningNode) -> Sequence[str]:
    with read_only(node.engine) as connection:
        return project_names(connection)


def worklist_part(request: Request, node: RunningNode, asked: WorklistAsked, at_most_old_s: float = 0.0) -> PagePart:
    """The live part of the worklist: of a node as whoever asks sees it, or of one of its projects."""
    seen, caller = seen_node(request), caller_of(request)

    def make(version: object) -> PagePart:
        anybody = nameless(caller)
        values = _shown_to(node, anybody, worklist(node, asked, version)) | move_values(seen, anybody, version)
        shown = values | shared_values(anybody, asked.link())
        around = {name: values[name] for name in _AROUND}
        look = partial(_look_beside, node, [row.job for row in values["rows"] if row.job.state is JobState.RUNNING])
        return PagePart(html=html("jobs.html", shown), values=around, seen=values["beside"], look=look)

    key = ("worklist", seen.projects, node.projects, rights_of(caller), asked)
    part: PagePart = request.app.state.parts.part(key, make, at_most_old_s)
    return part


def _shown_to(node: RunningNode, caller: Caller, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the list as a caller sees it: addresses of senders and peers are for those who operate there."""
    settings = node.every_setting

    def shown(one: Arrival) -> Arrival:
        return told_to(arrival_shown(one, caller), caller, settings)

    rows = [
        replace(
            row,
            arrival=row.arrival and shown(row.arrival),
            job=told_to(row.job, caller, settings),
            deliveries=sendings_told(row.deliveries, row.job.project, caller, settings),
        )
        for row in values["rows"]
    ]
    waiting = {name: [shown(one) for one in values[name]] for name in ("quarantine", "arriving")}
    ready = told_to(values["node"], caller, settings)
    resting, pipelines = values["resting"], values["pipelines"]
    if not caller.operates_all_seen:
        resting = {name: message_without_addresses(said, settings) for name, said in resting.items()}
        pipelines = tuple(dict.fromkeys(map(pipeline_name, pipelines)))
    return {**values, **waiting, "rows": rows, "node": ready, "resting": resting, "pipelines": pipelines}


def searched_values(request: Request, node: RunningNode, asked: WorklistAsked, live: str) -> dict[str, Any]:
    """The values of a page with the list that is asked for, which comes anew from the address ``live``.

    Where something is wrong with what is asked, of one with the form, what was filled in, what is wrong, and no list.
    """
    troubles = asked.troubles
    part = worklist_part(request, node, WorklistAsked(project=asked.project) if troubles else asked)
    shared = {"asked": asked, "troubles": troubles, "live": live, "fields": SEARCH_FIELDS}
    return shown_part(request, part) | shared


def worklist(node: RunningNode, asked: WorklistAsked, version: object = None) -> dict[str, Any]:
    """The values of the live part of the worklist; ``version`` is that of the database, where it was looked up."""
    wanted, tally = asked.jobs(), node.tallies.now(version)
    like = wanted.filtered.of_series
    waiting = _waiting_like(node, like, version)
    with read_only(node.engine) as connection:
        called = pipelines_called(connection, node.settings, wanted.pipeline)
        filtered = replace(wanted.filtered, pipelines=called)
        found = page_of_jobs(connection, wanted, filtered)
        jobs = found.jobs
        ids = [job.arrival_id for job in jobs if job.arrival_id is not None]
        arrivals = arrivals_read(connection, node.folder, ids)
        files = files_to_read(connection, jobs)
        sent = sendings_of(connection, [job.id for job in jobs])
        removed = removals_of(connection, [job.id for job in jobs])
        resting = reasons_to_wait(connection, tally.deliveries)
        counted = found_jobs(connection, filtered, tally.jobs)
        preceding = _preceding(connection, asked, wanted, filtered)
    beside = _beside(node, jobs, tally)
    return {
        "most": ROWS,
        "is_narrowed": like != EVERY_JOB,
        "quarantine": waiting.held,
        "described": waiting.described,
        "arriving": waiting.arriving,
        "resting": resting,
        "beside": beside,
        "counts": counted.by_state,
        "found": counted.words if asked.is_searched and jobs else "",
        "sent": tally.deliveries,
        "removed": removed,
        "asked": asked,
        "rows": _rows(node, jobs, arrivals, files, sent, beside.progress),
        "following": asked.link(before=found.next) if found.next else "",
        "preceding": preceding,
        "is_cut": found.next is not None and len(jobs) < ROWS,
        "looked_at": ROWS_LOOKED_AT,
        "first": asked.link(before="") if asked.before else "",
        "is_oldest_first": wanted.order is JobOrder.OLDEST,
        "orders": tuple(JobOrder),
        "pipelines": offered_pipelines(node.settings),
        "states": tuple(ShownState),
        "readings": READING_WORDS,
        "priorities": tuple(Priority),
        "node": beside.ready,
        "destinations": node.settings.destinations,
        "sources": tuple(node.settings.sources),
        "doors": node.settings.sources,
        "is_upload_taken": node.settings.uploads.gb > 0,
    }


def _preceding(connection: Connection, asked: WorklistAsked, wanted: JobsAsked, filtered: JobFilter) -> str:
    """The address of the page before; empty on the first one."""
    if wanted.before is None:
        return ""
    back, one = (JobOrder.OLDEST, 1) if wanted.order is JobOrder.NEWEST else (JobOrder.NEWEST, -1)
    nearer, _ = list_job_ids(connection, filtered, before=wanted.before - one, at_most=ROWS + 1, order=back)
    return asked.link(before=nearer[ROWS - 1] + one if len(nearer) > ROWS else "")


def _waiting_like(node: RunningNode, like: JobFilter, version: object) -> WaitingSeries:
    if like != EVERY_JOB:
        return _waiting(node, like)
    found: WaitingSeries = node.waiting.get(version, partial(_waiting, node))
    return found


def _waiting(node: RunningNode, like: JobFilter = EVERY_JOB) -> WaitingSeries:
    """Series that are no jobs yet, as many as a page has rows: all, or of the latest those that a search is for."""
    looked_at = ROWS if like == EVERY_JOB else _SERIES_SEARCHED
    with read_only(node.engine) as connection:
        held, arriving = (
            [one for one in list_arrivals(connection, states=states, at_most=looked_at) if _is_like(one, like)][:ROWS]
            for states in (HELD_BACK, (ArrivalState.ARRIVING,))
        )
        unread = first_files(connection, [one.id for one in held if one.series_description is None])
    described = {one.id: _held_words(node, one, unread.get(one.id)) for one in held}
    return WaitingSeries(held=held, arriving=arriving, described=described)


def _is_like(one: Arrival, wanted: JobFilter) -> bool:
    """Whether a series is one that a search of jobs is for, by what is known of it before it is a job."""
    first, last = (wanted.studied_from or date.min).isoformat(), (wanted.studied_to or date.max).isoformat()
    is_dated = bool(wanted.studied_from or wanted.studied_to)
    return all(
        (
            wanted.uid in ("", one.study_uid, one.series_uid),
            wanted.received_by in ("", one.source),
            wanted.description.casefold() in f"{one.series_description or ''}\n{one.study_description}".casefold(),
            not is_dated or first <= one.study_date <= last,
        )
    )


def _look_beside(node: RunningNode, jobs: Sequence[Job], version: object) -> Beside:
    return _beside(node, jobs, node.tallies.now(version))


def _beside(node: RunningNode, jobs: Sequence[Job], tally: Tally) -> Beside:
    return Beside(
        ready=readiness(node, is_database_there=True),
        tally=tally,
        progress={job.id: _progress(node, job) for job in jobs if job.state is JobState.RUNNING},
    )


def _progress(node: RunningNode, job: Job) -> RunProgress:
    found = operators_of(manifest_of(node, job))
    return RunProgress(
        done=sum(one.state in (State.DONE, State.SKIPPED, State.FAILED) for one in found),
        operators=len(found),
        busy=", ".join(one.name for one in found if one.state is State.RUNNING),
    )


def _rows(
    node: RunningNode,
    jobs: Sequence[Job],
    arrivals: Mapping[int, Arrival],
    files: Mapping[int, str],
    sent: Mapping[int, Mapping[str, Sending]],
    progress: Mapping[int, RunProgress],
) -> list[JobRow]:
    inputs = [job_input(node, job, files.get(job.arrival_id or 0)) for job in jobs]
    return [
        JobRow(
            job=job,
            series=one.words,
            series_end=one.series_end,
            is_uploaded=job.arrival_id not in arrivals and is_of_upload(job),
            arrival=arrivals.get(job.arrival_id or 0),
            progress=progress.get(job.id, RunProgress()),
            deliveries=sent.get(job.id, {}),
        )
        for job, one in zip(jobs, inputs, strict=True)
    ]


def _held_words(node: RunningNode, held: Arrival, file: str | None) -> str:
    """What a page says of a series that waits; ``file`` is to be read where its row doesn't say it."""
    if file:
        return described_file(node.folder / file)
    return ", ".join(filter(None, (held.study_date, held.series_description))) or NOT_DESCRIBED
