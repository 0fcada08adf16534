"""Which jobs' results wait for a reader, what readers decided, and which is to be read next.

The truth about a decision lies beside the run's masks (``carina.corrections``); the job's row repeats it, so that
jobs are listed by it without opening a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Engine, select, update

from carina.corrections.standing import ReaderDecision
from carina.database import JOB, OwnFolder, read_only
from carina.sections import RUNS


class Reading(StrEnum):
    """What holds for a run: one mask that is rejected makes it rejected, else one that is corrected corrected.

    As what a mask counts, and that an accepted correction is still corrected, is told by `ReaderDecision`.
    """

    UNREAD = "unread"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CORRECTED = "corrected"


RUNS_WITH_DECISIONS = f"{RUNS}/*/corrections"
"""Below the node's folder: what is there once a reader has looked at the masks of a run."""

MASKS_OF_A_RUN = ("lung/*.mhd", "lesion/*.mhd")
"""Below a run's folder: the masks that a reader decides about."""

NOT_TO_BE_READ = ""
"""Of a job without a result, of a run without masks, of one fetched to compare with, of one that is superseded."""


class Decided(ReaderDecision, frozen=True, kw_only=True):
    """The last word of a reader about the mask ``layer``, as a job's row has it."""

    layer: str


def await_reader(connection: Connection, job_id: int) -> None:
    """Let the result of a job wait for a reader, and that of a job on fewer of its instances no longer."""
    wanted = JOB.c.id == job_id, JOB.c.is_prior == 0
    connection.execute(update(JOB).where(*wanted).values(reading=Reading.UNREAD.value))
    fewer = select(JOB.c.supersedes).where(JOB.c.id == job_id).scalar_subquery()
    leave_unread(connection, connection.execute(select(fewer)).scalar())


def leave_unread(connection: Connection, job_id: int | None) -> None:
    """Ask no reader for the result of a job any more; what was decided about it stays."""
    still = JOB.c.id == job_id, JOB.c.reading == Reading.UNREAD
    connection.execute(update(JOB).where(*still).values(reading=NOT_TO_BE_READ))


def leave_without_masks(engine: Engine, folder: Path) -> int:
    """Ask no reader for results of runs that made no mask to decide about; gives of how many.

    Such a job from before readings were kept waits by the update of the database, which knows no runs.
    """
    with read_only(engine) as connection:
        waiting = connection.execute(select(JOB.c.id).where(JOB.c.reading == Reading.UNREAD)).scalars().all()
    runs = {number: folder / RUNS / str(number) for number in waiting}
    made = {number for number, run in runs.items() if any(any(run.glob(one)) for one in MASKS_OF_A_RUN)}
    maskless = [number for number, run in runs.items() if run.is_dir() and number not in made]
    with OwnFolder(folder, engine).begin() as connection:
        for number in maskless:
            leave_unread(connection, number)
    return len(maskless)


def store_reading(
    connection: Connection, job_id: int, reading: Reading, decisions: Sequence[Decided], ratio_percent: float | None
) -> None:
    """Say in a job's row what readers decided, the newest first, and the ratio with their corrections."""
    values = {"reading": reading.value, "decisions": msgspec.json.encode(decisions).decode()}
    changed = update(JOB).where(JOB.c.id == job_id).values(**values, reader_ratio_percent=ratio_percent)
    connection.execute(changed)


def next_to_read(connection: Connection, after: int, project: str) -> int | None:
    """The next job of a project whose result waits for a reader: in a list with the newest first the one below.

    Below the oldest one comes the newest again; None where no other waits.
    """
    waiting = (
        select(JOB.c.id)
        .where(JOB.c.reading == Reading.UNREAD, JOB.c.project == project)
        .order_by(JOB.c.id.desc())
        .limit(1)
    )
    for part in (JOB.c.id < after, JOB.c.id > after):
        found: int | None = connection.execute(waiting.where(part)).scalar()
        if found is not None:
            return found
    return None
