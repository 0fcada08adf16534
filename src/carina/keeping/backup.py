"""A node saved while it runs, and brought back: its database as of one moment, and every file that it names then.

The database is copied first (SQLite's online backup, or ``pg_dump``: one snapshot). A row is written only after its
file is on the disk, and nothing is removed meanwhile, so that every file of the snapshot can be copied afterwards. Runs
that were not over are left out: they run again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import SQLAlchemyError

from carina import RESEARCH_ONLY, __version__
from carina.config import Settings
from carina.database import ARRIVAL, AUDIT, DISK_FULL, FOLDER_AWAY, INSTANCE, JOB, FolderAway, identity_in, outage_of
from carina.database.address import file_of
from carina.database.upgrade import schema_version
from carina.deliver.identity import file_digest
from carina.deliver.sender import SENDER_LOCK
from carina.errors import FULL, BadConfig, told, unwritable
from carina.jobs.places import DATABASE, NODE_LOCK, check_beside, check_folder, connected, own_alone
from carina.jobs.queue import JobState
from carina.jobs.signs import SIGNED
from carina.keeping.copied import COPIED, Copier, copied_files
from carina.keeping.dumps import DUMP, dump_database
from carina.keeping.lock import KEEPING_LOCK, files_held
from carina.keeping.making import making, part_and_lock
from carina.keeping.own_copy import copy_database, said_by_database, unwritten
from carina.keeping.results import NO_RESULTS, NamedResults, lost_results, results_named
from carina.pipeline.json_text import read_json
from carina.receive.moves import FETCHING
from carina.receive.presence import RECEIVING_LOCK
from carina.receive.store import ArrivalState
from carina.receive.uploads import CONTENT
from carina.sections import INCOMING, RUNS, UPLOADS

BACKUP_FILE = "backup.json"
"""Written last: a folder without it is no backup, or one that was broken off."""


LISTED = "instances.txt"
"""Beside a dump: the instances that it names, a line each, so that what is missing or altered is seen in time."""

_APART = frozenset({INCOMING, RUNS, UPLOADS, FETCHING, SIGNED, KEEPING_LOCK, NODE_LOCK, RECEIVING_LOCK, SENDER_LOCK})
"""What is not copied as it stands; the database neither, whose files begin with its name."""


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself; ``folder`` is where the node was.

    ``lost`` names instances that the node itself had no more as they came, ``lost_results`` files and folders of runs,
    and of corrections that readers finished, that it had no more as they were written: a restore does without them.
    ``files`` is how many lines the list of files has, ``files_sha256`` is of that list: empty in earlier versions.
    ``database_damage`` is what was wrong with the node's own SQLite, which was saved as it was; empty: nothing.
    ``left_out`` is what a restore found beside what was saved. ``sha256`` is of all the others, as the file has them:
    not there in earlier versions.
    """

    at: datetime
    folder: str
    database_version: str
    instances: int
    runs: int
    lost: tuple[str, ...] = ()
    lost_results: tuple[str, ...] = ()
    files: int = 0
    files_sha256: str = ""
    database_damage: str = ""
    left_out: tuple[str, ...] = ()
    sha256: str = ""
    carina: str = __version__
    notice: str = RESEARCH_ONLY


@dataclass(frozen=True, kw_only=True)
class NamedFile:
    """A file of an instance: it ends with a data set of so many bytes; ``sha256`` is of that, empty: not known."""

    path: str
    sha256: str = ""
    bytes: int = 0

    @property
    def line(self) -> str:
        """As a list beside a dump has it."""
        return f"{self.sha256} {self.bytes} {self.path}"

    @classmethod
    def of_line(cls, line: str) -> NamedFile:
        """What such a line says; earlier versions wrote the path alone."""
        digest, _, rest = line.partition(" ")
        size, _, path = rest.partition(" ")
        return cls(path=path, sha256=digest, bytes=int(size)) if path and size.isdecimal() else cls(path=line)

    def is_whole(self, folder: Path) -> bool:
        """Whether the file below a folder is there, and is what came."""
        if not (folder / self.path).is_file():
            return False
        if not self.sha256:
            return True
        with (folder / self.path).open("rb") as stream:
            start = stream.seek(0, os.SEEK_END) - self.bytes
            if start < 0:
                return False
            stream.seek(start)
            return hashlib.file_digest(stream, "sha256").hexdigest() == self.sha256


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a snapshot of the database names: arrivals and runs by id, the files of instances, and what runs left.

    Of one with ``damage``, whatever lies in the node's folder counts as named.
    """

    version: str
    arrivals: tuple[int, ...]
    runs: tuple[int, ...]
    instances: tuple[NamedFile, ...] = ()
    results: NamedResults = NO_RESULTS
    damage: str = ""


def save_node(settings: Settings, to: Path, now: datetime, who: str = "backup") -> Backup:
    """Save a node to a folder that is empty or not there; it may run meanwhile. Its audit trail says so, of ``who``.

    Raises:
        BadConfig: there is no node or it is another user's, its database can't be saved, or the folder is not empty or
            can't be written.
    """
    folder = node_to_save(settings)
    check_beside(settings)
    check_folder(settings)
    if to.resolve().is_relative_to(folder.resolve()):
        raise BadConfig(
            "backup.inside", f"{to}: lies in the node's own folder: choose one outside it, on another disk."
        )
    was = identity_in(folder)
    with new_folder(to, "backup") as part, _held(folder):
        unnoted = _note(settings, to, now, who)
        named = _save_database(settings, part, unnoted)
        copier = Copier()
        for arrival_id in named.arrivals:
            copier.tree(folder / INCOMING / str(arrival_id), part / INCOMING / str(arrival_id))
        for job_id in named.runs:
            copier.tree(folder / RUNS / str(job_id), part / RUNS / str(job_id))
        for content in (folder / UPLOADS).glob(f"*/{CONTENT}"):  # whole ones; others still grow, and are sent again
            copier.tree(content.parent, part / UPLOADS / content.parent.name)
        for other in rest_of(folder):
            copier.tree(other, part / other.name)
        listed = [f"{one.line}\n" for one in copied_files(part, copier.sums)]
        (part / COPIED).write_text("".join(listed))
        made = Backup(
            at=now,
            folder=str(folder.resolve()),
            database_version=named.version,
            instances=len(named.instances),
            runs=len(named.runs),
            lost=tuple(one.path for one in named.instances if not one.is_whole(part)),
            lost_results=lost_results(part, named.results),
            files=len(listed),
            files_sha256=file_digest(part / COPIED),
            database_damage=named.damage,
        )
        if identity_in(folder) != was:
            words = f"{folder}: the node's folder went while it was saved, and nothing is lost: is its disk mounted?"
            raise FolderAway(FOLDER_AWAY, f"{words} Make the backup again.")
        made = msgspec.structs.replace(made, sha256=own_digest(msgspec.json.encode(made)))
        (part / BACKUP_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(made)) + b"\n")
    return made


def own_digest(text: bytes) -> str:
    """The SHA-256 of what a backup's JSON says but of this itself, however it is laid out."""
    said = {name: value for name, value in read_json(text).items() if name != "sha256"}
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """``files_held``; where its lock can't be written, the folder that is named is the node's.

    Raises:
        BadConfig: it can't.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(files_held(folder, wait=True))
        except OSError as error:
            words = "a backup holds a lock in the node's folder and notes itself in the node's database"
            how = "let its user write there until the backup is made"
            raise BadConfig(
                "backup.unwritable", f"{folder}: can't be written ({error.strerror}), and {words}: {how}."
            ) from error
        yield


def _note(settings: Settings, to: Path, now: datetime, who: str) -> Exception | None:
    """Note the backup in the audit trail; gives why SQLite that may be damaged would not take it."""
    try:
        engine = connected(settings)
        try:
            with engine.begin() as connection:
                row = {"at": now, "who": who, "action": "copied", "subject": f"the node: backup to {to.absolute()}"}
                connection.execute(insert(AUDIT).values(**row))
        finally:
            engine.dispose()
    except (BadConfig, SQLAlchemyError) as error:
        if is_on_server(settings) or outage_of(error, settings.node.folder) is not None:
            raise
        return error
    return None


def node_to_save(settings: Settings) -> Path:
    """The folder of a node with a database in it.

    Raises:
        BadConfig: there is none, or the database is another file's.
    """
    folder = Path(settings.node.folder)
    if is_on_server(settings):
        if not folder.is_dir():
            raise BadConfig("backup.no-node", f"{folder}: holds no node: give the node's --config.")
        return folder
    if database_outside(settings) is not None:
        words = f"node.database: carina backup is for SQLite in the node's folder ({folder / DATABASE}) and PostgreSQL."
        raise BadConfig("backup.database", words)
    if not (folder / DATABASE).is_file():
        raise BadConfig("backup.no-node", f"{folder}: holds no node (no {DATABASE}): give the node's --config.")
    return folder


def database_outside(settings: Settings) -> Path | None:
    """The file of SQLite's that a node's database is, where no backup saves it: elsewhere than in the node's folder."""
    file = file_of(settings.node.database)
    is_own = file is None or file.resolve() == (Path(settings.node.folder) / DATABASE).resolve()
    return None if is_own else file


def is_on_server(settings: Settings) -> bool:
    """Whether a node's database is a server's."""
    return settings.node.database.startswith("postgresql")


def _save_database(settings: Settings, part: Path, unnoted: Exception | None) -> Named:
    """Save it; that nothing could be noted in it counts only where it is whole."""
    if not is_on_server(settings):
        folder = Path(settings.node.folder)
        named = _named_for_all(folder, part / DATABASE, copy_database(folder / DATABASE, part / DATABASE))
        if unnoted is not None and not named.damage:
            raise unnoted
        return named
    named = dump_database(settings.node.database, part / DUMP, named_by)
    (part / LISTED).write_text("".join(f"{one.line}\n" for one in named.instances))
    return named


def _named_for_all(folder: Path, database: Path, damage: str) -> Named:
    """What the copy of a node's SQLite names; of a damaged one, with all that lies in the node's folder besides."""
    try:
        named = named_in(database)
    except SQLAlchemyError as error:
        if outage_of(error, database.parent) is not None:
            raise
        named, damage = Named(version="", arrivals=(), runs=()), damage or said_by_database(error)
    if not damage:
        return named
    arrivals, runs = _numbered(folder / INCOMING), _numbered(folder / RUNS)
    return replace(named, arrivals=arrivals, runs=runs, damage=damage)


def _numbered(folder: Path) -> tuple[int, ...]:
    there = folder.iterdir() if folder.is_dir() else ()
    return tuple(sorted(int(one.name) for one in there if one.name.isdecimal()))


def named_in(database: Path) -> Named:
    """Look into a copy of a database, of any version that has arrivals and jobs; nothing comes to lie beside it."""
    with unwritten(database) as connection:
        return named_by(connection)


def named_by(connection: Connection) -> Named:
    """What a database of any version that has arrivals and jobs names."""
    there = ARRIVAL.c.state != ArrivalState.REMOVED
    rows = connection.execute(select(INSTANCE.c.path, INSTANCE.c.sha256, INSTANCE.c.bytes))
    return Named(
        version=schema_version(connection) or "",
        arrivals=tuple(connection.execute(select(ARRIVAL.c.id).where(there)).scalars()),
        runs=tuple(connection.execute(select(JOB.c.id).where(JOB.c.state == JobState.STOPPED)).scalars()),
        instances=tuple(NamedFile(path=row.path, sha256=row.sha256, bytes=row.bytes) for row in rows),
        results=results_named(connection),
    )


def rest_of(folder: Path) -> Iterator[Path]:
    """What else lies in a node's folder, its jobs' logs among it."""
    for one in sorted(folder.iterdir()):
        if one.name not in _APART and not one.name.startswith(DATABASE):
            yield one


@contextmanager
def new_folder(place: Path, kind: str) -> Iterator[Path]:
    """A folder to fill beside its place, which it takes when the block ends well; then it is on the disk.

    It and all in it can be read by its user alone, from the beginning: the rights of what is copied are not.

    Raises:
        BadConfig: the place is not empty, another is being made for it, or it can't be written.
    """
    try:
        _check_empty(place, kind)
        place.parent.mkdir(parents=True, exist_ok=True)
        with making(place, kind) as part:
            _check_empty(place, kind)  # another may have taken it meanwhile
            yield part
            for one in part.rglob("*"):
                own_alone(one)
            os.sync()
            part.replace(place)
            os.sync()
    except OSError as error:
        failure = unwritable(error, place) if error.errno in FULL else told(error, (place, *part_and_lock(place)))
        raise BadConfig(failure.code, failure.message) from error
    except (sqlite3.Error, SQLAlchemyError) as error:  # of the copy, or of what is copied or brought up to date
        outage = outage_of(error, place)
        if outage is None:
            raise
        raise unwritable(OSError(errno.ENOSPC, ""), place) if outage.code == DISK_FULL else outage from error


def _check_empty(place: Path, kind: str) -> None:
    if os.path.lexists(place) and (not place.is_dir() or any(place.iterdir())):
        raise BadConfig(f"{kind}.not-empty", f"{place}: is not empty, and nothing is overwritten: choose another.")
