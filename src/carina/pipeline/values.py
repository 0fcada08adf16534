"""Port types for anybody's results: a table, anything that JSON can hold, and files that their reader understands."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from carina.errors import BadSeries, kind_and_place, with_words
from carina.nesting import DEEPEST
from carina.pipeline.json_text import as_pretty_json, read_json
from carina.pipeline.places import file_name, make_below
from carina.pipeline.ports import Saved

Row = Mapping[str, str | float | int | None]
"""A table's row by column; None where there is nothing to say."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under named columns, stored as ``NAME.csv`` (UTF-8, texts in quotes, so that ``007`` stays a text).

    ``columns`` gives their order, and the header of a table without rows; columns that only the rows name follow.
    Units belong into the columns' names. Read back, an empty text is None.
    """

    rows: Sequence[Row]
    columns: tuple[str, ...] = ()
    name: str = "table"

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write the CSV file."""
        path = folder / f"{file_name(self.name)}.csv"
        write_csv(self.rows, path, self.columns, quoting=csv.QUOTE_NONNUMERIC)
        return [path]

    @classmethod
    def load(cls, files: Sequence[Path]) -> Self:
        """Read what ``save`` wrote.

        Raises:
            BadSeries: ``ports.files``, there is not one CSV file, or it was not written by ``save``.
        """
        path = _only(files, ".csv")
        try:
            with path.open(newline="", encoding="utf-8") as file:
                columns, *lines = csv.reader(file, quoting=csv.QUOTE_NONNUMERIC, strict=True)
            rows = [dict(zip(columns, map(_cell, line), strict=True)) for line in lines]
        except (ValueError, csv.Error) as error:
            words = (
                f"{path}: is no table of Carina ({kind_and_place(error)}); expected CSV with quoted texts and a header."
            )
            raise with_words(BadSeries("ports.files", words), error) from error
        return cls(rows=rows, columns=tuple(map(str, columns)), name=path.stem)

    @classmethod
    def recognise(cls, files: Sequence[Path]) -> bool:
        """Whether the files are one CSV file."""
        return [path.suffix for path in files] == [".csv"]


@dataclass(frozen=True, kw_only=True)
class Json:
    """Anything that JSON can hold, stored as ``NAME.json``."""

    value: Any
    name: str = "result"

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write the JSON file, indented for people."""
        path = folder / f"{file_name(self.name)}.json"
        path.write_bytes(as_pretty_json(self.value))
        return [path]

    @classmethod
    def load(cls, files: Sequence[Path]) -> Self:
        """Read a JSON file.

        Raises:
            BadSeries: ``ports.files``, there is not one JSON file, or it is no JSON or nested too deep.
        """
        path = _only(files, ".json")
        try:
            return cls(value=read_json(path.read_bytes()), name=path.stem)
        except ValueError as error:
            raise with_words(
                BadSeries("ports.files", f"{path}: is no JSON, or nested more than {DEEPEST} deep."), error
            ) from error

    @classmethod
    def recognise(cls, files: Sequence[Path]) -> bool:
        """Whether the files are one JSON file."""
        return [path.suffix for path in files] == [".json"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Files:
    """What somebody else's program left at an output: whoever reads it says what it is.

    ``names`` are relative to ``folder``, from which the files are moved when they are stored.
    """

    folder: Path
    names: tuple[str, ...]

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        """Move the files."""
        for name in self.names:
            make_below(folder, (folder / name).parent)
            (self.folder / name).replace(folder / name)
        return [folder / name for name in self.names]

    @classmethod
    def load(cls, files: Sequence[Path]) -> Self:
        """Name the files; none of them is opened."""
        folder = Path(os.path.commonpath([path.parent for path in files])) if files else Path()
        return cls(folder=folder, names=tuple(path.relative_to(folder).as_posix() for path in files))

    @classmethod
    def recognise(cls, files: Sequence[Path]) -> bool:
        """Any files will do."""
        return True


def write_csv(
    rows: Sequence[Row], path: Path, columns: Sequence[str] = (), *, quoting: Any = csv.QUOTE_MINIMAL
) -> None:
    """Write rows under a header: ``columns`` first, then those that only the rows name, in the rows' order."""
    named = list(dict.fromkeys([*columns, *(column for row in rows for column in row)]))
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, named, lineterminator="\n", quoting=quoting)
        writer.writeheader()
        writer.writerows(rows)


def _cell(cell: str | float) -> str | float | int | None:
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return None if cell == "" else cell


def _only(files: Sequence[Path], suffix: str) -> Path:
    found = [path for path in files if path.suffix == suffix]
    if len(found) != 1:
        place = files[0].parent if files else "the folder"
        raise BadSeries("ports.files", f"{place}: expected one {suffix} file, found {len(found)}.")
    return found[0]
