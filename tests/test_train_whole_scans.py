"""Whole scans drawn for the first look: what is dense, what is cut off, and what stays lung."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from carina.cases.case import Case, resample_case
from carina.cases.checks import check_data
from carina.cases.datalist import read_datalist
from carina.cases.purpose import Purpose, Targets, Task
from carina.cases.sampling import Shape
from carina.synth import averaging, dense
from carina.synth.abdomen import under_lungs
from carina.synth.dense import consolidate, join_belly, lengthen
from carina.synth.lesions import PART_AIR_HU
from carina.synth.phantom import chest_phantom
from carina.train.patches import Drawn
from carina.train.whole_lesions import draw_ill_scan
from carina.train.whole_scans import coarse_case, draw_whole_scan, sample_scan
from carina.volume import Grid, Mask, Volume
from carina.volume.arrays import Flags, Floats
from carina.volume.files import write_mask, write_volume
from carina.volume.grid import Triple

MM = (4.0, 4.0, 4.0)
SHAPE = (72, 80, 96)
WIDE_MM, SMALL = (8.0, 8.0, 8.0), (36, 40, 48)


@pytest.fixture(scope="module")
def case() -> Case:
    phantom = chest_phantom(shape=(64, 128, 128), lesions=0, seed=3)
    return coarse_case(resample_case(Case(name="a", volume=phantom.volume, lung=phantom.lung)), MM)


def test_a_coarse_case_keeps_the_lungs_volume(case: Case) -> None:
    phantom = chest_phantom(shape=(64, 128, 128), lesions=0, seed=3)
    assert case.lung is not None
    assert case.lung.volume_ml() == pytest.approx(phantom.lung.volume_ml(), rel=0.03)
    assert max(case.spacing_mm) <= max(4.0, phantom.volume.grid.spacing_mm[0]) + 1e-6


def test_a_draw_depends_on_its_generator_alone(case: Case) -> None:
    for seed in range(3):
        first, again = (draw_whole_scan([case], SHAPE, MM, np.random.default_rng([1, seed])) for _ in range(2))
        assert np.array_equal(first.hu, again.hu)
        assert np.array_equal(first.truth, again.truth)
    assert first.hu.shape == SHAPE
    assert np.isfinite(first.hu).all()


@pytest.fixture(scope="module")
def straight() -> Case:
    """Upright boxes: a body, a lung on each side, and a heart left of the middle."""
    hu = np.full((60, 80, 80), -1000, np.int16)
    hu[:, 10:70, 5:75] = 40
    labels = np.zeros(hu.shape, np.uint8)
    labels[5:55, 20:60, 15:65] = 1
    labels[5:55, 20:60, 28:44] = 0
    hu[labels > 0] = -850
    hu[5:55, 30:50, 28:40] = 400
    grid = Grid(shape=hu.shape, spacing_mm=MM, origin_mm=(0.0, 0.0, 0.0))
    lung = Mask(labels=labels, grid=grid, names={1: "lung"}, uid="s")
    return Case(name="s", volume=Volume(hu=hu, grid=grid, uid="s"), lung=lung)


def test_hearts_stay_on_their_side_but_in_few_draws(straight: Case) -> None:
    mirrored = []
    for seed in range(80):
        cut = sample_scan([straight], SMALL, WIDE_MM, np.random.default_rng([7, seed])).cut
        heart, lungs = (np.argwhere(part)[:, 2] for part in (cut.hu > 300, cut.lung))
        if len(heart) and len(lungs):
            mirrored.append(heart.mean() > lungs.mean())
    assert len(mirrored) > 60
    assert 0 < np.mean(mirrored) < 0.15


def test_tissue_is_moved_along_the_body_too_so_that_one_chest_has_many_shapes(straight: Case) -> None:
    tilts = []
    for seed in range(8):
        lung = sample_scan([straight], SMALL, WIDE_MM, np.random.default_rng([8, seed])).cut.lung
        tops = np.where(lung.any(axis=0), len(lung) - lung[::-1].argmax(axis=0), -1)
        tilts.append(float(np.ptp(tops[tops > 0])) if (tops > 0).any() else 0.0)
    assert max(tilts) >= 3, "in the plane alone a flat top stays flat"


def test_draws_hold_lung_with_and_without_air_and_scans_that_end_early(case: Case) -> None:
    drawn = [draw_whole_scan([case], SHAPE, MM, np.random.default_rng([2, seed])) for seed in range(24)]
    airless = [(one.hu[one.truth] > -200).mean() for one in drawn if one.truth.any()]
    depth = [np.count_nonzero(one.truth.any(axis=(1, 2))) for one in drawn]
    assert len(airless) >= 20
    assert min(airless) < 0.1 < 0.5 < max(airless)
    assert min(depth) < 30 < max(depth)


@pytest.mark.parametrize("seed", range(6))
def test_consolidation_is_dense_lies_in_the_lung_and_reaches_the_pleura(case: Case, seed: int) -> None:
    lung = case.lungs > 0
    hu, dense = consolidate(case.hu.astype(np.float32), lung, case.spacing_mm, np.random.default_rng(seed))
    assert dense.any()
    assert not (dense & ~lung).any()
    assert np.median(hu[dense]) > -100
    assert np.array_equal(hu[~lung], case.hu[~lung])
    beside = np.zeros_like(lung)
    beside[:, 1:] |= ~lung[:, :-1]
    assert np.median(hu[dense & beside]) > -200


def test_where_lungs_lose_their_air_no_rim_of_it_is_left_beside_them(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    rims = []

    def seen(paint: Callable[..., object]) -> Callable[..., object]:
        def painted(hu: Floats, lung: Flags, *more: object) -> object:
            beside = ndimage.binary_dilation(lung, np.ones((3, 3, 3), dtype=bool)) & ~lung
            rims.append(float((hu[beside] < PART_AIR_HU).mean()))
            return paint(hu, lung, *more)

        return painted

    for name in ("consolidate", "white_out"):
        monkeypatch.setattr(f"carina.synth.dense.{name}", seen(getattr(dense, name)))
    for seed in range(12):
        draw_whole_scan([case], SHAPE, MM, np.random.default_rng([2, seed]))
    assert len(rims) > 3
    assert max(rims) < 0.1


def test_a_longer_belly_holds_no_lung_and_leaves_the_scan_as_it_was(case: Case) -> None:
    empty = 8
    hu = np.concatenate([np.full((empty, *case.hu.shape[1:]), -1024, np.float32), case.hu.astype(np.float32)])
    lung = np.concatenate([np.zeros((empty, *case.hu.shape[1:]), bool), case.lungs > 0])
    lung[empty] = False
    longer = lengthen(hu, lung, empty, np.random.default_rng(1))
    assert np.array_equal(longer[empty:], hu[empty:])
    assert (longer[:empty] > -200).any()
    assert not under_lungs(lung, case.spacing_mm, 4.0)[lung].any()
    lung[empty] = True
    assert lengthen(hu, lung, empty, np.random.default_rng(1)) is hu


@pytest.fixture(scope="module")
def belly(case: Case) -> Case:
    """Another patient's belly: tissue as wide as the chest with a bone in it, no lung."""
    hu = np.full((40, *case.hu.shape[1:]), -1000, np.int16)
    hu[:, 12:-12, 8:-8] = 40
    hu[:, 20:24, 30:40] = 700
    grid = replace(case.volume.grid, shape=(40, *case.hu.shape[1:]))
    lung = Mask(labels=np.zeros(hu.shape, np.uint8), grid=grid, names={1: "lung"}, uid="b")
    return Case(name="b", volume=Volume(hu=hu, grid=grid, uid="b"), lung=lung)


def test_another_patients_belly_lies_below_the_scan_as_wide_as_it_and_is_no_lung(case: Case, belly: Case) -> None:
    empty = 10
    hu = np.concatenate([np.full((empty, *case.hu.shape[1:]), -1024, np.float32), case.hu.astype(np.float32)])
    lung = np.concatenate([np.zeros((empty, *case.hu.shape[1:]), bool), case.lungs > 0])
    lung[empty] = False
    joined = join_belly(hu, lung, empty, belly.hu, 1.0, np.random.default_rng(4))
    assert np.array_equal(joined[empty:], hu[empty:])
    bodies = (ndimage.binary_opening(joined[at] > -300, iterations=2) for at in (empty, empty - 1))
    ours, theirs = (np.flatnonzero(body.any(axis=0)) for body in bodies)
    assert abs(ours[0] - theirs[0]) <= 1 and abs(ours[-1] - theirs[-1]) <= 1
    assert (joined[empty - 1] > 500).any(), "its spine came with it"
    lung[empty] = True
    assert join_belly(hu, lung, empty, belly.hu, 1.0, np.random.default_rng(4)) is hu


def test_draws_show_bellies_alone_and_below_chests(case: Case, belly: Case) -> None:
    drawn = [draw_whole_scan([case, belly], SHAPE, MM, np.random.default_rng([6, seed])) for seed in range(40)]
    alone = sum(not one.truth.any() for one in drawn)
    assert 2 <= alone <= 14
    assert all(not one.truth.any() for one in (draw_whole_scan([belly], SHAPE, MM, np.random.default_rng(1)),))


def test_an_empty_lung_mask_is_a_belly_to_whole_scans_and_a_mistake_elsewhere(tmp_path: Path) -> None:
    phantom = chest_phantom(shape=(24, 64, 64), lesions=0, seed=3)
    empty = replace(phantom.lung, labels=np.zeros_like(phantom.lung.labels))
    write_volume(phantom.volume, tmp_path / "a.nii.gz")
    write_mask(empty, tmp_path / "l.nii.gz")
    listed = {"image": "a.nii.gz", "lung_image": "l.nii.gz"}
    (tmp_path / "list.json").write_text(json.dumps({"training": [listed], "validation": []}))
    data = read_datalist(tmp_path / "list.json")
    purpose = Purpose(task=Task.LUNG, source=Targets.SYNTHETIC)
    assert any("every chest has lungs" in one for one in check_data(data, purpose).problems)
    assert not any("every chest" in one for one in check_data(data, replace(purpose, takes_bellies=True)).problems)


@pytest.mark.parametrize("draw", [draw_whole_scan, draw_ill_scan])
def test_disease_of_both_looks_is_drawn_soft(
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
    draw: Callable[[Sequence[Case], Shape, Triple, np.random.Generator], Drawn],
) -> None:
    def drawn() -> Floats:
        return np.stack([draw([case], SHAPE, MM, np.random.default_rng([5, seed])).hu for seed in range(8)])

    soft = drawn()
    monkeypatch.setattr(averaging, "BLURRED_VOXELS", (0.01, 0.02))
    sharp = drawn()
    differ = np.abs(soft - sharp)[:, :, 1:] > 60
    assert differ.mean() > 0.001
    assert np.abs(np.diff(soft, axis=2))[differ].mean() < 0.95 * np.abs(np.diff(sharp, axis=2))[differ].mean()
