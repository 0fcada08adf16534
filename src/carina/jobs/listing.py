"""Looking at the job table: one job, or a page of them by key, filtered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, Row, func, or_, select

from carina.config import Priority
from carina.database import ARRIVAL, JOB, each_project, read_only
from carina.jobs.queue import RANKS, JobEnd, JobState
from carina.jobs.reading import Decided
from carina.pipeline.json_text import read_json

PRIORITIES = {rank: priority for priority, rank in RANKS.items()}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is shown. Times are UTC; ``folder`` is its run's, relative to the node's folder.
    ``source`` is what it reads: relative to that folder too where it lies in it.

    ``reading`` is a word of ``Reading``, empty where nothing is to be read; ``decisions`` are what readers decided.
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

    @property
    def shown_state(self) -> str:
        """One word: ``pending``, ``running``, or how it ended."""
        return self.ended or self.state

    @property
    def readers(self) -> int:
        """How many readers decided about its run."""
        return len({one.reader for one in self.decisions})


class JobOrder(StrEnum):
    """Which jobs come first on a page of them."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs are wanted: ``states`` are words of ``shown_state``, ``reading`` is one of ``Reading``; empty: any."""

    states: Sequence[str] = ()
    reading: str = ""
    pipeline: str = ""

    @property
    def conditions(self) -> list[list[ColumnElement[bool]]]:
        """One list for each query that is needed: each goes through an index from one end and stops early.

        Only healthy jobs are read: a state beside that would lead SQLite through every healthy job.
        """
        common = [JOB.c.pipeline == self.pipeline] if self.pipeline else []
        if self.reading:
            is_possible = not self.states or JobEnd.HEALTHY in self.states
            return [[*common, JOB.c.reading == self.reading]] if is_possible else []
        return [[*common, *_is_shown_as(state)] for state in self.states] or [common]


def find_job(connection: Connection, job_id: int) -> Job | None:
    """A job by its id; None where there is none."""
    row = connection.execute(select(JOB).where(JOB.c.id == job_id)).first()
    return None if row is None else _job(row)


def list_jobs(
    connection: Connection,
    filtered: JobFilter = JobFilter(),
    *,
    before: int | None = None,
    at_most: int = 100,
    order: JobOrder = JobOrder.NEWEST,
) -> tuple[Job, ...]:
    """A page of jobs; ``before`` is the id of the last job on the page before, where this one begins."""
    is_falling = order is JobOrder.NEWEST
    wanted = select(JOB).order_by(JOB.c.id.desc() if is_falling else JOB.c.id).limit(at_most)
    if before is not None:
        wanted = wanted.where(JOB.c.id < before if is_falling else JOB.c.id > before)
    every = [[*common, *its] for common in each_project(connection, JOB) for its in filtered.conditions]
    found = [row for conditions in every for row in connection.execute(wanted.where(*conditions)).all()]
    return tuple(map(_job, sorted(found, key=lambda row: row.id, reverse=is_falling)[:at_most]))


def every_job(connection: Connection, *, pipeline: str = "", page: int = 1000) -> Iterator[Job]:
    """Every job, the oldest first, read page by page."""
    last = 0
    while True:
        wanted = select(JOB).where(JOB.c.id > last).order_by(JOB.c.id).limit(page)
        rows = connection.execute(wanted.where(JOB.c.pipeline == pipeline) if pipeline else wanted).all()
        yield from map(_job, rows)
        if not rows:
            return
        last = rows[-1].id


def job_on(connection: Connection, *, series: str = "", study: str = "") -> Job | None:
    """The latest healthy job on a series, or on any of a study, by its UID; else the latest one, None where none is."""
    wanted = select(JOB).outerjoin(ARRIVAL, JOB.c.arrival_id == ARRIVAL.c.id)
    if series:
        wanted = wanted.where(or_(JOB.c.series_uid == series, ARRIVAL.c.series_uid == series))
    if study:
        wanted = wanted.where(ARRIVAL.c.study_uid == study)
    row = connection.execute(wanted.order_by((JOB.c.ended == JobEnd.HEALTHY).desc(), JOB.c.id.desc()).limit(1)).first()
    return None if row is None else _job(row)


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
    wanted = select(JOB).where(JOB.c.source == source).order_by(JOB.c.id)
    return tuple(map(_job, connection.execute(wanted)))


def _is_shown_as(state: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    if state in set(JobEnd):
        return JOB.c.state == JobState.STOPPED, JOB.c.ended == state
    return JOB.c.state == state, JOB.c.ended == ""


def job_counts(connection: Connection) -> Mapping[str, int]:
    """How many jobs are pending, running, healthy, faulted and canceled."""
    found: dict[str, int] = dict.fromkeys((JobState.PENDING, JobState.RUNNING, *JobEnd), 0)
    wanted = select(JOB.c.state, JOB.c.ended, func.count().label("number")).group_by(JOB.c.state, JOB.c.ended)
    for of_project in each_project(connection, JOB):
        for row in connection.execute(wanted.where(*of_project)):
            found[row.ended or row.state] += row.number
    return found


def _job(row: Row[Any]) -> Job:
    known = row._mapping
    values: dict[str, Any] = {name: known[name] for name in Job.__struct_fields__}
    values |= {"priority": PRIORITIES[row.priority], "destinations": read_json(row.destinations, tuple[str, ...])}
    values |= {"decisions": read_json(row.decisions, tuple[Decided, ...]) if row.reading else ()}
    return Job(**values | {"state": JobState(row.state)})
