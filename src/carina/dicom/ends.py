"""Whether a file holds all that the lengths in it promise, to its last byte: what was cut on its way does not."""

from __future__ import annotations

from carina.dicom.elements import SEQUENCE_END, Element, ElementReader
from carina.dicom.fragments import Encapsulated
from carina.dicom.sound import SoundElements
from carina.errors import BadSeries

DELIMITER = 8
LONGEST_HEAD = 12
"""Bytes of a delimiter, and of what stands before an element's value (PS3.5 7.1.2, 7.5)."""

NO_ELEMENT = (b"", b"\n", b"\r\n")
"""What may be left over at the end beside zeros: a line's end that a program put there."""


def check_ends(
    reader: ElementReader, at: int, pixels: Element | None, encapsulated: Encapsulated | None, sound: SoundElements
) -> None:
    """See that a data set is there to its last element; ``at`` is where the last whole one before its pixels ended.

    The last delimiter may be absent. What follows pixels and is no element, whose tags ascend (PS3.5 7.1), is filling,
    but for a tag that came before them. A deflated data set must have the end of its last block, too.

    Raises:
        BadSeries: it ends early, or what follows its pixels is not sound.
    """
    if pixels is None:
        _check_end(reader, at)
    else:
        _check_end_of_pixels(reader, pixels, encapsulated, sound)
    if not reader.source.is_whole():
        raise _cut(reader, "its deflated bytes end early")


def _check_end(reader: ElementReader, at: int) -> None:
    rest = reader.source.read(at, LONGEST_HEAD)
    if reader.head(at) is None and rest.strip(b"\0") not in NO_ELEMENT:
        raise _cut(reader, "it ends within an element")


def _check_end_of_pixels(
    reader: ElementReader, pixels: Element, encapsulated: Encapsulated | None, sound: SoundElements
) -> None:
    at = pixels.end
    if pixels.size is not None and (there := reader.source.pass_over(at)) < at:
        raise _cut(reader, f"its pixel data has {max(there - pixels.start, 0)} of {pixels.size} bytes")
    if pixels.size is None:
        if encapsulated is None:
            return
        if not encapsulated.is_complete:
            raise _cut(reader, "its pixel data ends early")
        at = encapsulated.fragments[-1].offset + encapsulated.fragments[-1].size
        _check_end(reader, at)
        delimiter = reader.head(at)
        at += DELIMITER if delimiter and delimiter.tag == SEQUENCE_END else 0
    _follow(reader, at, pixels.tag, sound)


def _follow(reader: ElementReader, at: int, after: int, sound: SoundElements) -> None:
    while (following := reader.head(at)) is not None and after < following.tag:
        whole = next(sound.of(reader.elements(at)), None)
        if whole is None:
            return
        at, after = whole.end, whole.tag
    if following is not None:
        sound.once(following)


def _cut(reader: ElementReader, words: str) -> BadSeries:
    return BadSeries("series.truncated", f"{reader.source.name}: it is truncated: {words}; send it again.")
