"""How many jobs a search of the worklist finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from carina.jobs.filtering import EVERY_JOB, JobFilter
from carina.jobs.listing import MOST_COUNTED, count_jobs


@dataclass(frozen=True, kw_only=True)
class FoundJobs:
    """What is said beside a list: jobs by state of whatever else is asked, empty where they are too many to count.

    ``words`` say how many are found with the state and the reading that are asked for, empty where that is not known.
    """

    by_state: Mapping[str, int]
    words: str


def found_jobs(connection: Connection, wanted: JobFilter, every: Mapping[str, int]) -> FoundJobs:
    """The numbers of a search; ``every`` has them of all jobs, by state."""
    search = replace(wanted, states=(), reading="")
    by_state = every if search == EVERY_JOB else _few(count_jobs(connection, search))
    if by_state and not wanted.reading:
        number = sum(by_state[state] for state in wanted.states or by_state)
        return FoundJobs(by_state=by_state, words=_words(number))
    exact = count_jobs(connection, wanted)
    if exact is None:
        return FoundJobs(by_state=by_state, words="")
    more = f"More than {MOST_COUNTED:,} jobs found."
    return FoundJobs(by_state=by_state, words=_words(sum(exact.values())) if _few(exact) else more)


def _few(counted: Mapping[str, int] | None) -> Mapping[str, int]:
    """Numbers that are all that there is."""
    return counted if counted is not None and sum(counted.values()) <= MOST_COUNTED else {}


def _words(number: int) -> str:
    return f"{number:,} job{'' if number == 1 else 's'} found."
