"""What a compressed frame says of itself, looked at before a decoder asks memory for it.

Decoders believe their codestream: one of 6 KB may claim 20,000 x 20,000 pixels, whatever the DICOM header says. Here
its size is compared with the header's, and what could make a decoder slow, large or unsafe is refused. Sources: JPEG
ITU-T T.81 annex B, JPEG-LS T.87 annex C, JPEG 2000 T.800 annex A, RLE PS3.5 annex G.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from carina.dicom.fragments import DamagedFrame
from carina.dicom.layout import FrameLayout

MOST_SCANS = 100
"""Scans of one JPEG picture; progressive ones have some ten."""

MOST_TILES = 1024
MOST_LAYERS = 64
MOST_LEVELS = 32
SMALLEST_BLOCK = 8
SMALLEST_PRECINCT = 5
"""OpenJPEG keeps something for each tile, layer, code-block (log2 of its pixels) and precinct (log2 of its edge)."""

SOI, SOS, EOI, LSE, SOF_LS = 0xD8, 0xDA, 0xD9, 0xF8, 0xF7
SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
OVERSIZE = 4
"""The LSE parameter that replaces a JPEG-LS picture's size (T.87 C.2.4.1.4)."""

SOC, SIZ, COD, COC, SOT, SOD = 0x4F, 0x51, 0x52, 0x53, 0x90, 0x93
RLE_HEADER = 64
JP2_SIGNATURE = b"\0\0\0\x0cjP  "


class Segment(NamedTuple):
    """A marker's second byte, what follows its length, and where the next marker is."""

    marker: int
    body: bytes
    end: int


def check_jpeg(data: bytes, layout: FrameLayout) -> None:
    """Refuse a JPEG or JPEG-LS picture that is not the one its header announces.

    Raises:
        DamagedFrame: it is another size, has several components, or is none at all.
    """
    if data[:2] != bytes((0xFF, SOI)):
        raise DamagedFrame("it is no JPEG picture")
    frames = []
    for segment in _segments(data, 2, last=SOS):
        if segment.marker in SOF or segment.marker == SOF_LS:
            frames.append(segment.body)
        if segment.marker == LSE and segment.body[:1] == bytes((OVERSIZE,)):
            raise DamagedFrame("it replaces its own size")
    if len(frames) != 1 or len(frames[0]) < 6:
        raise DamagedFrame(f"it has {len(frames)} frame headers, expected 1")
    _, rows, columns, components = struct.unpack_from(">BHHB", frames[0])
    _compare(rows, columns, components, layout)
    if data.count(bytes((0xFF, SOS))) > MOST_SCANS:
        raise DamagedFrame(f"it has more than {MOST_SCANS} scans")


def check_jpeg_2000(data: bytes, layout: FrameLayout) -> None:
    """Refuse a JPEG 2000 codestream that is not the one its header announces.

    Raises:
        DamagedFrame: it is another size, has several components, is cut into absurdly many parts, or is none at all.
    """
    if data[:4] != bytes((0xFF, SOC, 0xFF, SIZ)):
        raise DamagedFrame("it is no JPEG 2000 codestream")
    for segment in _main_and_tile_headers(data):
        if segment.marker == SIZ:
            _check_size(segment.body, layout)
        elif segment.marker in (COD, COC):
            _check_coding(segment)


def without_boxes(data: bytes) -> bytes:
    """The codestream of a JP2 file, which some writers put where DICOM wants the codestream alone."""
    at = 0
    while data.startswith(JP2_SIGNATURE) and at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"jp2c":
            return data[at + 8 : at + length if length > 1 else len(data)]
        if length < 8:
            break
        at += length
    return data


def _main_and_tile_headers(data: bytes) -> Iterator[Segment]:
    at = 2
    while at < len(data):
        start, length = at, 0
        for segment in _segments(data, at, last=SOD):
            if segment.marker == SOT and len(segment.body) >= 8:
                start, (length,) = segment.end - len(segment.body) - 4, struct.unpack_from(">I", segment.body, 2)
            yield segment
        if not length:
            return
        at = start + max(length, 12)


def _check_size(body: bytes, layout: FrameLayout) -> None:
    if len(body) < 39:
        raise DamagedFrame("its size marker is cut short")
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">8I", body, 2)
    components, _, across, down = struct.unpack_from(">HBBB", body, 34)
    if (across, down) != (1, 1) or not tile_width or not tile_height:
        raise DamagedFrame("its component is subsampled or its tiles are empty")
    _compare(height - top, width - left, components, layout)
    tiles = -(-(width - tile_left) // tile_width) * -(-(height - tile_top) // tile_height)
    if not 0 < tiles <= MOST_TILES:
        raise DamagedFrame(f"it has {tiles} tiles, at most {MOST_TILES} are read")


def _check_coding(segment: Segment) -> None:
    """Layers, levels, code-blocks and precincts of a coding style (T.800 A.6.1; A.6.2 where there is one component)."""
    is_default = segment.marker == COD
    style, body = segment.body[0 if is_default else 1 :][:1], segment.body[5 if is_default else 2 :]
    if not style or len(body) < 5:
        raise DamagedFrame("its coding style is cut short")
    layers = int.from_bytes(segment.body[2:4], "big") if is_default else 1
    if layers > MOST_LAYERS or body[0] > MOST_LEVELS:
        raise DamagedFrame(f"it has more than {MOST_LAYERS} layers or {MOST_LEVELS} levels")
    _check_parts(body[1] + body[2] + 4, body[5:] if style[0] & 1 else b"")


def _check_parts(block: int, precincts: bytes) -> None:
    if block < SMALLEST_BLOCK:
        raise DamagedFrame(f"its code-blocks have fewer than {1 << SMALLEST_BLOCK} pixels")
    if any(min(size & 15, size >> 4) < SMALLEST_PRECINCT for size in precincts):
        raise DamagedFrame(f"its precincts are smaller than {1 << SMALLEST_PRECINCT} pixels")


def _segments(data: bytes, at: int, *, last: int) -> Iterator[Segment]:
    """The marker segments from ``at`` up to and with the marker ``last``; fill bytes are skipped."""
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise DamagedFrame("a marker is missing where its header says one is")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == SOD and last == SOD:
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(data):
            raise DamagedFrame("its header is cut short")
        yield Segment(marker, data[at + 4 : end], end)
        if marker == last:
            return
        at = end


def _compare(rows: int, columns: int, components: int, layout: FrameLayout) -> None:
    if (rows, columns) != (layout.rows, layout.columns) or components != 1:
        kind = "" if components == 1 else f" with {components} components"
        raise DamagedFrame(
            f"the compressed picture has {rows} x {columns} pixels{kind}, its header says "
            f"{layout.rows} x {layout.columns}"
        )


def rle_segments(data: bytes, layout: FrameLayout) -> list[bytes]:
    """The segments of an RLE frame, one for each byte of a word, the most significant first.

    Raises:
        DamagedFrame: their number or places can't be.
    """
    count, *offsets = struct.unpack_from("<16I", data.ljust(RLE_HEADER, b"\0"))
    if count != layout.bits_allocated // 8:
        raise DamagedFrame(f"it has {count} segments, expected {layout.bits_allocated // 8}")
    places = [*offsets[:count], len(data)]
    if places[0] < RLE_HEADER or places != sorted(places):
        raise DamagedFrame("its segments overlap or lie outside of the frame")
    return [data[start:end] for start, end in pairwise(places)]
