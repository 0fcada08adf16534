"""The benchmark of single slices: scale, places and arithmetic, on slices that are drawn here."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from carina.volume import Mask, Volume
from carina.volume.arrays import Labels


@pytest.fixture
def slices2d(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("slices2d")


def _picture() -> Labels:
    """A body of 120 x 80 pixels with a lung and a table below it; the lung's HU are -1350 + 85 * 1500 / 255."""
    picture = np.zeros((128, 160), dtype=np.uint8)
    picture[20:100, 20:140] = 240
    picture[40:80, 40:70] = 85
    picture[110:114, 10:155] = 200
    return picture


def test_a_slice_has_the_scale_of_its_thorax_and_lies_as_a_patient(slices2d: Any) -> None:
    volume = slices2d.repeated(_picture(), 8)
    assert volume.grid.spacing_mm == (5.0, 3.0, 3.0)
    assert volume.hu.shape == (8, 128, 160)
    assert (volume.hu[3, 50, 50], volume.hu[0, 0, 0]) == (-850, -1024)
    right_and_front = np.array(volume.grid.points_mm(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1]])))
    assert right_and_front[1][1] > right_and_front[0][1] and right_and_front[2][0] > right_and_front[0][0]


def test_figures_count_ground_glass_and_consolidation_and_no_effusion(slices2d: Any, tmp_path: Path) -> None:
    outlined = np.zeros((128, 160), dtype=np.uint8)
    outlined[40:50, 40:60], outlined[50:60, 40:60], outlined[60:70, 40:60] = 1, 2, 3
    for part, array in (("images", _picture()), ("masks", outlined)):
        (tmp_path / part).mkdir()
        for name in ("a.png", "b.png"):
            Image.fromarray(array).save(tmp_path / part / name)
    pictures = iter([(slice(40, 50), slice(40, 50)), (slice(0, 10), slice(0, 10))])

    def find(volume: Volume) -> Mask:
        labels = np.zeros(volume.hu.shape, dtype=np.uint8)
        labels[4, *next(pictures)] = 1
        return Mask(labels=labels, grid=volume.grid, names={1: "lesion"}, uid="slice")

    found = slices2d.summary(list(slices2d.measured(tmp_path, find, 8)))
    assert found == pytest.approx(
        {
            "mean Dice": (200 / 500 + 0) / 2,
            "pooled Dice": 200 / 1000,
            "sensitivity": 100 / 800,
            "precision": 100 / 200,
            "ground glass found": 100 / 400,
            "consolidation found": 0,
            "slices with nothing found": 1,
        }
    )
