"""Removing a folder of the node so that a kill in between leaves nothing dangling.

First one transaction says that it is removed: its rows name no file any more, the audit trail has it, and a removal
is open. Then the files go, and then the removal ends. Open removals are finished when the node starts again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, insert, select, update

from carina.database import ARRIVAL, AUDIT, INSTANCE, JOB, REMOVAL, OwnFolder, database_now, read_only
from carina.jobs.attempt_log import LOGS
from carina.jobs.reading import leave_unread
from carina.keeping.readers_work import ReadersWork
from carina.keeping.removable import Bounds, KeptKind, Removable, removable
from carina.pipeline.trees import remove_tree
from carina.receive.store import ArrivalState
from carina.sections import INCOMING, RUNS

REMOVED_BY = "retention"

_FOLDERS = {KeptKind.INCOMING: INCOMING, KeptKind.RUN: RUNS}


@dataclass(frozen=True, kw_only=True)
class Open:
    """A removal that has been said and not been ended."""

    id: int
    kind: KeptKind
    subject_id: int
    why: str


def begin_removal(
    connection: Connection, one: Removable, bounds: Bounds, why: str, readers: ReadersWork
) -> Open | None:
    """Say that it is removed, if it still may be; afterwards its files are nobody's.

    What readers made and goes with it is said with ``why``.
    """
    _hold(connection, one)
    if not removable(connection, one.kind, bounds, readers.holds, only=one.id):
        return None
    if one.kind is KeptKind.INCOMING:
        connection.execute(delete(INSTANCE).where(INSTANCE.c.arrival_id == one.id))
        gone = {"state": ArrivalState.REMOVED, "reason": f"removed: {why}."}
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == one.id).values(**gone))
    else:
        leave_unread(connection, one.id)
        why += readers.words(connection, one.id)
    now = database_now(connection)
    row = {"kind": one.kind.value, "subject_id": one.id, "why": why, "begun_at": now}
    key = connection.execute(insert(REMOVAL).returning(REMOVAL.c.id), row).scalar_one()
    subject = f"{_NAMES[one.kind]} {one.id}: {why}"
    connection.execute(insert(AUDIT).values(at=now, who=REMOVED_BY, action="removed", subject=subject))
    return Open(id=int(key), kind=one.kind, subject_id=one.id, why=why)


def _hold(connection: Connection, one: Removable) -> None:
    """Keep others from releasing an arrival or trying a job again until it is said that its files are removed."""
    mine = JOB.c.arrival_id if one.kind is KeptKind.INCOMING else JOB.c.id
    if one.kind is KeptKind.INCOMING:
        connection.execute(select(ARRIVAL.c.id).where(ARRIVAL.c.id == one.id).with_for_update()).all()
    connection.execute(select(JOB.c.id).where(mine == one.id).with_for_update()).all()


_NAMES = {KeptKind.INCOMING: "instances of arrival", KeptKind.RUN: "run of job"}


def finish_removal(own: OwnFolder, opened: Open) -> None:
    """Remove the files, and end the removal. Doing so twice does no harm.

    Raises:
        OSError: files can't be removed.
        FolderAway: the node's folder is not there, so that they may be.
    """
    own.check()
    for place in _places(own.folder, opened):
        with suppress(FileNotFoundError):
            _remove(place)
    with own.begin() as connection:
        ended = update(REMOVAL).where(REMOVAL.c.id == opened.id).values(ended_at=database_now(connection))
        connection.execute(ended)


def _remove(place: Path) -> None:
    if not place.is_dir():
        place.unlink()
        return
    try:
        shutil.rmtree(place)
    except RecursionError:  # what a killed program left, deeper than the standard library goes down
        remove_tree(place)


def _places(folder: Path, opened: Open) -> Iterator[Path]:
    yield folder / _FOLDERS[opened.kind] / str(opened.subject_id)
    if opened.kind is KeptKind.RUN:
        yield from (folder / LOGS).glob(f"job-{opened.subject_id}-*.log")


def open_removals(engine: Engine) -> list[Open]:
    """Removals that a crash, or files that could not be removed, left open."""
    with read_only(engine) as connection:
        rows = connection.execute(select(REMOVAL).where(REMOVAL.c.ended_at.is_(None)).order_by(REMOVAL.c.id)).all()
    return [Open(id=row.id, kind=KeptKind(row.kind), subject_id=row.subject_id, why=row.why) for row in rows]
