"""A node's database of some hundred pages, and which of its rows lie whole on which pages, as SQLite itself says."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

from carina.config import NodeSettings, Settings
from carina.jobs.places import open_node
from saved_nodes import PAGE

AT = "2026-06-01 12:00:00.000000"
TABLES = {"arrival": 90, "instance": 500, "job": 150, "delivery": 120, "audit": 300, "account": 40, "session": 60}
"""How many rows they have; others have few or none."""

Row = tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Rows by table and number, and the pages that each of them lies on; ``inner`` lead to others."""

    rows: dict[str, dict[int, Row]]
    pages: dict[tuple[str, int], set[int]]
    inner: dict[str, set[int]]
    count: int

    def whole(self, damaged: set[int]) -> dict[str, dict[int, Row]]:
        """The rows of which no byte is on a damaged page."""
        return {
            name: {number: row for number, row in rows.items() if not self.pages[name, number] & damaged}
            for name, rows in self.rows.items()
        }


def make_database(folder: Path) -> Path:
    """A node in this folder, whose jobs' errors continue on pages of their own, as some rows of a node do."""
    open_node(Settings(node=NodeSettings(folder=str(folder)))).dispose()
    with closing(sqlite3.connect(folder / "node.sqlite")) as connection:
        for name, count in TABLES.items():
            for number in range(1, count + 1):
                row = _row(name, number)
                marks = ", ".join("?" for _ in row)
                connection.execute(f"insert into {name} ({', '.join(row)}) values ({marks})", tuple(row.values()))
        for number in range(1, 2000):  # pages that are free again, with rows that were removed
            connection.execute("insert into removal values (?, 'run', ?, 'old', ?, null)", (number, number, AT))
        connection.execute("delete from removal where id > 40")
        connection.commit()
        connection.execute("pragma journal_mode = delete")
    return folder / "node.sqlite"


def _row(table: str, number: int) -> dict[str, object]:
    uid = f"1.2.840.99999.{Random(number).getrandbits(100)}"
    if table == "arrival":
        uids = {"id": number, "series_uid": uid, "study_uid": uid, "project": "default"}
        said = {"source": "scanner", "sender": "CT", "state": "queued", "reason": "", "whose_sha256": "a" * 64}
        return {**uids, **said, "first_at": AT, "last_at": AT, "studied": "", **_ZEROS["arrival"]}
    if table == "instance":
        uids = {"id": number, "arrival_id": number % 90 + 1, "sop_instance_uid": uid, "sop_class_uid": "1.2"}
        path = f"incoming/{number % 90 + 1}/{number}.dcm"
        said = {"source": "scanner", "transfer_syntax_uid": "1.2.840.10008.1.2.1", "sha256": f"{number:064x}"}
        return {**uids, **said, "bytes": number * 1000, "path": path, "accepted_at": AT, "flushed": 1, "is_prior": 0}
    if table == "job":
        error = "what went wrong " * (900 if number % 20 == 0 else 5)
        of_job = {"id": number, "arrival_id": number % 90 + 1, "source": f"incoming/{number}", "pipeline": "default"}
        state = {"folder": f"runs/{number}", "state": "stopped", "ended": "faulted", "priority": 1, "error": error}
        sized = {"memory_mb": 1.5, "cores": 2.0, "created_at": AT, "series_uid": uid, "study_uid": uid}
        return {**of_job, **state, **sized, "project": "default", "received_by": "scanner", **_ZEROS["job"]}
    if table == "delivery":
        uids = {"id": number, "job_id": number, "destination": "pacs", "sop_class_uid": "1", "sop_instance_uid": uid}
        said = {"path": "x", "sha256": "", "state": "sent", "created_at": AT}
        return {**uids, **said, **_ZEROS["delivery"]}
    if table == "audit":
        return {"id": number, "at": AT, "who": "CT at 10.0.0.1", "action": "received", "subject": uid}
    if table == "account":
        made = {"id": number, "name": f"reader{number}", "role": "reader", "password_hash": "$" * 90, "created_at": AT}
        return {**made, "link_sha256": "", "subject": "", "is_closed": 0}
    return {"id": number, "account_id": number % 40 + 1, "sha256": f"{number:064x}", "created_at": AT, "used_at": AT}


_ZEROS: dict[str, dict[str, object]] = {
    "arrival": {"is_prior": 0, "is_apart": 0, "modality": "CT", "study_description": "Thorax"},
    "job": {
        **dict.fromkeys(("attempt", "crashes", "retries", "cancel", "is_prior", "warnings"), 0),
        **dict.fromkeys(("worker", "error_code", "reading", "study_date", "study_description"), ""),
        **dict.fromkeys(("series_description", "modality", "searched", "first_warning"), ""),
        **dict.fromkeys(("destinations", "decisions"), "[]"),
    },
    "delivery": {
        **dict.fromkeys(("attempts", "ask", "contradicted"), 0),
        **dict.fromkeys(("error_code", "error", "note", "transaction_uid", "confirmed_by"), ""),
    },
}


def placed(database: Path) -> Placed:
    """What SQLite says of where its rows lie."""
    rows, inner = dict[str, dict[int, Row]](), dict[str, set[int]]()
    pages = dict[tuple[str, int], set[int]]()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        for name in names:
            found = connection.execute(f"select rowid, * from {name} order by rowid").fetchall()
            rows[name] = {row[0]: row[1:] for row in found}
            places = connection.execute("select path, pageno, pagetype, ncell from dbstat where name = ?", (name,))
            said = places.fetchall()
            inner[name] = {page for _, page, kind, _ in said if kind == "internal"}
            for number, on in zip(rows[name], _pages_of_rows(said), strict=True):
                pages[name, number] = on
        inner["sqlite_master"] = {
            page for (page,) in connection.execute("select pageno from dbstat where name = 'sqlite_schema'")
        }
        [(count,)] = connection.execute("pragma page_count").fetchall()
    return Placed(rows=rows, pages=pages, inner=inner, count=count)


def _pages_of_rows(said: list[tuple[str, int, str, int]]) -> Iterator[set[int]]:
    """The pages of each row, in the order of their numbers; a path leads from the root to the leaf and the cell."""
    continued = defaultdict[str, set[int]](set)
    for path, page, kind, _ in said:
        if kind == "overflow":
            continued[path.partition("+")[0]].add(page)
    for path, page, kind, count in sorted(said):
        if kind == "leaf":
            yield from ({page, *continued[f"{path}{cell:03x}"]} for cell in range(count))


def with_pages(content: bytes, put: dict[int, bytes]) -> bytes:
    """A file with other content in some pages, which are counted from 1."""
    changed = bytearray(content)
    for number, page in put.items():
        changed[(number - 1) * PAGE : number * PAGE] = page
    return bytes(changed)


def page_of(content: bytes, number: int) -> bytes:
    """One page of a file."""
    return content[(number - 1) * PAGE : number * PAGE]
