"""A page of the job table, by REST and for the worklist: which jobs, in which order, from where on."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from carina.database import read_only
from carina.jobs.listing import Job, JobFilter, JobOrder, list_jobs
from carina.jobs.reading import Reading
from carina.service.node import RunningNode


class ShownState(StrEnum):
    """What a job is shown as: its state, or how it ended."""

    PENDING = "pending"
    RUNNING = "running"
    HEALTHY = "healthy"
    FAULTED = "faulted"
    CANCELED = "canceled"


class JobsAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs, in which order: ``before`` is ``next`` of the page before."""

    project: Annotated[str, Meta(max_length=64)] = ""
    state: ShownState | None = None
    reading: Reading | None = None
    pipeline: str = ""
    before: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    order: JobOrder = JobOrder.NEWEST
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs in the order that was asked for; ``next`` is ``before`` of the next page, null on the last one."""

    jobs: tuple[Job, ...]
    next: int | None


def page_of_jobs(connection: Connection, asked: JobsAsked) -> tuple[Job, ...]:
    """The jobs that are asked for."""
    return list_jobs(
        connection,
        JobFilter(
            states=(asked.state.value,) if asked.state else (),
            reading=asked.reading or "",
            pipeline=asked.pipeline,
        ),
        before=asked.before,
        at_most=asked.limit,
        order=asked.order,
    )


def get_jobs(node: RunningNode, asked: JobsAsked) -> JobPage:
    """A page of jobs."""
    with read_only(node.only(asked.project).engine) as connection:
        found = page_of_jobs(connection, asked)
    return JobPage(jobs=found, next=found[-1].id if len(found) == asked.limit else None)
