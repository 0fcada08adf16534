"""Whole scans drawn for the first look: what is dense, what is cut off, and what stays lung."""

from __future__ import annotations

import numpy as np
import pytest

from carina.cases.case import Case, resample_case
from carina.synth.abdomen import under_lungs
from carina.synth.dense import consolidate, lengthen
from carina.synth.phantom import chest_phantom
from carina.train.whole_scans import coarse_case, draw_whole_scan

MM = (4.0, 4.0, 4.0)
SHAPE = (72, 80, 96)


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


def test_draws_hold_lung_with_and_without_air_and_scans_that_end_early(case: Case) -> None:
    drawn = [draw_whole_scan([case], SHAPE, MM, np.random.default_rng([2, seed])) for seed in range(24)]
    dense = [(one.hu[one.truth] > -200).mean() for one in drawn if one.truth.any()]
    depth = [np.count_nonzero(one.truth.any(axis=(1, 2))) for one in drawn]
    assert len(dense) >= 20
    assert min(dense) < 0.1 < 0.5 < max(dense)
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
