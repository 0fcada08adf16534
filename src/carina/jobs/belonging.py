"""A node's folder and its database belong together, and say so: both have the identity that the database drew.

What is written in one is about the other. With another database, an empty one above all (a variable that was
forgotten, a file that was deleted), everything in the folder would be the rest of a crash, and jobs would be counted
from 1 into the runs of others.
"""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import Engine, exists, func, select

from carina.database import ARRIVAL, IDENTITY, JOB
from carina.errors import BadConfig
from carina.pipeline.places import free_place
from carina.sections import INCOMING, RUNS, SET_ASIDE

IDENTITY_FILE = "node.id"
HOLDING = (INCOMING, RUNS)
"""The folders whose content only its database can explain."""


_LOG = logging.getLogger(__name__)


def check_belongs(folder: Path, engine: Engine) -> None:
    """See that ``folder`` was kept with this database; a folder that says nothing is given the database's identity.

    Raises:
        BadConfig: as `is_marked`.
    """
    if is_marked(folder, engine):
        return
    with engine.connect() as connection:
        ours = str(connection.execute(select(IDENTITY.c.uuid)).scalar_one())
    part_file = (folder / IDENTITY_FILE).with_suffix(".part")
    part_file.write_text(f"{ours}\n")
    part_file.replace(folder / IDENTITY_FILE)


def is_marked(folder: Path, engine: Engine) -> bool:
    """Whether ``folder`` says that it was kept with this database; False: it says nothing.

    Raises:
        BadConfig: it was kept with another; or it says nothing and holds what a database without any series or job
            can't know.
    """
    with engine.connect() as connection:
        ours = str(connection.execute(select(IDENTITY.c.uuid)).scalar_one())
        file = folder / IDENTITY_FILE
        theirs = file.read_text().strip() if file.is_file() else ""
        if theirs == ours:
            return True
        knows = connection.execute(select(exists().select_from(ARRIVAL) | exists().select_from(JOB))).scalar()
    name = engine.url.render_as_string(hide_password=True)
    how = "Name the database that the folder was kept with (node.database, CARINA_NODE_DATABASE), or restore a backup"
    if theirs:
        words = f"was kept with another database than {name}"
        raise BadConfig("node.other-database", f"{folder.absolute()} {words}. {how}; a new node needs a new folder.")
    if not knows and any(holds_anything(folder / part) for part in HOLDING):
        words = f"holds series or runs, of which {name} knows nothing"
        raise BadConfig("node.other-database", f"{folder.absolute()} {words}. {how}; a new node needs a new folder.")
    return False


def set_unknown_runs_aside(folder: Path, engine: Engine) -> None:
    """Move the runs of jobs that the database doesn't know out of the way; call it before any job begins.

    A database that is older than its folder, a dump that was restored beside it, would give their numbers away again.
    """
    numbers = [int(place.name) for place in (folder / RUNS).glob("*") if place.name.isdecimal()]
    with engine.connect() as connection:  # looked at after the folder: whoever makes a run has a row before
        last = connection.execute(select(func.max(JOB.c.id))).scalar() or 0
    for number in sorted(numbers):
        if number > last:
            set_run_aside(folder, number)


def set_run_aside(folder: Path, job_id: int) -> None:
    """Move what is in the place of a job's run, where there is anything, to ``SET_ASIDE``."""
    place = folder / RUNS / str(job_id)
    if not place.exists():
        return
    aside = free_place(folder / SET_ASIDE / f"run-{job_id}")
    aside.parent.mkdir(exist_ok=True)
    place.rename(aside)
    _LOG.warning("run %d is of a job that the database doesn't know: moved to %s", job_id, aside)


def holds_anything(folder: Path) -> bool:
    """Whether anything lies in a folder, which need not be there."""
    return folder.is_dir() and next(folder.iterdir(), None) is not None
