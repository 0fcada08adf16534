"""Lesions found, missed and made up: connected components of two masks, compared by overlap.

Components join over 26 neighbours. A true lesion is found where a found component shares at least one voxel with it;
a found component that shares none with any true lesion is a false positive. One found component may find several true
lesions (it merged them), several may find one (it fell apart), and each true lesion counts once. Components smaller
than ``smallest_ml`` do not count: a small true lesion is neither found nor missed, what touches it only is no false
positive, and a small found component finds nothing.

Degenerate cases: without true lesions the sensitivity is not defined (None) and everything found is false; where
nothing was found there are no false positives and the sensitivity is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.volume.arrays import Doubles, Marks, bounding_box

SMALLEST_ML = 0.1
"""Components below this do not count, as in the ratio's count of lesions."""

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per scan at which free-response sensitivities are averaged (LUNA16, Setio et al. 2017)."""


_NEIGHBOURS = np.ones((3, 3, 3), dtype=np.bool_)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What was found in one scan.

    ``lesions_ml`` are the volumes of the true lesions, ``found_by_ml`` for each the volume of the largest component
    that finds it, 0 where it was missed; ``false_ml`` are the volumes of the false positives.
    """

    lesions_ml: tuple[float, ...]
    found_by_ml: tuple[float, ...]
    false_ml: tuple[float, ...]

    @property
    def found(self) -> int:
        """How many true lesions were found."""
        return sum(volume > 0 for volume in self.found_by_ml)

    @property
    def sensitivity(self) -> float | None:
        """The share of true lesions that was found, 0 to 1; None where there are none."""
        return self.found / len(self.lesions_ml) if self.lesions_ml else None


def detect(found: Marks, truth: Marks, voxel_ml: float, *, smallest_ml: float = SMALLEST_ML) -> Detection:
    """Compare the components of ``found`` and ``truth``, ``(z, y, x)`` masks of one shape.

    Raises:
        ValueError: the shapes differ.
    """
    if np.shape(found) != np.shape(truth):
        raise ValueError(
            f"masks of shapes {np.shape(found)} and {np.shape(truth)} can't be compared; resample one first"
        )
    inside_found, inside_truth = np.asarray(found) != 0, np.asarray(truth) != 0
    box = bounding_box(inside_found | inside_truth)
    if box is None:
        return Detection(lesions_ml=(), found_by_ml=(), false_ml=())
    labels, sizes_ml = _components(inside_found[box], voxel_ml)
    true_labels, true_ml = _components(inside_truth[box], voxel_ml)
    both = (labels > 0) & (true_labels > 0)
    touching = np.unique(np.stack([true_labels[both], labels[both]]), axis=1)
    found_by = np.zeros(len(true_ml))
    for lesion, component in touching.T:
        if sizes_ml[component] >= smallest_ml:
            found_by[lesion] = max(found_by[lesion], sizes_ml[component])
    is_false = sizes_ml >= smallest_ml
    is_false[0] = False
    is_false[touching[1]] = False
    counts = true_ml >= smallest_ml
    counts[0] = False
    return Detection(
        lesions_ml=tuple(map(float, true_ml[counts])),
        found_by_ml=tuple(map(float, found_by[counts])),
        false_ml=tuple(map(float, sizes_ml[is_false])),
    )


def _components(inside: npt.NDArray[np.bool_], voxel_ml: float) -> tuple[npt.NDArray[np.int32], Doubles]:
    """Labels from 1, and volumes in ml by label; entry 0 is the background's."""
    labels, count = ndimage.label(inside, structure=_NEIGHBOURS)
    sizes = np.bincount(labels.ravel(), minlength=count + 1).astype(np.float64)
    return np.asarray(labels, dtype=np.int32), sizes * voxel_ml


@dataclass(frozen=True, kw_only=True, eq=False)
class FreeResponse:
    """A free-response curve over scans, each found component being rated by its volume.

    ``smallest_ml`` are the volumes from which components count, growing; ``sensitivity`` (0 to 1) and
    ``false_positives_per_scan`` are those at each. ``score`` is the mean sensitivity at ``RATES`` false positives per
    scan, linear between the points of the curve and constant beyond its ends.
    """

    smallest_ml: Doubles
    sensitivity: Doubles
    false_positives_per_scan: Doubles
    score: float


def free_response(detections: Sequence[Detection]) -> FreeResponse | None:
    """The curve of several scans; None where no scan holds a true lesion.

    Source: Bandos et al., Biometrics 2009, with component volume in place of a reader's confidence.
    """
    found_by = np.array([volume for one in detections for volume in one.found_by_ml])
    false_ml = np.array([volume for one in detections for volume in one.false_ml])
    if not found_by.size:
        return None
    limits = np.unique(np.concatenate([found_by[found_by > 0], false_ml]))
    sensitivity = np.array([np.count_nonzero(found_by >= limit) for limit in limits] + [0]) / found_by.size
    rates = np.array([np.count_nonzero(false_ml >= limit) for limit in limits] + [0]) / len(detections)
    return FreeResponse(
        smallest_ml=np.append(limits, np.inf),
        sensitivity=sensitivity,
        false_positives_per_scan=rates,
        score=float(np.mean(np.interp(RATES, rates[::-1], sensitivity[::-1]))),
    )
