"""What became of the results of jobs, by destination, and in short why some of them are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from carina.config import Settings
from carina.deliver.ledger import DeliveryState
from carina.deliver.register import counts_by_job, resting_reason, troubles_by_job
from carina.jobs.listing import Job
from carina.jobs.queue import JobEnd
from carina.service.access.caller import Caller
from carina.service.peer_names import message_told

LONGEST_REASON = 90


@dataclass(frozen=True, kw_only=True)
class Sending:
    """The objects of a job on their way to one destination, by state, and why some are not there; in short."""

    states: Mapping[DeliveryState, int]
    why: str = ""

    @property
    def words(self) -> str:
        """All of it as text."""
        return f"{sent_text(self.states)}: {self.why}" if self.why else sent_text(self.states)


def sent_text(states: Mapping[DeliveryState, int]) -> str:
    """How many are confirmed, and what of the others."""
    others = (DeliveryState.SENT, DeliveryState.WAITING, DeliveryState.FAILED)
    more = "".join(f", {states[state]} {state}" for state in others if states.get(state))
    return f"{states.get(DeliveryState.CONFIRMED, 0)} of {sum(states.values())} confirmed{more}"


def sendings_of(connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, Sending]]:
    """What became of the results of jobs, by job and destination."""
    found = counts_by_job(connection, ids)
    troubles = troubles_by_job(connection, [job for job, places in found.items() if _is_held_up(places)])
    resting: dict[str, str] = {}
    for places in found.values():
        resting |= reasons_to_wait(connection, {name: states for name, states in places.items() if name not in resting})

    def sending(job: int, name: str, states: Mapping[DeliveryState, int]) -> Sending:
        waits = resting.get(name, "") if states.get(DeliveryState.WAITING) else ""
        return Sending(states=states, why=short_reason(troubles.get((job, name), ""), name) or waits)

    return {job: {name: sending(job, name, states) for name, states in places.items()} for job, places in found.items()}


def sendings_told(
    sendings: Mapping[str, Sending], project: str, caller: Caller, settings: Settings
) -> dict[str, Sending]:
    """What became of the results of a job of a project, without addresses for those who only read there."""
    return {name: replace(one, why=message_told(one.why, caller, settings, project)) for name, one in sendings.items()}


def sent_lines(connection: Connection, job: Job, caller: Caller, settings: Settings) -> list[str]:
    """What became of the results of a job, a line for each destination, as a caller is told it."""
    sendings = sendings_of(connection, [job.id]).get(job.id, {})
    sendings = sendings_told(sendings, job.project, caller, settings)
    nothing = "nothing" if job.ended in (JobEnd.FAULTED, JobEnd.CANCELED) else "nothing yet"
    lines = [f"{name}: {one.words}" for name, one in sendings.items()]
    lines += [f"{name}: {nothing}" for name in job.destinations if name not in sendings]
    return lines or ["nothing: this job has no destination"]


def _is_held_up(places: Mapping[str, Mapping[DeliveryState, int]]) -> bool:
    return any(states.get(DeliveryState.WAITING) or states.get(DeliveryState.FAILED) for states in places.values())


def reasons_to_wait(connection: Connection, sent: Mapping[str, Mapping[DeliveryState, int]]) -> dict[str, str]:
    """Why objects wait for destinations that can't be reached, in short."""
    waited_for = [name for name, states in sent.items() if states.get(DeliveryState.WAITING)]
    return {name: short_reason(resting_reason(connection, name), name) for name in waited_for}


def short_reason(message: str, destination: str) -> str:
    """The first sentence of a message of the ledger, without the destination that it stands beside."""
    said = message.partition(". ")[0].removesuffix(".")
    if said.startswith(f"{destination} ("):
        said = said.partition(") ")[2] or said
    return said if len(said) <= LONGEST_REASON else f"{said[: LONGEST_REASON - 4].rsplit(' ', 1)[0]} ..."
