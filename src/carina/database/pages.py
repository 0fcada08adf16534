"""The pages of an SQLite file as they lie there, for a file that SQLite itself no longer reads to its end.

By SQLite's "Database File Format": b-tree pages, records, overflow chains, the list of free pages, and the frames of a
write-ahead log that were committed, which stand above the file's own pages.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SQLITE_MAGIC = b"SQLite format 3\0"
TABLE_LEAF, TABLE_INTERIOR, INDEX_LEAF, INDEX_INTERIOR = 0x0D, 0x05, 0x0A, 0x02

_DEFAULT_PAGE = 4096
_WAL_HEADER, _FRAME_HEADER = 32, 24
_WAL_MAGIC = 0x377F0682
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)
_REAL, _ZERO, _ONE, _BYTES, _TEXT = 7, 8, 9, 12, 13

StoredValue = int | float | str | bytes | None


class Unreadable(ValueError):
    """What lies there is no part of a sound page."""


@dataclass(frozen=True, kw_only=True)
class PageCell:
    """A cell of a b-tree page: the page below it (0: none), its rowid (0: it has none) and its record."""

    child: int = 0
    rowid: int = 0
    values: tuple[StoredValue, ...] = ()


@dataclass(kw_only=True)
class Pages:
    """The pages of an open file, counted from 1; ``newer`` are those that its write-ahead log has."""

    handle: int
    newer: dict[int, bytes]
    size: int
    usable: int
    count: int

    def page(self, number: int) -> bytes:
        """A page.

        Raises:
            Unreadable: the file ends before it, or the disk does not give it.
        """
        if (found := self.newer.get(number)) is not None:
            return found
        try:
            found = os.pread(self.handle, self.size, (number - 1) * self.size) if 0 < number <= self.count else b""
        except OSError:  # of a disk that fails
            found = b""
        if len(found) < self.size:
            raise Unreadable(f"no page {number}")
        return found

    def kind(self, number: int) -> int:
        """The first byte of a b-tree page, which says which one it is; 0 where there is no such page."""
        try:
            return self.page(number)[100 if number == 1 else 0]
        except Unreadable:
            return 0

    def cells(self, number: int) -> Iterator[PageCell | None]:
        """The cells of a b-tree page, in its order, and the page on its right; None for one that can't be read.

        Raises:
            Unreadable: it is no such page.
        """
        page, start = self.page(number), 100 if number == 1 else 0
        kind = page[start]
        if kind not in (TABLE_LEAF, TABLE_INTERIOR, INDEX_LEAF, INDEX_INTERIOR):
            raise Unreadable(f"page {number} is no page of a b-tree")
        has_children = kind in (TABLE_INTERIOR, INDEX_INTERIOR)
        count, first = int.from_bytes(page[start + 3 : start + 5]), start + (12 if has_children else 8)
        if first + 2 * count > self.usable:
            raise Unreadable(f"page {number} has no room for {count} cells")
        for place in struct.unpack_from(f">{count}H", page, first):
            try:
                yield self._cell(page, place, kind) if place >= first + 2 * count else None
            except (Unreadable, IndexError, struct.error, UnicodeDecodeError):
                yield None
        if has_children:
            yield PageCell(child=int.from_bytes(page[start + 8 : start + 12]))

    def _cell(self, page: bytes, at: int, kind: int) -> PageCell:
        child = rowid = 0
        if kind in (TABLE_INTERIOR, INDEX_INTERIOR):
            child, at = int.from_bytes(page[at : at + 4]), at + 4
        if kind == TABLE_INTERIOR:
            return PageCell(child=child, rowid=_signed(_varint(page, at)[0]))
        size, at = _varint(page, at)
        if kind == TABLE_LEAF:
            rowid, at = _varint(page, at)
        payload = self._payload(page, at, size, is_table=kind == TABLE_LEAF)
        return PageCell(child=child, rowid=_signed(rowid), values=record_values(payload))

    def _payload(self, page: bytes, at: int, size: int, *, is_table: bool) -> bytes:
        most = self.usable - 35 if is_table else (self.usable - 12) * 64 // 255 - 23
        least = (self.usable - 12) * 32 // 255 - 23
        here, fitting = size, least + (size - least) % (self.usable - 4)
        if size > most:
            here = fitting if fitting <= most else least
        if at + here > self.usable or size > self.count * self.size:
            raise Unreadable("a record that leaves its page")
        if here == size:
            return page[at : at + size]
        return page[at : at + here] + self._chained(int.from_bytes(page[at + here : at + here + 4]), size - here)

    def _chained(self, number: int, size: int) -> bytes:
        found, chain = bytearray(), list[int]()
        while len(found) < size:
            if number in chain:
                raise Unreadable("a record that continues in itself")
            page = self.page(number)
            chain.append(number)
            found += page[4 : self.usable]
            number = int.from_bytes(page[:4])
        if number:
            raise Unreadable("a record that is longer than it says")
        return bytes(found[:size])

    def free_pages(self) -> set[int] | None:
        """The pages that are not used, in which what was removed may still lie; None where that isn't known."""
        try:
            head = self.page(1)
        except Unreadable:
            return None
        trunk, count = struct.unpack_from(">2I", head, 32)
        found = set[int]()
        while trunk:
            if trunk in found or self.kind(trunk) in (TABLE_LEAF, TABLE_INTERIOR, INDEX_LEAF, INDEX_INTERIOR):
                return None
            try:
                page = self.page(trunk)
                following, leaves = struct.unpack_from(">2I", page)
                found |= {trunk, *struct.unpack_from(f">{leaves}I", page, 8)}
            except (Unreadable, struct.error):
                return None
            trunk = following
        return found if len(found) == count and head.startswith(SQLITE_MAGIC) else None


def read_pages(handle: int, log: Path | None = None) -> Pages:
    """The pages of a database, an open file, under those that its write-ahead log has.

    Raises:
        OSError: the log can't be read.
    """
    logged = log.read_bytes() if log is not None and log.is_file() else b""
    try:
        head = os.pread(handle, 100, 0)
    except OSError:
        head = b""
    size = _page_size(head, logged)
    newer, count = _committed(logged, size)
    head = newer.get(1, head)
    reserved = head[20] if head.startswith(SQLITE_MAGIC) and len(head) > 20 else 0
    own = os.fstat(handle).st_size // size
    return Pages(handle=handle, newer=newer, size=size, usable=size - reserved, count=max(own, count, *newer, 0))


def record_values(record: bytes) -> tuple[StoredValue, ...]:
    """What a record holds.

    Raises:
        Unreadable: it is none; or IndexError, struct.error or UnicodeDecodeError, of what ends too early or is no text.
    """
    end, at = _varint(record, 0)
    place, values = end, list[StoredValue]()
    while at < end:
        kind, at = _varint(record, at)
        value, place = _value(record, kind, place)
        values.append(value)
    if at != end or place != len(record):
        raise Unreadable("a record of another length than it says")
    return tuple(values)


def _value(record: bytes, kind: int, at: int) -> tuple[StoredValue, int]:
    if kind in (_ZERO, _ONE):
        return kind - _ZERO, at
    if kind == _REAL:
        return float(struct.unpack_from(">d", record, at)[0]), at + 8
    if kind < len(_INTEGER_BYTES):
        end = at + _INTEGER_BYTES[kind]
        return int.from_bytes(record[at:end], signed=True) if kind else None, end
    if kind < _BYTES:
        raise Unreadable(f"no value is of kind {kind}")
    end = at + (kind - (_TEXT if kind % 2 else _BYTES)) // 2
    return (record[at:end].decode() if kind % 2 else record[at:end]), end


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = content[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for more in range(1, 8):
        byte = content[at + more]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + more + 1
    return value << 8 | content[at + 8], at + 9


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _page_size(content: bytes, logged: bytes) -> int:
    said = int.from_bytes(content[16:18]) if content.startswith(SQLITE_MAGIC) else int.from_bytes(logged[8:12])
    size = 65536 if said == 1 else said
    return size if 512 <= size <= 65536 and not size & (size - 1) else _DEFAULT_PAGE


def _committed(logged: bytes, size: int) -> tuple[dict[int, bytes], int]:
    """The pages of a write-ahead log up to its last commit that is whole, and how many the database then had."""
    if len(logged) < _WAL_HEADER:
        return {}, 0
    magic, _, said, _, *salt = struct.unpack_from(">6I", logged)
    order = ">" if magic & 1 else "<"
    total = _checksum(logged[:24], order, (0, 0))
    if magic & ~1 != _WAL_MAGIC or said != size or total != struct.unpack_from(">2I", logged, 24):
        return {}, 0
    done, open_ones, count = dict[int, bytes](), dict[int, bytes](), 0
    for at in range(_WAL_HEADER, len(logged) - _FRAME_HEADER - size + 1, _FRAME_HEADER + size):
        number, pages, *others = struct.unpack_from(">6I", logged, at)
        page = logged[at + _FRAME_HEADER : at + _FRAME_HEADER + size]
        total = _checksum(page, order, _checksum(logged[at : at + 8], order, total))
        if others[:2] != salt or total != tuple(others[2:]):
            break
        open_ones[number] = page
        if pages:
            done.update(open_ones)
            open_ones, count = {}, pages
    return done, count


def _checksum(content: bytes, order: str, total: tuple[int, int]) -> tuple[int, int]:
    first, second = total
    words = iter(struct.unpack(f"{order}{len(content) // 4}I", content))
    for one, other in zip(words, words, strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second
