"""A classification as CSV and a volume ratio as text: the forms in which the published pipeline hands them on.

Written beside the JSON files that Carina itself reads, with the numbers of ``findings.csv``; read where they come
alone, from others too.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from carina import RESEARCH_ONLY
from carina.errors import BadSeries
from carina.measure.findings import Classification, RatioFindings, RegionFindings, in_class_order
from carina.measure.table import DECIMALS, findings_rows
from carina.pipeline.values import write_csv

CLASSIFICATION, RATIO = "classification.csv", "volume-ratio.txt"

REASON_COLUMN = "not_computed"
"""Column that says why there is no probability; only there where there is none."""

SUM_TOLERANCE = 0.02
"""Probabilities that were rounded may miss 1 by this."""

LARGEST_RESULT_BYTES = 1_000_000

SEPARATOR = re.compile(r"\s*[,;:=\t]\s*")

REGION = re.compile(r"([^:]+): lung (\S+) ml, lesion (\S+) ml, ratio (\S+) %")


def write_classification(classification: Classification, folder: Path) -> Path:
    """Write ``classification.csv``: a row for each class, or one with the reason why there are none."""
    path = folder / CLASSIFICATION
    rows: list[Mapping[str, str | float | None]] = [
        {"class": name, "probability": round(value, DECIMALS)}
        for name, value in in_class_order(classification.probabilities).items()
    ]
    reason = {"class": None, "probability": None, REASON_COLUMN: classification.not_computed}
    write_csv(rows or [reason], path)
    return path


def read_classification(path: Path) -> Classification:
    """Read class probabilities from a CSV or text file, ours or another's.

    Two forms are known: a line for each class with its name and its probability (``COVID-19, 0.83``; a colon or an
    equals sign will do), with or without a header; or a line of names above a line of probabilities.

    Raises:
        BadSeries: ``ports.classification``, the file holds neither, or its numbers are no probabilities.
    """
    rows = _rows(path)
    reason = _reason(rows)
    if reason:
        return Classification(uid="", probabilities={}, not_computed=reason)
    found = _below_each_other(rows) or _beside_each_other(rows)
    if not found or any(not 0 <= value <= 1 for value in found.values()):
        raise _no_classification(path, "no line with the name of a class and a probability from 0 to 1")
    total = sum(found.values())
    if len(found) > 1 and abs(total - 1) > SUM_TOLERANCE:
        raise _no_classification(path, f"probabilities that sum to {total:.3g} instead of 1")
    return Classification(uid="", probabilities=found)


def write_ratio(ratio: RatioFindings, folder: Path) -> Path:
    """Write ``volume-ratio.txt``: a line for each region, readable by people and by ``read_ratio``."""
    lines = [
        f"{row['region']}: lung {row['lung_ml']} ml, lesion {row['lesion_ml']} ml, ratio {row['ratio_percent']} %"
        for row in findings_rows(ratio)
    ]
    lines += [f"lesions: {ratio.lesion_count}", *(f"warning: {one}" for one in ratio.warnings), RESEARCH_ONLY]
    path = folder / RATIO
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")
    return path


def read_ratio(path: Path) -> RatioFindings:
    """Read what ``write_ratio`` wrote; mean HU and slices to show are not in it.

    Raises:
        BadSeries: ``ports.ratio``, there is no line of a region as ``write_ratio`` writes it.
    """
    lines = _text(path).splitlines()
    try:
        regions = tuple(_region(*found.groups()) for found in map(REGION.fullmatch, lines) if found)
        count = next((int(line.removeprefix("lesions: ")) for line in lines if line.startswith("lesions: ")), 0)
    except ValueError as error:
        raise _no_ratio(path, str(error)) from error
    if not regions:
        raise _no_ratio(path, "no line of a region")
    warnings = tuple(line.removeprefix("warning: ") for line in lines if line.startswith("warning: "))
    return RatioFindings(uid="", regions=regions, lesion_count=count, warnings=warnings)


def holds_ratio(path: Path) -> bool:
    """Whether a file has a line of a region as ``write_ratio`` writes it."""
    return any(map(REGION.fullmatch, _text(path).splitlines()))


def _region(name: str, lung: str, lesion: str, ratio: str) -> RegionFindings:
    return RegionFindings(region=name, lung_ml=float(lung), lesion_ml=float(lesion), ratio_percent=float(ratio))


def _no_ratio(path: Path, seen: str) -> BadSeries:
    expected = "lungs: lung 4000 ml, lesion 120 ml, ratio 3 %"
    return BadSeries("ports.ratio", f"{path.name}: is no volume ratio ({seen}); expected lines like '{expected}'.")


def _no_classification(path: Path, seen: str) -> BadSeries:
    return BadSeries(
        "ports.classification", f"{path.name}: is no classification ({seen}); expected lines like 'COVID-19, 0.83'."
    )


def _text(path: Path) -> str:
    """The text of a file that is small enough to be one of these; a byte that is no UTF-8 reads as a mark."""
    if path.stat().st_size > LARGEST_RESULT_BYTES:
        raise BadSeries(
            "ports.files", f"{path.name}: more than {LARGEST_RESULT_BYTES} bytes; expected a few lines of text."
        )
    return path.read_text(encoding="utf-8-sig", errors="replace")


def _rows(path: Path) -> list[list[str]]:
    """The cells of each line that has any."""
    text = _text(path)
    if path.suffix.lower() == ".csv":
        try:
            lines = list(csv.reader(text.splitlines(), strict=True))
        except csv.Error as error:
            raise _no_classification(path, str(error)) from error
        split = [cells if len(cells) > 1 else SEPARATOR.split("".join(cells)) for cells in lines]
    else:
        split = [SEPARATOR.split(line) for line in text.splitlines()]
    return [[cell.strip() for cell in cells] for cells in split if any(cell.strip() for cell in cells)]


def _reason(rows: list[list[str]]) -> str:
    """The reason why there is no probability, as ``write_classification`` writes it."""
    if len(rows) == 2 and rows[0][-1] == REASON_COLUMN:
        return rows[1][-1]
    return ""


def _below_each_other(rows: list[list[str]]) -> dict[str, float]:
    """A class and its probability in each line, the lines without a number left out."""
    found = {cells[0]: _number(cells[1]) for cells in rows if len(cells) == 2 and _number(cells[0]) is None}
    return {name: value for name, value in found.items() if name and value is not None}


def _beside_each_other(rows: list[list[str]]) -> dict[str, float]:
    """A line of names above a line of numbers."""
    for names, cells in pairwise(rows):
        values = [_number(cell) for cell in cells]
        if len(names) == len(values) and all(_number(name) is None for name in names):
            found = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            if len(found) == len(names):
                return found
    return {}


def _number(cell: str) -> float | None:
    """A cell as a number; percent are hundredths."""
    try:
        return float(cell.removesuffix("%")) / (100 if cell.endswith("%") else 1)
    except ValueError:
        return None
