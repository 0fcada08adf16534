"""Many studies, one table: each is run in a folder of its own, a bad one does not stop the others."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from carina.api.result import Run
from carina.api.study import RunSettings, default_settings, find_series, run
from carina.errors import CarinaError

if TYPE_CHECKING:
    import pandas as pd

    from carina.dicom.found import Found

TABLE = "cohort.csv"


class Each(StrEnum):
    """What gets a run: the best series of each study, or every series that fits the rules."""

    STUDY = "study"
    SERIES = "series"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One entry of a cohort: its UID, the folder of its run, and why it failed where it did."""

    uid: str
    folder: Path
    run: Run | None = None
    code: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Every item in the order it was run, and the table that was written."""

    items: tuple[Item, ...]
    table: Path

    @property
    def failures(self) -> tuple[Item, ...]:
        """The items without a result."""
        return tuple(item for item in self.items if item.run is None)

    @property
    def findings(self) -> pd.DataFrame:
        """The table: one row for each item."""
        import pandas as pd

        return pd.read_csv(self.table)


def run_many(
    path: Path | str,
    out: Path | str,
    each: Each | str = Each.STUDY,
    how: RunSettings | None = None,
    tell: Callable[[Item, int, int], None] | None = None,
) -> Cohort:
    """Run a pipeline on each study (or series) below a path; results in ``out``/UID, the table in ``out``/cohort.csv.

    The table is rewritten after each item, finished runs are not run again, ``tell`` hears of each item with its
    number and their count.

    Raises:
        BadSeries: the path does not exist or holds neither DICOM nor a volume file.
        BadConfig: the settings, the definition or the folder are wrong.
    """
    how = how or RunSettings()
    how = replace(how, settings=how.settings or default_settings())
    groups = _groups(find_series(path, how.settings), Each(each))
    items: list[Item] = []
    table = Path(out) / TABLE
    for uid, found in groups.items():
        items.append(_run_one(uid, found, Path(out) / _folder_name(uid), how))
        _write_table(items, table)
        if tell is not None:
            tell(items[-1], len(items), len(groups))
    return Cohort(items=tuple(items), table=table)


def _groups(found: Iterable[Found], each: Each) -> dict[str, list[Found]]:
    """What was found by the UID of what gets a run, in a stable order; volume files stand for themselves."""
    groups: dict[str, list[Found]] = {}
    for one in found:
        own = one.uid or one.path.name
        groups.setdefault(one.study_uid or own if each is Each.STUDY else own, []).append(one)
    return dict(sorted(groups.items()))


def _folder_name(uid: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in uid) or "unnamed"


def _run_one(uid: str, found: list[Found], folder: Path, how: RunSettings) -> Item:
    from carina.dicom.find import choose
    from carina.dicom.rules import load_rules

    try:
        rules = load_rules(how.settings.series_rules if how.settings else None)
        return Item(uid=uid, folder=folder, run=run(choose(found, rules), folder, how))
    except CarinaError as error:
        return Item(uid=uid, folder=folder, code=error.code, message=error.message)


def _write_table(items: list[Item], table: Path) -> None:
    rows = [_row(item) for item in items]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table.parent.mkdir(parents=True, exist_ok=True)
    temporary = table.with_name(f".{table.name}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(table)


def _row(item: Item) -> dict[str, object]:
    row: dict[str, object] = {"uid": item.uid, "state": "done" if item.run else "failed", "error": item.message}
    if item.run is None:
        return row
    for region in item.run.findings.to_dict("records"):
        row |= {f"{region['region']} {name}": value for name, value in region.items() if name != "region"}
    row |= {f"probability {name}": value for name, value in item.run.probabilities.items()}
    return row | {"warnings": " ".join(item.run.warnings)}
