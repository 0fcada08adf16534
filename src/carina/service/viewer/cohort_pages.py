"""The page of a cohort: its table, how its figures are spread, what lies far from the others; each opens its run."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from carina.api.cohort_table import COHORT_TABLE, TEXT_COLUMNS, Fate, read_cohort_table
from carina.api.result import Run
from carina.corrections.decisions import ReadersState, readers_state
from carina.errors import BadConfig, one_line
from carina.pipeline.places import below
from carina.service.viewer.agreement_page import agreement_routes
from carina.service.viewer.chart import FIELD_HEIGHT, FIELD_WIDTH, bar_path
from carina.service.viewer.cohort_rows import (
    COHORT_ROWS,
    CohortAsked,
    ColumnSpread,
    blank_text,
    chosen_rows,
    cohort_asked,
    column_spreads,
    measured_regions,
    region_title,
    row_name,
)
from carina.service.viewer.correcting import correct_routes
from carina.service.viewer.found import readers_words
from carina.service.viewer.looked_at import RunsLookedAt
from carina.service.viewer.opened import RunShelf
from carina.service.viewer.routes import STATIC, Above, Around, RevalidatedFiles, answering, viewer_page, viewer_routes
from carina.service.viewer.ways_to_correct import Correcting

if TYPE_CHECKING:
    import pandas as pd

BARS = 24


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar as a link to its rows: where it stands in the field, and what it says."""

    x: float
    width: float
    link: str
    words: str


@dataclass(frozen=True, kw_only=True)
class SpreadChart:
    """A column's spread as a drawing, and the same in words."""

    title: str
    path: str
    bars: tuple[Bar, ...]
    lowest: str
    highest: str
    words: str


@dataclass(frozen=True, kw_only=True)
class CaseFigure:
    """A number of the table; ``far`` says that it lies far from the others, and on which side."""

    text: str
    far: str


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """A row of the table, called by its place or its name; ``folder`` is empty where there is no run to open."""

    name: str
    called: str
    state: str
    reason: str
    folder: str
    readers: str
    figures: tuple[CaseFigure, ...]


class CohortFile:
    """The table of a cohort that may still be running: read again when it has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / COHORT_TABLE
        self._lock = threading.Lock()
        self._read: tuple[int, pd.DataFrame] | None = None

    @property
    def table(self) -> pd.DataFrame:
        """The table as it is now.

        Raises:
            BadConfig: ``cohort.unreadable``, it is gone or no table of a cohort.
        """
        with self._lock:
            try:
                changed = self.file.stat().st_mtime_ns
                if self._read is None or self._read[0] != changed:
                    self._read = changed, _with_columns(read_cohort_table(self.file))
            except (OSError, ValueError) as error:
                said = one_line(str(error))
                wanted = "expected the table that carina run --each writes"
                raise BadConfig("cohort.unreadable", f"{self.file}: can't be read ({said}); {wanted}.") from error
            return self._read[1]

    @property
    def cases(self) -> dict[str, Path]:
        """The folders of the runs by the address of their pages."""
        names = [str(name) for name in self.table["folder"] if name]
        return {f"/cases/{quote(name)}": below(self.folder, name) for name in names}

    def case(self, request: Request) -> Path:
        """The folder of the run that a request is about: one that the table names.

        Raises:
            BadConfig: ``cohort.case``, it names none of that name.
        """
        name = request.path_params["case"]
        if not name or name not in set(self.table["folder"]):
            raise BadConfig("cohort.case", f"{self.file}: there is no case of this name.")
        return below(self.folder, str(name))


def cohort_routes(folder: Path, correcting: Correcting) -> list[BaseRoute]:
    """The pages of a cohort's folder, those of each of its runs below ``/cases``, whose masks can be corrected.

    Raises:
        BadConfig: the folder holds no table of a cohort.
    """
    pages = CohortPages(CohortFile(folder))
    shelf, above = RunShelf(), Above(href="/", name="Cohort")
    around = Around(above=lambda _: above, is_correctable=True)
    correct = correct_routes(pages.cohort.case, shelf, around, correcting)
    runs = [*correct, *viewer_routes(pages.cohort.case, shelf, around)]
    return [
        Route("/", answering(pages.page, lambda _request, _error: (above,))),
        Route("/cohort.csv", answering(pages.csv, lambda _request, _error: (above,))),
        Route("/cohort.parquet", answering(pages.parquet, lambda _request, _error: (above,))),
        Mount("/agreement", routes=agreement_routes(lambda _: RunsLookedAt(runs=pages.cohort.cases), (above,))),
        Mount("/cases/{case}", routes=runs),
        Mount("/static", RevalidatedFiles(directory=STATIC)),
    ]


class CohortPages:
    """The page and the downloads of one cohort."""

    def __init__(self, cohort: CohortFile) -> None:
        self.cohort = cohort
        _ = cohort.table  # refused now, and not when somebody looks

    def page(self, request: Request) -> Response:
        """Counts, spreads, and the rows that are asked for."""
        table, asked = self.cohort.table, cohort_asked(request.query_params)
        shown = column_spreads(table, asked.region)
        rows = chosen_rows(table, asked, shown)
        states = table["state"].value_counts()
        cases = [self._case(table, row, shown) for row in rows[asked.first : asked.first + COHORT_ROWS]]
        values = {
            "asked": asked,
            "kept": _kept(asked, shown),
            "place": self.cohort.folder.resolve().name,
            "counts": [(state.value, int(states.get(state.value, 0))) for state in Fate],
            "regions": [(name, region_title(name)) for name in measured_regions(table)],
            "spreads": shown,
            "charts": [chart for one in shown if (chart := _drawn(one, asked))],
            "field": (FIELD_WIDTH, FIELD_HEIGHT),
            "rows": cases,
            "has_readers": any(one.readers for one in cases),
            "total": len(table),
            "found": len(rows),
            "pages": _pages(asked, len(rows)),
            "parquet": _can_write_parquet(),
        }
        return viewer_page(request, "cohort.html", values)

    def _case(self, table: pd.DataFrame, row: int, shown: tuple[ColumnSpread, ...]) -> CaseRow:
        told = table.iloc[row]
        folder = str(told["folder"])
        state = readers_state(Run(below(self.cohort.folder, folder))) if folder else ReadersState()
        return CaseRow(
            name=str(told["name"]),
            called=row_name(dict(told)),
            state=str(told["state"]),
            reason=str(told["reason"] or told["warnings"]),
            folder=folder,
            readers=readers_words(state),
            figures=tuple(_figure(one, row, blank_text(dict(told), one.column)) for one in shown),
        )

    def csv(self, request: Request) -> Response:
        """The table as it was written."""
        return FileResponse(self.cohort.file, media_type="text/csv", filename=COHORT_TABLE)

    def parquet(self, request: Request) -> Response:
        """The table with its types.

        Raises:
            BadConfig: ``cohort.parquet``, the package that writes it is not installed.
        """
        if not _can_write_parquet():
            raise BadConfig("cohort.parquet", "Parquet needs pyarrow: pip install 'carina-ct[parquet]'.")
        data = io.BytesIO()
        self.cohort.table.to_parquet(data, index=False)
        named = {"Content-Disposition": 'attachment; filename="cohort.parquet"'}
        return Response(data.getvalue(), media_type="application/vnd.apache.parquet", headers=named)


def _with_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The table, which has the columns of every cohort."""
    missing = [name for name in TEXT_COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"it has no column {missing[0]}")
    return table


def _can_write_parquet() -> bool:
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None


def _pages(asked: CohortAsked, found: int) -> Mapping[str, Any]:
    """What part is shown, counted from 1, and the links to the parts beside it."""
    first = asked.first
    before = asked.link(start=max(0, first - COHORT_ROWS)) if first else ""
    after = asked.link(start=first + COHORT_ROWS) if first + COHORT_ROWS < found else ""
    return {"first": min(first + 1, found), "last": min(first + COHORT_ROWS, found), "before": before, "after": after}


def _kept(asked: CohortAsked, shown: tuple[ColumnSpread, ...]) -> str:
    """Which values are kept, as the page calls and writes them; empty where rows of every value are."""
    one = next((one for one in shown if asked.column and one.column == asked.column), None)
    if one is None:
        return asked.column
    ends = [one.text(end) if np.isfinite(end) else "" for end in asked.bounds]
    return " ".join([one.title, *(f"{word} {end}" for word, end in zip(("from", "to"), ends, strict=True) if end)])


def _figure(one: ColumnSpread, row: int, blank: str) -> CaseFigure:
    value = float(one.values[row])
    if not np.isfinite(value):
        return CaseFigure(text=blank, far="")
    far = "below" if value < one.fences[0] else "above" if value > one.fences[1] else ""
    return CaseFigure(text=one.text(value), far=far)


def _drawn(one: ColumnSpread, asked: CohortAsked) -> SpreadChart | None:
    """The drawing of a column; None where fewer than two different values are known."""
    known = one.known
    if not known.size or known[0] == known[-1]:
        return None
    counts, edges = np.histogram(known, BARS)
    width = FIELD_WIDTH / BARS
    bars = [
        Bar(
            x=round(width * number, 1),
            width=round(width, 1),
            link=asked.link(column=one.column, least=repr(float(low)), most=repr(float(high)), far="", state=""),
            words=f"{one.title} {one.text(float(low))} to {one.text(float(high))}: {count}",
        )
        for number, (count, low, high) in enumerate(zip(counts, edges[:-1], edges[1:], strict=True))
        if count
    ]
    return SpreadChart(
        title=one.title,
        path=bar_path([float(count) for count in counts], float(counts.max())),
        bars=tuple(bars),
        lowest=one.text(float(known[0])),
        highest=one.text(float(known[-1])),
        words=one.words,
    )
