"""A node's database as the check of its settings sees it: whether it can be opened, and what waits in it for nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from carina.config import Settings
from carina.database import check_version, open_database, read_only
from carina.database.address import BAD_ADDRESS, file_of
from carina.errors import DATABASE_DAMAGED, BadConfig, damaged_database, one_line, told
from carina.jobs.belonging import is_marked
from carina.jobs.places import DATABASE, check_beside, connected, database_address
from carina.jobs.signs import check_host, has_one_host
from carina.jobs.waiting_for import unknown_destinations
from carina.keeping.backup import database_outside
from carina.keeping.gone import latest_gone
from carina.toml import Key, Mistake

_OF_FOLDER = ("node.other-host", "node.other-folder")
"""Codes of what is said of the folder, wherever the database lies."""


def database_mistakes(settings: Settings) -> Iterator[Mistake]:
    """What stands against a start with this database, and what waits in it for destinations that aren't there.

    A node starts all the same where something waits: it is sent once its destination is back, or has a new name.
    """
    key: Key = ("node", "database" if settings.node.database else "folder")
    try:
        if _is_ours(settings):
            yield from _looked_into(settings, key)
        elif settings.node.database:  # nothing of ours is beside a server's
            check_host(settings)
            open_database(settings.node.database).dispose()
        else:
            check_host(settings)
    except BadConfig as error:
        if error.code == BAD_ADDRESS:  # which is told of the settings by themselves
            return
        words = error.message.removeprefix(f"{'.'.join(key)}: ")
        yield Mistake(key=("node", "folder") if error.code in _OF_FOLDER else key, words=words)


def database_remarks(settings: Settings) -> Iterator[str]:
    """That it was not looked into, since it is another user's; what it names and is not there; that no backup saves it.

    It has no mistakes: ``database_mistakes`` found none.
    """
    yield from _unseen(settings)
    if _is_ours(settings):
        yield from _gone(settings)
    if (file := database_outside(settings)) is not None:
        place = Path(settings.node.folder) / DATABASE
        words = f"carina backup can't save {file}, only SQLite in the node's folder ({place}) and PostgreSQL"
        yield f"node.database: {words}: leave it empty, or save node and file together while nothing runs"


def _gone(settings: Settings) -> Iterator[str]:
    engine, folder = connected(settings), Path(settings.node.folder)
    try:
        with read_only(engine) as connection:
            is_looked_for = check_version(connection) and folder.is_dir()
            gone = latest_gone(connection, folder) if is_looked_for else None
    finally:
        engine.dispose()
    if gone is not None:
        yield f"node.folder: {gone.words}"


def _unseen(settings: Settings) -> Iterator[str]:
    """To look into another user's database would leave files beside it."""
    try:
        if _is_there(settings):
            check_beside(settings)
    except BadConfig as error:
        if error.code == "node.other-user":
            yield f"node.folder: what waits in the database was not looked at: {error.message}"


def _is_ours(settings: Settings) -> bool:
    return _is_there(settings) and not any(_unseen(settings))


def _is_there(settings: Settings) -> bool:
    """Whether there is a database to look into; SQLite does not without writing, and a folder that bars it is told."""
    if not has_one_host(settings):
        return True
    file = file_of(database_address(settings))
    return file is not None and file.is_file() and (bool(settings.node.database) or os.access(file.parent, os.W_OK))


def _looked_into(settings: Settings, key: Key) -> Iterator[Mistake]:
    engine = connected(settings)
    try:
        yield from _found_in(engine, settings, key)
    except SQLAlchemyError as error:
        if (failure := told(error)).code == DATABASE_DAMAGED:
            yield Mistake(key=key, words=failure.message)
            return
        words = f"the node's database can't be read ({str(getattr(error, 'orig', None) or error).strip()})"
        yield Mistake(key=key, words=f"{words}; restore a backup, or have the server mended")
    finally:
        engine.dispose()


def _found_in(engine: Engine, settings: Settings, key: Key) -> Iterator[Mistake]:
    """Of a database of an earlier version nothing is said: it is brought to today's at the next start."""
    with read_only(engine) as connection:
        _check_whole(connection)
        is_todays = check_version(connection)
    is_marked(Path(settings.node.folder), engine)
    if is_todays:
        with read_only(engine) as connection:
            for name, words in unknown_destinations(connection, settings.destinations).items():
                yield Mistake(key=("destinations", name), words=words)


def _check_whole(connection: Connection) -> None:
    """See that SQLite's file is whole, as far as it can be seen without its indices.

    Raises:
        BadConfig: it is damaged.
    """
    if connection.dialect.name != "sqlite":
        return
    found = str(connection.exec_driver_sql("pragma quick_check(1)").scalar())
    if found != "ok":
        raise damaged_database(connection.engine.url.database or "", one_line(found))
