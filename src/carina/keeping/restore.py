"""A node brought back from a backup: its files, its database in today's schema, and what was under way.

Jobs that ran wait again. After the backup was made, the node may have sent objects that its database doesn't know of:
so each destination is asked for every object before it is sent, from now on (``deliver.ledger.RESTORED``).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from msgspec.structs import replace
from sqlalchemy import Connection, func, insert, literal, update

from carina.config import Settings
from carina.database import AUDIT, DELIVERY, JOB, open_database, upgrade_schema
from carina.database.address import file_address
from carina.deliver.ledger import RESTORED, DeliveryState
from carina.errors import BadConfig
from carina.jobs.belonging import mark
from carina.jobs.places import DATABASE
from carina.jobs.queue import JobState
from carina.keeping.backup import Backup, is_on_server, new_folder
from carina.keeping.brought import bring
from carina.keeping.copied import Copier
from carina.keeping.dumps import DUMP, check_restorable, restore_database
from carina.keeping.saved import check_copies, look_into, read_backup
from carina.pipeline.json_text import as_pretty_json
from carina.sections import INCOMING, RUNS, UPLOADS


def restore_node(settings: Settings, backup: Path, now: datetime, who: str = "restore") -> Backup:
    """Make the node of the settings from a backup; its folder is empty or not there. Its audit trail names ``who``.

    What lies in the backup's folder and was not saved is left out, and named in what this gives.

    Raises:
        BadConfig: that is no whole backup, its instances were altered, or it is of a later version; or the node's
            folder, or the server's database, is not empty.
    """
    saved = read_backup(backup)
    _check_kind(settings, is_dump=saved.is_dump)
    if is_on_server(settings):
        check_restorable(settings.node.database)  # before files are copied, which may take hours
    named = look_into(saved)
    folder = Path(settings.node.folder)
    with new_folder(folder, "restore") as part:
        copier = Copier()
        left_out = bring(saved, part, copier)
        said = replace(check_copies(saved, named, part, copier.sums), left_out=left_out)
        if is_on_server(settings):
            restore_database(backup / DUMP, settings.node.database)
        address = settings.node.database or file_address(part / DATABASE)
        _bring_up_to_date(address, part, said)
        _note(address, said, now, who)
        (part / RESTORED).write_bytes(as_pretty_json(said))
    return said


def _check_kind(settings: Settings, *, is_dump: bool) -> None:
    if is_dump and not is_on_server(settings):
        words = "the backup is of a node on PostgreSQL: name an empty database of a server, postgresql+psycopg://..."
        raise BadConfig("restore.database", f"node.database: {words}")
    if not is_dump and settings.node.database:
        words = "the backup is of a node on SQLite, and is restored to SQLite in the node's folder: leave it empty."
        raise BadConfig("restore.database", f"node.database: {words}")


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
