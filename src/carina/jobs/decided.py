"""What readers decided about the run of a job, from its folder into its row."""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import Engine

from carina.api.result import Run
from carina.corrections.decisions import ReadersState, last_words, readers_state
from carina.corrections.standing import Decision, decision_fields
from carina.database import FolderAway, OwnFolder, read_only
from carina.errors import BadConfig
from carina.jobs.listing import find_job
from carina.jobs.reading import RUNS_WITH_DECISIONS, Decided, Reading, store_reading

_LOG = logging.getLogger("carina.jobs")

_FIRST = (
    (Decision.REJECTED, Reading.REJECTED),
    (Decision.CORRECTED, Reading.CORRECTED),
    (Decision.ACCEPTED, Reading.ACCEPTED),
)
"""As what one of the masks must count (`ReaderDecision`) for this to be said of all of them."""


def reading_of(state: ReadersState) -> Reading:
    """What holds for a run, as one word."""
    holding = {one.standing for one in state.decisions}
    return next((reading for decision, reading in _FIRST if decision in holding), Reading.UNREAD)


def decided_about(run: Run) -> list[Decided]:
    """The last word of each reader about each mask of a run, the newest first.

    Raises:
        BadConfig: ``corrections.damaged``.
    """
    return [Decided(layer=one.layer.value, **decision_fields(one)) for one in last_words(run)]


def _ratio_percent(state: ReadersState) -> float | None:
    return state.measured.reader_ratio_percent if state.measured else None


def note_reading(own: OwnFolder, job_id: int, run: Run) -> None:
    """Take what readers decided about a run into its job's row.

    Raises:
        BadConfig: ``corrections.damaged``; as ``FolderAway``, the node's folder is not there any more.
    """
    state, decisions = readers_state(run), decided_about(run)
    with own.begin() as connection:
        store_reading(connection, job_id, reading_of(state), decisions, _ratio_percent(state))


def catch_up_readings(engine: Engine, folder: Path) -> int:
    """Take in what was decided while the node was not there, or just before it died; gives in how many jobs."""
    found, own = 0, OwnFolder(folder, engine)
    for path in sorted(folder.glob(RUNS_WITH_DECISIONS)):
        run, name = Run(path.parent), path.parent.name
        try:
            if name.isdecimal() and _is_news(engine, int(name), run):
                note_reading(own, int(name), run)
                found += 1
        except FolderAway:
            raise
        except BadConfig as error:  # the run's own pages say so; the others are taken in all the same
            _LOG.warning("job %s: %s", name, error.message)
    return found


def _is_news(engine: Engine, job_id: int, run: Run) -> bool:
    with read_only(engine) as connection:
        job = find_job(connection, job_id)
    decisions = decided_about(run)
    if job is None or not decisions:
        return False
    return (list(job.decisions), job.reader_ratio_percent) != (decisions, _ratio_percent(readers_state(run)))
