"""Whatever page of a database is damaged, every row that is whole elsewhere is found, and none that was not there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from carina.database.pages import read_pages
from carina.database.salvage import Salvage, StoredTable
from carina.keeping.mended_rows import stored_tables
from mendable import Placed, Row, make_database, page_of, placed, with_pages
from saved_nodes import PAGE

SECRET = {"account", "session", "token", "member"}
SINGLE = {"alembic_version", "identity"}
"""Tables of one row and one column of text, which say nothing of whose they are without their root."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("mendable") / "node")


@pytest.fixture(scope="module")
def layout(database: Path) -> Placed:
    return placed(database)


@pytest.fixture(scope="module")
def tables(database: Path) -> list[StoredTable]:
    with closing(sqlite3.connect(database)) as connection:
        return stored_tables(connection)


@pytest.fixture
def found_in(tmp_path: Path, tables: list[StoredTable]) -> Iterator[Callable[[bytes], dict[str, dict[int, Row]]]]:
    def find(content: bytes) -> dict[str, dict[int, Row]]:
        (tmp_path / "damaged").write_bytes(content)
        handle = os.open(tmp_path / "damaged", os.O_RDONLY)
        try:
            salvage = Salvage(read_pages(handle), tables)
            return {table.name: first_of(salvage, table) for table in tables}
        finally:
            os.close(handle)

    yield find


def first_of(salvage: Salvage, table: StoredTable) -> dict[int, Row]:
    found = dict[int, Row]()
    for number, row in salvage.rows(table):
        found.setdefault(number, row)
    return found


def hold(layout: Placed, damaged: set[int], found: dict[str, dict[int, Row]], *, is_copied: bool = False) -> None:
    """Every row that is whole is found as it was, and no other.

    Where the first page is gone, nothing says which pages are free: of accounts and the like nothing is taken then, and
    what was removed from other tables may come back. A row that continues on a page that was copied from elsewhere may
    be found with what stands there: SQLite has no sums.
    """
    hidden = SECRET if 1 in damaged else set()
    hidden = hidden | (SINGLE if layout.inner["sqlite_master"] & damaged else set())
    for name, rows in found.items():
        whole = {} if name in hidden else layout.whole(damaged)[name]
        missing = [number for number, row in whole.items() if rows.get(number) != row]
        assert not missing, f"{name} {missing[:5]}: {sorted(damaged)}"
        if 1 not in damaged:
            assert not (others := others_in(layout, name, rows, damaged if is_copied else set())), f"{name} {others}"


def others_in(layout: Placed, name: str, rows: dict[int, Row], altered: set[int]) -> list[int]:
    """The rows that were not there, but for those that lie on altered pages."""
    others = [number for number, row in rows.items() if layout.rows[name].get(number) != row]
    return [number for number in others if not layout.pages.get((name, number), set()) & altered]


def test_all_rows_of_a_whole_database_are_found(
    database: Path, layout: Placed, found_in: Callable[[bytes], dict[str, dict[int, Row]]]
) -> None:
    found = found_in(database.read_bytes())
    assert {name: found[name] for name in found} == {name: layout.rows[name] for name in found}
    assert len(found["instance"]) == 500 and len(layout.inner["instance"]) >= 1
    assert any(len(pages) > 2 for pages in layout.pages.values()), "no row continues on other pages"


def zeros(content: bytes, number: int) -> bytes:
    return bytes(PAGE)


def noise(content: bytes, number: int) -> bytes:
    return Random(number).randbytes(PAGE)


def another(content: bytes, number: int) -> bytes:
    return page_of(content, Random(number).randrange(1, len(content) // PAGE + 1))


def half(content: bytes, number: int) -> bytes:
    return page_of(content, number)[: PAGE // 2] + bytes(PAGE // 2)


@pytest.mark.parametrize("damage", [zeros, noise, another, half])
def test_of_a_database_with_any_page_damaged_all_other_rows_are_found(
    database: Path,
    layout: Placed,
    found_in: Callable[[bytes], dict[str, dict[int, Row]]],
    damage: Callable[[bytes, int], bytes],
) -> None:
    content = database.read_bytes()
    for number in range(1, layout.count + 1):
        found = found_in(with_pages(content, {number: damage(content, number)}))
        hold(layout, {number}, found, is_copied=damage is another)


@pytest.mark.parametrize("damage", [zeros, noise])
def test_what_lies_between_two_damaged_pages_of_a_table_is_found(
    database: Path,
    layout: Placed,
    found_in: Callable[[bytes], dict[str, dict[int, Row]]],
    damage: Callable[[bytes, int], bytes],
) -> None:
    content = database.read_bytes()
    for name in ("instance", "arrival", "job", "audit"):
        leaves = sorted({page for (of, _), pages in layout.pages.items() if of == name for page in pages})
        for first, second in ((0, -1), (1, -2), (2, 5), (len(leaves) // 3, 2 * len(leaves) // 3)):
            both = {leaves[first], leaves[second], *(layout.inner[name] if first == 1 else ())}
            hold(layout, both, found_in(with_pages(content, {one: damage(content, one) for one in both})))


def test_of_a_database_that_is_cut_what_lies_before_is_found(
    database: Path, layout: Placed, found_in: Callable[[bytes], dict[str, dict[int, Row]]]
) -> None:
    content = database.read_bytes()
    for kept in range(0, layout.count, 7):
        gone = set(range(kept + 1, layout.count + 1))
        hold(layout, gone, found_in(content[: kept * PAGE + 100]))


def test_a_page_that_is_copied_over_any_other_of_its_table_hides_no_row_and_adds_none(
    database: Path, layout: Placed, found_in: Callable[[bytes], dict[str, dict[int, Row]]]
) -> None:
    content = database.read_bytes()
    for name in ("instance", "job"):
        leaves = {page for (of, _), pages in layout.pages.items() if of == name for page in pages}
        every = sorted(leaves | layout.inner[name])
        for place, number in enumerate(every):
            if (other := every[(place * 7 + 3) % len(every)]) != number:
                found = found_in(with_pages(content, {number: page_of(content, other)}))
                hold(layout, {number}, found, is_copied=True)


def test_rows_in_a_log_that_was_not_yet_written_into_the_file_are_found(
    tmp_path: Path, database: Path, tables: list[StoredTable]
) -> None:
    """Up to the last commit that is whole: a frame that was torn, and what was not committed, is none."""
    (tmp_path / "node").write_bytes(database.read_bytes())
    with closing(sqlite3.connect(tmp_path / "node")) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma wal_autocheckpoint = 0")
        for number in range(1000, 1050):
            connection.execute("insert into audit values (?, 'at', 'who', 'sent', 'x')", (number,))
            connection.commit()
        base, log = (tmp_path / "node").read_bytes(), (tmp_path / "node-wal").read_bytes()
    (tmp_path / "base").write_bytes(with_pages(base, {1: bytes(PAGE)}))
    for end, last in ((len(log), 1049), (len(log) - 9, 1048)):
        (tmp_path / "log").write_bytes(log[:end])
        handle = os.open(tmp_path / "base", os.O_RDONLY)
        try:
            table = next(one for one in tables if one.name == "audit")
            found = first_of(Salvage(read_pages(handle, tmp_path / "log"), tables), table)
        finally:
            os.close(handle)
        assert set(range(1000, last + 1)) <= set(found) and max(found) == last
