"""Whole scans drawn for the first look at lesions: disease of every extent, in the lungs, and scans without any."""

from __future__ import annotations

import numpy as np
import pytest

from carina.cases.case import Case, resample_case
from carina.synth.phantom import chest_phantom
from carina.train.patches import Drawn
from carina.train.whole_lesions import draw_ill_scan
from carina.train.whole_scans import coarse_case

MM = (6.0, 4.0, 4.0)
SHAPE = (48, 80, 96)


@pytest.fixture(scope="module")
def case() -> Case:
    phantom = chest_phantom(shape=(64, 128, 128), lesions=0, seed=3)
    return coarse_case(resample_case(Case(name="a", volume=phantom.volume, lung=phantom.lung)), MM)


@pytest.fixture(scope="module")
def drawn(case: Case) -> list[Drawn]:
    return [draw_ill_scan([case], SHAPE, MM, np.random.default_rng([3, seed])) for seed in range(60)]


def test_a_drawn_scan_depends_on_its_generator_alone(case: Case, drawn: list[Drawn]) -> None:
    again = draw_ill_scan([case], SHAPE, MM, np.random.default_rng([3, 7]))
    assert np.array_equal(again.hu, drawn[7].hu)
    assert np.array_equal(again.truth, drawn[7].truth)
    assert again.hu.shape == SHAPE
    assert np.isfinite(again.hu).all()


def test_disease_takes_from_nothing_to_litres(drawn: list[Drawn]) -> None:
    voxel_ml = np.prod(MM) / 1000
    ill_ml = np.array([one.truth.sum() * voxel_ml for one in drawn])
    assert 15 <= np.count_nonzero(ill_ml == 0) <= 42
    assert np.count_nonzero((ill_ml > 0) & (ill_ml < 30)) >= 3
    assert np.count_nonzero(ill_ml > 500) >= 5


def test_disease_is_ground_glass_and_what_has_no_air(drawn: list[Drawn]) -> None:
    medians = [float(np.median(one.hu[one.truth])) for one in drawn if one.truth.any()]
    assert min(medians) < -500
    assert max(medians) > -50


def test_dense_tissue_beside_disease_is_what_the_network_must_work_at(drawn: list[Drawn]) -> None:
    hard = sum(int(one.hard.sum()) for one in drawn)
    healthy = sum(int((one.hard & ~one.truth).sum()) for one in drawn)
    assert 0.2 < healthy / hard < 0.95


def test_a_third_of_the_draws_repeat_one_slice(drawn: list[Drawn]) -> None:
    def is_repeated(one: Drawn) -> bool:
        levels = np.flatnonzero(one.hu.std(axis=(1, 2)) > 1)
        return all(np.array_equal(one.hu[levels[0]], one.hu[level]) for level in levels)

    assert 10 <= sum(map(is_repeated, drawn)) <= 32
