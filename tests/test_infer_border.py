"""The border of a mask, moved by HU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from carina.infer.border import border_moved
from carina.measure.agreement import dice
from carina.models.lung_rules import Border

Bool = npt.NDArray[np.bool_]
FINE = (0.8, 0.8, 0.8)
CROSS = ndimage.generate_binary_structure(3, 1)


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> Bool:
    at = np.indices(shape) - np.array(centre)[:, None, None, None]
    inside: Bool = (at**2).sum(axis=0) <= radius**2
    return inside


def chest(lung: Bool) -> npt.NDArray[np.int16]:
    return np.where(lung, -850, 40).astype(np.int16)


@pytest.mark.parametrize("iterations", [-3, -2, -1, 1, 2, 3])
def test_a_border_up_to_the_reach_off_comes_right(iterations: int) -> None:
    lung = ball((50, 60, 70), (24, 30, 33), 20)
    change = ndimage.binary_dilation if iterations > 0 else ndimage.binary_erosion
    drawn = change(lung, CROSS, iterations=abs(iterations))
    assert dice(drawn, lung) < 0.975
    assert dice(border_moved(drawn, chest(lung), FINE, Border()), lung) > 0.997


def test_farther_off_than_the_reach_stays_the_networks() -> None:
    lung = ball((60, 60, 60), (30, 30, 30), 14)
    drawn = ball((60, 60, 60), (30, 30, 30), 24)
    found = border_moved(drawn, chest(lung), FINE, Border(reach_mm=2.4))
    assert found[30, 30, 30 + 22] and not found[30, 30, 30 + 25]
    unseen = ball((60, 60, 60), (30, 30, 30), 4)
    assert np.count_nonzero(border_moved(unseen, chest(lung), FINE, Border(reach_mm=2.4))) < np.count_nonzero(lung) / 2


def test_consolidation_at_the_pleura_stays_and_a_thin_wall_goes() -> None:
    lung = ball((50, 60, 70), (24, 30, 33), 20)
    consolidation = lung & ball((50, 60, 70), (24, 46, 33), 9)
    hu = chest(lung)
    hu[consolidation] = 40
    drawn = ndimage.binary_dilation(lung, CROSS, iterations=1)
    found = border_moved(drawn, hu, FINE, Border())
    assert found[consolidation].mean() > 0.97
    wall = drawn & ~lung & ~ndimage.binary_dilation(consolidation, CROSS, iterations=7)
    assert wall.any()
    assert not found[wall].any()


def test_vessels_inside_stay() -> None:
    lung = ball((50, 60, 70), (24, 30, 33), 20)
    hu = chest(lung)
    hu[24:26, 29:31, 18:48] = 40
    assert np.array_equal(border_moved(lung, hu, FINE, Border()), lung)


def test_a_lung_cut_by_the_edge_of_the_image_is_not_worn_away_there() -> None:
    lung = ball((30, 60, 70), (2, 30, 68), 20)
    assert np.array_equal(border_moved(lung, chest(lung), FINE, Border()), lung)
    consolidated = np.full(lung.shape, 40, dtype=np.int16)
    consolidated[28:] = -850
    assert border_moved(lung, consolidated, FINE, Border())[0, 30, 69]


def test_thick_slices_move_in_their_plane_only() -> None:
    lung = np.zeros((9, 40, 40), dtype=bool)
    lung[2:7, 10:30, 10:30] = True
    drawn = np.zeros_like(lung)
    drawn[1:8, 9:31, 9:31] = True
    found = border_moved(drawn, chest(lung), (8.0, 0.8, 0.8), Border())
    assert np.array_equal(found[2:7], lung[2:7])
    assert found[1, 20, 20] and found[7, 20, 20]


def reference(mask: Bool, hu: npt.NDArray[np.int16], steps: int, limit: float) -> Bool:
    """The same by SciPy, for one number of steps along all axes."""

    def reached(seeds: Bool, through: Bool, steps: int = steps) -> Bool:
        for _ in range(steps):
            seeds = seeds | ndimage.binary_dilation(seeds, CROSS) & through
        return seeds

    air = hu < limit
    tissue = mask & ~air
    rim = reached(~mask, tissue) & mask
    thick = ndimage.binary_dilation(ndimage.binary_erosion(tissue & ~rim, CROSS, border_value=1), CROSS) & tissue & ~rim
    return reached(mask & ~(rim & ~reached(thick, tissue, 2 * steps)), air)


@pytest.mark.parametrize("width", [1, 63, 64, 65, 130])
def test_words_of_bits_give_what_scipy_gives(width: int) -> None:
    rng = np.random.default_rng(width)
    hu = (ndimage.gaussian_filter(rng.normal(size=(14, 17, width)), 1.5) * 4000 - 400).astype(np.int16)
    mask = ndimage.gaussian_filter(rng.normal(size=hu.shape), 2.0) > 0
    for reach in (1.0, 2.0, 3.0):
        found = border_moved(mask, hu, (1.0, 1.0, 1.0), Border(reach_mm=reach))
        assert np.array_equal(found, reference(mask, hu, round(reach), -400))


@pytest.mark.parametrize("reach", [0.0, -1.0, 11.0])
def test_a_reach_that_makes_no_sense_is_refused(reach: float) -> None:
    with pytest.raises(ValueError, match="reach_mm"):
        Border(reach_mm=reach)
