"""Removing what a program left, however deep its folders lie in each other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove a folder and all below it, as far as that can be done; links are removed and never followed.

    The standard library goes down by recursion, and gives up some thousand folders below.
    """
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(OSError):
        _flatten(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _flatten(top: Path) -> None:
    """Lift what lies in the folders of a folder up into it, again and again, until they are empty and gone.

    Raises:
        OSError: something can't be moved or removed.
    """
    names = (f"lifted-{number}" for number in count())
    while inner := [Path(entry.path) for entry in os.scandir(top) if entry.is_dir(follow_symlinks=False)]:
        for folder in inner:
            _lift(folder, top, names)


def _lift(folder: Path, top: Path, names: Iterator[str]) -> None:
    folder.chmod(0o700)
    for entry in os.scandir(folder):
        if not entry.is_dir(follow_symlinks=False):
            Path(entry.path).unlink()
            continue
        Path(entry.path).chmod(0o700)  # what is moved has to be writable: its ".." changes
        place = next(one for name in names if not os.path.lexists(one := top / name))
        Path(entry.path).rename(place)
    folder.rmdir()
