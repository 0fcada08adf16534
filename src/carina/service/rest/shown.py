"""What answers leave out for those who only read: where the node keeps things, and which machines work on them."""

from __future__ import annotations

from functools import singledispatch

import msgspec

from carina.jobs.listing import Job, JobPage
from carina.service.access.caller import Caller
from carina.service.arrivals import Arrival, ArrivalPage
from carina.service.problems import without_source
from carina.service.progress import JobProgress


@singledispatch
def shown_to(answer: msgspec.Struct, caller: Caller) -> msgspec.Struct:
    """An answer as a caller sees it: what of it names a path or a machine is for those who operate in its project."""
    return answer


@shown_to.register
def _job(answer: Job, caller: Caller) -> Job:
    if caller.may_operate(answer.project):
        return answer
    error = without_source(answer.error, answer.source)
    return msgspec.structs.replace(answer, source="", folder="", worker="", error=error)


@shown_to.register
def _page(answer: JobPage, caller: Caller) -> JobPage:
    return msgspec.structs.replace(answer, jobs=tuple(_job(job, caller) for job in answer.jobs))


@shown_to.register
def _progress(answer: JobProgress, caller: Caller) -> JobProgress:
    return msgspec.structs.replace(answer, job=_job(answer.job, caller))


@shown_to.register
def _arrivals(answer: ArrivalPage, caller: Caller) -> ArrivalPage:
    return msgspec.structs.replace(answer, arrivals=tuple(arrival_shown(one, caller) for one in answer.arrivals))


@shown_to.register
def arrival_shown(answer: Arrival, caller: Caller) -> Arrival:
    """A series that came, without its sender's address for those who only read: they are told its AE title.

    Where it has none, they are told the name of the source that it came by.
    """
    if caller.may_operate(answer.project):
        return answer
    title, has_title, _ = answer.sender.rpartition("@")
    return msgspec.structs.replace(answer, sender=title if has_title else answer.source)
