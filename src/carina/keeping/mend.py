"""A damaged SQLite database replaced by one with all rows that can still be read; the damaged one is kept.

At every moment one of the two is in place: the damaged one has its second name, ``damaged.sqlite``, before the mended
one takes its first. A try that was killed in between is known by that: both names have the same content.
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from carina.config import Settings
from carina.database import outage_of
from carina.database.address import file_of
from carina.database.pages import read_pages
from carina.deliver.ledger import RESTORED
from carina.errors import BadConfig, one_line, told, unwritable
from carina.jobs.places import DATABASE, NODE_LOCK, check_beside, database_address
from carina.keeping.backup import BACKUP_FILE, Backup, own_digest
from carina.keeping.making import making
from carina.keeping.mended_rows import MendedTable, make_mended
from carina.keeping.own_copy import immutable_address, said_by_database
from carina.keeping.saved import said_by_backup
from carina.pipeline.json_text import as_pretty_json
from carina.pipeline.places import write_whole

KEPT_AS = "damaged.sqlite"
"""The name that a damaged database keeps beside the mended one."""

_LOG_OF, _SHARED_OF = "-wal", "-shm"
_FIRST_LOCKED, _LOCKED = 0x40000000, 512
"""The bytes of SQLite's file that its users lock, beyond whatever lies in it (its "File Locking" page)."""

_OF_CONTENT = ("mend.nothing", "mend.not-whole", "database.later")
"""Codes of what is said of a file's content, by whoever doesn't know the file."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES)


@dataclass(frozen=True, kw_only=True)
class Mended:
    """What became of a database: what was wrong with it, where it is kept, and what was found, table by table."""

    file: Path
    damage: str
    tables: tuple[MendedTable, ...]


def mend_node(settings: Settings, now: datetime, who: str) -> Mended | None:
    """Mend the database of a node, while nothing runs on it; None where nothing is wrong with it.

    Raises:
        BadConfig: there is none, or its database is a server's; anything runs on it; or as ``_mend``.
    """
    folder, file = Path(settings.node.folder), file_of(database_address(settings))
    if file is None:
        raise BadConfig("mend.database", "node.database: only SQLite is mended: PostgreSQL has tools of its own.")
    if not file.is_file():
        raise BadConfig("node.none", f"{file}: there is no database of a node: give the node's --config.")
    check_beside(settings)
    with _nothing_runs(folder):
        return _mend(file, folder, now, who, lambda _: _ask_before_sending(folder, now))


def _ask_before_sending(folder: Path, now: datetime) -> None:
    """From now on each destination is asked for every object before it is sent, as after a restore: rows are lost."""
    marker = folder / RESTORED
    if not marker.exists():
        write_whole(marker, as_pretty_json({"mended": now.isoformat()}))


def mend_backup(folder: Path, now: datetime, who: str) -> Mended | None:
    """Mend the database in a backup, which notes that it is no longer what was saved; None where nothing is wrong.

    Raises:
        BadConfig: that is no backup, or not one of SQLite; or as ``_mend``.
    """
    said = said_by_backup(folder)
    if not (folder / DATABASE).is_file():
        raise BadConfig("mend.database", f"{folder}: holds no {DATABASE}, and only SQLite is mended.")
    return _mend(folder / DATABASE, folder, now, who, lambda damage: _note_damage(folder, said, damage))


def _mend(file: Path, folder: Path, now: datetime, who: str, note: Callable[[str], None]) -> Mended | None:
    """Mend a database of what lies in a folder; ``note`` is told what was wrong before it is replaced.

    Raises:
        BadConfig: nothing of a node can be read in it, what can be makes no whole database, something uses it, or
            another is kept as damaged; nothing is replaced then.
    """
    try:
        with making(file, "mend") as part:
            return _mend_in(part, file, folder, now, who, note)
    except BadConfig as error:
        if error.code in _OF_CONTENT:
            raise BadConfig(error.code, f"{file}: {error.message}") from error
        raise
    except OSError as error:
        raise unwritable(error, file.parent) from error
    except (sqlite3.Error, SQLAlchemyError) as error:
        raise (outage_of(error, file.parent) or told(error)) from error


def _mend_in(
    part: Path, file: Path, folder: Path, now: datetime, who: str, note: Callable[[str], None]
) -> Mended | None:
    kept, new = file.with_name(KEPT_AS), part / "mended.sqlite"
    damage = _damage_of(file)
    is_begun = _is_begun(file, kept, is_damaged=bool(damage))
    if is_begun:
        damage = f"an earlier try to mend it was broken off; {damage}".removesuffix("; ")
    if not damage:
        return None
    log = _beside(kept if is_begun and _beside(kept, _LOG_OF).exists() else file, _LOG_OF)
    with _held(file) as handle:
        tables = make_mended(read_pages(handle, log), new, folder, now, who)
        shutil.copymode(file, new)
        _flush(new)
        note(damage)
        if not is_begun:
            _keep(file, kept, part / KEPT_AS)
        _replace(file, new, kept)
    return Mended(file=file, damage=damage, tables=tuple(tables))


def _is_begun(file: Path, kept: Path, *, is_damaged: bool) -> bool:
    """Whether a try that was killed had given the damaged file its second name.

    Raises:
        BadConfig: another damaged file has it.
    """
    if not os.path.lexists(kept) and not os.path.lexists(_beside(kept, _LOG_OF)):
        return False
    if kept.is_file() and (kept.samefile(file) or filecmp.cmp(kept, file, shallow=False)):
        return True
    if is_damaged:
        words = "is there already, of an earlier damage, and nothing is overwritten: move it away"
        raise BadConfig("mend.kept", f"{kept}: {words}.")
    return False


def _damage_of(file: Path) -> str:
    """What is wrong with it, with what its write-ahead log has; empty where nothing is."""
    log = _beside(file, _LOG_OF)
    is_alone = not log.is_file() or not log.stat().st_size
    address = immutable_address(file) if is_alone else f"{file.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as plain:
            found = [str(row[0]) for row in plain.execute("pragma integrity_check(1)")]
            tables = plain.execute("select count(*) from sqlite_master where name = 'arrival'").fetchone()
    except sqlite3.DatabaseError as error:
        return said_by_database(error)
    return (
        "" if found == ["ok"] and tables == (1,) else one_line("".join(found).removeprefix("ok") or "it has no tables")
    )


@contextmanager
def _nothing_runs(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / NODE_LOCK, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadConfig("mend.in-use", f"{folder}: the node runs: stop it, then give the command again.") from error
    except OSError as error:
        raise unwritable(error, folder) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _held(file: Path) -> Iterator[int]:
    """The open file, which no other process has open as SQLite's, nor can use meanwhile: a worker, another command.

    Whoever closes another handle of this file in this process lets go of the lock.
    """
    handle = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKED, _FIRST_LOCKED)
    except OSError as error:
        os.close(handle)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        words = "a worker or a command uses it: end what runs on the node, then give the command again"
        raise BadConfig("mend.in-use", f"{file}: {words}.") from error
    try:
        yield handle
    finally:
        os.close(handle)


def _replace(file: Path, new: Path, kept: Path) -> None:
    """Let the mended file take the place of the damaged one, whose log goes with it to its second name."""
    if _beside(file, _LOG_OF).exists():  # else SQLite would write it into the mended file
        _beside(file, _LOG_OF).rename(_beside(kept, _LOG_OF))
    _beside(file, _SHARED_OF).unlink(missing_ok=True)
    _flush(file.parent)
    new.replace(file)
    _flush(file.parent)


def _keep(file: Path, kept: Path, part: Path) -> None:
    """Give a file a second name; where the file system has no links, a copy gets it."""
    try:
        os.link(file, kept)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copy2(file, part)
        _flush(part)
        part.rename(kept)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems flush no folder
            raise
    finally:
        os.close(handle)


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(f"{file.name}{ending}")


def _note_damage(folder: Path, said: Backup, damage: str) -> None:
    """Let a backup say that its database is not what was saved, as one that was damaged when it was saved does."""
    if said.database_damage:
        return
    made = msgspec.structs.replace(said, database_damage=f"it was damaged after it was saved: {damage}")
    if said.sha256:
        made = msgspec.structs.replace(made, sha256=own_digest(msgspec.json.encode(made)))
    write_whole(folder / BACKUP_FILE, msgspec.json.format(msgspec.json.encode(made)) + b"\n")
