"""Rows of a damaged SQLite file, taken from every page of their tables that is still whole.

A table's pages are found from its root; where one in between is damaged, those below it are known by their rows, which
fit one table alone: in number and kind of columns. What is in free pages was removed, and is left there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from carina.database.pages import (
    INDEX_INTERIOR,
    INDEX_LEAF,
    TABLE_INTERIOR,
    TABLE_LEAF,
    PageCell,
    Pages,
    StoredValue,
    Unreadable,
)

MENDED_NOTE = "the node's database: mended, with the rows that could be read"
"""What the audit trail says once a damaged database was mended: what lies in the folder may have lost its rows then."""

_KINDS: dict[str, tuple[type, ...]] = {
    "CHAR": (str,),
    "TEXT": (str,),
    "DATE": (str,),
    "INT": (int,),
    "FLOAT": (float, int),
}
_ANY: tuple[type, ...] = (int, float, str, bytes)


@dataclass(frozen=True, kw_only=True)
class StoredColumn:
    """A column as SQLite keeps it; ``is_rowid``: its value is the row's number, and the record has none."""

    name: str
    kind: str
    is_required: bool = False
    is_rowid: bool = False

    def takes(self, value: StoredValue) -> bool:
        """Whether a record can hold this value there."""
        if value is None or self.is_rowid:
            return value is None and (self.is_rowid or not self.is_required)
        known = next((kinds for word, kinds in _KINDS.items() if word in self.kind), _ANY)
        return isinstance(value, known) and not (isinstance(value, str) and "\0" in value)


@dataclass(frozen=True, kw_only=True)
class StoredTable:
    """A table's columns in the order of its records; ``defaults`` are of those that older records end before.

    Of one that ``is_rooted``, rows are taken below its root alone: what looks like them elsewhere may be another's.
    ``is_secret``: not where the free pages aren't known either, since what was removed must not come back.
    """

    name: str
    columns: tuple[StoredColumn, ...]
    defaults: tuple[StoredValue, ...] = ()
    is_secret: bool = False
    is_rooted: bool = False

    def row_of(self, cell: PageCell) -> tuple[StoredValue, ...] | None:
        """The row that a cell holds; None where it can't be one of this table's."""
        found = cell.values + self.defaults[len(cell.values) :]
        if len(found) != len(self.columns):
            return None
        if not all(column.takes(value) for column, value in zip(self.columns, found, strict=True)):
            return None
        return tuple(cell.rowid if one.is_rowid else value for one, value in zip(self.columns, found, strict=True))


@dataclass(kw_only=True)
class Reached:
    """What was found from a table's root; ``is_whole`` is False where any page or cell of it can't be read."""

    leaves: dict[int, tuple[float, float]] = field(default_factory=dict)
    visited: set[int] = field(default_factory=set)
    is_whole: bool = True


SCHEMA_TABLE = StoredTable(
    name="sqlite_master",
    columns=tuple(
        StoredColumn(name=name, kind="INTEGER" if name == "rootpage" else "TEXT")
        for name in ("type", "name", "tbl_name", "rootpage", "sql")
    ),
)
"""SQLite's own table of tables, whose root is the first page."""


class Salvage:
    """The rows that a file still holds of these tables."""

    def __init__(self, pages: Pages, tables: Sequence[StoredTable]) -> None:
        self.pages, self.tables = pages, tables
        self.free = pages.free_pages()
        self._schema = list(self._schema_rows({one.name for one in tables}))
        roots = {one.name: self._root("table", one.name) for one in tables}
        self.reached = {
            name: reach_leaves(pages, root) if root else Reached(is_whole=False) for name, root in roots.items()
        }
        self._strays: dict[str, list[int]] | None = None

    def rows(self, table: StoredTable) -> Iterator[tuple[int, tuple[StoredValue, ...]]]:
        """Rowids and rows of a table: those below its root first, then those of pages that nothing leads to.

        The latter may be there twice, and an older version of one be among them where the free pages aren't known.
        """
        yield from self._rows_below_root(table)
        if not table.is_rooted and not (table.is_secret and self.free is None):
            for number in self.strays().get(table.name, ()):
                self.reached[table.name].is_whole = False
                yield from _rows_on(self.pages, number, table)

    def _rows_below_root(self, table: StoredTable) -> Iterator[tuple[int, tuple[StoredValue, ...]]]:
        reached = self.reached[table.name]
        for number, (after, last) in reached.leaves.items():
            for cell in _each(self.pages, number):
                row = table.row_of(cell) if cell is not None and after < cell.rowid <= last else None
                if cell is None or row is None:
                    reached.is_whole = False
                else:
                    yield cell.rowid, row

    def numbers_in_indexes(self, table: StoredTable) -> set[int]:
        """The rowids that the table's indexes name, as far as these can be read."""
        found = set[int]()
        for kind, name, of, root, _ in self._schema:
            if kind == "index" and of == table.name and isinstance(root, int) and self._root("index", str(name)):
                found |= _rowids_of_index(self.pages, root)
        return found

    def columns_said(self, table: StoredTable) -> str:
        """The statement that made a table, as the file has it; empty where it hasn't."""
        found = [row[4] for row in self._schema if row[:2] == ("table", table.name)]
        return str(found[0]) if len(found) == 1 else ""

    def strays(self) -> dict[str, list[int]]:
        """The pages with rows that no root leads to, by the one table that they fit."""
        if self._strays is None:
            self._strays = {}
            known = set[int]().union(*(one.visited for one in self.reached.values()))
            known |= reach_leaves(self.pages, 1).visited | (self.free or set())
            for number in range(2, self.pages.count + 1):
                if number not in known and self.pages.kind(number) == TABLE_LEAF:
                    for name in self._fitting(number):
                        self._strays.setdefault(name, []).append(number)
        return self._strays

    def _fitting(self, number: int) -> list[str]:
        """The table whose rows a page holds: each that can be read; none where that are two or none.

        Rows that are as long as a table's are none of a table's that has more columns.
        """
        cells = list(filter(None, _each(self.pages, number)))
        longest = max((len(cell.values) for cell in cells), default=0)
        longer = {one.name: len(one.columns) - longest for one in self.tables if cells and _holds_all(one, cells)}
        nearest = [name for name, more in longer.items() if more == min(longer.values())]
        return nearest if len(nearest) == 1 else []

    def _schema_rows(self, names: set[str]) -> Iterator[tuple[StoredValue, ...]]:
        reached = reach_leaves(self.pages, 1)
        numbers = list(reached.leaves)
        if not reached.is_whole:
            used = set(range(2, self.pages.count + 1)) - reached.visited - (self.free or set())
            numbers += sorted(number for number in used if self.pages.kind(number) == TABLE_LEAF)
        for number in numbers:
            for _, row in _rows_on(self.pages, number, SCHEMA_TABLE):
                if row[2] in names and row[0] in {"table", "index"}:
                    yield row

    def _root(self, kind: str, name: str) -> int:
        """Where a table or an index begins; 0 where the file doesn't say so, or in several ways."""
        found = {row[3] for row in self._schema if row[:2] == (kind, name)}
        root = found.pop() if len(found) == 1 else 0
        return root if isinstance(root, int) and 1 < root <= self.pages.count else 0


def reach_leaves(pages: Pages, root: int) -> Reached:
    """The leaves of a table below its root, each with the rowid that it begins after and its last possible one."""
    found = Reached()
    todo = [(root, -math.inf, math.inf)]
    while todo:
        number, after, last = todo.pop()
        kind = pages.kind(number)
        if number in found.visited or kind not in (TABLE_LEAF, TABLE_INTERIOR):
            found.is_whole = False
            continue
        try:
            cells = list(pages.cells(number)) if kind == TABLE_INTERIOR else []
            below = _parts(cells, after, last)
        except Unreadable:
            found.is_whole = False
            continue
        found.visited.add(number)
        if kind == TABLE_LEAF:
            found.leaves[number] = after, last
        todo += reversed(below)
    return found


def _parts(cells: list[PageCell | None], after: float, last: float) -> list[tuple[int, float, float]]:
    """The pages below an interior one, with their ranges.

    Raises:
        Unreadable: its rowids are not in order, or not within its own range: it is damaged, or another's.
    """
    parts = list[tuple[int, float, float]]()
    for number, cell in enumerate(cells):
        if cell is None:
            raise Unreadable("a cell")
        end = last if number == len(cells) - 1 else cell.rowid
        if not after < end <= last and cells[1:]:
            raise Unreadable("rowids that are not in order")
        parts.append((cell.child, after, end))
        after = end
    return parts


def _reached(pages: Pages, root: int) -> Reached:
    return reach_leaves(pages, root) if root else Reached(is_whole=False)


def _holds_all(table: StoredTable, cells: Sequence[PageCell]) -> bool:
    return all(table.row_of(cell) is not None for cell in cells)


def _rows_on(pages: Pages, number: int, table: StoredTable) -> Iterator[tuple[int, tuple[StoredValue, ...]]]:
    for cell in _each(pages, number):
        if cell is not None and (row := table.row_of(cell)) is not None:
            yield cell.rowid, row


def _each(pages: Pages, number: int) -> Iterator[PageCell | None]:
    """The cells of a page, None for each that can't be read, and for a page that can't be."""
    try:
        yield from pages.cells(number)
    except Unreadable:
        yield None


def _rowids_of_index(pages: Pages, root: int) -> set[int]:
    found, todo, seen = set[int](), [root], set[int]()
    while todo:
        number = todo.pop()
        if number in seen or pages.kind(number) not in (INDEX_LEAF, INDEX_INTERIOR):
            continue
        seen.add(number)
        for cell in filter(None, _each(pages, number)):
            if cell.child:
                todo.append(cell.child)
            if cell.values and isinstance(cell.values[-1], int):
                found.add(cell.values[-1])
    return found
