"""Chests with a little disease: as much is drawn as is said, and limits come out where they were put."""

from __future__ import annotations

import numpy as np
import pytest

from carina.cases.case import Case
from carina.evaluate.little_disease import ILL_SHARES, DrawnScan, draw_scan, little_limits, look_at_drawn
from carina.synth.phantom import chest_phantom
from carina.volume import Mask, Volume

PHANTOM = chest_phantom(shape=(24, 96, 96), lesions=0, seed=2, spacing_mm=(10.0, 4.0, 4.0))
CASE = Case(name="phantom", volume=PHANTOM.volume, lung=PHANTOM.lung)


def test_a_scan_is_ill_in_as_much_of_its_lungs_as_is_said() -> None:
    drawn = [draw_scan(CASE, np.random.default_rng([1, number])) for number in range(12)]
    shares = [share for _, _, share in drawn]
    assert 0 < sum(share > 0 for share in shares) < 12
    assert all(share >= ILL_SHARES[0] for share in shares if share)
    scan, lung, _ = drawn[0]
    assert scan.grid.shape == lung.grid.shape == scan.hu.shape
    assert np.count_nonzero(lung.labels) == np.count_nonzero(PHANTOM.lung.labels)
    again, _, _ = draw_scan(CASE, np.random.default_rng([1, 0]))
    assert np.array_equal(again.hu, scan.hu), "the generator decides"


def test_what_is_marked_is_counted_as_in_a_run_and_the_probability_kept() -> None:
    def mark(scan: Volume) -> Mask:
        labels = np.zeros(scan.grid.shape, dtype=np.uint8)
        labels[:, 0] = 1  # beside the body
        inside = np.argwhere(np.isin(ras_lungs(scan), [1]))[:40]
        labels[tuple(inside.T)] = 1
        return Mask(labels=labels, grid=scan.grid, names={1: "lesion"}, uid=scan.uid)

    def ras_lungs(scan: Volume) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return draw_scan(CASE, np.random.default_rng([7, 0, 0]))[1].labels

    found = list(look_at_drawn([CASE], range(2), 7, mark, lambda scan, lung: 0.25))
    assert [one.probability for one in found] == [0.25, 0.25]
    assert {one.marked_share for one in found} == {40 / np.count_nonzero(PHANTOM.lung.labels)}


def drawn(ill: float, marked: float, probability: float) -> DrawnScan:
    return DrawnScan(case="a", ill_share=ill, marked_share=marked, probability=probability)


def test_the_limits_lie_where_disease_is_told_and_where_it_is_seen() -> None:
    healthy = [drawn(0, share, 0.1) for share in (0, 0.001, 0.002)]
    rng, ill = np.random.default_rng(3), []
    for share in np.geomspace(0.003, 0.3, 3000):
        chance = 1 / (1 + (0.03 / share) ** 2)
        ill.append(drawn(share, share, 0.9 if rng.random() < chance else 0.2))
    none, enough = little_limits(healthy + ill)
    assert none == 0.002
    assert enough == pytest.approx(0.03 * 3**0.5, rel=0.1), "odds of 3, where they grow with the share's square"


HEALTHY, ILL = drawn(0, 0, 0.1), drawn(0.1, 0.1, 0.9)


@pytest.mark.parametrize("found", [[HEALTHY], [ILL], [HEALTHY, ILL]])
def test_limits_need_both_and_some_that_are_not_seen(found: list[DrawnScan]) -> None:
    with pytest.raises(ValueError, match=r"drawn scans are ill and .* of these seen: some must be"):
        little_limits(found)
