"""Pixel data to Hounsfield units, one frame at a time; decoders release the interpreter lock."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carina.dicom.codestream import check_jpeg, check_jpeg_2000, rle_segments, without_boxes
from carina.dicom.fragments import DamagedFrame, Piece, read_frame
from carina.dicom.headers import KEYWORDS, SliceHeader, slices_of
from carina.dicom.layout import FrameLayout, ImpossibleLayout, layout_of
from carina.dicom.part10 import OpenFile, inflated_pixels, open_file, reading
from carina.dicom.syntaxes import BIG_ENDIAN, DEFLATED, DEFLATED_FRAMES, HTJ2K, JPEG, JPEG_2000, JPEG_LS, NATIVE, RLE
from carina.dicom.voxel_limit import allowed_voxels, too_many_voxels
from carina.errors import BadSeries, with_words
from carina.volume.values import SCALE_BOTTOM_HU, SCALE_TOP_HU

END_OF_IMAGE = b"\xff\xd9"
"""Where a JPEG-LS picture is cut off, CharLS reads zeros for seconds unless it meets a marker."""

RLE_SLACK = 64
"""Bytes that an RLE segment may give beyond its plane: padding that is taken for a run."""

Decoder = Callable[[bytes, FrameLayout], npt.NDArray[Any]]


DAMAGE = (RuntimeError, ValueError, TypeError, IndexError, OverflowError, ArithmeticError, zlib.error)
"""What decoders raise for a damaged frame; each codec's own error is a RuntimeError."""

DENSEST_TISSUE_HU = 1500
LEAST_PEAK = 3
"""Of a tissue's values none is so much commoner than those next to it; padding fills whole corners with one."""

ROWS_AT_ONCE = 64
"""Rows that are rescaled at once: what is needed beside the slice stays small."""


@dataclass(frozen=True, kw_only=True)
class PixelFile:
    """A file whose frames can be decoded, by several threads at once.

    ``slices`` are what the header says of each frame, ``pieces`` where compressed frames lie; ``inflated`` is the
    pixel data of a deflated file.
    """

    opened: OpenFile
    layout: FrameLayout
    slices: Sequence[SliceHeader]
    pieces: Sequence[tuple[Piece, ...]] = ()
    inflated: bytes = b""

    def hu(self, frame: int | None, out: npt.NDArray[np.int16]) -> None:
        """Decode a frame (1-based; None: the only one) into ``out``, ``(rows, columns)``, in Hounsfield units.

        Values are rounded and clipped to ``AIR_HU .. TOP_HU``; padding becomes ``AIR_HU``.

        Raises:
            BadSeries: the pixel data is truncated or damaged, or no decoder exists for its transfer syntax.
        """
        header = self.slices[(frame or 1) - 1]
        if header.slope is None or header.intercept is None:
            raise BadSeries("series.no-hu", f"{self.opened.path.name}: no Rescale Slope or Intercept, so no HU.")
        words = self._words_of(frame)
        stored = _cut_bits(words, self.layout)
        padding = self.layout.padding if self._has_padding(stored, header.slope, header.intercept) else None
        for first in range(0, len(words), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            _rescale(stored[rows], header.slope, header.intercept, out[rows])
            if padding is not None:
                seen = _whole_words(words[rows], self.layout) if self.layout.padding_is_words else stored[rows]
                out[rows][(seen >= padding[0]) & (seen <= padding[1])] = SCALE_BOTTOM_HU

    def _has_padding(self, stored: npt.NDArray[Any], slope: float, intercept: float) -> bool:
        """Whether what the header calls padding is: a value that tissue has too must stand out of its neighbours."""
        padding = self.layout.padding
        if padding is None or self.layout.padding_is_words or padding[0] != padding[1]:
            return padding is not None
        if not SCALE_BOTTOM_HU < padding[0] * slope + intercept < DENSEST_TISSUE_HU:
            return True
        below, count, above = (int(np.count_nonzero(stored == padding[0] + k)) for k in (-1, 0, 1))
        return count > LEAST_PEAK * max(below, above)

    def unclipped(self, frame: int | None) -> npt.NDArray[np.float64]:
        """HU of a frame that ``hu`` decodes, but as the numbers say: nothing is clipped, and padding is a value."""
        header = self.slices[(frame or 1) - 1]
        return self.stored(frame) * np.float64(header.slope or 0) + np.float64(header.intercept or 0)

    def stored(self, frame: int | None) -> npt.NDArray[Any]:
        """The stored values of a frame, ``(rows, columns)``, integers with the sign and bits that the header states.

        Raises:
            BadSeries: as ``hu``.
        """
        return _cut_bits(self._words_of(frame), self.layout)

    def _words_of(self, frame: int | None) -> npt.NDArray[Any]:
        name, layout = self.opened.path.name, self.layout
        try:
            words = self._words((frame or 1) - 1)
        except MemoryError as error:
            raise BadSeries("series.memory", f"{name}: decoding it takes more memory than there is.") from error
        except DamagedFrame as error:
            raise BadSeries("series.decode", _undecodable(name, str(error))) from error
        except DAMAGE as error:  # a decoder may quote what it read
            raise with_words(BadSeries("series.decode", _undecodable(name, type(error).__name__)), error) from error
        if words.shape != (layout.rows, layout.columns):
            raise BadSeries(
                "series.decode", f"{name}: decoded to {words.shape}, its header says {(layout.rows, layout.columns)}."
            )
        return words

    def _words(self, index: int) -> npt.NDArray[Any]:
        syntax = self.opened.transfer_syntax
        if syntax in NATIVE:
            return self._native(index)
        with reading(self.opened.path) as stream:
            data = read_frame(stream, self.pieces[index])
        return DECODERS[syntax](data, self.layout)  # any other syntax is a problem of the header

    def _native(self, index: int) -> npt.NDArray[Any]:
        layout, opened = self.layout, self.opened
        dtype = layout.dtype.newbyteorder(">" if opened.transfer_syntax == BIG_ENDIAN else "<")
        count = layout.rows * layout.columns
        offset = index * layout.frame_bytes
        if opened.transfer_syntax == DEFLATED:
            words = np.frombuffer(self.inflated, dtype, count, offset)
        else:
            with reading(opened.path) as stream:
                words = np.fromfile(stream, dtype, count, offset=(opened.pixel_offset or 0) + offset)
        if words.size < count:
            raise BadSeries("series.truncated", f"{opened.path.name}: its pixel data ends early; send the file again.")
        return words.reshape(layout.rows, layout.columns).astype(layout.dtype, copy=False)


def open_pixels(path: Path) -> PixelFile:
    """Read what decoding a file's frames needs, without decoding.

    Raises:
        BadSeries: the file is not DICOM, has no pixel data, a layout that no CT has, or more voxels than are allowed.
    """
    opened = open_file(path, KEYWORDS)
    slices = slices_of(opened) if opened else []
    if opened is None or not slices or not opened.has_pixels:
        raise BadSeries("series.no-pixels", f"{path.name}: has no pixel data.")
    problem = slices[0].pixels
    if problem is not None:
        raise BadSeries(problem.code, f"{path.name}: {problem.words}.")
    try:
        layout = layout_of(opened)
    except ImpossibleLayout as error:
        raise BadSeries(error.code, f"{path.name}: {error}.") from error
    _check_voxels(path.name, (len(slices), layout.rows, layout.columns))
    pieces = opened.encapsulated.frames(len(slices)) if opened.encapsulated else ()
    needed = layout.frame_bytes * len(slices) if opened.transfer_syntax == DEFLATED else 0
    inflated = opened.inflated if len(opened.inflated) >= needed else inflated_pixels(path, needed)
    return PixelFile(opened=opened, layout=layout, slices=slices, pieces=pieces, inflated=inflated)


def _check_voxels(name: str, shape: tuple[int, int, int]) -> None:
    frames, rows, columns = shape
    if frames * rows * columns > allowed_voxels():
        raise too_many_voxels(name, f"it has {frames} x {rows} x {columns} voxels")


def _undecodable(name: str, why: str) -> str:
    return f"{name}: pixel data can't be decoded ({why}); send the file again."


def _whole_words(words: npt.NDArray[Any], layout: FrameLayout) -> npt.NDArray[Any]:
    """Words as they are written, all their bits, with the stated sign."""
    return words.view(np.dtype(f"i{words.dtype.itemsize}")) if layout.is_signed else words


def _cut_bits(words: npt.NDArray[Any], layout: FrameLayout) -> npt.NDArray[Any]:
    """Keep bits ``high_bit - bits_stored + 1 .. high_bit`` of each word and give them the stated sign.

    What lies outside of them may be an overlay (PS3.5 8.1.1). Decoders that know the sign have applied it already.
    """
    if words.dtype.kind == "i":
        return words
    width = words.dtype.itemsize * 8
    below = max(layout.high_bit + 1 - layout.bits_stored, 0)
    if layout.is_signed:
        above = max(width - layout.bits_stored - below, 0)
        signed = words.view(np.dtype(f"i{words.dtype.itemsize}"))
        return signed if above + below == 0 else (signed << above) >> (above + below)
    if below:
        words = words >> below
    return words if layout.bits_stored >= width else words & ((1 << layout.bits_stored) - 1)


def _rescale(stored: npt.NDArray[Any], slope: float, intercept: float, out: npt.NDArray[np.int16]) -> None:
    """``stored * slope + intercept``, rounded and clipped, into ``out``; whole-number shifts stay in integers."""
    if slope == 1.0 and intercept == int(intercept) and abs(intercept) < SCALE_TOP_HU:
        wide = np.add(stored, np.int32(intercept), dtype=np.int32, casting="unsafe")
        np.clip(wide, SCALE_BOTTOM_HU, SCALE_TOP_HU, out=wide)
        out[...] = wide
        return
    scaled = stored.astype(np.float32)
    scaled *= np.float32(slope)
    scaled += np.float32(intercept)
    np.rint(scaled, out=scaled)
    np.clip(scaled, SCALE_BOTTOM_HU, SCALE_TOP_HU, out=scaled)
    out[...] = scaled


def _jpeg(data: bytes, layout: FrameLayout) -> npt.NDArray[Any]:
    import imagecodecs

    check_jpeg(data, layout)
    return _unsigned(imagecodecs.jpeg8_decode(data))


def _jpeg_ls(data: bytes, layout: FrameLayout) -> npt.NDArray[Any]:
    import imagecodecs

    check_jpeg(data, layout)
    return _unsigned(imagecodecs.jpegls_decode(data + END_OF_IMAGE))


def _jpeg_2000(data: bytes, layout: FrameLayout) -> npt.NDArray[Any]:
    import imagecodecs

    codestream = without_boxes(data)
    check_jpeg_2000(codestream, layout)
    words: npt.NDArray[Any] = imagecodecs.jpeg2k_decode(codestream)
    return words


def _rle(data: bytes, layout: FrameLayout) -> npt.NDArray[Any]:
    """Each segment is a plane of bytes; the decoder is given the room that a plane takes and no more."""
    import imagecodecs

    count = layout.rows * layout.columns
    planes = np.empty((count, layout.dtype.itemsize), np.uint8)
    for place, segment in enumerate(rle_segments(data, layout)):
        plane = np.frombuffer(imagecodecs.packbits_decode(segment, out=count + RLE_SLACK), np.uint8)
        if plane.size < count:
            raise DamagedFrame(f"a segment holds {plane.size} of {count} bytes")
        planes[:, place] = plane[:count]
    words = planes.view(layout.dtype.newbyteorder(">")).reshape(layout.rows, layout.columns)
    return words.astype(layout.dtype)


def _deflated_frame(data: bytes, layout: FrameLayout) -> npt.NDArray[Any]:
    found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, layout.frame_bytes)
    words = np.frombuffer(found, layout.dtype.newbyteorder("<")).reshape(layout.rows, layout.columns)
    return words.astype(layout.dtype, copy=False)


def _unsigned(words: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return words.view(np.dtype(f"u{words.dtype.itemsize}"))


DECODERS: dict[str, Decoder] = {
    RLE: _rle,
    DEFLATED_FRAMES: _deflated_frame,
    **dict.fromkeys(JPEG, _jpeg),
    **dict.fromkeys(JPEG_LS, _jpeg_ls),
    **dict.fromkeys(JPEG_2000, _jpeg_2000),
    **dict.fromkeys(HTJ2K, _jpeg_2000),
}
"""Transfer syntax to the decoder of its encapsulated frames."""
