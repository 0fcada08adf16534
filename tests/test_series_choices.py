"""The right series of each study in a table of real kinds of descriptions, kernels, body parts and image types."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from carina.dicom.find import judge
from carina.dicom.found import Found
from carina.dicom.rules import load_rules

TABLE = Path(__file__).with_name("series_choices.csv")
ROWS = 300
RULES = load_rules()


def read_table() -> dict[str, list[dict[str, str]]]:
    """The rows of each study."""
    studies: dict[str, list[dict[str, str]]] = defaultdict(list)
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            studies[row["study"]].append(row)
    return studies


STUDIES = read_table()


def found(row: dict[str, str], number: int) -> Found:
    """An axial CT series with the facts of a row; the UIDs' order is not the table's."""
    image_type = tuple(row["image_type"].split("\\"))
    return Found(
        path=Path("x"),
        uid=f"1.2.{(number * 7 + 3) % 10}",
        modality="CT",
        description=row["description"],
        kernel=row["kernel"],
        body_part=row["body_part"],
        image_type=image_type,
        slices=int(row["slices"]),
        matrix=(512, 512),
        pixel_spacing_mm=(0.7, 0.7),
        slice_spacing_mm=float(row["spacing_mm"]) if row["spacing_mm"] else None,
        plane="axial",
        degrees_from_plane=0.0,
    )


def test_the_table_is_large_and_has_one_right_series_a_study() -> None:
    rows = [row for study in STUDIES.values() for row in study]
    assert len(rows) >= ROWS
    assert {row["right"] for row in rows} == {"", "x"}
    rights = {name: sum(row["right"] == "x" for row in study) for name, study in STUDIES.items()}
    assert all(count == 1 or name.startswith("nothing-fits") for name, count in rights.items())


@pytest.mark.parametrize("name", STUDIES)
def test_the_right_series_is_taken(name: str) -> None:
    study = STUDIES[name]
    judged = judge([found(row, number) for number, row in enumerate(study)], RULES)
    taken = [(one.description, one.kernel, one.slices) for one in judged if one.taken]
    right = [(row["description"], row["kernel"], int(row["slices"])) for row in study if row["right"]]
    assert taken == right, [(one.description, one.kernel, one.reason) for one in judged]
