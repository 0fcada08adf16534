"""Many studies, one table: each is run in a folder of its own, and no failure of one stops the others."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from carina.api.cohort_plan import CohortPlan, Each
from carina.api.cohort_table import COHORT_TABLE, CohortTable, Fate, Item, findings_of, read_cohort_table
from carina.api.study import RunSettings, check_pipeline, default_settings, find_series, run
from carina.dicom.rules import load_rules
from carina.dicom.series import Source
from carina.errors import CarinaError, keep_trace, told
from carina.pipeline.places import check_place

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Everything that was found, study by study, and the table that was written."""

    items: tuple[Item, ...]
    table: Path

    @property
    def failures(self) -> tuple[Item, ...]:
        """What should have a result and has none."""
        return tuple(item for item in self.items if item.fate is Fate.FAILED)

    @property
    def counts(self) -> dict[Fate, int]:
        """How many items ended as what."""
        counted = Counter(item.fate for item in self.items)
        return {fate: counted[fate] for fate in Fate if counted[fate] or fate is not Fate.WAITING}

    @property
    def findings(self) -> pd.DataFrame:
        """The table: one row for each item."""
        return read_cohort_table(self.table)


def run_many(
    path: Path | str,
    out: Path | str,
    each: Each | str = Each.STUDY,
    how: RunSettings | None = None,
    tell: Callable[[Item, int, int], None] | None = None,
) -> Cohort:
    """Run a pipeline on each study (or series) below a path; results in folders of ``out``, beside them cohort.csv.

    Every series, volume file and broken file has a row: done, failed, left out, or waiting until its turn has come.
    A run that is finished is not run again, one that was interrupted resumes, and what lies in ``out`` is no input.
    ``tell`` hears of each item with its number and their count.

    Raises:
        BadSeries: the path does not exist or holds neither DICOM nor a volume file.
        BadConfig: the settings or the definition are wrong, or ``out`` can't be written.
    """
    how = how or RunSettings()
    settings = how.settings or default_settings()
    how = replace(how, settings=settings)
    path, out = Path(path), Path(out)
    check_place(out)
    check_pipeline(how)
    plan = CohortPlan(path=path, out=out, each=Each(each), rules=load_rules(settings.series_rules))
    work = deque(plan.work(find_series(path, settings)))
    items = [item for item, _ in work]
    table = CohortTable(out / COHORT_TABLE, items)
    table.write()
    try:
        for number in range(len(items)):
            item, source = work.popleft()  # with its headers, which so many studies can't keep in memory
            items[number] = item if source is None else _run_one(item, source, how)
            table.put(number, items[number])
            if tell is not None:
                tell(items[number], number + 1, len(items))
    finally:
        table.write()
    return Cohort(items=tuple(items), table=table.file)


def _run_one(item: Item, source: Source, how: RunSettings) -> Item:
    """Run one item; whatever is raised becomes its row."""
    folder = item.folder or Path()
    try:
        finished = run(source, folder, how)
        return replace(item, fate=Fate.DONE, run=finished, findings=findings_of(folder))
    except Exception as error:  # noqa: BLE001 - a study of a cohort: its error is its own, a fault of ours too
        failure = _kept(error, folder)
    return replace(item, fate=Fate.FAILED, code=failure.code, message=failure.message)


def _kept(error: Exception, folder: Path) -> CarinaError:
    """What an error is told as; the traceback of a fault of ours is kept in the item's folder."""
    file = folder / "bug.txt"
    failure = told(error, [folder], kept=file)
    is_kept = not failure.trace or failure is error or keep_trace(failure, file)
    return failure if is_kept else told(error)
