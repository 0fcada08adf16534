"""Disease drawn on large voxels: as soft, and as free of air at the wall, as if painted before averaging."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from carina.synth.averaging import SOME_LUNG_SHARE, WHOLE_LUNG_SHARE, paint_averaged
from carina.volume.arrays import Flags, Floats

LUNG_HU, TISSUE_HU, ILL_HU = -850.0, 50.0, 30.0
BLOCK = (3, 4, 4)


def means(fine: Floats) -> Floats:
    """Averages over blocks of voxels, sampled half-way between them, as a scan that is turned is."""
    sizes = [part for n, block in zip(fine.shape, BLOCK, strict=True) for part in (n // block, block)]
    coarse: Floats = fine.reshape(sizes).mean(axis=(1, 3, 5), dtype=np.float32)
    for axis in range(3):
        coarse = (coarse + np.roll(coarse, 1, axis)) / np.float32(2)
    return coarse


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> Flags:
    away = np.indices(shape) - np.array(centre)[:, None, None, None]
    inside: Flags = np.square(away).sum(axis=0) < radius**2
    return inside


@pytest.fixture(scope="module")
def fine() -> tuple[Floats, Flags]:
    """A round lung in its wall, at full resolution; and where it is."""
    lung = ball((90, 120, 120), (45.3, 59.1, 61.7), 40)
    return np.where(lung, np.float32(LUNG_HU), np.float32(TISSUE_HU)), lung


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("side", ["a half that reaches the wall", "a ball within", "all of it"])
def test_it_looks_as_if_it_had_been_painted_before_averaging(fine: tuple[Floats, Flags], side: str, seed: int) -> None:
    hu, lung = fine
    ill = (
        lung
        & {
            "a half that reaches the wall": np.indices(lung.shape)[2] < 60,
            "a ball within": ball(lung.shape, (45, 60, 60), 18),
            "all of it": lung,
        }[side]
    )
    painted = means(np.where(ill, np.float32(ILL_HU), hu))
    ill_coarse, share = means(ill.astype(np.float32)), means(lung.astype(np.float32))

    def draw(deep: Floats, lungs: Flags) -> tuple[Floats, Flags]:
        nearest = ndimage.distance_transform_edt(share < 0.5, return_distances=False, return_indices=True)
        marked = (ill_coarse > 0.5 * share)[tuple(nearest)] & lungs
        return np.where(marked, np.float32(ILL_HU), deep), marked

    drawn, mask = paint_averaged(means(hu), share, draw, np.random.default_rng(seed))
    wall = (share > SOME_LUNG_SHARE) & (share < WHOLE_LUNG_SHARE)
    assert np.abs(drawn - painted).mean() < 10
    ill_share = np.where(share > SOME_LUNG_SHARE, ill_coarse / np.maximum(share, 1e-6), 1)
    all_ill = wall & (ndimage.minimum_filter(ill_share, 5) > 0.99)
    if side != "a ball within":
        assert all_ill.any()
        assert np.abs(drawn - painted)[all_ill].max() < 40, "neither a dark nor a bright shell at the wall"
    assert (drawn[share <= SOME_LUNG_SHARE] == means(hu)[share <= SOME_LUNG_SHARE]).all()
    assert not (mask & (share < 0.5)).any()


def test_a_lung_without_any_air_keeps_what_is_drawn(fine: tuple[Floats, Flags]) -> None:
    _, lung = fine
    share = means(lung.astype(np.float32))
    solid = np.full(share.shape, np.float32(20))
    drawn, _ = paint_averaged(solid, share, lambda deep, lungs: (deep + 10 * lungs, lungs), np.random.default_rng(1))
    assert drawn[share >= WHOLE_LUNG_SHARE] == pytest.approx(30, abs=0.5)
    assert (drawn[share <= SOME_LUNG_SHARE] == 20).all()
