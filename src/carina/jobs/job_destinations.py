"""Where the objects of a job go, in the words that a step of its run is told."""

from __future__ import annotations

from sqlalchemy import Connection, select

from carina.config import Settings
from carina.database import ARRIVAL, JOB
from carina.deliver.onward import Onward
from carina.deliver.routes import SENDER, routes
from carina.jobs.listing import Job

_ASKED = "Name it where the run is asked for (carina submit --to); the settings have to have it."
_PRIOR = "It is a scan that was fetched to compare with, of which nothing is sent."


def onward_of(connection: Connection, job: Job, settings: Settings) -> Onward:
    """Where a node sends what the run of a job makes, and what to do for another destination."""
    wanted = select(JOB.c.is_prior, ARRIVAL.c.sender).outerjoin(ARRIVAL, ARRIVAL.c.id == JOB.c.arrival_id)
    row = connection.execute(wanted.where(JOB.c.id == job.id)).one()
    back = (SENDER,) if _goes_back(job, row.sender or "", settings) else ()
    source = f"Add it to sources.{job.received_by}.destinations of the settings, and to [destinations] if it is new."
    return Onward(
        destinations=(*job.destinations, *back),
        remedy=_PRIOR if row.is_prior else source if job.received_by else _ASKED,
    )


def _goes_back(job: Job, sender: str, settings: Settings) -> bool:
    """Whether one of the destinations of a job is whoever sent its series, since the source says so."""
    source = settings.sources.get(job.received_by)
    if source is None or SENDER not in source.destinations:
        return False
    back, _ = routes((SENDER,), settings.destinations, sender)
    return bool(back) and set(back) <= set(job.destinations)
