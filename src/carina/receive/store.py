"""Accepting one instance: on the disk for good, with its row, or refused with a reason. Nothing in between is said.

The order is: part file, rename, row. File, folder and row are flushed side by side, because each flush costs a turn of
the disk; the sender is answered after all of them. A crash before that leaves what nobody was promised: a file without
a row, or a row whose file may not be whole (``flushed`` is 0). ``recover`` removes the one and looks at the other when
the node starts, and the sender, who got no answer, sends it again.

What was sent to us and what we fetched to compare with are kept apart: the one is run and delivered, whatever the other
was or is. What was sent needs no fetching, so that is repeated; not the other way round.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, delete, exc, exists, insert, select, update

from carina.config import DicomDestination, Settings
from carina.database import ARRIVAL, INSTANCE, LONGEST_CODE, FolderAway, OwnFolder, database_now
from carina.database.intact import is_intact
from carina.errors import one_line
from carina.pipeline.places import file_name
from carina.receive.durability import assure, empty_folder, flush_folder, take_back
from carina.receive.instance import (
    FULL_CODE,
    NO_ROOM,
    NOT_UNDERSTOOD,
    Announced,
    Arriving,
    Header,
    NotAccepted,
    header_of,
)
from carina.receive.known import differs, forget, known_under, same_door
from carina.receive.moves import FETCHING, SAY_WHO_ASKED, AskedBy, Moves
from carina.receive.named import WHOSE_OF_BOTH, WITH_PATIENT
from carina.receive.part import PartFile, unwritable_part, unwritable_row
from carina.receive.presence import receiving
from carina.receive.project import project_of
from carina.receive.same_instance import is_same_object
from carina.sections import INCOMING
from carina.web_settings import DEFAULT_PROJECT

PARTS_COMING = f"{INCOMING}/.parts"
FLUSHES_AT_ONCE = 32

_LOG = logging.getLogger(__name__)


class ArrivalState(StrEnum):
    """Where a series that comes in is; what is queued has its jobs; what is kept is there and not run.

    What is joined is run as part of another arrival, and has no jobs of its own: in the table it is queued, with a
    reason.

    What waits in quarantine fits no rule; what is apart has another content under a known SOP Instance UID, or another
    patient under a known Series Instance UID; of what is removed, no files are left.
    """

    ARRIVING = "arriving"
    COMPLETE = "complete"
    QUEUED = "queued"
    JOINED = "joined"
    QUARANTINED = "quarantined"
    APART = "apart"
    KEPT = "kept"
    REMOVED = "removed"


class Accepted(StrEnum):
    """What became of an instance that is there for good."""

    NEW = "new"
    REPEATED = "repeated"
    APART = "apart"


_OPEN = select(ARRIVAL.c.id).where(
    ARRIVAL.c.series_uid == bindparam("series"),
    ARRIVAL.c.study_uid == bindparam("study"),  # another's under the series' UID is found, and told, under its own
    ARRIVAL.c.source == bindparam("by"),
    ARRIVAL.c.is_prior == bindparam("prior"),
    ARRIVAL.c.state == ArrivalState.ARRIVING,
)
_ARRIVING = _OPEN.where(ARRIVAL.c.is_apart == 0)
_HAS_UID = exists().where(INSTANCE.c.arrival_id == ARRIVAL.c.id, INSTANCE.c.sop_instance_uid == bindparam("uid"))
_ARRIVING_APART = _OPEN.where(
    ARRIVAL.c.is_apart == 1, ARRIVAL.c.whose_sha256 == bindparam("whose"), ~_HAS_UID
).order_by(ARRIVAL.c.id)
_INSERT = insert(INSTANCE).returning(INSTANCE.c.id)
_JOIN = (
    update(ARRIVAL)
    .where(ARRIVAL.c.id == bindparam("arrival"))
    .values(last_at=bindparam("now"), whose_sha256=WHOSE_OF_BOTH, patients=WITH_PATIENT)
)
_MARK = update(INSTANCE).where(INSTANCE.c.id == bindparam("instance")).values(flushed=1)
"""What every instance asks and writes, put together once."""


@dataclass(frozen=True)
class SentBy:
    """Where an instance comes from: the settings' source, and who sent it (calling AE title and address).

    ``expected`` is how many instances its series is known to have; None where nobody said. ``project`` is that of the
    source. With ``series_uid``, nothing of another series is accepted. ``is_prior`` is what was fetched to compare
    with; a C-STORE request may say so by what ``asked`` holds.
    """

    source: str
    who: str
    expected: int | None = None
    project: str = DEFAULT_PROJECT
    series_uid: str = ""
    is_prior: bool = False
    asked: AskedBy | None = None


@dataclass(frozen=True)
class _Placed:
    """What became of a part; where it has a row now: which, its file, and whether the folder is on the disk."""

    became: Accepted
    instance_id: int = 0
    path: Path = Path()
    listed: Future[None] = field(default_factory=Future)


class InstanceStore:
    """Takes instances of any number of senders at once into a node's folder and database."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings, self.engine = settings, engine
        self.folder = Path(settings.node.folder)
        peers = (one.ae_title for one in settings.destinations.values() if isinstance(one, DicomDestination))
        self.own = OwnFolder(self.folder, engine)
        self.untaken: dict[str, datetime] = {}
        """Since when a source may have instances that are not taken yet, by its name: series wait for these."""
        self.moves = Moves(tuple(peers), self.folder / FETCHING / SAY_WHO_ASKED)
        self._titles = frozenset(_titles(settings))
        self._numbers = count()
        self._placing = threading.Lock()
        self._flushed: deque[int] = deque()
        self._flushes = ThreadPoolExecutor(FLUSHES_AT_ONCE, thread_name_prefix="flush")

    def accept(self, arriving: Arriving, origin: SentBy) -> Accepted:
        """Put an instance on the disk and into the database; it is there for good when this returns.

        Raises:
            NotAccepted: it can't be accepted; nothing of it is left.
        """
        self._check_size(len(arriving.data))
        with self._presence():
            part = self.begin(arriving)
            part.write(arriving.data)
            return self._accept(part, origin)

    def begin(self, said: Announced) -> PartFile:
        """A file for a data set that is still coming; whoever has it lets it go, or has it accepted."""
        return PartFile(self.folder / PARTS_COMING / f"{os.getpid()}-{next(self._numbers)}", said, self._make_room)

    def accept_part(self, part: PartFile, origin: SentBy) -> Accepted:
        """The same as ``accept`` for a data set that is in its file by now.

        Raises:
            NotAccepted: it can't be accepted; nothing of it is left.
        """
        with self._presence():
            return self._accept(part, origin)

    def _accept(self, part: PartFile, origin: SentBy) -> Accepted:
        try:
            self._check(part)
            flushed = self._flushes.submit(part.flush)
            try:
                header = header_of(part.path, part.said)
                _check_series(header, part.said, origin)
                placed = self._place(part, header, self._looked_up(origin, header))
                if placed.instance_id:
                    self._settle(placed, flushed)
                return placed.became
            finally:
                wait([flushed])  # it needs the open file
        finally:
            part.let_go()

    def _looked_up(self, origin: SentBy, header: Header) -> SentBy:
        """Where an instance comes from, with its source's project, and whether it came because we asked for it."""
        source, asked = self.settings.sources.get(origin.source), origin.asked
        is_moved = asked is not None and self.moves.brought(origin.source, header.series_uid, asked, self._titles)
        project = source.project if source else origin.project
        return replace(origin, project=project, is_prior=origin.is_prior or is_moved)

    def _check_size(self, size: int) -> None:
        limit = self.settings.dicom.instance_mb
        if size > limit * 1_000_000:
            words = f"a data set of {size / 1e6:.0f} MB is over the limit of {limit} MB (dicom.instance_mb)."
            raise NotAccepted(NO_ROOM, "receive.too-large", words)

    def _check(self, part: PartFile) -> None:
        self._check_size(len(part))
        if part.refused is not None:
            raise part.refused
        if not len(part):
            words = f"instance {part.said.sop_instance_uid} has no data set."
            raise NotAccepted(NOT_UNDERSTOOD, "receive.empty", words)
        self._check_free()

    def _make_room(self) -> None:
        """See that a part finds its folder, in the node's own, and room."""
        self.own.make(PARTS_COMING)
        self._check_free()

    def _check_free(self) -> None:
        wanted = self.settings.node.free_gb
        free = shutil.disk_usage(self.folder).free
        if free < wanted * 1e9:
            words = f"{free / 1e9:.1f} GB are free, {wanted:g} GB are to stay free (node.free_gb): make room."
            raise NotAccepted(NO_ROOM, FULL_CODE, words)

    @contextmanager
    def _presence(self) -> Iterator[None]:
        """While something is on its way in; what the system refuses of it is said."""
        try:
            self.own.check()
            with receiving(self.folder):
                yield
        except (OSError, FolderAway) as error:
            raise unwritable_part(self.folder, error) from error
        except exc.SQLAlchemyError as error:
            raise unwritable_row(self.folder, error) from error

    def _place(self, part: PartFile, header: Header, origin: SentBy) -> _Placed:
        """Give a part its place and its row, in the arrival that takes instances of its series now."""
        with self._placing, self._undone_without_row(part), self.own.begin() as connection:
            self._mark_flushed(connection)
            uid, digest, now = part.said.sop_instance_uid, part.sha256, database_now(connection)
            known = known_under(connection, uid, _project(connection, header, origin))
            alike = [row for row in known if row.sha256 == digest or is_same_object(self.folder / row.path, part.path)]
            if self._holds(connection, same_door(alike, origin.source, is_prior=origin.is_prior)):
                return _Placed(Accepted.REPEATED)
            is_apart = differs(known, alike, is_prior=origin.is_prior)
            forget(connection, alike, origin.source, is_prior=origin.is_prior)
            opened = _open_apart(connection, header, origin, uid) if is_apart else _open(connection, header, origin)
            arrival_id = opened or _begin(connection, header, origin, now, is_apart=is_apart)
            path = Path(INCOMING, str(arrival_id), f"{file_name(uid)}.dcm")
            folders = _move(part, self.own, path, is_first=opened is None)
            listed = self._flushes.submit(_flush, folders)
            row = {
                "arrival_id": arrival_id,
                "source": origin.source,
                "sop_instance_uid": uid,
                "sop_class_uid": part.said.sop_class_uid,
                "transfer_syntax_uid": part.said.transfer_syntax_uid,
                "sha256": digest,
                "bytes": len(part),
                "path": path.as_posix(),
                "accepted_at": now,
                "flushed": 0,
                "is_prior": int(origin.is_prior),
            }
            instance_id = connection.execute(_INSERT, row).scalar_one()
            whose = header.scan.whose(origin.source)
            connection.execute(_JOIN, {"arrival": arrival_id, "now": now, "whose": whose, "patient": header.patient})
        return _Placed(Accepted.APART if is_apart else Accepted.NEW, instance_id, self.folder / path, listed)

    @contextmanager
    def _undone_without_row(self, part: PartFile) -> Iterator[None]:
        """Where a row can't be written, take the file away again that it was for: its folder may be another's next."""
        is_done = False
        try:
            yield
            is_done = True
        finally:
            if part.moved_to is not None and not is_done:
                take_back(self.folder, self.engine, part.moved_to)

    def _settle(self, placed: _Placed, flushed: Future[None]) -> None:
        """Wait until a placed instance is on the disk; where it can't be, take its row back and its file away.

        Raises:
            OSError: it can't be.
        """
        try:
            for one in (flushed, placed.listed):
                one.result()
        except OSError:
            mine = (INSTANCE.c.id == placed.instance_id) & (INSTANCE.c.flushed == 0)  # else somebody vouched for it
            with self._placing, self.engine.begin() as connection:
                if connection.execute(delete(INSTANCE).where(mine)).rowcount:
                    placed.path.unlink(missing_ok=True)
            raise
        self._flushed.append(placed.instance_id)

    def note_flushed(self) -> None:
        """Write down of which instances all is on the disk, of the last as well: a start looks at no others."""
        if self._flushed:
            with self._placing, self.engine.begin() as connection:
                self._mark_flushed(connection)

    def _mark_flushed(self, connection: Connection) -> None:
        """Note of which instances all is on the disk; together with the next one's row, so it costs no turn."""
        flushed = [self._flushed.popleft() for _ in range(len(self._flushed))]
        if flushed:
            connection.execute(_MARK, [{"instance": one} for one in flushed])

    def _holds(self, connection: Connection, rows: Sequence[Row[Any]]) -> bool:
        """Whether an instance is there for good; one that another sender's thread still waits for is seen to."""
        for row in rows:
            if row.flushed and is_intact(self.folder / row.path, row):
                return True
            if not row.flushed and assure(self.folder, row):
                connection.execute(_MARK, {"instance": row.id})
                return True
        return False


def _titles(settings: Settings) -> Iterator[str]:
    """The AE titles under which the node asks others."""
    for one in settings.destinations.values():
        if isinstance(one, DicomDestination):
            yield one.calling_ae_title.strip()


def _check_series(header: Header, said: Announced, origin: SentBy) -> None:
    if origin.series_uid and header.series_uid != origin.series_uid:
        words = f"instance {said.sop_instance_uid}: it is of another series than was asked for."
        raise NotAccepted(NOT_UNDERSTOOD, "receive.other-series", words)


def _project(connection: Connection, header: Header, origin: SentBy) -> str:
    return project_of(connection, header, origin.source, origin.project)


def _open(connection: Connection, header: Header, origin: SentBy) -> int | None:
    """The arrival that takes instances of a series from a source; None where none is open."""
    return connection.execute(_ARRIVING, _asked(header, origin)).scalar()


def _open_apart(connection: Connection, header: Header, origin: SentBy, uid: str) -> int | None:
    """The same of what has another content under a known UID: of one patient, and without this UID yet."""
    whose = header.scan.whose(origin.source)
    return connection.execute(_ARRIVING_APART, {**_asked(header, origin), "uid": uid, "whose": whose}).scalar()


def _asked(header: Header, origin: SentBy) -> dict[str, str | int]:
    prior = int(origin.is_prior)
    return {"series": header.series_uid, "study": header.study_uid, "by": origin.source, "prior": prior}


def _begin(connection: Connection, header: Header, origin: SentBy, now: datetime, *, is_apart: bool) -> int:
    row = {
        "series_uid": header.series_uid,
        "study_uid": header.study_uid,
        "source": origin.source,
        "sender": origin.who,
        "project": _project(connection, header, origin),
        "state": ArrivalState.ARRIVING,
        "reason": "",
        "expected": origin.expected,
        "first_at": now,
        "last_at": now,
        "whose_sha256": header.scan.whose(origin.source),
        "patients": header.patient,
        "studied": header.scan.studied,
        "is_prior": int(origin.is_prior),
        "is_apart": int(is_apart),
        "modality": header.modality[:LONGEST_CODE],
        "study_description": one_line(header.study_description),
        "series_description": one_line(header.series_description),
    }
    return int(connection.execute(insert(ARRIVAL).returning(ARRIVAL.c.id), row).scalar_one())


def _move(part: PartFile, own: OwnFolder, path: Path, *, is_first: bool) -> list[Path]:
    """Rename a part into its place; gives the folders that are to be flushed, that of a folder that is made as well."""
    place = own.folder / path
    is_new = is_first or not place.parent.is_dir()
    if is_new:
        empty_folder(own, path.parent)
    part.path.rename(place)
    part.moved_to = place
    return [place.parent, place.parent.parent] if is_new else [place.parent]


def _flush(folders: Sequence[Path]) -> None:
    for folder in folders:
        flush_folder(folder)
