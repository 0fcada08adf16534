"""Looking at the job table: one job, or a page of them by key, filtered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, func, select, true

from carina.config import Priority
from carina.database import JOB, each_project, read_only
from carina.jobs.filtering import EVERY_JOB, ROWS_LOOKED_AT, JobFilter
from carina.jobs.queue import RANKS, JobEnd, JobState
from carina.jobs.reading import Decided
from carina.pipeline.json_text import read_json

MOST_COUNTED = 1000
"""Jobs that are counted of a search; of more it is only said that there are."""

PRIORITIES = {rank: priority for priority, rank in RANKS.items()}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is shown. Times are UTC; ``folder`` is its run's, relative to the node's folder.
    ``source`` is what it reads: relative to that folder too where it lies in it.

    ``received_by`` is the source of the settings that it came by. ``described`` is what lists call what it reads, null
    until that is read from its files. ``ratio_percent`` (lesion to lung) is null where none was measured,
    ``is_classified`` where the scan was not to be classified.

    ``reading`` is a word of ``Reading``, empty where nothing is to be read; ``decisions`` are what readers decided,
    ``reader_ratio_percent`` is the ratio with their corrections, null where none holds.
    """

    id: int
    state: JobState
    ended: str
    priority: Priority
    project: str
    pipeline: str
    source: str
    series_uid: str
    folder: str
    destinations: tuple[str, ...]
    attempt: int
    crashes: int
    retries: int
    worker: str
    memory_mb: float
    cores: float
    supersedes: int | None
    arrival_id: int | None
    created_at: datetime
    started_at: datetime | None
    stopped_at: datetime | None
    not_before: datetime | None
    error_code: str
    error: str
    reading: str
    decisions: tuple[Decided, ...]
    received_by: str
    study_uid: str
    study_date: str
    study_description: str
    series_description: str
    modality: str
    described: str | None
    warnings: int
    first_warning: str
    ratio_percent: float | None
    reader_ratio_percent: float | None
    is_classified: bool | None

    @property
    def shown_state(self) -> str:
        """One word: ``pending``, ``running``, or how it ended."""
        return self.ended or self.state

    @property
    def read_words(self) -> str:
        """What readers decided, with the masks that they decided it about: ``lesion accepted``; else the reading."""
        masks = sorted({one.layer for one in self.decisions if one.standing == self.reading})
        return " ".join(filter(None, (" and ".join(masks), self.reading)))

    @property
    def readers(self) -> int:
        """How many readers decided about its run."""
        return len({one.reader for one in self.decisions})


JOBS = select(*(JOB.c[name] for name in Job.__struct_fields__))
"""Every job, as ``job_of`` takes its row."""


class JobOrder(StrEnum):
    """Which jobs come first on a page of them."""

    NEWEST = "newest"
    OLDEST = "oldest"


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs in the order that was asked for; ``next`` is ``before`` of the next page, null on the last one.

    Where a text is looked for a page may have fewer jobs than were asked for, or none, and still not be the last one.
    """

    jobs: tuple[Job, ...]
    next: int | None


def find_job(connection: Connection, job_id: int) -> Job | None:
    """A job by its id; None where there is none."""
    row = connection.execute(JOBS.where(JOB.c.id == job_id)).first()
    return None if row is None else job_of(row)


def list_jobs(
    connection: Connection,
    filtered: JobFilter = EVERY_JOB,
    *,
    before: int | None = None,
    at_most: int = 100,
    order: JobOrder = JobOrder.NEWEST,
) -> JobPage:
    """A page of jobs; ``before`` is the id of the last job on the page before, where this one begins."""
    ids, following = list_job_ids(connection, filtered, before=before, at_most=at_most, order=order)
    return JobPage(jobs=_jobs(connection, ids), next=following)


def list_job_ids(
    connection: Connection,
    filtered: JobFilter = EVERY_JOB,
    *,
    before: int | None = None,
    at_most: int = 100,
    order: JobOrder = JobOrder.NEWEST,
) -> tuple[Sequence[int], int | None]:
    """The ids of the same jobs, whose rows are not read, and where the next page begins; None where there is none."""
    is_falling = order is JobOrder.NEWEST
    key = JOB.c.id + 0 if filtered.is_led else JOB.c.id  # so that what leads is not left for the order of ids
    wanted = select(JOB.c.id).order_by(key.desc() if is_falling else key)
    if before is not None:
        wanted = wanted.where(key < before if is_falling else key > before)
    asked, end = _for_each(connection, wanted, filtered), None
    if filtered.description:
        end = _end(connection, asked, is_falling=is_falling)
        asked = [_with_text(one, filtered.description, _within(key, end, is_falling=is_falling)) for one in asked]
    found = {one for each in asked for one in connection.execute(each.limit(at_most)).scalars().all()}
    ids = sorted(found, reverse=is_falling)[:at_most]
    return ids, ids[-1] if len(ids) == at_most else end


def count_jobs(connection: Connection, filtered: JobFilter) -> Mapping[str, int] | None:
    """How many jobs are wanted, by what they are shown as: with more than ``MOST_COUNTED`` in all there are more still.

    None where a text is to be looked for among more than ``ROWS_LOOKED_AT``: counting would take too long.
    """
    wanted = select(JOB.c.id, JOB.c.state, JOB.c.ended)
    asked = _for_each(connection, wanted, filtered)
    if filtered.description:
        in_order = _for_each(connection, select(JOB.c.id).order_by(JOB.c.id), filtered)
        if _end(connection, in_order, is_falling=False) is not None:
            return None
        asked = [_with_text(one, filtered.description, true()) for one in asked]
    if len(asked) == 1:  # nothing is met twice
        return _counted(connection, asked[0].limit(MOST_COUNTED + 1))
    found = _no_jobs()
    for row in {row.id: row for each in asked for row in connection.execute(each.limit(MOST_COUNTED + 1))}.values():
        found[row.ended or row.state] += 1
    return found


def _counted(connection: Connection, wanted: Select[Any]) -> Mapping[str, int]:
    """The same of one query, counted by the database."""
    some, found = wanted.subquery(), _no_jobs()
    counted = select(some.c.state, some.c.ended, func.count().label("number")).group_by(some.c.state, some.c.ended)
    for row in connection.execute(counted):
        found[row.ended or row.state] += row.number
    return found


def _no_jobs() -> dict[str, int]:
    return dict.fromkeys((JobState.PENDING, JobState.RUNNING, *JobEnd), 0)


def _for_each(connection: Connection, wanted: Select[Any], filtered: JobFilter) -> Sequence[Select[Any]]:
    """A query for each project that is seen and each way in which a filter is fulfilled."""
    every = [[*common, *its] for common in each_project(connection, JOB) for its in filtered.conditions]
    return [wanted.where(*conditions) for conditions in every]


def _with_text(wanted: Select[Any], text: str, within: ColumnElement[bool]) -> Select[Any]:
    return wanted.where(within, JOB.c.searched.contains(text.casefold(), autoescape=True))


def _within(key: ColumnElement[int], end: int | None, *, is_falling: bool) -> ColumnElement[bool]:
    if end is None:
        return true()
    return key >= end if is_falling else key <= end


def _end(connection: Connection, asked: Sequence[Select[Any]], *, is_falling: bool) -> int | None:
    """The id up to which a text is looked for: where the first query has led to ``ROWS_LOOKED_AT`` rows, if one has."""
    lasts = [connection.execute(one.offset(ROWS_LOOKED_AT - 1).limit(1)).scalar() for one in asked]
    ends = [last for last in lasts if last is not None]
    return (max(ends) if is_falling else min(ends)) if ends else None


def _jobs(connection: Connection, ids: Sequence[int]) -> tuple[Job, ...]:
    """Jobs by their ids, in that order."""
    rows = connection.execute(JOBS.where(JOB.c.id.in_(ids))).all() if ids else []
    found = {job.id: job for job in map(job_of, rows)}
    return tuple(found[one] for one in ids if one in found)


def every_job(connection: Connection, *, pipelines: Sequence[str] = (), page: int = 1000) -> Iterator[Job]:
    """Every job, or every one of these pipelines, the oldest first, read page by page."""
    last = 0
    while True:
        wanted = JOBS.where(JOB.c.id > last).order_by(JOB.c.id).limit(page)
        rows = connection.execute(wanted.where(JOB.c.pipeline.in_(pipelines)) if pipelines else wanted).all()
        yield from map(job_of, rows)
        if not rows:
            return
        last = rows[-1].id


def jobs_under(connection: Connection, *, series: str = "", study: str = "") -> tuple[Job, ...]:
    """Every job on a series, or on any of a study, by its UID: the healthy ones first, of these the latest."""
    wanted = JOBS
    if series:
        wanted = wanted.where(JOB.c.series_uid == series)
    if study:
        wanted = wanted.where(JOB.c.study_uid == study)
    found = connection.execute(wanted.order_by((JOB.c.ended == JobEnd.HEALTHY).desc(), JOB.c.id.desc()))
    return tuple(map(job_of, found))


def sources_of(connection: Connection, pipeline: str) -> frozenset[str]:
    """The folders and files that there is a job of a pipeline for."""
    return frozenset(connection.execute(select(JOB.c.source).where(JOB.c.pipeline == pipeline)).scalars())


def job_on_source(engine: Engine, source: str) -> int | None:
    """The first job on a folder or file, named as rows name it; every job is looked at for it."""
    wanted = select(JOB.c.id).where(JOB.c.source == source).order_by(JOB.c.id).limit(1)
    with read_only(engine) as connection:
        return connection.execute(wanted).scalar()


def jobs_on_source(connection: Connection, source: str) -> tuple[Job, ...]:
    """Every job on a folder or file, the first one first, as ``job_on_source`` finds them."""
    wanted = JOBS.where(JOB.c.source == source).order_by(JOB.c.id)
    return tuple(map(job_of, connection.execute(wanted)))


def job_counts(connection: Connection) -> Mapping[str, int]:
    """How many jobs are pending, running, healthy, faulted and canceled."""
    found = _no_jobs()
    wanted = select(JOB.c.state, JOB.c.ended, func.count().label("number")).group_by(JOB.c.state, JOB.c.ended)
    for of_project in each_project(connection, JOB):
        for row in connection.execute(wanted.where(*of_project)):
            found[row.ended or row.state] += row.number
    return found


def job_of(row: Row[Any]) -> Job:
    """A row of what ``JOBS`` selects as a job."""
    values: dict[str, Any] = dict(zip(Job.__struct_fields__, row, strict=True))
    values["state"], values["priority"] = JobState(values["state"]), PRIORITIES[values["priority"]]
    values["destinations"] = read_json(values["destinations"], tuple[str, ...])
    values["decisions"] = read_json(values["decisions"], tuple[Decided, ...]) if values["reading"] else ()
    if values["is_classified"] is not None:
        values["is_classified"] = bool(values["is_classified"])
    return Job(**values)
