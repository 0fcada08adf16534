"""A page of the job table, by REST and for the worklist: which jobs, in which order, from where on."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from carina.database import read_only
from carina.jobs.filtering import JobFilter
from carina.jobs.listing import JobOrder, JobPage, list_jobs
from carina.jobs.reading import Reading
from carina.service.filters import check_filter
from carina.service.node import RunningNode


class ShownState(StrEnum):
    """What a job is shown as: its state, or how it ended."""

    PENDING = "pending"
    RUNNING = "running"
    HEALTHY = "healthy"
    FAULTED = "faulted"
    CANCELED = "canceled"


class JobsAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs, in which order: ``before`` is ``next`` of the page before.

    ``uid`` is a Study or a Series Instance UID, whole; ``description`` a part of the description of study or series;
    ``received_by`` the source of the settings that a series came by; ``is_warned`` leaves runs without warnings out.
    """

    project: Annotated[str, Meta(max_length=64)] = ""
    state: ShownState | None = None
    reading: Reading | None = None
    pipeline: str = ""
    received_by: Annotated[str, Meta(max_length=64)] = ""
    uid: Annotated[str, Meta(max_length=64)] = ""
    studied_from: date | None = None
    studied_to: date | None = None
    description: Annotated[str, Meta(max_length=200)] = ""
    is_warned: bool = False
    before: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    order: JobOrder = JobOrder.NEWEST
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100

    @property
    def filtered(self) -> JobFilter:
        """Which jobs."""
        return JobFilter(
            states=(self.state.value,) if self.state else (),
            reading=self.reading or "",
            pipeline=self.pipeline,
            received_by=self.received_by,
            uid=self.uid,
            studied_from=self.studied_from,
            studied_to=self.studied_to,
            description=self.description,
            is_warned=self.is_warned,
        )


def page_of_jobs(connection: Connection, asked: JobsAsked, filtered: JobFilter) -> JobPage:
    """The jobs that are asked for; ``filtered`` is what is asked of them, with the pipelines that it means."""
    return list_jobs(connection, filtered, before=asked.before, at_most=asked.limit, order=asked.order)


def get_jobs(node: RunningNode, asked: JobsAsked) -> JobPage:
    """A page of jobs."""
    seen = node.only(asked.project)
    with read_only(seen.engine) as connection:
        filtered = check_filter(connection, seen.settings, asked.filtered)
        return page_of_jobs(connection, asked, filtered)
