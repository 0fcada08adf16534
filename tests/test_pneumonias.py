"""Pneumonias that are not COVID-19, as they are drawn: where they lie, what they look like, that draws repeat."""

from __future__ import annotations

import numpy as np
import pytest

from carina.synth.lesions import to_the_wall
from carina.synth.pneumonias import Pneumonia, draw_pneumonia
from carina.volume.arrays import Flags, Floats

SPACING_MM = (3.0, 1.5, 1.5)
SHAPE = (48, 120, 160)


def chest() -> tuple[Floats, Flags]:
    """Two lungs as ellipsoids of -850 HU in tissue."""
    z, y, x = (np.arange(n) * s for n, s in zip(SHAPE, SPACING_MM, strict=True))
    hu, lung = np.full(SHAPE, 30, np.float32), np.zeros(SHAPE, np.bool_)
    for middle in (65.0, 175.0):
        far = (
            ((z[:, None, None] - 72) / 66) ** 2 + ((y[:, None] - 90) / 80) ** 2 + ((x - middle) / 48) ** 2
        )  # half axes in mm
        lung |= far < 1
    hu[lung] = -850
    return hu, lung


def drawn(kind: Pneumonia, seed: int) -> tuple[Floats, Flags, Floats, Flags]:
    hu, lung = chest()
    return hu, lung, *draw_pneumonia(hu.copy(), lung, SPACING_MM, np.random.default_rng(seed), kind)


@pytest.mark.parametrize("kind", list(Pneumonia))
@pytest.mark.parametrize("seed", range(4))
def test_it_changes_nothing_outside_the_lungs_and_is_drawn_again_by_its_seed(kind: Pneumonia, seed: int) -> None:
    hu, lung, ill, mask = drawn(kind, seed)
    assert np.array_equal(hu[~to_the_wall(hu, lung, SPACING_MM)], ill[~to_the_wall(hu, lung, SPACING_MM)])
    assert not (mask & ~lung).any() and (np.abs(ill - hu) > 100).any()
    again = drawn(kind, seed)
    assert np.array_equal(again[2], ill) and np.array_equal(again[3], mask)


@pytest.mark.parametrize("seed", range(6))
def test_a_lobar_pneumonia_is_dense_and_on_one_side(seed: int) -> None:
    _, lung, ill, mask = drawn(Pneumonia.LOBAR, seed)
    sides = [np.count_nonzero(mask[..., :80]), np.count_nonzero(mask[..., 80:])]
    assert min(sides) == 0
    share = max(sides) / (np.count_nonzero(lung) / 2)
    assert 0.01 < share < 0.6, "a segment to a lobe of one lung"
    assert np.median(ill[mask]) > -150


def test_bronchi_stay_open_in_most_lobar_pneumonias() -> None:
    def has_air(seed: int) -> bool:
        _, _, ill, mask = drawn(Pneumonia.LOBAR, seed)
        filled = np.zeros_like(mask)
        for plane in range(len(mask)):
            rows, columns = np.nonzero(mask[plane])
            if rows.size:
                filled[plane, rows.min() : rows.max(), columns.min() : columns.max()] = True
        return bool((ill[filled & ~mask] < -600).any())

    assert sum(has_air(seed) for seed in range(12)) >= 6


@pytest.mark.parametrize("seed", range(6))
def test_tree_in_bud_is_many_small_nodules(seed: int) -> None:
    hu, lung, ill, _ = drawn(Pneumonia.TREE_IN_BUD, seed)
    risen = (ill - hu)[lung]
    assert np.count_nonzero(risen > 60) > 30
    assert np.count_nonzero(risen > 400) < 0.05 * risen.size, "most of the lung stays open"


def test_half_of_the_cavities_hold_air_and_many_a_fluid_level() -> None:
    holes = levels = 0
    for seed in range(16):
        hu, lung, ill, _ = drawn(Pneumonia.CAVITIES, seed)
        hole = lung & (ill < hu - 80)
        holes += bool(hole.any())
        rows = np.flatnonzero(hole.any(axis=(0, 2)))
        if rows.size and np.median(ill[:, rows[0] - 2][hole[:, rows[0] + 1]]) > -200:
            levels += 1
    assert holes >= 8 and levels >= 2


def test_without_lung_nothing_is_drawn() -> None:
    hu, _ = chest()
    ill, mask = draw_pneumonia(hu, np.zeros(SHAPE, np.bool_), SPACING_MM, np.random.default_rng(0))
    assert ill is hu and not mask.any()


def test_a_coarse_voxel_holds_the_share_of_it_that_nodules_fill() -> None:
    hu = np.full((16, 48, 48), -850, np.float32)
    lung = np.ones(hu.shape, np.bool_)
    ill, _ = draw_pneumonia(hu, lung, (9.0, 3.3, 3.3), np.random.default_rng(3), Pneumonia.TREE_IN_BUD)
    assert 0 < np.mean(ill > -800) < 0.2 and ill.max() < 100
