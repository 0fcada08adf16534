"""Pixel data to Hounsfield units, one frame at a time; decoders release the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

from carina.dicom.fragments import Piece, read_frame
from carina.dicom.headers import KEYWORDS
from carina.dicom.part10 import BIG_ENDIAN, DEFLATED, NATIVE, OpenFile, attribute, number, open_file
from carina.errors import BadSeries

AIR_HU = -1024
"""What padding and everything below becomes: the bottom of the CT scale."""

TOP_HU = 32767

RLE = "1.2.840.10008.1.2.5"

JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70))
"""Baseline, extended, the retired spectral selection and full progression, lossless (PS3.5 A.4.1, A.4.2)."""

JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
HTJ2K = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))

Decoder = Callable[[bytes, "Layout"], npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one frame's stored values lie in its bytes (PS3.3 C.7.6.3.1); ``padding`` is a range of stored values."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    padding: tuple[int, int] | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The unsigned type of one stored word, native byte order."""
        return np.dtype(f"u{self.bits_allocated // 8}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame when it is not compressed."""
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True, kw_only=True)
class PixelFile:
    """A file whose frames can be decoded, by several threads at once; ``pieces`` is where compressed frames lie."""

    opened: OpenFile
    layout: Layout
    pieces: Sequence[tuple[Piece, ...]]

    def hu(self, frame: int | None, out: npt.NDArray[np.int16]) -> None:
        """Decode a frame (1-based; None: the only one) into ``out``, ``(rows, columns)``, in Hounsfield units.

        Values are rounded and clipped to ``AIR_HU .. TOP_HU``; padding becomes ``AIR_HU``.

        Raises:
            BadSeries: the pixel data is truncated or damaged, or no decoder exists for its transfer syntax.
        """
        stored = self.stored(frame)
        dataset = self.opened.dataset
        slope = number(attribute(dataset, "RescaleSlope", frame))
        intercept = number(attribute(dataset, "RescaleIntercept", frame))
        if slope is None or intercept is None:
            raise BadSeries("series.no-hu", f"{self.opened.path.name}: no Rescale Slope or Intercept, so no HU.")
        _rescale(stored, slope, intercept, out)
        padding = self.layout.padding
        if padding is not None:
            out[(stored >= padding[0]) & (stored <= padding[1])] = AIR_HU

    def stored(self, frame: int | None) -> npt.NDArray[Any]:
        """The stored values of a frame, ``(rows, columns)``, integers with the sign and bits that the header states."""
        name, layout = self.opened.path.name, self.layout
        try:
            words = self._words((frame or 1) - 1)
        except BadSeries:
            raise
        except Exception as error:  # each codec has its own error class
            raise BadSeries(
                "series.decode", f"{name}: pixel data can't be decoded ({error}); send the file again."
            ) from error
        if words.shape != (layout.rows, layout.columns):
            raise BadSeries(
                "series.decode", f"{name}: decoded to {words.shape}, its header says {(layout.rows, layout.columns)}."
            )
        return _cut_bits(words, layout)

    def _words(self, index: int) -> npt.NDArray[Any]:
        syntax = self.opened.transfer_syntax
        if syntax in NATIVE or syntax in DEFLATED:
            return self._native(index)
        decoder = DECODERS.get(syntax)
        if decoder is None:
            raise BadSeries(
                "series.transfer-syntax",
                f"{self.opened.path.name}: no decoder for transfer syntax {UID(syntax).name} ({syntax}); "
                "send it uncompressed or as JPEG 2000 Lossless.",
            )
        return decoder(self._compressed(index), self.layout)

    def _native(self, index: int) -> npt.NDArray[Any]:
        layout, opened = self.layout, self.opened
        is_big = opened.transfer_syntax == BIG_ENDIAN
        dtype = layout.dtype.newbyteorder(">" if is_big else "<")
        count = layout.rows * layout.columns
        offset = index * layout.frame_bytes
        if opened.pixel_offset is None:
            words = np.frombuffer(opened.dataset.PixelData, dtype, count, offset)
        else:
            words = np.fromfile(opened.path, dtype, count, offset=opened.pixel_offset + offset)
        if words.size < count:
            raise BadSeries("series.truncated", f"{opened.path.name}: its pixel data ends early; send the file again.")
        return words.reshape(layout.rows, layout.columns).astype(layout.dtype, copy=False)

    def _compressed(self, index: int) -> bytes:
        with self.opened.path.open("rb") as stream:
            return read_frame(stream, self.pieces[index])


def open_pixels(path: Path) -> PixelFile:
    """Read what decoding a file's frames needs, without decoding.

    Raises:
        BadSeries: the file is not DICOM, has no pixel data, or a layout that no CT has.
    """
    opened = open_file(path, KEYWORDS)
    if opened is None or not opened.has_pixels:
        raise BadSeries("series.no-pixels", f"{path.name}: has no pixel data.")
    frames = int(number(attribute(opened.dataset, "NumberOfFrames")) or 1)
    try:
        pieces = opened.encapsulated.frames(frames) if opened.encapsulated else ()
    except ValueError as error:
        raise BadSeries("series.decode", f"{path.name}: frames can't be told apart ({error}).") from error
    return PixelFile(opened=opened, layout=_layout(opened), pieces=pieces)


def _layout(opened: OpenFile) -> Layout:
    dataset = opened.dataset

    def whole(keyword: str, default: int) -> int:
        return int(number(attribute(dataset, keyword)) or default)

    allocated = whole("BitsAllocated", 16)
    stored = whole("BitsStored", allocated)
    if allocated not in (8, 16, 32) or whole("SamplesPerPixel", 1) != 1:
        raise BadSeries(
            "series.photometric", f"{opened.path.name}: {allocated} bits allocated; one sample of 8 or 16 is expected."
        )
    return Layout(
        rows=whole("Rows", 0),
        columns=whole("Columns", 0),
        bits_allocated=allocated,
        bits_stored=min(stored, allocated),
        high_bit=whole("HighBit", stored - 1),
        is_signed=whole("PixelRepresentation", 0) == 1,
        padding=_padding(opened, allocated),
    )


def _padding(opened: OpenFile, bits: int) -> tuple[int, int] | None:
    """The range of padding values (PS3.3 C.7.5.1.1.2); a signed value may be written as if it were unsigned."""
    value = number(attribute(opened.dataset, "PixelPaddingValue"))
    if value is None:
        return None
    limit = number(attribute(opened.dataset, "PixelPaddingRangeLimit"))
    ends = [int(value), int(value if limit is None else limit)]
    if opened.dataset.get("PixelRepresentation") == 1:
        ends = [end - (1 << bits) if end >= 1 << (bits - 1) else end for end in ends]
    return min(ends), max(ends)


def _cut_bits(words: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
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
    if slope == 1.0 and intercept == int(intercept) and abs(intercept) < TOP_HU:
        wide = np.add(stored, np.int32(intercept), dtype=np.int32, casting="unsafe")
        np.clip(wide, AIR_HU, TOP_HU, out=wide)
        out[...] = wide
        return
    scaled = stored.astype(np.float32)
    scaled *= np.float32(slope)
    scaled += np.float32(intercept)
    np.rint(scaled, out=scaled)
    np.clip(scaled, AIR_HU, TOP_HU, out=scaled)
    out[...] = scaled


def _jpeg(data: bytes, layout: Layout) -> npt.NDArray[Any]:
    import imagecodecs

    return _unsigned(imagecodecs.jpeg8_decode(data))


def _jpeg_ls(data: bytes, layout: Layout) -> npt.NDArray[Any]:
    import imagecodecs

    return _unsigned(imagecodecs.jpegls_decode(data))


def _jpeg_2000(data: bytes, layout: Layout) -> npt.NDArray[Any]:
    import imagecodecs

    words: npt.NDArray[Any] = imagecodecs.jpeg2k_decode(data)
    return words


def _rle(data: bytes, layout: Layout) -> npt.NDArray[Any]:
    import imagecodecs

    flat = np.frombuffer(imagecodecs.dicomrle_decode(data, layout.dtype), layout.dtype)
    return flat[: layout.rows * layout.columns].reshape(layout.rows, layout.columns)


def _unsigned(words: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return words.view(np.dtype(f"u{words.dtype.itemsize}"))


DECODERS: dict[str, Decoder] = {
    RLE: _rle,
    **dict.fromkeys(JPEG, _jpeg),
    **dict.fromkeys(JPEG_LS, _jpeg_ls),
    **dict.fromkeys(JPEG_2000, _jpeg_2000),
    **dict.fromkeys(HTJ2K, _jpeg_2000),
}
"""Transfer syntax to the decoder of its encapsulated frames."""
