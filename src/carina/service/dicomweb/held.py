"""Which objects the node holds, and where: what it accepted, and what its healthy jobs made.

The tables know studies, series and files and no patient; whatever else is asked for is read from the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydicom.errors import InvalidDicomError
from sqlalchemy import Connection, func, or_, select

from carina.database import ARRIVAL, INSTANCE, JOB, read_only
from carina.deliver.identity import identity_of
from carina.receive.store import ArrivalState
from carina.service.dicomweb.reach import changed_ns, check_reached, is_file_there
from carina.service.node import RunningNode

OBJECTS = "dicom"
"""The folder of a run that holds its objects."""

_ONE_CONTENT = (ARRIVAL.c.state != ArrivalState.APART) & or_(
    ARRIVAL.c.is_apart == 0, ARRIVAL.c.state != ArrivalState.ARRIVING
)
"""What came with another content under a known UID is not told until somebody releases it."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """One object of the node; ``is_ours`` says that a job of this node made it."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    path: Path
    is_ours: bool = False


def study_uids(node: RunningNode) -> Iterator[str]:
    """Every study, those that came last first.

    Raises:
        FolderAway: the node's folder is not there: what it holds is not nothing.
    """
    node.own.check()
    seen: set[str] = set()
    with read_only(node.engine) as connection:
        last = func.max(ARRIVAL.c.id)
        came = select(ARRIVAL.c.study_uid).where(_ONE_CONTENT).group_by(ARRIVAL.c.study_uid).order_by(last.desc())
        uids = list(connection.execute(came).scalars())
        handed_in = [held.study_uid for held in _made(connection, node, None)]
    for uid in (*uids, *handed_in):
        if uid not in seen:
            seen.add(uid)
            yield uid


def objects_of(node: RunningNode, study_uid: str) -> list[Held]:
    """The objects of a study: accepted ones in the order in which they came, then results.

    Of several objects under one SOP Instance UID the last is taken. What is no longer on the disk is left out.

    Raises:
        FolderAway: the node's folder is not there, so that nothing can be told of what is missing.
        OutOfReach: what is there can't be read.
    """
    with read_only(node.engine) as connection:
        came = list(_came(connection, node, study_uid))
        made = [held for held in _made(connection, node, study_uid) if held.study_uid == study_uid]
    found = {held.sop_instance_uid: held for held in (*came, *made)}
    there = [held for held in found.values() if is_file_there(held.path)]
    if not there or len(there) < len(found):
        node.own.check()
    return there


def _came(connection: Connection, node: RunningNode, study_uid: str) -> Iterator[Held]:
    wanted = (
        select(ARRIVAL.c.series_uid, INSTANCE.c.sop_instance_uid, INSTANCE.c.sop_class_uid, INSTANCE.c.path)
        .join(ARRIVAL, ARRIVAL.c.id == INSTANCE.c.arrival_id)
        .where(ARRIVAL.c.study_uid == study_uid, _ONE_CONTENT)
        .order_by(INSTANCE.c.id)
    )
    for row in connection.execute(wanted):
        yield Held(
            study_uid=study_uid,
            series_uid=row.series_uid,
            sop_instance_uid=row.sop_instance_uid,
            sop_class_uid=row.sop_class_uid,
            path=node.folder / row.path,
        )


def _made(connection: Connection, node: RunningNode, study_uid: str | None) -> Iterator[Held]:
    """The objects of healthy jobs: of those on a study's arrivals, and of all that were handed in by path."""
    wanted = select(JOB.c.folder, JOB.c.stopped_at).where(JOB.c.ended == "healthy").order_by(JOB.c.id)
    of_study = select(ARRIVAL.c.id).where(ARRIVAL.c.study_uid == study_uid)
    by_path = JOB.c.arrival_id.is_(None)
    for row in connection.execute(wanted.where(by_path | JOB.c.arrival_id.in_(of_study) if study_uid else by_path)):
        objects = node.folder / row.folder / OBJECTS
        yield from _objects_in(objects, f"{row.stopped_at} {changed_ns(objects)}")


@lru_cache(maxsize=20_000)
def _objects_in(folder: Path, _changed_at: str) -> tuple[Held, ...]:
    """The objects of a run; it is over, so that they are read once, and again where one joins them.

    Raises:
        OutOfReach: folder or file can't be read, which is not kept.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".dcm")
    except OSError as error:
        check_reached(error, folder)
        return ()
    return tuple(held for path in files if (held := _ours(path)))


def _ours(path: Path) -> Held | None:
    try:
        identity = identity_of(path)
    except (OSError, InvalidDicomError) as error:
        check_reached(error, path)
        return None
    return Held(
        study_uid=identity.study_uid,
        series_uid=identity.series_uid,
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        path=path,
        is_ours=True,
    )
