"""Small archives and a quick pipeline for the tests of cohorts."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from carina.api.cohort import Cohort
from carina.api.study import RunSettings
from carina.config import Settings
from carina.operators import VolumePort
from carina.pipeline import Json, Operator
from carina.volume import Grid, Volume
from carina.volume.files import write_volume
from reading_slices import write_series

RULES = """
plane = "any"
min_slices = 5
min_matrix = 8
max_pixel_spacing_mm = 5.0
"""
PIPELINE = """
api-version: 0.4.0
name: looking
operators:
- name: read
  container: {image: carina/dicom-reader}
  input: [{path: /input}]
  output: [{path: /output}]
- name: look
  container: {image: test/look}
  input: [{from: read, path: /input}]
  output: [{path: /output}]
"""
CHEST = [2.0 * k for k in range(12)]
Look = Callable[[Volume], object]


def seen(volume: Volume) -> object:
    return {"voxels": int(volume.hu.size)}


def how(folder: Path, look: Look = seen) -> RunSettings:
    """A pipeline that reads a series and looks at it, and rules for small test series."""
    looked: list[Volume] = []

    def operator(volume: VolumePort) -> Json:
        looked.append(volume)
        return Json(value=look(looked.pop()), name="seen")

    (folder / "rules.toml").write_text(RULES)
    (folder / "looking.yaml").write_text(PIPELINE)
    own = Operator(
        name="look",
        images=("test/look",),
        function=operator,
        inputs={"/input": "volume"},
        outputs={"/output": ""},
        places={"/output": "seen"},
    )
    rules = Settings(series_rules=str(folder / "rules.toml"))
    return RunSettings(settings=rules, pipeline=folder / "looking.yaml", operators=[own])


def study(folder: Path, uid: str, **changes: Any) -> None:
    """A small series that is a study of its own."""
    write_series(folder, CHEST, StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", **changes)


def volume_file(file: Path) -> None:
    grid = Grid(shape=(12, 20, 24), spacing_mm=(2.0, 1.5, 1.5), origin_mm=(0.0, 0.0, 0.0))
    hu = np.random.default_rng(1).integers(-900, 100, grid.shape).astype(np.int16)
    write_volume(Volume(hu=hu, grid=grid, uid="v"), file)


def rows(cohort: Cohort) -> list[dict[str, str]]:
    with cohort.table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def told(cohort: Cohort) -> list[tuple[str, str, str]]:
    return [(row["name"], row["state"], row["code"]) for row in rows(cohort)]


def files_beside(out: Path, root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if not path.is_relative_to(out)}
