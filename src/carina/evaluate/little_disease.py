"""How much of the lungs must be marked for a classifier's probability to say something: chests with a little disease.

Disease is drawn into whole scans at their own resolution, so that they can be marked and classified as a run does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from carina.cases.case import Case
from carina.measure.joined import marked_share
from carina.synth import distractors, lesions
from carina.synth.fields import ORIENTATION
from carina.volume import Mask, Volume
from carina.volume.arrays import Box, Flags, Floats, bounding_box, grown_box
from carina.volume.resample import reorient

ILL_SHARES = (0.001, 0.1)
"""Shares of the lungs that are ill, drawn evenly in their logarithm."""

MOST_DRAWN = 60
"""So many are drawn at most until a share is reached."""

SCANNED_AROUND_MM = 15.0
"""Look-alikes, kernels and noise reach so far around the lungs' box."""

SEEN_SHARE = 0.75
"""Enough is marked where this share of the ill gets a probability above one half."""

LEAST_MARKED = 1e-6
"""Of a share whose logarithm is taken."""


@dataclass(frozen=True, kw_only=True)
class DrawnScan:
    """One drawn scan: which share of its lungs is ill and marked (0 to 1), and the probability that it was given."""

    case: str
    ill_share: float
    marked_share: float
    probability: float


def draw_scan(case: Case, rng: np.random.Generator) -> tuple[Volume, Mask, float]:
    """The chest with look-alikes, scanned otherwise, and half of the time ill: scan, lungs, the share that is ill.

    Raises:
        ValueError: the case has no lungs.
    """
    array, grid = reorient(case.volume.hu, case.volume.grid, ORIENTATION)
    labels, _ = reorient(case.lungs, case.volume.grid, ORIENTATION)
    box = _around(labels > 0, grid.spacing_mm)
    hu, lung, spacing_mm = array[box].astype(np.float32), labels[box] > 0, grid.spacing_mm
    hu, _ = distractors.look_alikes(hu, lung, spacing_mm, rng, distractors.FOR_CLASSIFIERS)
    if rng.random() < 0.5:
        hu = distractors.contrast(hu, rng)
    share = 0.0
    if rng.random() < 0.5:
        hu, share = _ill(hu, lung, spacing_mm, rng)
    if rng.random() < 0.2:
        hu = distractors.motion(hu, spacing_mm, rng)
    hu = distractors.kernel_and_noise(hu, spacing_mm, rng)
    whole = array.copy()
    whole[box] = np.clip(np.rint(hu), -1024, 3071)
    scan = Volume(hu=np.ascontiguousarray(whole), grid=grid, uid=case.volume.uid)
    return scan, Mask(labels=(labels > 0).astype(np.uint8), grid=grid, names={1: "lung"}, uid=scan.uid), share


def look_at_drawn(
    cases: Sequence[Case],
    numbers: range,
    seed: int,
    mark: Callable[[Volume], Mask],
    classify: Callable[[Volume, Mask], float],
) -> Iterator[DrawnScan]:
    """Draw a scan of each case for each number; ``mark`` gives its lesions, ``classify`` its probability.

    What is marked counts as in a run: as far as it belongs to the lungs. Draw ``number`` of a case depends on ``seed``,
    the case's place in ``cases`` and nothing else.
    """
    for number in numbers:
        for place, case in enumerate(cases):
            scan, lung, share = draw_scan(case, np.random.default_rng([seed, place, number]))
            yield DrawnScan(
                case=case.name,
                ill_share=share,
                marked_share=marked_share(mark(scan), lung),
                probability=classify(scan, lung),
            )


def little_limits(found: Sequence[DrawnScan]) -> tuple[float, float]:
    """Which marked share still counts as nothing, and which is enough (bundle key ``little_disease``).

    The first is where shares best tell scans without disease from ill ones (Youden, Cancer 1950; 3: 32). The second is
    where `SEEN_SHARE` of the ill get a probability above one half, by logistic regression on the share's logarithm.

    Raises:
        ValueError: none of the scans is ill, or all are, or the ill's probabilities all lie on one side of one half.
    """
    marked = np.array([one.marked_share for one in found])
    ill = np.array([one.ill_share > 0 for one in found])
    seen = np.array([one.probability > 0.5 for one in found])[ill]
    if ill.all() or not ill.any() or seen.all() or not seen.any():
        raise ValueError(f"{ill.sum()} of {len(ill)} drawn scans are ill and {seen.sum()} of these seen: some must be")
    cuts = np.unique(marked)
    told = [float((marked[~ill] <= cut).mean() - (marked[ill] <= cut).mean()) for cut in cuts]
    return float(cuts[int(np.argmax(told))]), _share_seen(marked[ill], seen)


def _share_seen(marked: npt.NDArray[np.float64], seen: Flags) -> float:
    size, sign = np.log(np.maximum(marked, LEAST_MARKED)), np.where(seen, 1.0, -1.0)

    def loss(weights: npt.NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -sign * (weights[0] + weights[1] * size)).mean())

    constant, slope = optimize.minimize(loss, [0.0, 1.0]).x
    return float(np.exp((np.log(SEEN_SHARE / (1 - SEEN_SHARE)) - constant) / slope))


def _ill(hu: Floats, lung: Flags, spacing_mm: Sequence[float], rng: np.random.Generator) -> tuple[Floats, float]:
    """Lesions until a drawn share of the lungs is ill: in one lung for a third of the patients."""
    where = lung.copy()
    if rng.random() < 1 / 3:
        middle = lung.shape[2] // 2
        where[:, :, np.s_[:middle] if rng.random() < 0.5 else np.s_[middle:]] = False
    wanted = lesions.log_uniform(ILL_SHARES, rng) * np.count_nonzero(lung)
    radii_mm = lesions.SMALL_RADII_MM if wanted < 0.01 * np.count_nonzero(lung) else lesions.RADII_MM
    mask = np.zeros(lung.shape, dtype=np.bool_)
    drawn = lesions.draw_lesions(where, spacing_mm, rng, count=MOST_DRAWN, radii_mm=radii_mm)
    for lesion in drawn:
        if np.count_nonzero(mask) >= wanted:
            break
        hu, new = lesions.paste(hu, where, spacing_mm, [lesion], rng)
        mask |= new
    return hu, np.count_nonzero(mask) / np.count_nonzero(lung)


def _around(lung: Flags, spacing_mm: Sequence[float]) -> Box:
    box = bounding_box(lung)
    if box is None:
        raise ValueError("nothing can be drawn into a chest without lungs")
    return grown_box(box, [round(SCANNED_AROUND_MM / step) for step in spacing_mm], lung.shape)
