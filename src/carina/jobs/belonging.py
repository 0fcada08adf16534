"""A node's folder and its database belong together, and say so: both have one identity.

It is drawn when a new database is given its folder, once: of a folder that isn't there, since its disk is not mounted,
an empty one in its place would be taken for the node's, and all that the database names for lost.

What is written in one is about the other. With another database, an empty one above all (a variable that was
forgotten, a file that was deleted), everything in the folder would be the rest of a crash, and jobs would be counted
from 1 into the runs of others.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, Engine, exists, func, insert, inspect, or_, select

from carina.database import (
    ARRIVAL,
    IDENTITY,
    IDENTITY_FILE,
    INSTANCE,
    JOB,
    REMOVAL,
    FolderAway,
    database_identity,
    identity_in,
    read_only,
)
from carina.database.address import shown_address
from carina.errors import BadConfig
from carina.jobs.attempt_log import log_name
from carina.pipeline.folder import MANIFEST
from carina.pipeline.places import free_place
from carina.sections import INCOMING, RUNS, SET_ASIDE, UPLOADS

HOLDING = (INCOMING, RUNS)
"""The folders whose content only its database can explain."""

GIVES = 0x0CA71_4B
"""The advisory lock of PostgreSQL under which one folder at a time asks for the identity; any number, but one."""

_NAMED = 1000
"""How many of the instances and runs that a database names are looked for in a folder."""

_UPLOADED = re.compile(rf"\b{UPLOADS}/[0-9a-f]{{32}}/content$")
"""The source of a job on an upload; before 0017 the node's folder stood before it."""

_LOG = logging.getLogger(__name__)


def is_marked(folder: Path, engine: Engine) -> bool:
    """Whether ``folder`` says that it was kept with this database; False: neither knows of another. It is only read.

    Raises:
        BadConfig: it was kept with another; or it says nothing and holds what a database without any series or job
            can't know; or, as ``FolderAway``, the database is another folder's.
    """
    with read_only(engine) as connection:
        return _is_marked(folder, connection)


def give_identity(folder: Path, engine: Engine) -> None:
    """Let ``folder`` be the one of this database from now on, where neither knows of another, or it is already.

    Of several that ask at once, one is given it.

    Raises:
        BadConfig: as ``is_marked``.
        OSError: the folder can't be written.
    """
    with engine.begin() as connection:  # of SQLite, one at a time writes
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(GIVES)))
        if not _is_marked(folder, connection):
            _mark(folder, connection)


def mark(folder: Path, engine: Engine) -> None:
    """The same without asking, of a folder that was brought back with its database.

    Raises:
        OSError: the folder can't be written.
    """
    with engine.begin() as connection:
        _mark(folder, connection)


def _mark(folder: Path, connection: Connection) -> None:
    ours = database_identity(connection)
    if not ours:
        ours = uuid4().hex
        connection.execute(insert(IDENTITY).values(uuid=ours))
    part_file = (folder / IDENTITY_FILE).with_suffix(".part")
    with part_file.open("w") as stream:
        stream.write(f"{ours}\n")
        stream.flush()
        os.fsync(stream.fileno())
    part_file.replace(folder / IDENTITY_FILE)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)  # before the database says so, which would be left without a folder by a power cut
    finally:
        os.close(handle)


def _is_marked(folder: Path, connection: Connection) -> bool:
    ours, theirs = database_identity(connection), identity_in(folder)
    name = shown_address(connection.engine.url.render_as_string(hide_password=True))
    if theirs:
        if theirs != ours:
            raise _other_database(folder, f"was kept with another database than {name}")
        return True
    knows = _knows_any(connection)
    is_elsewhere = bool(ours) or (knows and not _holds_what_is_named(folder, connection))
    if is_elsewhere and not _lies_within(folder, connection):
        words = f"is not the folder of the node whose database is {name} (no {IDENTITY_FILE} is there)"
        how = "Is what it lies on mounted? A new node needs a database of its own"
        raise FolderAway("node.other-folder", f"{folder.absolute()} {words}. {how}.")
    if not knows and any(holds_anything(folder / part) for part in HOLDING):
        raise _other_database(folder, f"holds series or runs, of which {name} knows nothing")
    return False


def _other_database(folder: Path, words: str) -> BadConfig:
    how = "Name the database that the folder was kept with (node.database, CARINA_NODE_DATABASE), or restore a backup"
    return BadConfig("node.other-database", f"{folder.absolute()} {words}. {how}; a new node needs a new folder.")


def _lies_within(folder: Path, connection: Connection) -> bool:
    """Whether a database is a file in the folder: neither is there without the other."""
    url = connection.engine.url
    return url.get_backend_name() == "sqlite" and Path(url.database or "").absolute().parent == folder.absolute()


def is_begun(engine: Engine) -> bool:
    """Whether a database is that of a node: it was given a folder, or has any series or job."""
    with read_only(engine) as connection:
        return bool(database_identity(connection)) or _knows_any(connection)


def _knows_any(connection: Connection) -> bool:
    """Whether a database, which may be without tables yet, has any series or job."""
    if not inspect(connection).has_table(JOB.name):
        return False
    known = exists().select_from(ARRIVAL) | exists().select_from(JOB)
    return bool(connection.execute(select(known)).scalar())


def _holds_what_is_named(folder: Path, connection: Connection) -> bool:
    """Whether a folder of before there were identities holds anything that the database says is there, if it does."""
    places = list(_places_named(connection))
    return not places or any((folder / place).exists() for place in places)


def _places_named(connection: Connection) -> Iterator[str]:
    """What a database of any version names below its folder: the latest instances, uploads, runs and logs of jobs.

    A job that waits, and was asked for by path, has nothing there yet.
    """
    yield from connection.execute(select(INSTANCE.c.path).order_by(INSTANCE.c.id.desc()).limit(_NAMED)).scalars()
    begun = or_(JOB.c.attempt > 0, JOB.c.source.contains(f"{UPLOADS}/"))
    if inspect(connection).has_table(REMOVAL.name):
        begun &= JOB.c.id.not_in(select(REMOVAL.c.subject_id).where(REMOVAL.c.kind == "run"))
    jobs = select(JOB.c.id, JOB.c.attempt, JOB.c.source).where(begun).order_by(JOB.c.id.desc()).limit(_NAMED)
    for row in connection.execute(jobs):
        if upload := _UPLOADED.search(row.source):
            yield upload[0]
        if row.attempt:
            yield from (f"{RUNS}/{row.id}/{MANIFEST}", log_name(row.id, row.attempt))


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
