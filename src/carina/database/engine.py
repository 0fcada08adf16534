"""Opening the node's database: SQLite beside the node's files, or PostgreSQL by its address."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from carina.database.address import check_address, file_of, shown_address
from carina.database.greeting import takes_nobody_now
from carina.database.project_scope import narrow_statements
from carina.errors import DATABASE_DAMAGED, OF_DATABASE, BadConfig, one_line, told

_READS = "carina_reads"

_OF_THE_MACHINE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
"""Result codes of SQLite; on a full disk its files beside the database can't be made or grown, which are the last."""

_LEAST_BYTES = 128 * 1024
"""The files that SQLite makes beside a database in WAL mode, with something to spare."""

CONNECT_S = 10
"""How long a server may take to answer who connects, where its address does not say (``?connect_timeout=``)."""

_OF_ITS_SERVER = re.compile(r"[^\W\d_]:  \S")
"""A sentence of PostgreSQL's as its library gives it: the severity, in whatever language, a colon and two spaces."""

_NO_TLS = ("does not support SSL", "certificate")
"""What PostgreSQL's library says, in English, where TLS is not agreed on as the address wants it."""

_ENCODING = "UTF8"
"""What PostgreSQL calls UTF-8."""

_KEY = "node.database: "

_NO_PASSWORD = "no password supplied"
"""What PostgreSQL's library says where a server asks for one."""

_NO_ROOM = ("too many", "remaining connection slots")
"""What PostgreSQL says, in English, to who has logged in where others have all connections that are left."""

_TAKES_NO_WRITES = "25006"
"""PostgreSQL's code of a transaction that may only read: a standby after a fail-over, or a database that is set so."""

NOT_WRITABLE = "its server lets nothing be written now: it is a standby, or set to read only"
"""What a statement that writes fails with then, whichever it is."""

BUSY_MS = 30_000
"""How long a writer waits for another process's transaction in SQLite."""


class DatabaseAway(BadConfig):
    """A server that can't be reached, or takes nobody now: it may come up later, and its address may be right."""


def open_database(url: str, *, makes: bool = True) -> Engine:
    """An engine for ``sqlite:///FILE`` or ``postgresql+psycopg://...``, tried before it is given.

    SQLite's file is made where it ``makes`` it, and only at first: not anew where it is gone while it is used. SQLite
    keeps a write-ahead log and flushes every transaction to the disk (``synchronous=full``): what was committed is
    there after a power cut. Its transactions begin as writers, so that two processes wait and never deadlock.

    Raises:
        BadConfig: the address is none, or the database can't be opened; ``DatabaseAway``, its server is not there now.
    """
    check_address(url)
    try:
        engine = create_engine(url, **_how_to_connect(url))
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_as_writer)
            event.listen(engine, "handle_error", partial(_name_of_file, file_of(url)))
        else:
            event.listen(engine, "handle_error", _as_away, retval=True)
        narrow_statements(engine)
        if makes:
            with engine.connect():
                pass
        event.listen(engine, "do_connect", _open_existing)
        with engine.connect() as connection:
            _check_encoding(connection, url)
    except (SQLAlchemyError, ImportError) as error:
        if _comes_up(error):
            said = one_line(str(getattr(error, "orig", error))).strip()
            words = f"its server can't be reached, or takes nobody now ({said}): see that it runs."
            raise DatabaseAway("database.open", f"database {shown_address(url)}: {words}") from error
        _name_file(file_of(url), getattr(error, "orig", error))
        if (failure := told(error)).code == DATABASE_DAMAGED:
            raise failure from error
        raise BadConfig("database.open", _unopened(url, error)) from error
    return engine


def _how_to_connect(url: str) -> dict[str, Any]:
    """What an engine is told; a server may have been restarted since a connection was used last."""
    if url.startswith("sqlite"):
        return {}
    if not url.startswith("postgresql+psycopg:"):
        return {"pool_pre_ping": True}
    arguments: dict[str, Any] = {"client_encoding": _ENCODING}  # whatever PGCLIENTENCODING or a user's settings say
    if "connect_timeout" not in url and "PGCONNECT_TIMEOUT" not in os.environ:
        arguments["connect_timeout"] = CONNECT_S
    return {"pool_pre_ping": True, "connect_args": arguments}


def _check_encoding(connection: Connection, url: str) -> None:
    """See that a server's database can keep every text.

    Raises:
        BadConfig: it is in another encoding than UTF-8.
    """
    info = getattr(connection.connection.dbapi_connection, "info", None)
    found = info.parameter_status("server_encoding") if info is not None else _ENCODING
    if found == _ENCODING:
        return
    connection.engine.dispose()
    words = f"its encoding is {found}, expected {_ENCODING}, in which every text can be kept"
    how = f"create it anew: create database NAME encoding '{_ENCODING}' locale 'C' template template0"
    raise BadConfig("database.encoding", f"{_KEY}database {shown_address(url)}: {words}: {how}.")


def _comes_up(error: Exception) -> bool:
    """Whether a server may take the same address later: nobody answered, or it said that it takes nobody now."""
    if not isinstance(error, OperationalError) or isinstance(error.orig, sqlite3.Error):
        return False
    said, tried = str(error.orig), getattr(error.orig, "pgconn", None)
    if getattr(tried, "needs_password", False) or _lacks_tls(said):
        return False
    if not _OF_ITS_SERVER.search(said) or _has_no_room(said):
        return True
    host, port = (bytes(getattr(tried, name, b"") or b"").decode() for name in ("host", "port"))
    return takes_nobody_now(host, int(port or 5432))


def _has_no_room(said: str) -> bool:
    return any(words in said for words in _NO_ROOM)


def _lacks_tls(said: str) -> bool:
    return any(words in said for words in _NO_TLS)


def _unopened(url: str, error: Exception) -> str:
    """Why a database can't be opened, in words that fit its kind: of SQLite, the folder is what stands in the way."""
    said = one_line(str(getattr(error, "orig", None) or error))
    if (file := file_of(url)) and file.parent.is_dir() and (words := _bars_files(file.parent, said)):
        return words
    shown = f"database {shown_address(url)}: can't be opened ({said}); expected"
    if isinstance(error, ImportError):
        return f"{shown} the driver of PostgreSQL: pip install 'carina-ct[postgres]'."
    if _lacks_tls(said):
        words = "TLS is not agreed on as sslmode wants it"
        return f"database {shown_address(url)}: {words} ({said}): see sslmode and sslrootcert, or the server's ssl."
    if _NO_PASSWORD in said:
        return f"{shown} a password: a line in ~/.pgpass of the user whom carina runs as, with rights 0600."
    return (
        f"{shown} sqlite:///FILE in a folder that can be written, or postgresql+psycopg://USER@HOST/NAME of a server "
        "that answers."
    )


def _bars_files(folder: Path, said: str) -> str:
    """Why a folder takes no files of SQLite's; empty where it would."""
    if not os.access(folder, os.W_OK):
        why = "Read-only file system" if os.statvfs(folder).f_flag & os.ST_RDONLY else "Permission denied"
        words = "the node's database lies there, and even looking at it writes beside it"
        return f"{folder}: can't be written ({why}); {words}: let the node's user write there."
    if shutil.disk_usage(folder).free < _LEAST_BYTES:
        words = "and SQLite needs some beside the node's database, even to look at it"
        return f"{folder}: no space is left there ({said}), {words}: make room."
    return ""


def is_away(error: BaseException | None) -> bool:
    """Whether the database is away, restarting, full or busy, and an error no fault of what was asked of it."""
    cause = getattr(error, "orig", error)
    if isinstance(cause, sqlite3.Error):  # one class of SQLite's is for this and for mistakes in a statement
        code: int = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # Python's own sqlite3 errors have none
        return code & 0xFF in _OF_THE_MACHINE
    return isinstance(error, DBAPIError) and (error.connection_invalidated or isinstance(error, OperationalError))


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # sqlite3 then begins no transaction of its own
    cursor = connection.cursor()
    for pragma in ("journal_mode=wal", "synchronous=full", "foreign_keys=on", f"busy_timeout={BUSY_MS}"):
        cursor.execute(f"pragma {pragma}")
    cursor.close()


def _as_away(context: Any) -> OperationalError | None:
    """A server that takes no writes now is away to who writes: the next connection may be to the one that does."""
    if getattr(context.original_exception, "sqlstate", None) != _TAKES_NO_WRITES:
        return None
    context.is_disconnect = True
    error = context.dialect.loaded_dbapi.OperationalError(NOT_WRITABLE)
    return OperationalError(context.statement, None, error, connection_invalidated=True)


def _name_of_file(file: Path | None, context: Any) -> None:
    _name_file(file, context.original_exception)


def _name_file(file: Path | None, error: BaseException) -> None:
    """Let an error of SQLite's say which database it is of: what it says may be damage (``errors.told``)."""
    if isinstance(error, sqlite3.Error):
        setattr(error, OF_DATABASE, str(file or ""))


def _open_existing(dialect: Any, _: object, arguments: list[Any], options: dict[str, Any]) -> None:
    """Let SQLite open a file that is there, and make none in its place; ``arguments`` are those of every connection."""
    if dialect.name == "sqlite" and "uri" not in options and arguments != [":memory:"]:
        arguments[0], options["uri"] = f"file:{quote(arguments[0])}?mode=rw", True


def _begin_as_writer(connection: Any) -> None:
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("begin" if reads else "begin immediate")


@contextmanager
def read_only(engine: Engine) -> Iterator[Connection]:
    """A connection for looking at tables: in SQLite it waits for no writer, and no writer for it."""
    with read_connection(engine) as connection:
        yield connection


def read_connection(engine: Engine) -> Connection:
    """Such a connection, for whoever keeps it and closes it."""
    return engine.connect().execution_options(**{_READS: True})


def look_at_tables(connection: Connection) -> None:
    """See that SQLite can begin to read every table: damage there is met at once, not when somebody asks for it.

    Raises:
        DatabaseError: of SQLite's, one can't be read.
    """
    if connection.dialect.name != "sqlite":
        return
    names = connection.exec_driver_sql("select name from sqlite_master where type = 'table'").scalars().all()
    for name in names:
        connection.exec_driver_sql(f'select 1 from "{name}" not indexed limit 1').first()


def database_now(connection: Connection) -> datetime:
    """The time by the database's clock, UTC: several machines share it. SQLite's is that of the one machine."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC)
