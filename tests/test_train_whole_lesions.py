"""Whole scans drawn for the first look at lesions: disease of every extent, in the lungs, and scans without any."""

from __future__ import annotations

import numpy as np
import pytest

from carina.cases.case import Case, resample_case
from carina.synth.phantom import chest_phantom
from carina.train.patches import Drawn
from carina.train.whole_lesions import blurred, draw_ill_scan
from carina.train.whole_scans import coarse_case
from carina.volume.arrays import Floats

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


def averaged_ball() -> tuple[Floats, Floats]:
    """Shares of a ball of 14 mm radius: averaged from voxels of 1 mm and sampled half-way between voxels of ``MM``;
    and as it is drawn on these, in or out."""
    z, y, x = np.indices((120, 80, 80)) - np.array([60.0, 40.0, 40.0])[:, None, None, None]
    fine = (z**2 + y**2 + x**2 < 14**2).astype(np.float32)
    means = fine.reshape(20, 6, 20, 4, 20, 4).mean(axis=(1, 3, 5))
    for axis in range(3):
        means = (means + np.roll(means, 1, axis)) / 2
    return means, (means > 0.5).astype(np.float32)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_drawn_is_as_soft_as_what_was_averaged(seed: int) -> None:
    real, sharp = averaged_ball()
    lung = np.full(real.shape, -850.0, dtype=np.float32)
    everywhere = np.ones(real.shape, dtype=np.bool_)
    shares = (blurred(lung, lung + 890 * sharp, everywhere, np.random.default_rng(seed)) + 850) / 890
    assert np.abs(shares - real).mean() < 0.6 * np.abs(sharp - real).mean()


def test_no_air_is_left_at_the_wall_beside_what_is_blurred() -> None:
    lung = np.zeros((12, 20, 20), dtype=np.bool_)
    lung[2:10, 3:17, 3:17] = True
    hu = np.where(lung, np.float32(-850), np.float32(40))
    drawn = np.where(lung & (np.arange(20) < 10), np.float32(40), hu)
    ill = lung & (np.arange(20) < 10)
    soft = blurred(hu, drawn, lung, np.random.default_rng(1))
    assert soft[ill & (np.arange(20) < 7)].min() > 35
    assert (soft[~lung] == 40).all()
