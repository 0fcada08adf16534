"""What a node does first when it starts: nothing of what was half accepted when it ended is left."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, exists, select, update

from carina.config import Settings
from carina.database import ARRIVAL, AUDIT, INSTANCE, OwnFolder, database_now
from carina.database.intact import LOST
from carina.database.salvage import MENDED_NOTE
from carina.receive.durability import assure, put_away
from carina.receive.presence import alone
from carina.receive.store import ArrivalState
from carina.sections import INCOMING, SET_ASIDE

FOLDERS_AT_ONCE = 500
"""Arrivals whose states are asked for in one statement: how many a node holds has no bound."""

_LOG = logging.getLogger(__name__)


def recover(settings: Settings, engine: Engine) -> int:
    """Remove files of instances that were not accepted when the node stopped; gives their number. Call it first.

    Files of arrivals that have no row are moved to `SET_ASIDE`.

    Series that were coming in begin to be quiet only now: while the node was away, nobody could send. A fetch that runs
    beside the node is waited for between two of its instances, so that nothing of it is taken for the rest of a crash.

    Raises:
        FolderAway: the node's folder is not there any more: nothing of what was seen counts.
    """
    folder = Path(settings.node.folder)
    own = OwnFolder(folder, engine)
    own.check()
    with alone(folder):
        removed = _remove_torn(own)
        with own.begin() as connection:
            arriving = ARRIVAL.c.state == ArrivalState.ARRIVING
            connection.execute(update(ARRIVAL).where(arriving).values(last_at=database_now(connection)))
            for place in _unsettled(connection, folder / INCOMING):
                if place.name.isdecimal() and not _is_known(connection, place):
                    put_away(place, folder / SET_ASIDE)
                else:
                    removed += _remove_unlisted(connection, folder, place)
        return removed


def _unsettled(connection: Connection, incoming: Path) -> Iterator[Path]:
    """The folders of arrivals that are open, or are none; those of the others hold links to earlier files as well."""
    places = (place for place in incoming.glob("*") if place.is_dir())
    while some := list(islice(places, FOLDERS_AT_ONCE)):
        ids = [_id_of(place) for place in some]
        closed = select(ARRIVAL.c.id).where(ARRIVAL.c.id.in_(ids), ARRIVAL.c.state != ArrivalState.ARRIVING)
        settled = {str(one) for one in connection.execute(closed).scalars()}
        yield from (place for place in some if place.name not in settled)


def _is_known(connection: Connection, place: Path) -> bool:
    """Whether the arrival whose folder it is has a row."""
    return bool(connection.execute(select(exists().where(ARRIVAL.c.id == _id_of(place)))).scalar())


def _id_of(place: Path) -> int:
    """The arrival whose folder it is; 0 where it is none's."""
    return int(place.name) if place.name.isdecimal() else 0


def _remove_unlisted(connection: Connection, folder: Path, place: Path) -> int:
    """Remove the files of an arrival's folder that none of its rows names; gives their number.

    Of an arrival that began before the database was mended, they may have been accepted: they are set aside.
    """
    of_arrival = select(INSTANCE.c.path).where(INSTANCE.c.arrival_id == _id_of(place))
    known = set(connection.execute(of_arrival).scalars())
    unlisted = [file for file in place.iterdir() if file.relative_to(folder).as_posix() not in known and file.is_file()]
    if unlisted and _was_mended_since(connection, place):
        put_away(place, folder / SET_ASIDE, unlisted)
        return 0
    for file in unlisted:
        file.unlink()
    return len(unlisted)


def _was_mended_since(connection: Connection, place: Path) -> bool:
    """Whether the database was mended after an arrival began, so that rows of its files may be lost."""
    began = select(ARRIVAL.c.first_at).where(ARRIVAL.c.id == _id_of(place)).scalar_subquery()
    mended = (AUDIT.c.action == "changed") & (AUDIT.c.subject == MENDED_NOTE) & (AUDIT.c.at >= began)
    return bool(connection.execute(select(exists().where(mended))).scalar())


def _remove_torn(own: OwnFolder) -> int:
    """See to every row whose file may not be on the disk: what isn't whole goes, with an arrival that had no other.

    But for what was answered: that is told as lost, and its row stays.
    """
    removed, folder = 0, own.folder
    with own.begin() as connection:
        for row in connection.execute(select(INSTANCE).where(INSTANCE.c.flushed == 0)).all():
            same = INSTANCE.c.id == row.id
            if assure(folder, row):
                connection.execute(update(INSTANCE).where(same).values(flushed=1))
                continue
            if _was_acknowledged(connection, folder, row):
                _LOG.warning(LOST, row.sop_instance_uid, row.path)
                continue
            _LOG.warning("instance %s had not reached the disk when the node ended: removed.", row.sop_instance_uid)
            connection.execute(delete(INSTANCE).where(same))
            (folder / row.path).unlink(missing_ok=True)
            removed += 1
            is_empty = ~exists().where(INSTANCE.c.arrival_id == row.arrival_id)
            is_open = ARRIVAL.c.state.in_([ArrivalState.ARRIVING, ArrivalState.APART])
            connection.execute(delete(ARRIVAL).where(ARRIVAL.c.id == row.arrival_id, is_open, is_empty))
    return removed


def _was_acknowledged(connection: Connection, folder: Path, row: Row[Any]) -> bool:
    """Whether the sender of an instance whose file isn't whole may have been told that it is there: then it is lost.

    A series is settled when nothing has come for a while, so each of its instances was answered. Where others of its
    series that were seen on the disk are gone as well, it was no crash that took it.
    """
    arrival = select(ARRIVAL.c.state).where(ARRIVAL.c.id == row.arrival_id)
    if connection.execute(arrival).scalar() != ArrivalState.ARRIVING:
        return True
    seen = select(INSTANCE.c.path).where(INSTANCE.c.arrival_id == row.arrival_id, INSTANCE.c.flushed == 1)
    return any(not (folder / path).is_file() for path in connection.execute(seen).scalars())
