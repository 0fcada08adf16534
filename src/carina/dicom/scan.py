"""What the files below a path hold, by their headers: slices, volumes, something else, or damage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from carina.dicom.headers import DICOMDIR, SliceHeader, is_image, slice_headers
from carina.dicom.inventory import BrokenFile
from carina.errors import BadSeries, one_line

SCAN_THREADS = 2
"""Headers are parsed under the interpreter lock; threads hide the wait for slow storage."""

SLICE_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
PARTIAL_SUFFIXES = frozenset({".part", ".partial", ".crdownload", ".filepart", ".download", ".tmp"})
"""What programs add to the name of a file that they have not finished."""

HEAD_BYTES = 1024
"""Enough for the preamble and the meta information."""

ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07")
TAR_MARK = 257
"""How ZIP, gzip, bzip2, xz, 7z and RAR begin, and where a tar says ``ustar``."""


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """Slices that can be read; ``damaged``, slices whose pixel data is absent or cut short; every broken file."""

    headers: tuple[SliceHeader, ...]
    damaged: tuple[SliceHeader, ...]
    broken: tuple[BrokenFile, ...]

    @property
    def slices(self) -> tuple[SliceHeader, ...]:
        """What makes series: the slices that can be read, and the damaged ones of series without any of those."""
        whole = {header.series_uid for header in self.headers}
        return (*self.headers, *(header for header in self.damaged if header.series_uid not in whole))


def scan(paths: Sequence[Path]) -> Scanned:
    """Read the headers of files that may be DICOM."""
    with ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="scan") as pool:
        results = list(pool.map(_scan_file, paths))
    broken = [result for result in results if isinstance(result, BrokenFile)]
    headers = [header for result in results if isinstance(result, list) for header in result]
    speaking = {header.path for header in headers} | {one.path for one in broken}
    broken += _silent([path for path in paths if path not in speaking], speaking)
    return _sorted_out(headers, broken)


def _sorted_out(headers: Sequence[SliceHeader], broken: Sequence[BrokenFile]) -> Scanned:
    damaged = {header.path: damage for header in headers if (damage := _damage(header)) is not None}
    return Scanned(
        headers=tuple(header for header in headers if header.path not in damaged),
        damaged=tuple(header for header in headers if header.path in damaged),
        broken=tuple(sorted((*broken, *damaged.values()), key=lambda one: one.path)),
    )


def _scan_file(path: Path) -> list[SliceHeader] | BrokenFile:
    try:
        return slice_headers(path)
    except BadSeries as error:
        reason = error.message.removeprefix(f"{one_line(path.name)}: ").removesuffix("; send the file again.")
        return BrokenFile(path=path, code=error.code, reason=reason)


def _damage(header: SliceHeader) -> BrokenFile | None:
    """What is wrong with an image whose pixel data is not whole; reports and other objects need none."""
    needs_pixels = is_image(header.rows, header.sop_class_uid)
    if header.pixels is None or header.pixels.code == "series.memory" or not needs_pixels:
        return None
    return BrokenFile(
        path=header.path,
        code=header.pixels.code,
        reason=header.pixels.words,
        series_uid=header.series_uid,
        sop_instance_uid=header.sop_instance_uid,
        position_mm=header.position_mm,
    )


def is_archive(path: Path) -> bool:
    """Whether a file is packed, as it begins; False where it can't be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(TAR_MARK + 5)
    except OSError:
        return False
    return head.startswith(ARCHIVES) or head[TAR_MARK:] == b"ustar"


def name_shape(path: Path) -> str:
    """A file's name with its numbers left open: slices of one export share it."""
    name = path.name.lower()
    stem, dot, suffix = name.rpartition(".")
    if dot and f".{suffix}" in PARTIAL_SUFFIXES:
        name = stem
    return re.sub(r"\d+", "#", re.sub(r"[0-9a-f]{8,}", "#", name))


def _silent(paths: Iterable[Path], speaking: Iterable[Path]) -> Iterator[BrokenFile]:
    """Those of the files without slices that should have some, as they begin, or are named like those that speak."""
    shapes = {(path.parent, name_shape(path)) for path in speaking}
    for path in paths:
        is_named = path.suffix.lower() in SLICE_SUFFIXES or (path.parent, name_shape(path)) in shapes
        reason = _why_silent(path, is_named=is_named)
        if reason:
            yield BrokenFile(path=path, code="series.truncated", reason=reason)


def _why_silent(path: Path, *, is_named: bool) -> str:
    """What is wrong with a file that gave no slices; empty where it need not give any."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        return f"it can't be read ({error.strerror})"
    if head[128:132] == b"DICM":
        return "" if DICOMDIR.encode() in head else "it is truncated within its header"
    if is_named:
        return "it is no DICOM file, though named as one" if head else "it is empty"
    return ""
