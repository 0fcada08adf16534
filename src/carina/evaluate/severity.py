"""Does a network find more where there is more? Marks are counted while disease takes a growing share of the lungs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from carina.measure.agreement import dice
from carina.synth.severity import Filling, course, fill, ill_part
from carina.volume import Mask, Volume
from carina.volume.arrays import Box, bounding_box

SHARES = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95)
"""Shares of the lungs that are ill."""

TOLERANCE = 0.15
"""The marked share may differ from the true one by this share of it."""

_REACH_VOXELS = 8
"""Around the lungs' box: as far as soft borders reach."""

FindLesions = Callable[[Volume], Mask]


@dataclass(frozen=True, kw_only=True)
class Severity:
    """One severity: the true and the marked share of the lungs (0 to 1), Dice, and what is marked outside the lungs."""

    true_share: float
    marked_share: float
    dice: float
    outside_ml: float


def severities(
    volume: Volume, lung: Mask, find: FindLesions, filling: Filling, shares: Sequence[float] = SHARES, *, seed: int = 1
) -> Iterator[Severity]:
    """Paint each share of ``lung`` in ``volume``, healthy before, and count what ``find`` marks.

    Dice is taken over the whole volume: what is marked outside the lungs counts against it.

    Raises:
        ValueError: the lung is empty, or a share lies outside 0 to 1.
    """
    inside = lung.labels > 0
    box = bounding_box(inside, _REACH_VOXELS) or _whole(inside.shape)
    field = course(inside[box].shape, np.random.default_rng([seed, 0]))
    for share in shares:
        truth = np.zeros(inside.shape, dtype=np.bool_)
        truth[box] = ill_part(inside[box], field, share)
        hu = volume.hu.copy()
        hu[box] = fill(hu[box], truth[box], filling, np.random.default_rng([seed, 1]))
        marked = find(replace(volume, hu=hu)).labels > 0
        in_lung = np.count_nonzero(marked & inside)
        yield Severity(
            true_share=np.count_nonzero(truth) / np.count_nonzero(inside),
            marked_share=in_lung / np.count_nonzero(inside),
            dice=dice(marked, truth),
            outside_ml=float(np.count_nonzero(marked) - in_lung) * volume.grid.voxel_ml,
        )


def _whole(shape: Sequence[int]) -> Box:
    z, y, x = (slice(0, size) for size in shape)
    return z, y, x


def severity_problems(found: Sequence[Severity]) -> list[str]:
    """A sentence for each share that is off by more than `TOLERANCE` of it, and for each step at which marks fall."""
    ordered = sorted(found, key=lambda one: one.true_share)
    problems = [
        f"{one.true_share:.0%} ill: {one.marked_share:.1%} marked, not within {TOLERANCE:.0%} of it"
        for one in ordered
        if abs(one.marked_share - one.true_share) > TOLERANCE * one.true_share
    ]
    return problems + [
        f"{less.true_share:.0%} to {more.true_share:.0%} ill: marked falls from {less.marked_share:.1%} "
        f"to {more.marked_share:.1%}"
        for less, more in pairwise(ordered)
        if more.marked_share < less.marked_share
    ]
