"""A node brought back from a backup: its files, its database in today's schema, and what was under way.

Jobs that ran wait again. After the backup was made, the node may have sent objects that its database doesn't know of:
so each destination is asked for every object before it is sent, from now on (``deliver.ledger.RESTORED``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, func, insert, literal, update

from carina.config import Settings
from carina.database import AUDIT, DELIVERY, JOB, open_database, upgrade_schema
from carina.database.address import file_address
from carina.deliver.ledger import RESTORED, DeliveryState
from carina.errors import BadConfig
from carina.jobs.belonging import mark
from carina.jobs.places import DATABASE
from carina.jobs.queue import JobState
from carina.keeping.backup import (
    BACKUP_FILE,
    COPIED,
    LISTED,
    Backup,
    CopiedFile,
    Copier,
    NamedFile,
    is_on_server,
    missing_files,
    named_in,
    new_folder,
)
from carina.keeping.dumps import DUMP, check_restorable, restore_database
from carina.pipeline.json_text import read_json
from carina.sections import INCOMING, RUNS, UPLOADS


def restore_node(settings: Settings, backup: Path, now: datetime, who: str = "restore") -> Backup:
    """Make the node of the settings from a backup; its folder is empty or not there. Its audit trail names ``who``.

    Raises:
        BadConfig: that is no whole backup, its instances were altered, or it is of a later version; or the node's
            folder, or the server's database, is not empty.
    """
    said = read_backup(backup)
    _check_kind(settings, backup)
    if is_on_server(settings):
        check_restorable(settings.node.database)  # before files are copied, which may take hours
    folder = Path(settings.node.folder)
    with new_folder(folder, "restore") as part:
        copier = Copier()
        for one in backup.iterdir():
            if one.name not in (BACKUP_FILE, DUMP, LISTED, COPIED):
                copier.tree(one, part / one.name)
        _check_copied(backup, part, said.lost)
        if is_on_server(settings):
            restore_database(backup / DUMP, settings.node.database)
        address = settings.node.database or file_address(part / DATABASE)
        _bring_up_to_date(address, part, said)
        _note(address, said, now, who)
        (part / RESTORED).write_bytes((backup / BACKUP_FILE).read_bytes())
    return said


def _check_copied(backup: Path, part: Path, lost: Collection[str]) -> None:
    """See that each instance is what the node took in, but those that it had ``lost`` before.

    Raises:
        BadConfig: one is not.
    """
    for one in _instances(backup, is_dump=_is_dump(backup)):
        if one.path not in lost and not one.is_whole(part):
            words = "is not what the node received (SHA-256 of its data set): take another backup"
            raise BadConfig("restore.damaged", f"{backup / one.path}: {words}.")


def _is_dump(backup: Path) -> bool:
    return (backup / DUMP).is_file() or (backup / LISTED).is_file()


def _check_kind(settings: Settings, backup: Path) -> None:
    is_dump = _is_dump(backup)
    if is_dump and not is_on_server(settings):
        words = "the backup is of a node on PostgreSQL: name an empty database of a server, postgresql+psycopg://..."
        raise BadConfig("restore.database", f"node.database: {words}")
    if not is_dump and settings.node.database:
        words = "the backup is of a node on SQLite, and is restored to SQLite in the node's folder: leave it empty."
        raise BadConfig("restore.database", f"node.database: {words}")


def read_backup(backup: Path) -> Backup:
    """What a backup says of itself, whose files are all there.

    Raises:
        BadConfig: it is none, was broken off, or lacks files.
    """
    try:
        said = read_json((backup / BACKUP_FILE).read_bytes(), Backup)
    except (OSError, ValueError) as error:
        words = f"is no backup, or one that was broken off (no {BACKUP_FILE} that can be read): choose another."
        raise BadConfig("restore.no-backup", f"{backup}: {words}") from error
    is_dump = _is_dump(backup)
    lost = set(said.lost)
    instances = [one.path for one in _instances(backup, is_dump=is_dump) if one.path not in lost]
    missing = missing_files(backup, [DUMP if is_dump else DATABASE, *instances])
    missing += [one.path for one in _copied(backup) if not one.is_there(backup)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        words = f"{missing[0]}{more} is missing, or not as long as it was: take another backup."
        raise BadConfig("restore.damaged", f"{backup}: {words}")
    return said


def _copied(backup: Path) -> Iterator[CopiedFile]:
    """The files of runs and uploads that a backup had; none of one of an earlier version, which has no list."""
    listed = backup / COPIED
    lines = listed.read_text().splitlines() if listed.is_file() else []
    return map(CopiedFile.of_line, lines)


def _instances(backup: Path, *, is_dump: bool) -> tuple[NamedFile, ...]:
    if is_dump:
        listed = backup / LISTED
        lines = listed.read_text().splitlines() if listed.is_file() else [LISTED]
        return tuple(map(NamedFile.of_line, lines))
    return named_in(backup / DATABASE).instances if (backup / DATABASE).is_file() else ()


def _bring_up_to_date(address: str, folder: Path, said: Backup) -> None:
    engine = open_database(address)
    try:
        upgrade_schema(engine)
        with engine.begin() as connection:
            _continue(connection, said.folder)
        mark(folder, engine)
    finally:
        engine.dispose()


def _note(address: str, said: Backup, now: datetime, who: str) -> None:
    engine = open_database(address)
    try:
        with engine.begin() as connection:
            subject = f"the node, from the backup of {said.at:%Y-%m-%dT%H:%M:%SZ}"
            connection.execute(insert(AUDIT).values(at=now, who=who, action="changed", subject=subject))
    finally:
        engine.dispose()


def _continue(connection: Connection, was: str) -> None:
    """Let what ran wait, ask for what may have been sent, and name inputs within the folder, as older nodes did not."""
    again = {"state": JobState.PENDING, "worker": "", "heartbeat_at": None}
    connection.execute(update(JOB).where(JOB.c.state == JobState.RUNNING).values(**again))
    waiting = DELIVERY.c.state == DeliveryState.WAITING
    connection.execute(update(DELIVERY).where(waiting).values(ask=1, doubt_until=None))
    for place in (INCOMING, RUNS, UPLOADS):
        before = f"{was}/{place}/"
        after = literal(f"{place}/").concat(func.substr(JOB.c.source, len(before) + 1))
        below = JOB.c.source.startswith(before, autoescape=True)
        connection.execute(update(JOB).where(below).values(source=after))
