"""Frames of an object (PS3.18 10.4.1.1.6): as they are stored, or without compression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carina.dicom.decode import open_pixels
from carina.dicom.fragments import DamagedFrame, read_frame
from carina.dicom.layout import MOST_PIXELS
from carina.dicom.part10 import OpenFile, inflated_pixels, open_file, reading
from carina.dicom.syntaxes import BIG_ENDIAN, DEFLATED, EXPLICIT, NATIVE, RLE
from carina.errors import BadSeries
from carina.service.dicomweb.accept import ANY, Wish
from carina.service.dicomweb.reach import is_file_there
from carina.service.problems import NotAcceptable, NotThere

OCTETS = "application/octet-stream"

MEDIA_TYPES = {
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)), "image/jpeg"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)), "image/jls"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (90, 91)), "image/jp2"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)), "image/jphc"),
    RLE: "image/dicom-rle",
}
"""What a compressed frame is called (PS3.18 table 8.7.3-2)."""

_KEYWORDS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")


@dataclass(frozen=True, kw_only=True)
class FrameBytes:
    """One frame as it is given: its media type, the transfer syntax that it is in, its bytes.

    ``is_part``: the client takes it as the part of an answer.
    """

    media_type: str
    syntax: str
    data: bytes
    is_part: bool


class FrameSource:
    """The frames of one file.

    Raises:
        NotThere: the file is gone, or has no pixels.
        BadSeries: it can't be followed to them.
    """

    def __init__(self, path: Path) -> None:
        opened = open_file(path, _KEYWORDS) if is_file_there(path) else None
        if opened is None or not opened.has_pixels:
            raise NotThere("dicomweb.no-pixels", "the object has no pixel data.")
        self._path, self._opened = path, opened
        self.count = max(1, int(opened.number("NumberOfFrames") or 1))
        self.numbers = range(1, self.count + 1)
        self.rows, self.columns = int(opened.number("Rows") or 0), int(opened.number("Columns") or 0)
        self._bits = _bits_of_a_frame(opened)

    def check(self, number: int) -> None:
        """See that there is a frame of this number.

        Raises:
            NotThere: there is none.
        """
        if not 1 <= number <= self.count:
            raise NotThere("dicomweb.frame", f"there is no frame {number}; the object has {self.count}.")

    def is_native(self) -> bool:
        """Whether its frames are stored without compression."""
        return self._opened.transfer_syntax in NATIVE

    def frame(self, number: int, wishes: list[Wish]) -> FrameBytes:
        """A frame, counted from 1, in the first form of the wishes that it can be given in.

        Raises:
            NotThere: there is no such frame.
            NotAcceptable: the client takes neither the stored form nor plain octets.
            BadSeries: the pixel data ends early or is damaged.
        """
        self.check(number)
        stored = self._opened.transfer_syntax
        media_type = MEDIA_TYPES.get(stored, OCTETS)
        for wish in wishes:
            if wish.takes(OCTETS) and wish.syntax in ("", ANY, EXPLICIT):
                return FrameBytes(media_type=OCTETS, syntax=EXPLICIT, data=self.plain(number), is_part=wish.takes_parts)
            if wish.takes(media_type) and wish.syntax in ("", ANY, stored):
                return FrameBytes(
                    media_type=media_type, syntax=stored, data=self._stored(number), is_part=wish.takes_parts
                )
        syntaxes = {media_type: [stored]}
        syntaxes[OCTETS] = list(dict.fromkeys([*syntaxes.get(OCTETS, ()), EXPLICIT]))
        forms = " or ".join(f"{kind} ({' or '.join(of)})" for kind, of in syntaxes.items())
        raise NotAcceptable("dicomweb.accept", f"frames are {forms}, several at once multipart/related.")

    def _stored(self, number: int) -> bytes:
        encapsulated = self._opened.encapsulated
        try:
            pieces = encapsulated.frames(self.count)[number - 1] if encapsulated else ()
        except DamagedFrame as error:
            raise BadSeries("series.decode", f"{self._path.name}: {error}; send the file again.") from error
        with reading(self._path) as stream:
            return read_frame(stream, pieces)

    def plain(self, number: int) -> bytes:
        """A frame's stored values, not compressed, little endian; single bits are packed from the lowest.

        Raises:
            BadSeries: the pixel data ends early or is damaged.
        """
        if self.is_native():
            return self._native(number)
        words = open_pixels(self._path).stored(number)
        return bytes(words.astype(words.dtype.newbyteorder("<")).tobytes())

    def _native(self, number: int) -> bytes:
        first_bit, last_bit = (number - 1) * self._bits, number * self._bits
        start, end = first_bit // 8, math.ceil(last_bit / 8)
        data = self._read(start, end - start)
        if len(data) < end - start:
            raise BadSeries("series.truncated", f"{self._path.name}: its pixel data ends early; send the file again.")
        if self._bits % 8:
            bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
            inside = bits[first_bit - 8 * start :][: self._bits]
            return bytes(np.packbits(inside, bitorder="little").tobytes())
        is_swapped = self._opened.transfer_syntax == BIG_ENDIAN and self._opened.number("BitsAllocated") == 16
        return bytes(np.frombuffer(data, ">u2").astype("<u2").tobytes()) if is_swapped else data

    def _read(self, start: int, size: int) -> bytes:
        if self._opened.transfer_syntax == DEFLATED:
            return inflated_pixels(self._path, start + size)[start:]
        with reading(self._path) as stream:
            stream.seek((self._opened.pixel_offset or 0) + start)
            return stream.read(size)


def _bits_of_a_frame(opened: OpenFile) -> int:
    rows, columns, samples, bits = (int(opened.number(keyword) or 0) for keyword in _KEYWORDS[:4])
    if not 0 < rows * columns <= MOST_PIXELS or samples not in (1, 3) or bits not in (1, 8, 16, 32):
        words = (
            f"{opened.path.name}: {rows} x {columns} pixels of {samples} times {bits} bits can't be given as frames."
        )
        raise BadSeries("series.layout", words)
    return rows * columns * samples * bits
