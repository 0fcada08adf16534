"""The elements of an encoded data set (PS3.5 7), found one after the other without reading their values.

Nothing here believes a length before the bytes are seen to be there, nothing recurses, and the number of elements that
are looked at in one file has a bound: what a damaged or hostile file can cost is known beforehand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from carina.dicom.sources import Bytes
from carina.errors import BadSeries

LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""Their length has four bytes, after two that are reserved (PS3.5 7.1.2)."""

SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Their length has two bytes."""

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
DELIMITERS = 0xFFFE
"""The group of the three tags above: they have a length of four bytes and never a VR."""

UNDEFINED = 0xFFFFFFFF

MOST_ELEMENTS = 1_000_000
"""Elements and items of one file that are looked at; the largest multi-frame headers have a third of it."""

DEEPEST_SEQUENCES = 32
"""Sequences inside each other; structured reports in use have about ten. pydicom follows twice as many by recursion."""


class Encoding(NamedTuple):
    """How elements are written: with their VR or without, and the order of bytes (``<`` or ``>``)."""

    is_implicit: bool
    order: str


class Element(NamedTuple):
    """One element: its VR as written (empty where none is known), where its value lies, and where the next begins.

    ``size`` is None where the length is undefined; its items then lie between ``start`` and ``end``.
    """

    tag: int
    vr: str
    start: int
    size: int | None
    end: int


def tag_text(tag: int) -> str:
    """A tag as messages name it: ``(0028,1053)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def too_deep(source: Bytes) -> BadSeries:
    """The refusal of a file whose sequences are nested deeper than those that read it can follow."""
    words = f"its sequences are nested more than {DEEPEST_SEQUENCES} deep; DICOM in use has about ten"
    return BadSeries("series.nested", f"{source.name}: {words}: mend it where it was written.")


class ElementReader:
    """Finds elements and items in the bytes of one file."""

    def __init__(self, source: Bytes, encoding: Encoding) -> None:
        self.source = source
        self.encoding = encoding
        self._tags = struct.Struct(f"{encoding.order}HH")
        self._short = struct.Struct(f"{encoding.order}H")
        self._long = struct.Struct(f"{encoding.order}I")
        self._left = MOST_ELEMENTS

    def elements(self, at: int, end: int | None = None, *, until: int | None = None) -> Iterator[Element]:
        """The elements from ``at`` to ``end`` (None: to the end of the file), up to and with the tag ``until``.

        The element ``until`` itself is given without looking for its end.

        Raises:
            BadSeries: a length reaches beyond what is there, or there are more elements than any header has.
        """
        while end is None or at < end:
            found = self.head(at)
            if found is None or found.tag == ITEM_END:
                return
            if found.tag == until:
                yield found
                return
            if found.size is None:
                found = found._replace(end=self._after(found.start, found.tag, is_sequence=True))
            if end is not None and found.end > end:
                raise self.source.broken(f"{tag_text(found.tag)} reaches beyond the item that holds it")
            if not self.source.reaches(found.end):
                size = found.end - found.start
                raise self.source.broken(f"{tag_text(found.tag)} has {size} bytes, more than {self.source.bound}")
            yield found
            at = found.end

    def items(self, sequence: Element) -> Iterator[tuple[int, int]]:
        """Where each item of a sequence begins and ends.

        Raises:
            BadSeries: as ``elements``.
        """
        at = sequence.start
        while at < sequence.end:
            found = self.head(at)
            if found is None or found.tag != ITEM:
                return
            after = self._after(found.start, found.tag, is_sequence=False) if found.size is None else found.end
            if after > sequence.end:
                raise self.source.broken(f"an item reaches beyond its sequence {tag_text(sequence.tag)}")
            yield found.start, after
            at = after

    def head(self, at: int) -> Element | None:
        """The element that begins at ``at``, its length not checked; None where too few bytes are left for its head."""
        self._left -= 1
        if self._left < 0:
            raise self.source.broken(f"its header has more than {MOST_ELEMENTS} elements")
        head = self.source.read(at, 12)
        if len(head) < 8:
            return None
        group, element = self._tags.unpack_from(head)
        vr = b"" if group == DELIMITERS or self.encoding.is_implicit else head[4:6]
        if vr in SHORT_VRS:
            start, size = at + 8, self._short.unpack_from(head, 6)[0]
        elif vr in LONG_VRS:
            if len(head) < 12:
                return None
            start, size = at + 12, self._long.unpack_from(head, 8)[0]
        else:
            vr, start, size = self._without_vr(head, at, vr)
        end = start if size == UNDEFINED else start + size
        return Element(group << 16 | element, vr.decode("ascii"), start, None if size == UNDEFINED else size, end)

    def _without_vr(self, head: bytes, at: int, vr: bytes) -> tuple[bytes, int, int]:
        """No VR, and where a value begins and how long it is, where no VR is written, or one that isn't known.

        What is no VR at all is a length, as in implicit encoding. The length of an unknown one has four bytes (PS3.5
        7.1.2) if the file can hold that.
        """
        if not (vr.isalpha() and vr.isupper()):
            return b"", at + 8, self._long.unpack_from(head, 4)[0]
        size = self._long.unpack_from(head, 8)[0] if len(head) == 12 else UNDEFINED - 1
        if head[6:8] == b"\0\0" and (size == UNDEFINED or self.source.reaches(at + 12 + size)):
            return b"", at + 12, size
        return b"", at + 8, self._short.unpack_from(head, 6)[0]

    def _after(self, at: int, tag: int, *, is_sequence: bool) -> int:
        """Where what follows a sequence or item of undefined length begins; what is nested is kept on a list."""
        still_open = [is_sequence]
        while still_open:
            found = self.head(at)
            if found is None or not self.source.reaches(found.end):
                raise self.source.broken(f"{tag_text(tag)} has an undefined length and never ends")
            at = found.end
            _open_and_close(still_open, found)
            if len(still_open) > 2 * DEEPEST_SEQUENCES:  # a sequence and its item each
                raise too_deep(self.source)
        return at


def _open_and_close(still_open: list[bool], found: Element) -> None:
    """What an element begins or ends of undefined length; of each that is open, whether it is a sequence."""
    if found.tag == SEQUENCE_END:
        while still_open and not still_open.pop():
            pass
    elif found.tag == ITEM_END and not still_open[-1]:
        still_open.pop()
    elif found.size is None:
        still_open.append(found.tag != ITEM)
