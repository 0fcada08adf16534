"""``cohort.csv``: a row for everything that was found, and what became of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from carina.api.result import Run
from carina.errors import one_line, unwritable
from carina.pipeline.places import write_whole

if TYPE_CHECKING:
    import pandas as pd

COHORT_TABLE = "cohort.csv"

MOST_WRITES = 500
"""The table is written after each item, and where it has many more rows, this often."""

FORMULA = tuple("=+-@")
"""What a spreadsheet takes for the beginning of a formula."""


class Fate(StrEnum):
    """What became of a series, a volume file or a broken file."""

    DONE = "done"
    FAILED = "failed"
    LEFT_OUT = "left out"
    WAITING = "waiting"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One row of a cohort, and what became of it.

    ``name`` is what lines call it, ``place`` the file or folder as seen from the path that was looked through. The
    UIDs are empty for volume files, ``part`` tells several volumes of one Series Instance UID apart. ``folder`` is that
    of its run, None where it gets none. ``code`` and ``message`` say why it failed or was left out. ``findings`` are
    the columns that its run adds to the table.
    """

    name: str
    place: str
    study_uid: str = ""
    series_uid: str = ""
    part: str = ""
    folder: Path | None = None
    fate: Fate = Fate.WAITING
    run: Run | None = None
    code: str = ""
    message: str = ""
    findings: Mapping[str, str | float] = field(default_factory=dict)


TEXT_COLUMNS = ("name", "state", "code", "reason", "study_uid", "series_uid", "part", "place", "folder", "warnings")
"""The columns that every table has, all of them text; those of the findings lie before the last."""


class CohortTable:
    """The rows of a cohort as they become known, and the file that they are kept in."""

    def __init__(self, file: Path, items: Sequence[Item]) -> None:
        self.file = file
        self.rows = [_row(item) for item in items]
        self._every = max(1, len(items) // MOST_WRITES)

    def put(self, number: int, item: Item) -> None:
        """Take up what became of the item of a number, counted from 0."""
        self.rows[number] = _row(item)
        if (number + 1) % self._every == 0:
            self.write()

    def text(self) -> str:
        """The table as CSV."""
        measured = dict.fromkeys(name for row in self.rows for name in row if name not in TEXT_COLUMNS)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(
            text, [*TEXT_COLUMNS[:-1], *measured, TEXT_COLUMNS[-1]], restval="", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def write(self) -> None:
        """Write the table in one step, its folder made: a reader sees the old one or the new one.

        Raises:
            BadConfig: it can't be written.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.file, self.text().encode("utf-8"))
        except OSError as error:
            raise unwritable(error, self.file) from error


def read_cohort_table(file: Path) -> pd.DataFrame:
    """The table as a data frame: texts as they are, numbers as numbers."""
    import pandas as pd

    table = pd.read_csv(file, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False, na_values=[""])
    measured = dict.fromkeys((name for name in table.columns if name not in TEXT_COLUMNS), float)
    return table.astype(measured).fillna(dict.fromkeys(TEXT_COLUMNS, ""))  # "nan": the mean HU of no lesion


def findings_of(folder: Path) -> dict[str, str | float]:
    """The columns of a finished run: volumes, ratios and HU by region, class probabilities, warnings.

    Raises:
        CarinaError: what the run stored can't be read.
    """
    run = Run(folder)  # one of its own, since what is read of it is kept for as long as it is
    found: dict[str, str | float] = {}
    for region in run.findings.to_dict("records"):
        found |= {f"{region['region']} {name}": value for name, value in region.items() if name != "region"}
    found |= {f"probability {name}": value for name, value in run.probabilities.items()}
    return found | {"warnings": " ".join(run.warnings)}


def _row(item: Item) -> dict[str, str | float]:
    known = {
        "name": item.name,
        "state": item.fate.value,
        "code": item.code,
        "reason": item.message,
        "study_uid": item.study_uid,
        "series_uid": item.series_uid,
        "part": item.part,
        "place": item.place,
        "folder": item.folder.name if item.folder else "",
        **item.findings,
    }
    return {_cell(name): _cell(value) if isinstance(value, str) else value for name, value in known.items()}


def _cell(text: str) -> str:
    """A text in one line that no spreadsheet takes for a formula: an apostrophe goes before what looks like one."""
    line = one_line(text)
    return f"'{line}" if line.lstrip().startswith(FORMULA) else line
