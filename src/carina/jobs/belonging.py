"""A node's folder and its database belong together, and say so: both have the identity that the database drew.

What is written in one is about the other. With another database, an empty one above all (a variable that was
forgotten, a file that was deleted), everything in the folder would be the rest of a crash, and jobs would be counted
from 1 into the runs of others.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, exists, select

from carina.database import ARRIVAL, IDENTITY, JOB
from carina.errors import BadConfig

IDENTITY_FILE = "node.id"
HOLDING = ("incoming", "runs")
"""The folders whose content only its database can explain."""


def check_belongs(folder: Path, engine: Engine) -> None:
    """See that ``folder`` was kept with this database; a folder that says nothing is given the database's identity.

    Raises:
        BadConfig: it was kept with another; or it says nothing and holds what a database without any series or job
            can't know.
    """
    with engine.connect() as connection:
        ours = str(connection.execute(select(IDENTITY.c.uuid)).scalar_one())
        file = folder / IDENTITY_FILE
        theirs = file.read_text().strip() if file.is_file() else ""
        if theirs == ours:
            return
        knows = connection.execute(select(exists().select_from(ARRIVAL) | exists().select_from(JOB))).scalar()
    name = engine.url.render_as_string(hide_password=True)
    how = "Name the database that the folder was kept with (node.database, CARINA_NODE_DATABASE), or restore a backup"
    if theirs:
        words = f"was kept with another database than {name}"
        raise BadConfig("node.other-database", f"{folder.absolute()} {words}. {how}; a new node needs a new folder.")
    if not knows and any(holds_anything(folder / part) for part in HOLDING):
        words = f"holds series or runs, of which {name} knows nothing"
        raise BadConfig("node.other-database", f"{folder.absolute()} {words}. {how}; a new node needs a new folder.")
    part_file = file.with_suffix(".part")
    part_file.write_text(f"{ours}\n")
    part_file.replace(file)


def holds_anything(folder: Path) -> bool:
    """Whether anything lies in a folder, which need not be there."""
    return folder.is_dir() and next(folder.iterdir(), None) is not None
