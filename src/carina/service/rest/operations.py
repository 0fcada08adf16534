"""The table of operations."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from carina.config import Priority
from carina.database import read_only
from carina.deliver.ledger import DeliveryState
from carina.deliver.register import Delivery, list_deliveries
from carina.jobs.listing import Job, JobPage
from carina.jobs.terms import Terms
from carina.receive.store import ArrivalState
from carina.service import changes
from carina.service.arrivals import ArrivalPage, ReleasedArrival, list_arrivals
from carina.service.filters import check_deliveries_filter
from carina.service.health import Readiness, readiness
from carina.service.node import RunningNode
from carina.service.progress import JobProgress, progress_of
from carina.service.resending import SentAgain
from carina.service.rest.job_pages import JobsAsked, get_jobs
from carina.service.rest.operation import Operation
from carina.web_settings import DEFAULT_PROJECT

_Id = Annotated[int, Meta(ge=1, le=2**62)]
_Limit = Annotated[int, Meta(ge=1, le=1000)]
_Name = Annotated[str, Meta(max_length=64)]
_Path = Annotated[str, Meta(min_length=1, max_length=4096)]


class _Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operation is asked; keys that it doesn't know are refused by name."""


class Nothing(_Asked, frozen=True, kw_only=True):
    """An operation that is asked nothing."""


class OneJob(_Asked, frozen=True, kw_only=True):
    """A job by its id."""

    id: _Id


class PriorityAsked(_Asked, frozen=True, kw_only=True):
    """A job's new priority."""

    id: _Id
    priority: Priority


class SubmitAsked(_Asked, frozen=True, kw_only=True):
    """A run asked for: ``path`` is a folder or file on the node's machine, ``pipeline`` one that is offered."""

    path: _Path
    pipeline: _Path = "default"
    priority: Priority = Priority.NORMAL
    destinations: tuple[_Name, ...] = ()
    project: _Name = DEFAULT_PROJECT


class ArrivalsAsked(_Asked, frozen=True, kw_only=True):
    """Which arrivals: ``before`` is an id, that of the next page."""

    project: _Name = ""
    state: ArrivalState | None = None
    before: _Id | None = None
    limit: _Limit = 100


class ReleaseAsked(_Asked, frozen=True, kw_only=True):
    """An arrival to be let out of quarantine; ``source`` is whose pipelines run on it, empty: that which took it."""

    id: _Id
    source: _Name = ""


class DeliveriesAsked(_Asked, frozen=True, kw_only=True):
    """Which deliveries: ``before`` is an id, that of the next page."""

    job: _Id | None = None
    destination: _Name = ""
    state: DeliveryState | None = None
    before: _Id | None = None
    limit: _Limit = 100


class DeliveryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries, the latest first; ``next`` as of jobs."""

    deliveries: tuple[Delivery, ...]
    next: int | None


class SendAgainAsked(_Asked, frozen=True, kw_only=True):
    """Which failed deliveries wait again: those of a destination, of a job, or all."""

    destination: _Name = ""
    job: _Id | None = None


class OneDestination(_Asked, frozen=True, kw_only=True):
    """A destination by its name."""

    name: _Name


class DestinationState(msgspec.Struct, frozen=True, kw_only=True):
    """A destination, and how many objects are on their way to it, by state."""

    name: str
    kind: str
    deliveries: dict[DeliveryState, int]


class Destinations(msgspec.Struct, frozen=True, kw_only=True):
    """Every destination of the settings."""

    destinations: tuple[DestinationState, ...]


class Echoed(msgspec.Struct, frozen=True, kw_only=True):
    """A destination that answers."""

    name: str
    answers: bool


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """How the node is: whether it can work, and how many jobs there are by state."""

    readiness: Readiness
    jobs: dict[str, int]


def _next(found: tuple[Any, ...], limit: int) -> int | None:
    return int(found[-1].id) if len(found) == limit else None


def get_state(node: RunningNode, _: Nothing) -> NodeState:
    """How the node is."""
    return NodeState(readiness=readiness(node), jobs=dict(node.tallies.now().jobs))


def get_job(node: RunningNode, asked: OneJob) -> JobProgress:
    """A job with its operators and deliveries."""
    return progress_of(node, asked.id)


def post_job(node: RunningNode, asked: SubmitAsked) -> Job:
    """A new job."""
    terms = Terms(
        pipeline=asked.pipeline, priority=asked.priority, destinations=asked.destinations, project=asked.project
    )
    return changes.submit_path(node, asked.path, terms)


def post_cancel(node: RunningNode, asked: OneJob) -> Job:
    """Cancel a job."""
    return changes.cancel_job(node, asked.id)


def post_retry(node: RunningNode, asked: OneJob) -> Job:
    """Run a job again."""
    return changes.retry_job(node, asked.id)


def put_priority(node: RunningNode, asked: PriorityAsked) -> Job:
    """Change a job's priority."""
    return changes.prioritise_job(node, asked.id, asked.priority)


def get_arrivals(node: RunningNode, asked: ArrivalsAsked) -> ArrivalPage:
    """A page of arrivals."""
    with read_only(node.only(asked.project).engine) as connection:
        states = (asked.state,) if asked.state else ()
        found = list_arrivals(connection, states=states, before=asked.before, at_most=asked.limit)
    return ArrivalPage(arrivals=found, next=_next(found, asked.limit))


def post_release(node: RunningNode, asked: ReleaseAsked) -> ReleasedArrival:
    """Release an arrival from quarantine; the answer says in which project it was and is."""
    return changes.release_arrival(node, asked.id, asked.source)


def get_deliveries(node: RunningNode, asked: DeliveriesAsked) -> DeliveryPage:
    """A page of the delivery ledger."""
    with read_only(node.engine) as connection:
        check_deliveries_filter(connection, node.settings, asked.destination, asked.job)
        found = list_deliveries(
            connection,
            job_id=asked.job,
            destination=asked.destination,
            state=asked.state.value if asked.state else "",
            before=asked.before,
            at_most=asked.limit,
        )
    return DeliveryPage(deliveries=found, next=_next(found, asked.limit))


def post_resend(node: RunningNode, asked: SendAgainAsked) -> SentAgain:
    """Let failed deliveries wait again."""
    return changes.send_again(node, asked.destination, asked.job)


def get_destinations(node: RunningNode, _: Nothing) -> Destinations:
    """The destinations and their deliveries."""
    counted = node.tallies.now().deliveries
    none = dict.fromkeys(DeliveryState, 0)
    return Destinations(
        destinations=tuple(
            DestinationState(name=name, kind=str(one.__struct_config__.tag), deliveries=dict(counted.get(name, none)))
            for name, one in node.settings.destinations.items()
        )
    )


def post_echo(node: RunningNode, asked: OneDestination) -> Echoed:
    """Ask a destination whether it answers."""
    changes.echo_destination(node, asked.name)
    return Echoed(name=asked.name, answers=True)


OPERATIONS: tuple[Operation[Any], ...] = (
    Operation(
        method="GET",
        path="/state",
        asked=Nothing,
        answer=NodeState,
        run=get_state,
        tag="Node",
        summary="How the node is, and how many jobs there are by state",
    ),
    Operation(
        method="GET",
        path="/jobs",
        asked=JobsAsked,
        answer=JobPage,
        run=get_jobs,
        tag="Jobs",
        summary="List jobs, the latest first, by key",
    ),
    Operation(
        method="POST",
        path="/jobs",
        asked=SubmitAsked,
        answer=Job,
        run=post_job,
        tag="Jobs",
        summary="Run a pipeline on a folder or file of the node's machine",
        refusals=(404, 422),
    ),
    Operation(
        method="GET",
        path="/jobs/{id}",
        asked=OneJob,
        answer=JobProgress,
        run=get_job,
        tag="Jobs",
        summary="A job with the progress of its operators and its deliveries",
        refusals=(404,),
    ),
    Operation(
        method="POST",
        path="/jobs/{id}/cancel",
        asked=OneJob,
        answer=Job,
        run=post_cancel,
        tag="Jobs",
        summary="Cancel a job that waits or runs",
        refusals=(404, 409),
    ),
    Operation(
        method="POST",
        path="/jobs/{id}/retry",
        asked=OneJob,
        answer=Job,
        run=post_retry,
        tag="Jobs",
        summary="Run a job again that is faulted or canceled",
        refusals=(404, 409),
    ),
    Operation(
        method="PUT",
        path="/jobs/{id}/priority",
        asked=PriorityAsked,
        answer=Job,
        run=put_priority,
        tag="Jobs",
        summary="Change the priority of a job that waits",
        refusals=(404, 409),
    ),
    Operation(
        method="GET",
        path="/arrivals",
        asked=ArrivalsAsked,
        answer=ArrivalPage,
        run=get_arrivals,
        tag="Arrivals",
        summary="List the series that arrived, the latest first",
    ),
    Operation(
        method="POST",
        path="/arrivals/{id}/release",
        asked=ReleaseAsked,
        answer=ReleasedArrival,
        run=post_release,
        tag="Arrivals",
        summary="Let a series out of quarantine",
        refusals=(404, 409),
    ),
    Operation(
        method="GET",
        path="/deliveries",
        asked=DeliveriesAsked,
        answer=DeliveryPage,
        run=get_deliveries,
        tag="Deliveries",
        summary="List result objects and where they are on their way",
    ),
    Operation(
        method="POST",
        path="/deliveries/resend",
        asked=SendAgainAsked,
        answer=SentAgain,
        run=post_resend,
        tag="Deliveries",
        summary="Send again what has failed",
        refusals=(404, 409),
    ),
    Operation(
        method="GET",
        path="/destinations",
        asked=Nothing,
        answer=Destinations,
        run=get_destinations,
        tag="Destinations",
        summary="List destinations and how many objects are on their way",
    ),
    Operation(
        method="POST",
        path="/destinations/{name}/echo",
        asked=OneDestination,
        answer=Echoed,
        run=post_echo,
        tag="Destinations",
        summary="Ask a destination whether it answers",
        refusals=(404, 502),
    ),
)
"""Every operation, in the order in which it is shown."""
