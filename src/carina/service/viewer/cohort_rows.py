"""A cohort's table as its page asks for it: columns with their spread, rows by state, value and order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec
import numpy as np
import numpy.typing as npt

from carina.api.cohort_table import TEXT_COLUMNS
from carina.errors import BadConfig
from carina.measure.texts import ml_text, percent_text
from carina.report.numbers import NOT_TOLD, hu_text, probability_text, region_name

if TYPE_CHECKING:
    import pandas as pd

COHORT_ROWS = 100
"""Rows of one page."""

FENCE = 3.0
"""Widths of the middle half of the values that a value may lie beyond its ends: Tukey's outer fences (1977)."""

FEWEST = 8
"""Values without which nothing is called far from the others."""

PROBABILITY_COLUMN = "probability "

_DIGITS = re.compile(r"([0-9]{1,18})")

_MEASURES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "lung_ml": ("Lung ml", ml_text),
    "lesion_ml": ("Lesion ml", ml_text),
    "ratio_percent": ("Ratio %", percent_text),
    "lung_mean_hu": ("Lung HU", hu_text),
    "lesion_mean_hu": ("Lesion HU", hu_text),
}
"""What a region's columns are called, and how their figures are written."""


class CohortAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What part of a cohort is asked for; empty fields are those of a form that was left alone.

    ``region`` chooses the columns, ``order`` is a column's name (after ``-``: the highest first). ``column`` with
    ``least`` and ``most`` keeps the rows whose value lies between them, ``far`` those with a value far from the others.
    ``start`` is the first row shown, counted from 0.
    """

    state: str = ""
    region: str = ""
    order: str = ""
    column: str = ""
    least: str = ""
    most: str = ""
    far: str = ""
    start: str = ""

    def link(self, **changed: object) -> str:
        """The query of another part, which begins at its first row unless ``start`` is given."""
        values = {**msgspec.structs.asdict(self), "start": "", **changed}
        return f"?{urlencode({name: str(value) for name, value in values.items() if value not in ('', None)})}"

    @property
    def bounds(self) -> tuple[float, float]:
        """``least`` and ``most`` as numbers.

        Raises:
            BadConfig: ``cohort.asked``, one is no number.
        """
        return _number("least", self.least, -np.inf), _number("most", self.most, np.inf)

    @property
    def first(self) -> int:
        """``start`` as a number.

        Raises:
            BadConfig: ``cohort.asked``, it is none.
        """
        return max(0, int(min(_number("start", self.start, 0), 2**31)))


def cohort_asked(query: Mapping[str, str]) -> CohortAsked:
    """What a query asks for.

    Raises:
        BadConfig: ``cohort.asked``, a key is not known.
    """
    try:
        return msgspec.convert(dict(query), CohortAsked)
    except msgspec.ValidationError as error:
        raise BadConfig("cohort.asked", f"the address asks for what a cohort's page does not know: {error}.") from None


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnSpread:
    """The values of a column over all rows; NaN where a row has none.

    ``fences`` are the least and greatest value that is not far from the others.
    """

    column: str
    title: str
    values: npt.NDArray[np.float64]
    fences: tuple[float, float]
    text: Callable[[float], str]

    @property
    def known(self) -> npt.NDArray[np.float64]:
        """The values that there are, in order."""
        return np.sort(self.values[np.isfinite(self.values)])

    @property
    def is_far(self) -> npt.NDArray[np.bool_]:
        """By row: whether its value lies far from the others."""
        return (self.values < self.fences[0]) | (self.values > self.fences[1])

    @property
    def words(self) -> str:
        """Middle, middle half and ends in a sentence."""
        known = self.known
        if not known.size:
            return f"{self.title}: no values."
        low, middle, high = (self.text(float(value)) for value in np.percentile(known, [25, 50, 75]))
        least, most = self.text(float(known[0])), self.text(float(known[-1]))
        return f"{known.size} values: median {middle}, middle half {low} to {high}, all {least} to {most}."


def column_spreads(table: pd.DataFrame, region: str = "") -> tuple[ColumnSpread, ...]:
    """The columns of a region, and the classes' probabilities; of other pipelines, every column of numbers."""
    columns = number_columns(table)
    wanted = region or next(iter(measured_regions(table)), "")
    shown = [column for column in columns if column.startswith(PROBABILITY_COLUMN) or _region(column) == wanted]
    return tuple(_spread(table, column) for column in (shown or columns))


def measured_regions(table: pd.DataFrame) -> tuple[str, ...]:
    """The regions that the cohort's runs measured, in the table's order."""
    named = (_region(column) for column in number_columns(table))
    return tuple(dict.fromkeys(name for name in named if name))


def number_columns(table: pd.DataFrame) -> list[str]:
    """The names of the columns that hold numbers."""
    return [str(name) for name in table.columns if name not in TEXT_COLUMNS and table[name].dtype.kind in "fiu"]


def chosen_rows(table: pd.DataFrame, asked: CohortAsked, shown: Sequence[ColumnSpread]) -> list[int]:
    """The numbers of the rows that are asked for, in the order asked for; rows without the value come last.

    Raises:
        BadConfig: ``cohort.asked``, a column is not known or a bound no number.
    """
    keeps = np.ones(len(table), dtype=bool)
    if asked.state:
        keeps &= (table["state"] == asked.state).to_numpy()
    if asked.column:
        least, most = asked.bounds
        values = _values(table, asked.column)
        keeps &= (values >= least) & (values <= most)
    if asked.far:
        keeps &= np.any([one.is_far for one in shown], axis=0) if shown else False
    rows = np.flatnonzero(keeps)
    if not asked.order:
        return [int(row) for row in rows]
    return _ordered(table, rows, asked.order)


def _ordered(table: pd.DataFrame, rows: npt.NDArray[np.intp], order: str) -> list[int]:
    name, falls = order.removeprefix("-"), order.startswith("-")
    if name in TEXT_COLUMNS and name in table.columns:
        texts = [row_name(told) for told in table.to_dict("records")] if name == "name" else table[name].tolist()
        return sorted((int(row) for row in rows), key=lambda row: _as_read(str(texts[row])), reverse=falls)
    values = _values(table, name)[rows]
    return [int(row) for row in rows[np.argsort(-values if falls else values, kind="stable")]]  # NaN sorts last


def row_name(told: Mapping[Any, Any]) -> str:
    """What the page calls a row: by its place in the archive, where that has one, else by its own name."""
    return str(told["name"] if told["place"] in ("", ".") else told["place"])


def _as_read(text: str) -> tuple[list[int | str], str]:
    """A key that orders texts as one reads them: numbers by their value, small letters as large ones."""
    parts = _DIGITS.split(text)  # texts and numbers in turn
    return [int(part) if number % 2 else part.casefold() for number, part in enumerate(parts)], text


def _values(table: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    if column not in number_columns(table):
        raise BadConfig("cohort.asked", f"this cohort has no column of numbers {column!r}.")
    return table[column].to_numpy(dtype=np.float64)


def _spread(table: pd.DataFrame, column: str) -> ColumnSpread:
    values = _values(table, column)
    title, text = _MEASURES.get(column.rpartition(" ")[2], (column, "{:g}".format))
    if column.startswith(PROBABILITY_COLUMN):
        title, text = f"Probability of {column.removeprefix(PROBABILITY_COLUMN)}", probability_text
    return ColumnSpread(column=column, title=title, values=values, fences=_fences(values), text=text)


def _fences(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if known.size < FEWEST:
        return -np.inf, np.inf
    low, high = (float(value) for value in np.percentile(known, [25, 75]))
    if low == high:  # half of the cohort is alike, as where most have no lesion: then all the others would be far
        return -np.inf, np.inf
    return low - FENCE * (high - low), high + FENCE * (high - low)


def _region(column: str) -> str:
    """The region of a column such as ``left lung lesion_ml``; empty for others."""
    name, _, measure = column.rpartition(" ")
    return name if measure in _MEASURES else ""


def region_title(region: str) -> str:
    """What a region is called where the lung above it is not in sight."""
    words = region.split()
    return region_name(region)[0] if len(words) < 3 else f"{' '.join(words[:2])}, {' '.join(words[2:])}".capitalize()


def blank_text(row: Mapping[Any, Any], column: str) -> str:
    """What stands in a cell without a number: that a third is not told, where the row's lungs were measured."""
    region = _region(column)
    is_measured = not np.isnan(row.get("lungs lung_ml", np.nan))
    return NOT_TOLD if is_measured and len(region.split()) > 2 and np.isnan(row[f"{region} lung_ml"]) else ""


def _number(key: str, text: str, otherwise: float) -> float:
    if not text:
        return otherwise
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if np.isnan(number):
        raise BadConfig("cohort.asked", f"{key}={text!r}: expected a number.")
    return number
