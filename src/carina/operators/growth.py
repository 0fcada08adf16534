"""How much a program has written, looked at while it writes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MOST_FILES = 100_000

LOOK_AGAIN_S = 0.5
"""Between two looks; after one that took long, ten times as long."""

PART_OF_FREE = 0.5
"""What a program may take of what the disk had left when it started, and all that goes on beside it together."""


@dataclass
class WrittenBelow:
    """What is written below a folder: at most ``most_bytes`` and ``MOST_FILES`` files and folders more than was there.

    Sizes are those that files say, so that a file of holes counts as what reading it would give. A file that has no
    name any more, or lies elsewhere, is not seen; but the disk never loses more than half of what it had left.
    """

    folder: Path
    most_bytes: float
    _next: float = field(default=0.0, init=False)
    _there: tuple[int, int] = field(default=(0, 0), init=False)
    _least_free: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Note what is there already, and no more than half of the disk is taken."""
        self._there = _measure(self.folder)
        free = shutil.disk_usage(self.folder).free
        self.most_bytes, self._least_free = min(self.most_bytes, PART_OF_FREE * free), (1 - PART_OF_FREE) * free

    def is_over(self) -> bool:
        """Whether it is too much; looked at now and then only, as long as that takes."""
        began = time.monotonic()
        if began < self._next:
            return False
        is_over = self.ends_over()
        ended = time.monotonic()
        self._next = ended + max(LOOK_AGAIN_S, 10 * (ended - began))
        return is_over

    def ends_over(self) -> bool:
        """Whether it is too much now."""
        if shutil.disk_usage(self.folder).free < self._least_free:
            return True
        files, size = _measure(self.folder)
        return files - self._there[0] > MOST_FILES or size - self._there[1] > self.most_bytes


def _measure(folder: Path) -> tuple[int, int]:
    """Files and folders below a folder, and their bytes; no link is followed, what can't be looked at is nothing."""
    files = size = 0
    for entry in _below(folder):
        with suppress(OSError):
            files, size = files + 1, size + entry.stat(follow_symlinks=False).st_size
    return files, size


def _below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder, however deep."""
    waiting = [str(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:  # it may be gone meanwhile
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                yield entry
