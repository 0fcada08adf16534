"""Synthetic abdomens: where organs lie, what fills them, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from carina.synth.abdomen import DIAPHRAGM_MM, ROOM_HU, draw_abdomen, under_lungs
from carina.synth.fields import depth_in

SPACING_MM = (5.0, 2.0, 2.0)
SHAPE = (48, 120, 150)


def belly() -> tuple[np.ndarray, np.ndarray]:
    """A body of 40 HU with two domed lungs in its upper half, in air: HU and the lungs, ``(z, y, x)``, RAS."""
    z, y, x = (np.arange(n)[tuple(slice(None) if a == k else None for a in range(3))] for k, n in enumerate(SHAPE))
    body = np.broadcast_to(((y - 60) / 55) ** 2 + ((x - 75) / 70) ** 2 < 1, SHAPE)
    hu = np.where(body, 40, -1000).astype(np.float32)
    lung = np.zeros(SHAPE, dtype=bool)
    for middle in (40, 110):
        across = ((y - 60) / 40) ** 2 + ((x - middle) / 26) ** 2
        lung |= (across < 1) & (z > 20 + 8 * (1 - across))
    hu[lung] = -850
    return hu, lung


HU, LUNG = belly()
Drawn = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """Twenty-four abdomens of that body: HU, and where the organs are."""
    return [draw_abdomen(HU, LUNG, SPACING_MM, np.random.default_rng(seed)) for seed in range(24)]


def test_organs_lie_below_the_lungs_and_leave_everything_else_as_it_is(drawn: Drawn) -> None:
    away = depth_in(~LUNG, SPACING_MM)
    for out, organs in drawn:
        assert organs.any() and out.dtype == np.float32
        assert np.array_equal(out[~organs], HU[~organs])
        assert (HU[organs] > ROOM_HU[0]).all() and away[organs].min() > DIAPHRAGM_MM[0]
        lowest = np.argmax(LUNG, axis=0)[None]
        z = np.arange(SHAPE[0])[:, None, None]
        has_lung = np.asarray(LUNG.any(axis=0))[None]
        assert not (organs & has_lung & (z >= lowest)).any(), "no organ above a dome"


def test_organs_have_gas_fluid_and_stool_behind_a_wall_of_tissue(drawn: Drawn) -> None:
    gas, heavy = 0, 0
    for out, organs in drawn:
        air = out < -900
        gas += int(np.count_nonzero(air & organs))
        heavy += int(np.count_nonzero((out > -400) & (out < 150) & organs))
        next_to_air = ndimage.binary_dilation(air & organs, np.ones((1, 3, 3), dtype=bool)) & ~organs
        assert next_to_air.sum() <= 0.05 * np.count_nonzero(organs), "gas is behind a wall"
        assert out[organs].min() > -1100 and out[organs].max() < 150
    assert gas > 5000 and heavy > 5000


def test_gas_lies_in_front_of_fluid(drawn: Drawn) -> None:
    """Patients lie on their backs, y grows to the front: in a column with both, gas has the larger y."""
    told = 0
    for out, organs in drawn:
        for z in np.flatnonzero(organs.any(axis=(1, 2))):
            pieces, count = ndimage.label(organs[z])
            for piece in range(1, count + 1):
                where = pieces == piece
                rows = np.nonzero(where & (out[z] < -900))[0], np.nonzero(where & (out[z] > -100) & (out[z] < 60))[0]
                if min(len(rows[0]), len(rows[1])) > 150:
                    told += rows[0].mean() > rows[1].mean()
                    assert rows[0].mean() > rows[1].mean() - 5
    assert told > 5


def test_the_left_dome_has_more_than_the_right(drawn: Drawn) -> None:
    middle = SHAPE[2] // 2
    left = sum(np.count_nonzero(organs[..., :middle]) for _, organs in drawn)
    assert left > 1.5 * sum(np.count_nonzero(organs[..., middle:]) for _, organs in drawn)


def test_one_seed_is_one_abdomen_and_another_is_another(drawn: Drawn) -> None:
    again = draw_abdomen(HU, LUNG, SPACING_MM, np.random.default_rng(0))
    assert np.array_equal(again[0], drawn[0][0]) and not np.array_equal(drawn[0][1], drawn[1][1])


@pytest.mark.parametrize("case", ["lungs alone", "no lungs", "no tissue"])
def test_where_there_is_no_belly_nothing_is_drawn(case: str) -> None:
    hu, lung = {
        "lungs alone": (HU[30:], LUNG[30:]),
        "no lungs": (HU, np.zeros_like(LUNG)),
        "no tissue": (np.full_like(HU, -1000), LUNG),
    }[case]
    out, organs = draw_abdomen(hu, lung, SPACING_MM, np.random.default_rng(1))
    assert np.array_equal(out, hu) and not organs.any()


def test_below_is_below() -> None:
    lung = np.zeros((6, 9, 9), dtype=bool)
    lung[3, 4, 4] = True
    free = under_lungs(lung, (2.0, 8.0, 8.0), 1.0)
    assert free[:3, 3:6, 3:6].all() and not free[3:].any() and not free[:, 0].any()
