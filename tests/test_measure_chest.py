"""Whether a lung mask holds the lungs of a chest: phantoms of known content, real chests, scans of something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

import carina.measure.chest
from carina.measure.chest import LEAST_AERATED_ML, ChestCheck, check_chest, chest_of
from carina.synth.not_chests import NotChest, not_a_chest
from carina.synth.phantom import Phantom, chest_phantom
from carina.volume import Grid, Mask, Volume
from carina.volume.files import read_mask, read_volume

NAMES = {1: "lung"}


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return chest_phantom(shape=(80, 128, 128), lesions=0, seed=4)


def cropped(chest: Phantom, low: float, high: float) -> tuple[Volume, Mask]:
    """Slices of the lungs' height from one share of it to another, counted from the bottom."""
    present = np.flatnonzero(chest.lung.labels.any(axis=(1, 2)))
    first, last = (round(present[0] + share * (present[-1] + 1 - present[0])) for share in (low, high))
    grid = replace(chest.volume.grid, shape=(last - first, *chest.volume.grid.shape[1:]))
    volume = replace(chest.volume, hu=chest.volume.hu[first:last], grid=grid)
    return volume, replace(chest.lung, labels=chest.lung.labels[first:last], grid=grid)


def painted(chest: Phantom, where: npt.NDArray[np.bool_], hu: npt.ArrayLike) -> Volume:
    voxels = chest.volume.hu.copy()
    voxels[where] = np.broadcast_to(np.asarray(hu, dtype=np.int16), voxels.shape)[where]
    return replace(chest.volume, hu=voxels)


def air_in(volume: Volume, low: int, high: int) -> Mask:
    """What a careless network may call lung: everything between two HU."""
    labels = ((volume.hu > low) & (volume.hu < high)).astype(np.uint8)
    return Mask(labels=labels, grid=volume.grid, names=NAMES, uid=volume.uid)


def test_a_chest_is_one_and_nothing_is_odd_about_it(chest: Phantom) -> None:
    found = check_chest(chest.volume, chest.lung)
    assert found.is_chest
    assert found.remarks == ()
    assert found.lung_ml == pytest.approx(chest.truth.lung_ml)
    assert 0.8 * found.lung_ml < found.aerated_ml < found.lung_ml


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_of_the_arrays_axes_changes_nothing(chest: Phantom, order: tuple[int, int, int]) -> None:
    first, second, third = order
    old = chest.volume.grid
    hu, labels = chest.volume.hu.transpose(order), chest.lung.labels.transpose(order)
    grid = replace(
        old,
        shape=(old.shape[first], old.shape[second], old.shape[third]),
        spacing_mm=(old.spacing_mm[first], old.spacing_mm[second], old.spacing_mm[third]),
        axes=(old.axes[first], old.axes[second], old.axes[third]),
    )
    found = check_chest(replace(chest.volume, hu=hu, grid=grid), replace(chest.lung, labels=labels, grid=grid))
    expected = check_chest(chest.volume, chest.lung)
    assert found.height == pytest.approx(expected.height)
    assert found.spread_hu == pytest.approx(expected.spread_hu, rel=0.02)
    assert found.is_chest


@pytest.mark.parametrize("hu", [-550, -350, 20])
def test_disease_in_most_of_both_lungs_is_no_reason_to_refuse(chest: Phantom, hu: int) -> None:
    share = 0.9 if hu < -500 else 0.6
    field = ndimage.gaussian_filter(np.random.default_rng(2).normal(0, 1, chest.volume.hu.shape), 4)
    ill = (chest.lung.labels > 0) & (field > np.quantile(field[chest.lung.labels > 0], 1 - share))
    texture = hu + np.random.default_rng(3).normal(0, 40, chest.volume.hu.shape)
    assert check_chest(painted(chest, ill, texture), chest.lung).is_chest


@pytest.mark.parametrize(("label", "side"), [(1, "left lung"), (2, "right lung")])
def test_a_white_lung_is_said_and_not_refused(chest: Phantom, label: int, side: str) -> None:
    found = check_chest(painted(chest, chest.lung.labels == label, 30), chest.lung)
    assert found.is_chest
    assert [remark.partition(":")[0] for remark in found.remarks] == [f"The {side} is missing, airless or not in view"]


@pytest.mark.parametrize(("label", "side"), [(1, "left lung"), (2, "right lung")])
def test_a_missing_lung_is_said_and_not_refused(chest: Phantom, label: int, side: str) -> None:
    labels = np.where(chest.lung.labels == label, 0, chest.lung.labels).astype(np.uint8)
    found = check_chest(painted(chest, chest.lung.labels == label, 30), replace(chest.lung, labels=labels))
    assert found.is_chest
    assert f"The {side} is missing" in found.remarks[0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.3), (0.0, 0.4), (0.7, 1.0), (0.4, 0.65)])
def test_a_small_part_of_the_lungs_is_refused(chest: Phantom, low: float, high: float) -> None:
    found = check_chest(*cropped(chest, low, high))
    assert found.refusals == ("Less than half of the lungs' height is in view: the scan ends in the middle of them.",)


@pytest.mark.parametrize(("low", "high"), [(0.2, 1.0), (0.0, 0.8), (0.1, 0.9), (0.15, 1.0), (0.0, 0.95)])
def test_lungs_cut_off_at_an_end_are_said_and_not_refused(chest: Phantom, low: float, high: float) -> None:
    found = check_chest(*cropped(chest, low, high))
    assert found.is_chest
    assert found.remarks == ("The scan ends inside the lungs: what lies beyond it is missing from every volume.",)


@pytest.mark.parametrize("kind", NotChest)
def test_what_a_careless_network_finds_elsewhere_is_refused(kind: NotChest) -> None:
    volume = not_a_chest(kind)
    low, high = {NotChest.HEAD: (-990, -900), NotChest.STOOL: (-600, -100)}.get(kind, (-1025, -500))
    mask = air_in(volume, low, high)
    inside = ndimage.binary_erosion(mask.labels > 0, iterations=2)
    assert check_chest(volume, replace(mask, labels=inside.astype(np.uint8))).refusals


def uniform(hu: float, noise: float) -> ChestCheck:
    values = np.random.default_rng(0).normal(hu, noise, (50, 200, 200))
    grid = Grid(shape=(50, 200, 200), spacing_mm=(3.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[5:45, 20:180, 20:180] = 1
    mask = Mask(labels=labels, grid=grid, names=NAMES, uid="u")
    return check_chest(Volume(hu=np.clip(values, -1024, 3000).astype(np.int16), grid=grid, uid="u"), mask)


def test_gas_is_refused_by_its_hu() -> None:
    assert "is gas or foam: its median is -99" in " ".join(uniform(-995, 20).refusals)


@pytest.mark.parametrize("noise", [5.0, 30.0, 60.0])
def test_foam_with_the_hu_of_lung_is_refused_however_noisy(noise: float) -> None:
    assert "shows no vessels" in " ".join(uniform(-750, noise).refusals)


def test_too_little_aerated_lung_is_refused_with_both_numbers(chest: Phantom) -> None:
    found = check_chest(painted(chest, chest.lung.labels > 0, 30), chest.lung)
    assert found.refusals[0].startswith("Only 0 ml of what was taken for lung has the HU of aerated lung")
    assert f"at least {LEAST_AERATED_ML:.0f} ml" in found.refusals[0]


def test_emphysema_in_most_of_the_lungs_is_no_gas(chest: Phantom) -> None:
    field = ndimage.gaussian_filter(np.random.default_rng(5).normal(0, 1, chest.volume.hu.shape), 3)
    holes = (chest.lung.labels > 0) & (field > np.quantile(field[chest.lung.labels > 0], 0.45))
    assert check_chest(painted(chest, holes & (chest.volume.hu < -500), -965), chest.lung).is_chest


def test_an_empty_mask_has_nothing_to_check(chest: Phantom) -> None:
    with pytest.raises(ValueError, match="an empty mask holds no lungs"):
        check_chest(chest.volume, replace(chest.lung, labels=np.zeros_like(chest.lung.labels)))


@pytest.mark.parametrize("case", ["lctsc-s1-101", "lctsc-s1-201", "lctsc-s1-202"])
def test_lungs_that_experts_outlined_are_a_chest(data: Path, case: str) -> None:
    volume = read_volume(data / "lungs" / f"{case}_ct.nii.gz")
    found = check_chest(volume, read_mask(data / "lungs" / f"{case}_lung.nii.gz"))
    assert found.is_chest
    assert found.remarks == ()


def test_who_asks_again_is_told_what_was_measured(chest: Phantom, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Mask] = []

    def counted(volume: Volume, lung: Mask) -> ChestCheck:
        asked.append(lung)
        return check_chest(volume, lung)

    monkeypatch.setattr(carina.measure.chest, "check_chest", counted)
    volume, warned = replace(chest.volume), replace(chest.lung, warnings=("The scan ends here.",))
    first = chest_of(volume, chest.lung)
    assert chest_of(volume, warned) is first and len(asked) == 1
    assert first == check_chest(volume, chest.lung)
    half = replace(chest.lung, labels=chest.lung.labels * (np.arange(128) < 64).astype(np.uint8))
    assert chest_of(volume, half).lung_ml < first.lung_ml and len(asked) == 2
    assert chest_of(replace(volume), half).lung_ml == chest_of(volume, half).lung_ml and len(asked) == 3
