"""The airways of a phantom: from the trachea into both lungs, nowhere else; nothing where no trachea is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from carina.measure.airways import AIRWAY_MAX_ML, airway_tree, grow_core
from carina.synth.phantom import Phantom
from carina.volume import Mask
from carina.volume.resample import cropped
from viewer_runs import posed

SHAPE = (60, 128, 128)


def places(tree: Mask | None) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    assert tree is not None
    return tree.grid.points_mm(np.argwhere(tree.labels))


def part(phantom: Phantom, planes: slice) -> Phantom:
    """Some slices of a phantom."""
    box = (planes, slice(0, SHAPE[1]), slice(0, SHAPE[2]))
    grid = cropped(phantom.volume.grid, box)
    return replace(
        phantom,
        volume=replace(phantom.volume, hu=phantom.volume.hu[box].copy(), grid=grid),
        lung=replace(phantom.lung, labels=phantom.lung.labels[box].copy(), grid=grid),
    )


@pytest.mark.parametrize("pose", ["plain", "feet first", "prone", "coronal", "oblique"])
def test_the_tree_goes_from_the_trachea_into_both_lungs_and_is_air(pose: str) -> None:
    phantom = posed(pose, SHAPE)
    tree = airway_tree(phantom.volume, phantom.lung)
    found = places(tree)
    assert tree and tree.names == {1: "airways"}
    if pose != "oblique":  # turned about its middle
        assert found[:, 2].max() > 140 and abs(found[found[:, 2] > 100, 0]).max() < 15
        assert found[:, 0].min() < -40 and found[:, 0].max() > 40
        assert found[:, 2].min() > -80, "bowel and stomach lie lower"
    assert 30 < tree.volume_ml() < 50
    grid = phantom.volume.grid
    z, y, x = np.rint(grid.indices(found)).astype(int).T
    assert np.percentile(phantom.volume.hu[z, y, x], 95) < -900, "lung has -850"


def test_where_the_air_of_bronchus_and_lung_is_one_the_tree_stops() -> None:
    phantom = posed("plain", SHAPE)
    hu = phantom.volume.hu.copy()
    grid = phantom.volume.grid
    hole = np.zeros(SHAPE, dtype=bool)
    hole[tuple(np.rint(grid.indices([(58.0, 40.0, -44.0)])[0]).astype(int))] = True
    emphysema = ndimage.binary_dilation(hole, iterations=14) & (phantom.lung.labels > 0)
    hu[emphysema] = -890
    tree = airway_tree(replace(phantom.volume, hu=hu), phantom.lung)
    whole = airway_tree(phantom.volume, phantom.lung)
    assert tree and whole
    assert emphysema.sum() * grid.voxel_ml > AIRWAY_MAX_ML
    assert tree.volume_ml() < whole.volume_ml() + 10
    assert places(tree)[:, 0].min() < -30


@pytest.mark.parametrize("planes", [slice(0, 24), slice(30, 31)])
def test_lung_bases_and_a_single_slice_have_no_tree(planes: slice) -> None:
    some = part(posed("plain", SHAPE), planes)
    assert some.lung.labels.any()
    assert airway_tree(some.volume, some.lung) is None


def test_without_lungs_there_is_no_tree() -> None:
    phantom = posed("plain", (24, 48, 48))
    assert airway_tree(phantom.volume, replace(phantom.lung, labels=phantom.lung.labels * 0)) is None


def test_air_that_is_more_than_airways_hold_is_no_core() -> None:
    air = np.ones((30, 30, 30), dtype=bool)
    core = grow_core(np.full(air.shape, -1000, np.float32), air, [(25, 15, 15)], (2.0, 2.0, 2.0))
    assert air.size * 0.008 > AIRWAY_MAX_ML and not core.flags.any()
