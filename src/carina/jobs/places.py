"""Where the node keeps its database, its runs and its jobs' logs."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from carina.config import Settings
from carina.database import hold_to_identity, look_at_tables, open_database, read_only, upgrade_schema
from carina.database.address import check_address, file_address, file_of
from carina.errors import BadConfig, unwritable
from carina.jobs.attempt_log import log_name
from carina.jobs.belonging import give_identity, is_begun, is_marked
from carina.jobs.projects import ensure_projects
from carina.jobs.signs import check_host, has_one_host
from carina.web_settings import DEFAULT_PROJECT

DATABASE = "node.sqlite"
NODE_LOCK = "node.lock"


def database_address(settings: Settings) -> str:
    """The database of the settings: that of a server, or SQLite in the node's folder.

    Raises:
        BadConfig: the settings' address can't be one.
    """
    if settings.node.database:
        check_address(settings.node.database)
    return settings.node.database or file_address(Path(settings.node.folder) / DATABASE)


def connected(settings: Settings, *, makes: bool = False) -> Engine:
    """The opened database of a node, by whichever command or process: on SQLite, only while no other host works on it.

    Nobody opens a node's database in another way, so that none forgets to ask. SQLite's file has to be there unless it
    ``makes`` it: where its disk is not mounted, an empty one in its place would be taken for the node's.

    Raises:
        BadConfig: ``node.other-host``, another host works on it; or the database can't be opened.
    """
    check_host(settings)
    return open_database(database_address(settings), makes=makes)


def make_private(folder: Path) -> None:
    """Make a node's folder where it is missing, of its user alone; of one that is there and ours, others lose theirs.

    A folder of somebody else (a volume of a container), and one that all users share, stay as they are.

    Raises:
        OSError: it is missing and can't be made.
    """
    folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX and not folder.samefile(folder.parent):
        own_alone(folder)


def own_alone(path: Path) -> None:
    """Take the rights on a file or folder from everybody but its user, where its file system keeps rights."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~stat.S_IRWXU:
        with suppress(OSError):
            path.chmod(mode & stat.S_IRWXU)


def is_private(path: Path) -> bool:
    """Whether a file or folder is closed to everybody but its user."""
    return not stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)


def open_node(settings: Settings) -> Engine:
    """Make the node's folder where it is missing, and open its database, brought to today's schema.

    Raises:
        BadConfig: the folder can't be written, or the database can't be opened, is of a later version, or is not the
            folder's; or another host works on it, which has it alone.
    """
    folder = Path(settings.node.folder)
    check_folder(settings)
    try:
        make_private(folder)
    except OSError as error:
        raise unwritable(error, folder) from error
    engine = connected(settings, makes=True)
    return _brought_up(engine, settings, lambda: give_identity(folder, engine))


def _brought_up(engine: Engine, settings: Settings, belongs: Callable[[], object]) -> Engine:
    """A node's database at today's schema, of the folder for which ``belongs`` vouches; closed where that fails."""
    try:
        upgrade_schema(engine)
        belongs()
        ensure_projects(engine, projects_named(settings))
        hold_to_identity(engine)
        with read_only(engine) as connection:
            look_at_tables(connection)
    except OSError as error:
        engine.dispose()
        raise unwritable(error, Path(settings.node.folder)) from error
    except (BadConfig, SQLAlchemyError):
        engine.dispose()
        raise
    return engine


def check_folder(settings: Settings) -> None:
    """See that a node's folder is that of its database, where this lies elsewhere; nothing is made or written.

    Raises:
        BadConfig: as ``is_marked``; or the database can't be opened.
    """
    file = file_of(database_address(settings))
    if not settings.node.database or (has_one_host(settings) and not (file and file.is_file())):
        return
    engine = connected(settings)
    try:
        is_marked(Path(settings.node.folder), engine)
    finally:
        engine.dispose()


def open_node_beside(settings: Settings) -> Engine:
    """As ``open_node``, for a command beside the node that serves.

    Raises:
        BadConfig: the node is another user's, or works on another host; or as ``open_node``.
    """
    check_beside(settings)
    return open_node(settings)


def check_beside(settings: Settings) -> None:
    """See that we may work beside the node: on its host, where it has one alone, and as its user.

    Every command that opens a node's database asks first, those that look as well: what is looked at is written into
    the audit trail. Commands given by root, or by anybody else, would leave folders and records that the node may not
    read or remove. Who we are is seen by what we write: some file systems and containers give all files to one user.

    Raises:
        BadConfig: ``node.other-host``, it works on another host; ``node.other-user``, what we write will be another's.
    """
    check_host(settings)
    folder = Path(settings.node.folder)
    node = next((owner for name in (DATABASE, NODE_LOCK) if (owner := owner_of(folder / name)) is not None), None)
    if node is None or node == os.geteuid():
        return
    try:
        with TemporaryFile(dir=folder) as ours:
            writer = os.fstat(ours.fileno()).st_uid
    except OSError:
        writer = os.geteuid()
    if writer != node:
        words = f"the node is of user {_called(node)}, who may not use what user {_called(writer)} writes there"
        how = f"sudo -u {_called(node)} carina ..., in the folder of carina.toml or with --config"
        raise BadConfig("node.other-user", f"{folder.absolute()}: {words}. Give the command as {_called(node)}: {how}.")


def owner_of(path: Path) -> int | None:
    """The user whose file it is; None where there is none, or it can't be looked at."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _called(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"


def open_existing_node(settings: Settings) -> Engine:
    """As ``open_node_beside``, for whoever looks at a node: none is made, and no database is given the folder.

    Raises:
        BadConfig: no node is there yet; or as ``open_node_beside``.
    """
    folder = Path(settings.node.folder)
    how = "so there is nothing to see. Name the node's settings by --config, or start it: carina serve."
    file = file_of(database_address(settings)) or folder / DATABASE
    if has_one_host(settings) and not file.exists():
        raise BadConfig("node.none", f"{folder.absolute()}: no node is here yet (no {file.name}), {how}")
    check_beside(settings)
    check_folder(settings)
    engine = connected(settings)
    try:
        has_begun = is_begun(engine) or is_marked(folder, engine)
    except (BadConfig, SQLAlchemyError):
        engine.dispose()
        raise
    if not has_begun:
        engine.dispose()
        raise BadConfig("node.none", f"{folder.absolute()}: no node is here yet (its database is empty), {how}")
    return _brought_up(engine, settings, lambda: is_marked(folder, engine))


def projects_named(settings: Settings) -> frozenset[str]:
    """The projects that settings name: those are there without anybody making them."""
    given = settings.web.oidc.projects if settings.web.oidc else ()
    return frozenset({DEFAULT_PROJECT, *given, *(source.project for source in settings.sources.values())})


def log_of(settings: Settings, job_id: int, attempt: int) -> Path:
    """The log of one attempt of a job."""
    return _log_in(Path(settings.node.folder), job_id, attempt)


def latest_log(folder: Path, job_id: int, attempt: int) -> Path | None:
    """The log of a job's latest attempt that has one; None where none has. ``folder`` is the node's."""
    return next((log for number in range(attempt, 0, -1) if (log := _log_in(folder, job_id, number)).is_file()), None)


def _log_in(folder: Path, job_id: int, attempt: int) -> Path:
    return folder / log_name(job_id, attempt)
