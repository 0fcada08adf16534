"""Averaging to coarse voxels: means are means, and they lie where their voxels were."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from carina.volume.average import averaged
from carina.volume.grid import Grid
from carina.volume.resample import resample

SIDES = st.tuples(*[st.integers(2, 14)] * 3)
SPACINGS = st.tuples(*[st.floats(0.4, 6.0)] * 3)


@given(shape=SIDES, spacing_mm=SPACINGS)
def test_a_ramp_keeps_its_value_at_every_place(shape: tuple[int, int, int], spacing_mm: tuple[float, ...]) -> None:
    z, y, x = spacing_mm
    grid = Grid(shape=shape, spacing_mm=(z, y, x), origin_mm=(-40.0, 7.0, 300.0))
    ramp = np.stack(np.meshgrid(*(np.arange(n) * 8 for n in shape), indexing="ij")).sum(axis=0).astype(np.int16)
    means, coarse = averaged(ramp, grid, (4.0, 4.0, 4.0))
    assert means.shape == coarse.shape
    assert np.allclose(means, resample(ramp, grid, coarse), atol=1e-2)


@given(shape=SIDES, spacing_mm=SPACINGS)
def test_blocks_are_as_many_whole_voxels_as_fit(shape: tuple[int, int, int], spacing_mm: tuple[float, ...]) -> None:
    z, y, x = spacing_mm
    grid = Grid(shape=shape, spacing_mm=(z, y, x), origin_mm=(0.0, 0.0, 0.0))
    array = np.random.default_rng(1).integers(-1024, 3072, shape).astype(np.int16)
    means, coarse = averaged(array, grid, (4.0, 4.0, 4.0))
    sides = [round(new / old) for new, old in zip(coarse.spacing_mm, grid.spacing_mm, strict=True)]
    for own, new, side, count in zip(grid.spacing_mm, coarse.spacing_mm, sides, shape, strict=True):
        assert new <= max(4.0, own) * (1 + 1e-6)
        assert side == count or own * (side + 1) > 4.0 - 1e-5
    a, b, c = sides
    assert means[0, 0, 0] == np.float32(array[:a, :b, :c].mean(dtype=np.float64))
    assert means[-1, -1, -1] == means.ravel()[-1]


def test_what_is_coarse_already_stays() -> None:
    grid = Grid(shape=(3, 4, 5), spacing_mm=(5.0, 4.0, 7.5), origin_mm=(1.0, 2.0, 3.0))
    array = np.arange(60, dtype=np.int16).reshape(grid.shape)
    means, coarse = averaged(array, grid, (4.0, 4.0, 4.0))
    assert coarse == grid
    assert np.array_equal(means, array)
