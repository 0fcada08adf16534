"""Chests in quiet breathing are shown to the lesion network as deep breaths; ill ones stay as ill as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from carina.errors import BadConfig
from carina.infer.breath import Breath, breath_of
from carina.infer.segment import segment
from carina.synth.severity import FILLINGS, course, fill, ill_part
from carina.volume.grid import Grid
from carina.volume.resample import cropped, reorient
from carina.volume.volume import Volume
from test_infer_segment import chest
from tiny_networks import weightless_bundle

CLEAR_HU = -900.0
FRONT, BACK = slice(24, 32), slice(48, 56)
"""Rows of the chest's lungs."""

PART = (slice(20, 36), slice(0, 80), slice(0, 96))
"""48 mm of the chest's height."""


def breathing(*, front_hu: float, back_hu: float) -> tuple[Volume, np.ndarray]:
    """A chest whose lungs grow denser from the front (row 21) to the back (row 59)."""
    volume, lungs = chest()
    hu = volume.hu.astype(np.float32)
    rows = np.interp(np.arange(hu.shape[1]), [21, 59], [front_hu, back_hu])
    hu[lungs] += (np.broadcast_to(rows[:, None], hu.shape) + 850)[lungs]
    return Volume(hu=hu.astype(np.int16), grid=volume.grid, uid="quiet"), lungs


def deepened(volume: Volume, breath: Breath | None) -> np.ndarray:
    """HU as the network is shown them, on the volume's own axes."""
    hu = volume.hu.astype(np.float32)
    if breath:
        view, grid = reorient(hu, volume.grid, "RAS")
        breath.deepen(view, grid)
    return hu


def test_quiet_breathing_becomes_a_deep_breath() -> None:
    volume, lungs = breathing(front_hu=-830, back_hu=-680)
    seen = deepened(volume, breath_of(volume, "RAS", CLEAR_HU))
    inside = ndimage.binary_erosion(lungs, iterations=2)
    before = volume.hu[:, BACK][inside[:, BACK]].mean() - volume.hu[:, FRONT][inside[:, FRONT]].mean()
    after = seen[:, BACK][inside[:, BACK]].mean() - seen[:, FRONT][inside[:, FRONT]].mean()
    assert before > 80
    assert abs(after) < 15
    assert seen[inside].mean() == pytest.approx(CLEAR_HU, abs=25)


def test_tissue_without_air_stays_and_disease_keeps_its_share_of_air() -> None:
    volume, lungs = breathing(front_hu=-830, back_hu=-680)
    hu = volume.hu.copy()
    ill = np.zeros_like(lungs)
    ill[20:40, 44:52, 60:70] = True
    dense = ill & (np.arange(hu.shape[0])[:, None, None] < 28)
    hu[ill], hu[dense] = -400, 60
    volume = Volume(hu=hu, grid=volume.grid, uid="ill")
    seen = deepened(volume, breath_of(volume, "RAS", CLEAR_HU))
    np.testing.assert_array_equal(seen[hu >= 40], hu[hu >= 40])
    assert seen[ill & ~dense].min() > -560
    assert (seen <= hu + 1e-3).all()


@pytest.mark.parametrize("hu", [-930, -905])
def test_a_deep_breath_is_shown_as_it_is(hu: int) -> None:
    volume, _ = chest(left_hu=hu, right_hu=hu)
    assert breath_of(volume, "RAS", CLEAR_HU) is None


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
def test_severe_disease_is_no_quiet_breathing(share: float) -> None:
    volume, lungs = chest(left_hu=-870, right_hu=-870)
    ill = ill_part(lungs, course(volume.hu.shape, np.random.default_rng(1)), share)
    hu = fill(volume.hu, ill, FILLINGS["ground-glass"], np.random.default_rng(2))
    ill_chest = Volume(hu=hu, grid=volume.grid, uid="ill")
    seen = deepened(ill_chest, breath_of(ill_chest, "RAS", CLEAR_HU))
    assert seen[ill].mean() > hu[ill].mean() - 75


def test_the_breath_is_the_same_however_the_volume_lies() -> None:
    volume, _ = breathing(front_hu=-830, back_hu=-680)
    straight, _ = reorient(deepened(volume, breath_of(volume, "RAS", CLEAR_HU)), volume.grid, "LPS")
    for codes in ("LPS", "RAS", "PSR", "SAL"):
        hu, grid = reorient(volume.hu, volume.grid, codes)
        turned = Volume(hu=np.ascontiguousarray(hu), grid=grid, uid=codes)
        seen, _ = reorient(deepened(turned, breath_of(turned, "RAS", CLEAR_HU)), grid, "LPS")
        np.testing.assert_allclose(seen, straight, atol=1)


def test_a_slice_says_nothing_of_breathing() -> None:
    volume, _ = breathing(front_hu=-830, back_hu=-680)
    few = Volume(hu=volume.hu[PART].copy(), grid=cropped(volume.grid, PART), uid="few")
    assert breath_of(volume, "RAS", CLEAR_HU)
    assert breath_of(few, "RAS", CLEAR_HU) is None


@pytest.mark.parametrize(("shape", "hu"), [((20, 40, 40), 40), ((20, 40, 40), -1024), ((1, 2, 2), -800)])
def test_no_lungs_no_breath(shape: tuple[int, int, int], hu: int) -> None:
    grid = Grid(shape=shape, spacing_mm=(3.0, 3.0, 3.0), origin_mm=(0.0, 0.0, 0.0))
    assert breath_of(Volume(hu=np.full(shape, hu, dtype=np.int16), grid=grid, uid="none"), "RAS", CLEAR_HU) is None


def above_minus_780(patches: np.ndarray) -> np.ndarray:
    """A network that takes all that is denser than -780 HU, and no tissue, for lesion."""
    return 40 * np.minimum(patches - 0.22, 0.9 - patches)


def test_a_bundle_says_whether_its_network_is_shown_deep_breaths(tmp_path: Path) -> None:
    volume, lungs = breathing(front_hu=-830, back_hu=-680)
    keys = {"task": "lesion", "labels": {"1": "lesion"}}
    as_it_is = segment(volume, weightless_bundle(tmp_path / "as", **keys), above_minus_780).labels > 0
    deep = weightless_bundle(tmp_path / "deep", clear_hu=CLEAR_HU, **keys)
    as_deep = segment(volume, deep, above_minus_780).labels > 0
    inside = ndimage.binary_erosion(lungs, iterations=2)
    assert as_it_is[inside].mean() > 0.4
    assert as_deep[inside].mean() < 0.02


def test_clear_lung_is_no_tissue(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"clear_hu -500 must lie from -1000 to -700"):
        weightless_bundle(tmp_path, task="lesion", labels={"1": "lesion"}, clear_hu=-500.0)
