"""Files copied into a backup and out of one, and the list of them that a backup has: each with its size and SHA-256."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from carina.deliver.identity import file_digest

COPIED = "files.txt"
"""In every backup: the files in it but this and the last, a line each, so that what is missing or altered is seen."""

_LONGEST_SIZE = 18


@dataclass(frozen=True, kw_only=True)
class CopiedFile:
    """A file in a backup: its size in bytes, its path in it, and its SHA-256, which earlier versions did not list."""

    path: str
    bytes: int
    sha256: str = ""

    @property
    def line(self) -> str:
        """As the list has it; what is no letter, digit or sign of an address is written as a ``%`` of its bytes."""
        return f"{self.bytes} {quote_from_bytes(os.fsencode(self.path))} {self.sha256}"

    @classmethod
    def of_line(cls, line: str) -> CopiedFile:
        """What such a line says; bytes of a name that no ``%`` stands for, and that are no text, are taken as such."""
        size, _, rest = line.partition(" ")
        path, _, sha256 = rest.partition(" ")
        is_size = size.isdecimal() and len(size) <= _LONGEST_SIZE
        name = os.fsdecode(unquote_to_bytes(path.encode(errors="surrogateescape")))
        return cls(path=name, bytes=int(size) if is_size else -1, sha256=sha256)

    def is_there(self, folder: Path) -> bool:
        """Whether the file is below a folder, as long as it was; one that no file system has a name for is not."""
        file = folder / self.path
        try:
            return file.is_file() and file.stat().st_size == self.bytes
        except (OSError, ValueError):
            return False


def copied_files(folder: Path, sums: Mapping[str, str]) -> Iterator[CopiedFile]:
    """Every file below a folder; ``sums`` has those of files that are known already, by path."""
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        sha256 = sums.get(str(file)) or file_digest(file)
        yield CopiedFile(path=file.relative_to(folder).as_posix(), bytes=file.stat().st_size, sha256=sha256)


@dataclass
class Copier:
    """Copies trees; files that are one file under several names stay one. ``sums`` has the SHA-256 of each copy."""

    copied: dict[tuple[int, int], Path] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)

    def tree(self, source: Path, to: Path) -> None:
        """Copy a file or a folder, whatever is there of it."""
        if source.is_dir():
            to.mkdir(parents=True, exist_ok=True)
            for one in source.iterdir():
                self.tree(one, to / one.name)
        elif source.is_file():
            self._file(source, to)

    def _file(self, source: Path, to: Path) -> None:
        status = source.stat()
        key = (status.st_dev, status.st_ino)
        first = self.copied.setdefault(key, to)
        if first is to:
            shutil.copy2(source, to)
            self.sums[str(to)] = file_digest(to)
            return
        try:
            os.link(first, to)
        except OSError:  # where links are refused
            shutil.copy2(source, to)
        self.sums[str(to)] = self.sums[str(first)]
