"""Files of a stored value: which is which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carina.errors import BadSeries
from carina.pipeline.json_text import read_json


def with_suffix(files: Sequence[Path], *suffixes: str) -> list[Path]:
    """The files whose names end so, in any case."""
    return [path for path in files if path.name.lower().endswith(suffixes)]


def written_files(folder: Path, first: str) -> list[Path]:
    """Every file of a folder, ``first`` in front."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda p: (p.name != first, p))


def one_file(files: Sequence[Path], what: str, *suffixes: str) -> Path:
    """The one file of these suffixes.

    Raises:
        BadSeries: ``ports.files``, there is none, or more than one.
    """
    found = with_suffix(files, *suffixes)
    if len(found) != 1:
        place = files[0].parent if files else "the folder"
        raise BadSeries("ports.files", f"{place}: expected one {what} ({', '.join(suffixes)}), found {len(found)}.")
    return found[0]


def facts_of(files: Sequence[Path]) -> dict[str, Any]:
    """The object of the JSON file among some files; empty where there is none."""
    found = with_suffix(files, ".json")
    return read_tree(found[0]) if found else {}


def read_tree(path: Path) -> dict[str, Any]:
    """The object of a JSON file."""
    return read_json(path.read_bytes(), dict[str, Any])
