"""Damaged inputs by seed: DICOM folders, volume files, definitions, manifests and settings as strangers may send them.

The same kind and seed give the same bytes, so that a finding can be made again. ``damage`` knows no format; what knows
one (a DICOM element's tag, type, length and value; a header's numbers and words) is beside it, since bytes changed
blindly rarely get past the first check.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from carina.testing.dicom import TRANSFER_SYNTAXES, SeriesSettings, write_ct_series
from carina.volume import Grid, Volume
from carina.volume.files import write_volume

SHAPE = (12, 32, 32)
SMALL_SPACING_MM = (20.0, 8.0, 8.0)

BAD_NUMBERS = ("nan", "inf", "-1", "0", "1e39", "2147483647", "-0", "1e-300", "4294967296", "99999999999999999999", "")
TEXTS = (
    "../../x",
    "/tmp/x",
    "a\tb\nc",
    "\x1b[31m",
    "%n%s",
    "A\\B\\C",
    "\ud800",
    "x" * 5000,
    "caf\xe9",
    "\0",
    "1.2..3",
    "[",
    "*",
)
"""What stands where a number or a name is expected."""

VR_TYPES = (b"UN", b"SQ", b"OB", b"OW", b"US", b"DS", b"UI", b"PN", b"ZZ", b"\0\0", b"AT", b"FD", b"OF", b"UT", b"LO")
LENGTHS = (0, 1, 2, 3, 5, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0x10000000)

MOST_REPEATED_BYTES = 1_000_000
"""Bytes that repeated lines add, or once what is repeated: damage upon damage would else make gigabytes."""

Damage = Callable[[bytearray, random.Random], None]


class Sample(StrEnum):
    """What is damaged."""

    DICOM = "dicom"
    VOLUME = "volume"
    DEFINITION = "definition"
    MANIFEST = "manifest"
    SETTINGS = "settings"


def hostile(kind: Sample, seed: int, folder: Path, *, sample: bytes = b"") -> Path:
    """Write one damaged input into an empty folder; gives the path to open.

    ``sample`` is the intact text of a definition, manifest or settings file, which this room does not know; the other
    kinds have their own.
    """
    rng = random.Random(f"{kind} {seed}")
    if kind is Sample.DICOM:
        return _dicom_folder(rng, folder)
    if kind is Sample.VOLUME:
        return _volume_file(rng, folder)
    name = {Sample.DEFINITION: "pipeline.yaml", Sample.MANIFEST: "manifest.json", Sample.SETTINGS: "carina.toml"}[kind]
    content = bytearray(sample)
    for _ in range(rng.choice((1, 1, 2, 5))):
        rng.choice((damage, _swap_value, _swap_value, _repeat_lines, _nest))(content, rng)
    (folder / name).write_bytes(content)
    return folder / name


def damage(content: bytearray, rng: random.Random) -> None:
    """Change bytes of any content in place: flipped, cut, left out, repeated, moved, overwritten."""
    if not content:
        return
    start = int(len(content) * rng.random() ** rng.choice((1, 4)))  # headers come first: half of the damage is there
    size = rng.choice((1, 2, 4, 16, 128, 1024))
    part = content[start : start + size]
    match rng.randrange(7):
        case 0:
            for place in range(start, min(start + rng.choice((1, 1, 8)), len(content))):
                content[place] ^= 1 << rng.randrange(8)
        case 1:
            del content[start:]
        case 2:
            del content[start : start + size]
        case 3:
            content[start:start] = part
        case 4:
            content[start:start] = rng.randbytes(size)
        case 5:
            content[start : start + size] = bytes([rng.choice((0, 255, 32, 92))]) * len(part)
        case _:
            content.extend(part * rng.choice((1, 1000)))


def small_chest() -> Volume:
    """A body with two lungs on a coarse grid: the least that passes for a chest CT."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[np.broadcast_to(((y - 16) / 12) ** 2 + ((x - 16) / 14) ** 2 <= 1, SHAPE)] = 40
    for middle in (9, 23):
        lung = ((z - 5.5) / 5.5) ** 2 + ((y - 16) / 8) ** 2 + ((x - middle) / 4) ** 2 <= 1
        hu[lung] = -850 + 10 * (np.indices(SHAPE).sum(axis=0)[lung] % 17)
    grid = Grid(shape=SHAPE, spacing_mm=SMALL_SPACING_MM, origin_mm=(-124.0, -124.0, -110.0))
    return Volume(hu=hu, grid=grid, uid="1.2.826.0.1.3680043.8.498.1")


@cache
def _series(transfer_syntax: str) -> tuple[bytes, ...]:
    with TemporaryDirectory(prefix="carina-hostile-") as name:
        settings = SeriesSettings(transfer_syntax=transfer_syntax, shuffled=False)
        paths = write_ct_series(small_chest(), Path(name), settings=settings)
        return tuple(path.read_bytes() for path in paths)


@cache
def _image(suffix: str) -> tuple[tuple[str, bytes], ...]:
    """The files of a volume, the one to open first."""
    with TemporaryDirectory(prefix="carina-hostile-") as name:
        path = Path(name) / f"ct{suffix}"
        write_volume(small_chest(), path)
        files = sorted(Path(name).iterdir(), key=lambda file: file != path)
        return tuple((file.name, file.read_bytes()) for file in files)


def _dicom_folder(rng: random.Random, folder: Path) -> Path:
    """A series of which some files, or all in the same way, are damaged."""
    slices = [bytearray(content) for content in _series(rng.choice(TRANSFER_SYNTAXES))]
    ill = slices if rng.random() < 0.3 else rng.sample(slices, rng.choice((1, 1, 1, 3)))
    state = rng.getstate()
    alike = rng.random() < 0.7
    for content in ill:
        if alike:
            rng.setstate(state)
        for _ in range(rng.choice((1, 1, 2, 6))):
            rng.choice((damage, _change_element, _change_element, _change_element, _other_slice))(content, rng)
    for number, content in enumerate(slices):
        (folder / f"{number:04d}.dcm").write_bytes(content)
    return folder


def _elements(content: bytearray) -> list[tuple[int, int, int]]:
    """Where elements of explicit type and short length may lie: ``(start, value, length)``; only what is plausible."""
    found, place = [], 132
    while place + 8 <= len(content):
        kind = bytes(content[place + 4 : place + 6])
        is_long = kind in (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN", b"UC", b"UR")
        head = 12 if is_long else 8
        length = int.from_bytes(content[place + head - (4 if is_long else 2) : place + head], "little")
        if not kind.isalpha() or place + head + length > len(content):
            break
        found.append((place, place + head, length))
        place += head + length
    return found


def _change_element(content: bytearray, rng: random.Random) -> None:
    """Change an element's type, length or value, leave it out, or write it twice."""
    elements = _elements(content)
    if not elements:
        damage(content, rng)
        return
    start, value, length = rng.choice(elements)
    match rng.randrange(6):
        case 0:
            content[start + 4 : start + 6] = rng.choice(VR_TYPES)
        case 1:
            wide = value - start == 12
            told = rng.choice(LENGTHS) & (0xFFFFFFFF if wide else 0xFFFF)
            content[value - (4 if wide else 2) : value] = told.to_bytes(4 if wide else 2, "little")
        case 2:
            del content[start : value + length]
        case 3:
            content[start:start] = content[start : value + length]
        case 4:
            content[start : start + 4] = rng.randbytes(4)
        case _:
            _replace_value(content, rng, (start, value, length))


def _replace_value(content: bytearray, rng: random.Random, element: tuple[int, int, int]) -> None:
    start, value, length = element
    new = rng.choice((*BAD_NUMBERS, *TEXTS)).encode("latin-1", "replace")
    new += b" " * (len(new) % 2)
    if value - start == 8:
        content[value - 2 : value] = (len(new) & 0xFFFF).to_bytes(2, "little")
        content[value : value + length] = new
    else:
        content[value : value + min(length, len(new))] = new[:length]


def _other_slice(content: bytearray, rng: random.Random) -> None:
    """Go on as another file, written in another transfer syntax, does."""
    other = rng.choice(_series(rng.choice(TRANSFER_SYNTAXES)))
    cut = rng.randrange(len(content) + 1)
    content[cut:] = other[min(cut, len(other)) :]


def _volume_file(rng: random.Random, folder: Path) -> Path:
    suffix = rng.choice((".nii", ".nii.gz", ".mhd", ".mha", ".nrrd", ".nhdr"))
    files = [(name, bytearray(content)) for name, content in _image(suffix)]
    for _, content in files if rng.random() < 0.3 else files[:1]:
        for _ in range(rng.choice((1, 1, 2, 6))):
            _damage_image(content, rng, suffix)
    for name, content in files:
        (folder / name).write_bytes(content)
    return folder / files[0][0]


def _damage_image(content: bytearray, rng: random.Random, suffix: str) -> None:
    if suffix == ".nii.gz" and rng.random() < 0.8 and content[:2] == b"\x1f\x8b":
        try:
            inner = bytearray(gzip.decompress(content))
        except (OSError, EOFError, zlib.error):
            inner = bytearray(content)
        _change_nifti(inner, rng)
        content[:] = gzip.compress(bytes(inner), 1)
    elif suffix == ".nii" and rng.random() < 0.8:
        _change_nifti(content, rng)
    elif rng.random() < 0.6:
        _swap_value(content, rng)
    else:
        damage(content, rng)


def _change_nifti(content: bytearray, rng: random.Random) -> None:
    """Set a number of a NIfTI-1 header (348 bytes), or any byte."""
    if rng.random() < 0.3:
        damage(content, rng)
        return
    place = rng.randrange(0, 348, 2)
    number = rng.choice((0, 1, -1, 32767, -32768, 2, 4, 16, 255, 512))
    floats = (float("nan"), float("inf"), -1.0, 0.0, 1e30, 1e-30)
    raw = (
        np.array([rng.choice(floats)], "<f4").tobytes()
        if rng.random() < 0.5
        else number.to_bytes(2, "little", signed=True)
    )
    content[place : place + len(raw)] = raw


_WORD = re.compile(rb"[A-Za-z0-9_.+-]+")


def _swap_value(content: bytearray, rng: random.Random) -> None:
    """Replace a word or number of a text by one that can't be meant."""
    words = [match.span() for match in _WORD.finditer(content, 0, 20_000)]
    if not words:
        damage(content, rng)
        return
    start, end = rng.choice(words)
    new = rng.choice((*BAD_NUMBERS, *TEXTS, '"', "{", "- a", "true", "null", "[1, 2]"))
    content[start:end] = new.encode("utf-8", "surrogatepass")


def _repeat_lines(content: bytearray, rng: random.Random) -> None:
    lines = bytes(content).split(b"\n")
    start = rng.randrange(len(lines))
    part = lines[start : start + rng.choice((1, 5, 20))]
    most = 1 + MOST_REPEATED_BYTES // (sum(map(len, part)) + len(part))
    lines[start:start] = part * min(rng.choice((1, 1, 500)), most)
    content[:] = b"\n".join(lines)


def _nest(content: bytearray, rng: random.Random) -> None:
    """Open brackets that are never closed, or an alias that stands for more and more."""
    place = rng.randrange(len(content) + 1)
    bombs = (
        b"[" * 5000,
        b"{" * 5000,
        b'{"a":' * 3000,
        b"&a [*a, *a]",
        json.dumps("\u2028").encode(),
        b"!!python/object:os.system",
    )
    content[place:place] = rng.choice(bombs)
