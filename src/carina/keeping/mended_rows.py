"""A new database with the rows that a damaged one still has: of the same version, and with nothing that refers to none.

Rows of arrivals that are lost are made again from their jobs, which say the same of them, and projects from what is in
them. What refers to a row that is lost and can't be made again refers to none, or is left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import create_engine, insert

from carina.database import AUDIT, IDENTITY, identity_in
from carina.database.pages import Pages
from carina.database.salvage import MENDED_NOTE, Salvage, StoredColumn, StoredTable
from carina.database.upgrade import SCHEMA_VERSION, known_versions, make_schema
from carina.errors import BadConfig

_VERSION = "alembic_version"
_SECRET = ("account", "session", "token", "member")
"""Tables of which what was removed must not come back."""

LOST_JOBS = (
    "Its jobs were lost with a part of the database, which was mended; what they made may lie in runs/ and may have "
    "been sent. Release it to run it again."
)

_REMADE = {
    "id": "job.arrival_id",
    "series_uid": "max(job.series_uid)",
    "study_uid": "max(job.study_uid)",
    "source": "coalesce(nullif(max(job.received_by), ''), max(instance.source), '')",
    "sender": "''",
    "state": "'queued'",
    "reason": "''",
    "project": "max(job.project)",
    "first_at": "coalesce(min(instance.accepted_at), min(job.created_at))",
    "last_at": "coalesce(max(instance.accepted_at), min(job.created_at))",
    "is_prior": "max(job.is_prior)",
    "modality": "max(job.modality)",
    "study_description": "max(job.study_description)",
    "series_description": "max(job.series_description)",
}
"""An arrival as its jobs and instances have it."""


@dataclass(kw_only=True)
class MendedTable:
    """What became of a table: ``found`` rows of the damaged file, of which some were left out or not.

    ``missing`` are known to have been there, by indexes or by the rows that refer to them; ``unnumbered``: so many
    numbers between the first row and the last have none, be it that their rows were removed or are lost. ``remade``
    were made again from other tables, ``left_out`` refer to what is lost.
    """

    name: str
    found: int = 0
    is_whole: bool = True
    missing: int = 0
    unnumbered: int = 0
    remade: int = 0
    left_out: int = 0


def make_mended(pages: Pages, to: Path, folder: Path, now: datetime, who: str) -> list[MendedTable]:
    """Make the database ``to`` from the pages of another; its audit trail says so. ``folder`` is the node's, or saved.

    Raises:
        BadConfig: nothing of a node can be read, or it is of a later version; or what was made is not whole.
    """
    version = _version_in(pages)
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(to, check_same_thread=False))
    try:
        make_schema(engine, version)
        with closing(sqlite3.connect(to)) as connection:
            connection.execute("pragma synchronous = off")  # it is flushed as a whole once it is made
            done = _fill(pages, connection)
            _settle(connection, {one.name: one for one in done}, folder)
            connection.commit()
            _check(connection)
        with engine.begin() as noting:
            noting.execute(insert(AUDIT).values(at=now, who=who, action="changed", subject=MENDED_NOTE))
    finally:
        engine.dispose()
    return done


def _version_in(pages: Pages) -> str:
    table = StoredTable(name=_VERSION, columns=(StoredColumn(name="version_num", kind="TEXT", is_required=True),))
    known = known_versions()
    found = {str(row[0]) for _, row in Salvage(pages, [table]).rows(table)}
    later = sorted(one for one in found if one.isdecimal() and one > SCHEMA_VERSION)
    if later and not found & known:
        words = f"has version {later[-1]}, this program knows up to {SCHEMA_VERSION}"
        raise BadConfig("database.later", f"the node's database {words}: use the Carina that made it, or a later one.")
    return max(found & known, default=SCHEMA_VERSION)


def _fill(pages: Pages, connection: sqlite3.Connection) -> list[MendedTable]:
    tables = stored_tables(connection)
    salvage = Salvage(pages, tables)
    done = [_fill_table(salvage, table, connection) for table in tables]
    if not sum(one.found for one in done):
        raise BadConfig("mend.nothing", "no row of a node's can be read in it, and nothing was changed")
    return done


def _fill_table(salvage: Salvage, table: StoredTable, connection: sqlite3.Connection) -> MendedTable:
    done, numbers = MendedTable(name=table.name), set[int]()
    connection.execute(f"delete from {table.name}")  # what migrations put there
    names, marks = ", ".join(one.name for one in table.columns), ", ".join("?" for _ in table.columns)
    adds = f"insert into {table.name} ({names}) values ({marks})"
    for number, row in salvage.rows(table):
        if number in numbers:
            continue
        try:
            connection.execute(adds, row)
        except (sqlite3.IntegrityError, OverflowError):  # an older version of a row, or none
            continue
        numbers.add(number)
    done.found, done.is_whole = len(numbers), salvage.reached[table.name].is_whole
    if not done.is_whole:
        done.missing = len(salvage.numbers_in_indexes(table) - numbers)
        if numbers and any(one.is_rowid for one in table.columns):
            done.unnumbered = max(numbers) - min(numbers) + 1 - len(numbers)
    return done


def stored_tables(connection: sqlite3.Connection) -> list[StoredTable]:
    """The tables of a database of any version, as SQLite keeps their rows."""
    rows = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
    return [_stored(connection, name) for (name,) in rows if name != _VERSION and not name.startswith("sqlite_")]


def _stored(connection: sqlite3.Connection, name: str) -> StoredTable:
    rows = connection.execute(f"pragma table_info({name})").fetchall()
    columns = tuple(
        StoredColumn(name=one, kind=kind, is_required=bool(required), is_rowid=bool(key) and kind == "INTEGER")
        for _, one, kind, required, _, key in rows
    )
    defaults = tuple(_default(connection, kind, default) for _, _, kind, _, default, _ in rows)
    is_rooted = len(columns) == 1  # one text says nothing of whose it is
    return StoredTable(name=name, columns=columns, defaults=defaults, is_secret=name in _SECRET, is_rooted=is_rooted)


def _default(connection: sqlite3.Connection, kind: str, default: str | None) -> int | float | str | None:
    if default is None:
        return None
    said = connection.execute(f"select cast({default} as {kind})").fetchone()[0]
    value: int | float | str = said
    return value


def _settle(connection: sqlite3.Connection, done: dict[str, MendedTable], folder: Path) -> None:
    """Make again what other rows say, and let no row refer to one that is lost."""
    _remake_arrivals(connection, done)
    _remake_projects(connection, done)
    identity = done.get(IDENTITY.name)
    if identity is not None and not identity.found and (ours := identity_in(folder)):
        connection.execute(f"insert into {IDENTITY.name} values (?)", (ours,))
        identity.remade = 1
    while orphans := connection.execute("pragma foreign_key_check").fetchall():
        for table, number, _, key in orphans:
            _let_go(connection, done[table], number, key)
    _settle_removals(connection, done)
    if not (done["job"].is_whole and done["delivery"].is_whole) and "ask" in _names_of(connection, "delivery"):
        connection.execute("update delivery set ask = 1 where state = 'waiting'")  # its row may be older than a sending
    if not done["job"].is_whole:
        lost = (
            "state = 'queued' and reason = '' and id not in (select arrival_id from job where arrival_id is not null)"
        )
        connection.execute(f"update arrival set state = 'quarantined', reason = ? where {lost}", (LOST_JOBS,))


def _remake_arrivals(connection: sqlite3.Connection, done: dict[str, MendedTable]) -> None:
    names = {table: _names_of(connection, table) for table in ("arrival", "job", "instance")}
    needed = [name for name in _REMADE if name in names["arrival"]]
    said = ", ".join(_said(_REMADE[name], names["job"]) for name in needed)
    made = connection.execute(
        f"insert into arrival ({', '.join(needed)}) select {said} from job "
        "left join instance on instance.arrival_id = job.arrival_id "
        "where job.arrival_id is not null and job.arrival_id not in (select id from arrival) group by job.arrival_id"
    )
    done["arrival"].remade = made.rowcount


def _settle_removals(connection: sqlite3.Connection, done: dict[str, MendedTable]) -> None:
    """What retention removed is removed; what is said of a number that is lost is of nobody who gets it again."""
    if "removal" not in done:
        return
    why = "(select 'removed: ' || why || '.' from removal where kind = 'incoming' and subject_id = arrival.id)"
    connection.execute(
        f"update arrival set state = 'removed', reason = {why} where state = 'queued' and {why} is not null "
        "and id not in (select arrival_id from instance)"
    )
    for kind, table in (("run", "job"), ("incoming", "arrival")):
        gone = f"delete from removal where kind = ? and subject_id not in (select id from {table})"
        done["removal"].left_out += connection.execute(gone, (kind,)).rowcount


def _said(expression: str, known: Sequence[str]) -> str:
    """It, or empty where a job of this version doesn't say it."""
    words = expression.partition("job.")[2]
    name = "".join(letter if letter.isalpha() or letter == "_" else " " for letter in words).split()[:1]
    return expression if not name or name[0] in known else "''"


def _remake_projects(connection: sqlite3.Connection, done: dict[str, MendedTable]) -> None:
    if "project" not in done:
        return
    for table, at in (("arrival", "first_at"), ("job", "created_at")):
        made = connection.execute(
            f"insert or ignore into project (name, created_at) select project, min({at}) from {table} group by project"
        )
        done["project"].remade += made.rowcount


def _names_of(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"pragma table_info({table})")]


def _let_go(connection: sqlite3.Connection, done: MendedTable, number: int, key: int) -> None:
    """Let a row refer to none in place of one that is lost, or leave it out where it has to refer to one."""
    table = done.name
    column = next(row[3] for row in connection.execute(f"pragma foreign_key_list({table})") if row[0] == key)
    required = {row[1]: row[3] for row in connection.execute(f"pragma table_info({table})")}[column]
    if required:
        done.left_out += connection.execute(f"delete from {table} where rowid = ?", (number,)).rowcount
    else:
        connection.execute(f"update {table} set {column} = null where rowid = ?", (number,))


def _check(connection: sqlite3.Connection) -> None:
    found = list(_wrong_in(connection))
    if found:
        words = f"what can be read of it makes no whole database ({found[0]}), and nothing was changed"
        raise BadConfig("mend.not-whole", words)


def _wrong_in(connection: sqlite3.Connection) -> Iterator[str]:
    yield from (str(row[0]) for row in connection.execute("pragma integrity_check(1)") if row[0] != "ok")
    yield from (f"{row[0]} refers to no {row[2]}" for row in connection.execute("pragma foreign_key_check"))
