"""Volume files damaged by seed: read, or refused in one short line; no other error, memory bounded by the file."""

from __future__ import annotations

import gzip
import random
import re
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from carina.errors import BadSeries
from carina.volume import Grid, Volume
from carina.volume.files import SUFFIXES, read_map, read_mask, read_volume, write_volume

GRID = Grid(shape=(12, 16, 20), spacing_mm=(5.0, 4.0, 4.0), origin_mm=(-30.0, 20.0, -100.0))
SEEDS = 25
"""Files for each suffix and kind of damage; the script that was used to find faults went on to thousands."""

MOST_BYTES = 16 << 20
LONGEST = 700

Damage = Callable[[random.Random, bytes], bytes]

NUMBERS = [b"0", b"-1", b"nan", b"inf", b"1e308", b"1e-308", b"2147483648", b"99999999999999999999", b"0.5", b"--", b""]
WORDS = [
    b"LIST",
    b"LOCAL",
    b"../../etc/passwd",
    b"/dev/zero",
    b"%d 1 9 1",
    b"none",
    b"(nan,nan,nan)",
    b"gzip",
    b"bzip2",
    b"ascii",
]
EXTREMES = [0x00, 0x7F, 0x80, 0xFF]


@cache
def whole() -> dict[str, dict[str, bytes]]:
    """A sound file of each suffix, packed and not, with the files beside it."""
    import tempfile

    hu = np.random.default_rng(3).integers(-1000, 400, GRID.shape).astype(np.int16)
    made = {}
    for suffix in SUFFIXES:
        for compress in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                write_volume(Volume(hu=hu, grid=GRID, uid="v"), Path(folder, f"v{suffix}"), compress=compress)
                made[f"{suffix} {compress}"] = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
    return made


def flipped(rng: random.Random, content: bytes) -> bytes:
    """One to eight bits turned, most of them where the header is."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        if changed:
            changed[rng.randrange(min(len(changed), rng.choice([40, 400, 1 << 30])))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def extreme(rng: random.Random, content: bytes) -> bytes:
    """A field of a binary header set to its least or most."""
    changed = bytearray(content)
    at, size = rng.randrange(0, 352, 2), rng.choice([1, 2, 4, 8])
    changed[at : at + size] = bytes([rng.choice(EXTREMES)]) * size
    return bytes(changed)


def cut(rng: random.Random, content: bytes) -> bytes:
    """The end is missing."""
    return content[: rng.randrange(min(len(content), rng.choice([10, 600, 1 << 30])) + 1)]


def spliced(rng: random.Random, content: bytes) -> bytes:
    """The beginning of this file and the end of another."""
    other = rng.choice([file for files in whole().values() for file in files.values()])
    return content[: rng.randrange(min(len(content), 700) + 1)] + other[rng.randrange(min(len(other), 700) + 1) :]


def renumbered(rng: random.Random, content: bytes) -> bytes:
    """Numbers of a text header replaced by ones that no header has."""
    head, tail = content[:700], content[700:]
    found = list(re.finditer(rb"-?\d[\d.e-]*", head))
    for match in sorted(rng.sample(found, min(len(found), rng.randint(1, 3))), key=lambda m: -m.start()):
        head = head[: match.start()] + rng.choice(NUMBERS) + head[match.end() :]
    return head + tail


def reworded(rng: random.Random, content: bytes) -> bytes:
    """A line of a text header lost, doubled, or with another value."""
    lines = content[:700].split(b"\n")
    at = rng.randrange(len(lines))
    key, sign, _ = lines[at].partition(rng.choice([b": ", b" = "]))
    change = [
        [],
        [lines[at]] * 2,
        [key + sign + rng.choice(WORDS)],
        [lines[at] + b" " + lines[at] * rng.choice([1, 3000])],
    ]
    lines[at : at + 1] = rng.choice(change)
    return b"\n".join(lines) + content[700:]


DAMAGES: dict[str, Damage] = {
    damage.__name__: damage for damage in (flipped, extreme, cut, spliced, renumbered, reworded)
}


def damaged(seed: int, suffix: str, damage: Damage, folder: Path) -> Path:
    """A damaged file with those beside it; what is packed as a whole is damaged before or after it was packed."""
    rng = random.Random(f"{seed} {suffix} {damage.__name__}")
    files = dict(whole()[f"{suffix} {rng.random() < 0.5}"])
    name = rng.choice(sorted(files))
    content = files[name]
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.6:
        files[name] = gzip.compress(damage(rng, gzip.decompress(content)), 1)
    else:
        files[name] = damage(rng, content)
    for left in folder.iterdir():
        left.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / f"v{suffix}"


def judged(file: Path) -> str:
    """Whether a file was read or refused, by each of the three readers; anything else is raised."""
    outcomes = set()
    for reader in (read_volume, read_mask, read_map):
        try:
            value = reader(file)
        except BadSeries as error:
            assert error.code.startswith("file."), error.code
            assert error.message.isprintable() and len(error.message) < LONGEST, error.message
            outcomes.add("refused")
        else:
            assert all(np.isfinite(value.grid.spacing_mm)) and all(np.isfinite(value.grid.origin_mm))
            outcomes.add("read")
    return "read" if "read" in outcomes else "refused"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_read_or_refused(tmp_path: Path, suffix: str, damage: str) -> None:
    tracemalloc.start()
    outcomes = {judged(damaged(seed, suffix, DAMAGES[damage], tmp_path)) for seed in range(SEEDS)}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "refused" in outcomes and peak < MOST_BYTES


def test_zlib_of_many_empty_members_ends(tmp_path: Path) -> None:
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(b"") * 20_000)
    with pytest.raises(BadSeries, match="is no NIfTI file"):
        read_volume(tmp_path / "v.nii.gz")


def test_zlib_that_asks_for_a_dictionary_is_refused(tmp_path: Path) -> None:
    packer = zlib.compressobj(zdict=b"words")
    header = b"NDims = 3\nDimSize = 4 5 6\nElementSpacing = 1 1 1\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
    header += b"ElementType = MET_SHORT\nCompressedData = True\nElementDataFile = LOCAL\n"
    (tmp_path / "v.mha").write_bytes(header + packer.compress(bytes(240)) + packer.flush())
    with pytest.raises(BadSeries, match="is cut short or damaged"):
        read_map(tmp_path / "v.mha")
