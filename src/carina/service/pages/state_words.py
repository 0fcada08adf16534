"""What pages call the state of a job and say beside it: none of these words can be read as a finding."""

from __future__ import annotations

from collections.abc import Mapping

from carina.jobs.listing import Job
from carina.jobs.reading import Reading
from carina.service.rest.job_pages import ShownState

STATE_WORDS: Mapping[str, str] = {
    ShownState.PENDING: "waiting",
    ShownState.RUNNING: "running",
    ShownState.HEALTHY: "done",
    ShownState.FAULTED: "failed",
    ShownState.CANCELED: "canceled",
}
"""By the words of the REST interface, the command line and the database, where "healthy" is said of the job alone."""

READING_WORDS: Mapping[str, str] = {
    Reading.UNREAD: "to read",
    Reading.ACCEPTED: "accepted",
    Reading.REJECTED: "rejected",
    Reading.CORRECTED: "corrected",
}
"""What pages call what readers decided."""

_ASKED = "asked for"


def canceled_words(job: Job) -> str:
    """What pages say beside "canceled": when, and why where nobody asked for it."""
    when = "while it ran" if job.started_at else "before it began"
    why = job.error.removeprefix("canceled: ").removesuffix(".")
    return when if why in ("", _ASKED) else f"{when}: {why}"


def state_word(state: str) -> str:
    """The word of a page for the state of a job."""
    return STATE_WORDS[state]
