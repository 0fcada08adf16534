"""Backups as earlier versions made them, and as a bad disk or a copy that was broken off leaves them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from random import Random

from carina.keeping.copied import COPIED, CopiedFile

PAGE = 4096
"""Bytes that SQLite reads at once."""


def make_earlier(saved: Path, *, with_list: bool) -> None:
    """Take from a backup the digests that earlier versions did not note; 0.1 had no list of files either."""
    said = json.loads((saved / "backup.json").read_bytes())
    del said["files"], said["files_sha256"], said["sha256"]
    (saved / "backup.json").write_text(json.dumps(said))
    files = [CopiedFile.of_line(line) for line in (saved / COPIED).read_text().splitlines()]
    kept = [one for one in files if one.path.startswith(("runs/", "uploads/"))]
    (saved / COPIED).write_text("".join(f"{one.line.rsplit(' ', 1)[0]}\n" for one in kept))
    if not with_list:
        (saved / COPIED).unlink()


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _noise(file: Path) -> None:
    file.write_bytes(Random(1).randbytes(file.stat().st_size))


def _spots(file: Path) -> None:
    """A few bytes here and there are others."""
    content, random = bytearray(file.read_bytes()), Random(2)
    for place in {0, len(content) // 2, len(content) - 2, *(random.randrange(len(content)) for _ in range(9))}:
        content[place] ^= 0x55
    file.write_bytes(content)


def _page(file: Path) -> None:
    """A piece in the middle that a disk gives back as zeros."""
    content = bytearray(file.read_bytes())
    start = len(content) // 2 // PAGE * PAGE
    content[start : start + PAGE] = bytes(len(content[start : start + PAGE]))
    file.write_bytes(content)


def _index(file: Path) -> None:
    """Noise in the first page of an index; all rows of its table are still there."""
    with closing(sqlite3.connect(file)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_instance_arrival_id'")
    content = bytearray(file.read_bytes())
    content[(page - 1) * PAGE : page * PAGE] = Random(3).randbytes(PAGE)
    file.write_bytes(content)


def _lines_gone(file: Path) -> None:
    """Every second line is gone, and what it ends with is as it was."""
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[1::2]))


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": _empty,
    "half": _half,
    "noise": _noise,
    "spots": _spots,
    "lines gone": _lines_gone,
}
"""What may be wrong with a file, by name."""

OF_DATABASES: Mapping[str, Callable[[Path], None]] = {
    **{name: damage for name, damage in DAMAGES.items() if name != "missing"},
    "page": _page,
    "index": _index,
}
"""What may be wrong with SQLite's file."""
