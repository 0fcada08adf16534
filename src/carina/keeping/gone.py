"""Files that a node's database names and that are not in its folder, as in an older copy of the folder.

Only the latest are looked for, and nothing is read: a start takes no longer for it, however large the node is.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, select

from carina.database import ARRIVAL, INSTANCE, JOB, REMOVAL, read_only
from carina.jobs.queue import JobEnd, JobState
from carina.keeping.removable import KeptKind
from carina.pipeline.folder import MANIFEST
from carina.receive.store import ArrivalState
from carina.sections import RUNS, SET_ASIDE

_LOG = logging.getLogger(__name__)

LOOKED_FOR = 1000
"""How many of the latest instances, and of the latest runs, are looked for."""


@dataclass(frozen=True, kw_only=True)
class GoneFiles:
    """How many of the latest instances and runs are not there, and the first of them."""

    instances: int
    runs: int
    first: str

    @property
    def words(self) -> str:
        """As people are told."""
        seen = f"of the latest {LOOKED_FOR} instances and runs that the database names are not there: instances: "
        seen += f"{self.instances}, runs: {self.runs}, such as {self.first}"
        cause = "the folder is a copy older than its database, or has lost files"
        return f"{seen}; {cause}: bring them back from a backup, or have the series sent again"


def latest_gone(connection: Connection, folder: Path) -> GoneFiles | None:
    """What of the latest is not below a node's folder and was not removed; None: nothing."""
    instances = select(INSTANCE.c.path).join(ARRIVAL, ARRIVAL.c.id == INSTANCE.c.arrival_id)
    instances = instances.where(ARRIVAL.c.state != ArrivalState.REMOVED, INSTANCE.c.flushed == 1)
    paths = connection.execute(instances.order_by(INSTANCE.c.id.desc()).limit(LOOKED_FOR)).scalars()
    removed = select(REMOVAL.c.subject_id).where(REMOVAL.c.kind == KeptKind.RUN)
    done = select(JOB.c.id).where(JOB.c.state == JobState.STOPPED, JOB.c.ended == JobEnd.HEALTHY)
    done = done.where(JOB.c.id.not_in(removed)).order_by(JOB.c.id.desc()).limit(LOOKED_FOR)
    gone = [path for path in paths if not (folder / path).is_file()]
    runs = [job_id for job_id in connection.execute(done).scalars() if not _has_run(folder, job_id)]
    if not gone and not runs:
        return None
    first = gone[0] if gone else f"{RUNS}/{runs[0]}"
    return GoneFiles(instances=len(gone), runs=len(runs), first=first)


def _has_run(folder: Path, job_id: int) -> bool:
    return (folder / RUNS / str(job_id) / MANIFEST).is_file() or (folder / SET_ASIDE / f"run-{job_id}").exists()


def tell_gone(engine: Engine, folder: Path) -> None:
    """Say in the log what of the latest is not there."""
    with read_only(engine) as connection:
        gone = latest_gone(connection, folder)
    if gone is not None:
        _LOG.warning("%s: %s", folder, gone.words)
