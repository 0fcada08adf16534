"""Resampling: positions, orientation, parity with MONAI."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from carina.volume.grid import Grid
from carina.volume.resample import above, cropped, parallel, reorient, reoriented, resample, respaced

AXIAL = Grid(shape=(31, 52, 47), spacing_mm=(2.5, 0.7, 0.73), origin_mm=(-100.0, -50.0, 20.0))


def noise(grid: Grid) -> np.ndarray:
    return np.random.default_rng(1).integers(-1000, 500, grid.shape).astype(np.int16)


def ramp(grid: Grid, *, by: tuple[float, float, float] = (3.0, -2.0, 5.0)) -> np.ndarray:
    """A linear function of patient space: linear interpolation must reproduce it wherever it samples."""
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    return np.asarray(grid.points_mm(indices) @ np.array(by), np.float32)


def test_a_linear_field_is_reproduced_on_any_parallel_grid() -> None:
    turned = Grid(
        shape=(9, 8, 7),
        spacing_mm=(1.1, 1.3, 1.7),
        origin_mm=(-80.0, -35.0, 60.0),
        axes=((-1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    )
    assert parallel(AXIAL, turned)
    assert np.allclose(resample(ramp(AXIAL), AXIAL, turned), ramp(turned), atol=1e-3)


def test_reorient_keeps_every_voxel_where_it_is() -> None:
    hu = noise(AXIAL)
    view, grid = reorient(hu, AXIAL, "PSL")
    assert grid.axes == ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0))
    for index in [(0, 0, 0), (3, 5, 7), (46, 30, 51)]:
        z, y, x = (round(i) for i in AXIAL.indices(grid.points_mm(index)))
        assert view[index] == hu[z, y, x]
    assert np.shares_memory(view, hu)


def test_ras_of_an_axial_series_turns_two_axes() -> None:
    grid = reoriented(AXIAL, "RAS")
    assert grid.axes == ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))
    assert grid.origin_mm == tuple(AXIAL.points_mm((0, 51, 46)))


def test_an_oblique_grid_takes_the_nearest_order_of_axes() -> None:
    c, s = float(np.cos(0.3)), float(np.sin(0.3))
    oblique = Grid(
        shape=(5, 6, 7),
        spacing_mm=(2.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        axes=((0.0, -s, c), (0.0, c, s), (1.0, 0.0, 0.0)),
    )
    grid = reoriented(oblique, "LPS")
    assert grid == oblique
    assert not parallel(AXIAL, oblique)
    middle = Grid(shape=(5, 6, 7), spacing_mm=(1.0,) * 3, origin_mm=(-90.0, -30.0, 50.0), axes=oblique.axes)
    assert np.allclose(resample(ramp(AXIAL), AXIAL, middle), ramp(middle), atol=1e-2)


def test_beyond_the_border_the_border_counts() -> None:
    hu = noise(AXIAL)
    wide = Grid(shape=(2, 1, 1), spacing_mm=(1000.0, 1.0, 1.0), origin_mm=AXIAL.origin_mm)
    assert resample(hu, AXIAL, wide)[:, 0, 0].tolist() == [hu[0, 0, 0], hu[-1, 0, 0]]


def test_shape_and_a_spacing_that_is_nearly_right() -> None:
    assert respaced(AXIAL, (5.0, 0.8, 0.8)).shape == (16, 46, 43)
    assert respaced(AXIAL, (2.5004, 0.7, 0.73)) == AXIAL


def test_nearest_keeps_type_and_values() -> None:
    hu = noise(AXIAL)
    near = resample(hu, AXIAL, respaced(AXIAL, (5.0, 1.4, 0.73)), 0)
    assert near.dtype == np.int16
    assert np.array_equal(near, hu[::2, ::2])


@pytest.mark.parametrize(("away", "taken"), [(0.4, 0), (0.6, 1)])
def test_nearest_takes_the_nearest(away: float, taken: int) -> None:
    hu = noise(AXIAL)
    shifted = replace(AXIAL, origin_mm=tuple(AXIAL.points_mm((away, away, away)).tolist()))
    near = resample(hu, AXIAL, shifted, 0)
    assert np.array_equal(near[:20, :20, :20], hu[taken : taken + 20, taken : taken + 20, taken : taken + 20])


def test_above_is_interpolation_and_a_comparison() -> None:
    hu = noise(AXIAL)
    fine = respaced(AXIAL, (1.0, 0.5, 0.9))
    for threads in (1, 3):
        assert np.array_equal(above(hu, AXIAL, fine, -200, threads=threads), resample(hu, AXIAL, fine) > -200)


def test_a_part_is_the_part_of_the_whole() -> None:
    hu = noise(AXIAL)
    whole = respaced(reoriented(AXIAL, "RAS"), (5.0, 0.8, 0.8))
    box = (slice(3, 9), slice(10, 30), slice(7, 8))
    assert np.allclose(resample(hu, AXIAL, cropped(whole, box)), resample(hu, AXIAL, whole)[box], atol=1e-3)


@pytest.mark.parametrize("spacing", [(5.0, 0.8, 0.8), (1.3, 0.5, 2.0)])
def test_parity_with_monai(spacing: tuple[float, float, float]) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("monai")
    from monai.data import MetaTensor
    from monai.transforms import Orientation, Spacing

    hu = noise(AXIAL)
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AXIAL.affine[:, [2, 1, 0, 3]]
    image = MetaTensor(torch.tensor(hu.transpose(2, 1, 0)[None].astype(np.float32)), affine=torch.tensor(to_ras))
    spaced = Spacing(spacing[::-1])
    theirs = spaced(Orientation("RAS")(image))
    grid = respaced(reoriented(AXIAL, "RAS"), spacing)
    ours = resample(hu, AXIAL, grid)
    assert ours.shape == tuple(theirs.shape[:0:-1])
    assert np.abs(ours - theirs[0].numpy().transpose(2, 1, 0)).max() < 1e-2
    back = resample(ours, grid, reoriented(AXIAL, "RAS"))
    assert np.abs(back - spaced.inverse(theirs)[0].numpy().transpose(2, 1, 0)).max() < 1e-2
