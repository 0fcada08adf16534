"""How well two masks, or scores and truth, agree. Pure functions on arrays.

Masks are ``(z, y, x)`` arrays of one shape, anything but 0 being inside. A surface is made of the voxels of a mask
with a face neighbour outside (the array's border counts as outside), each counting once, as in MONAI's metrics.

Degenerate cases: two empty masks agree fully (Dice and surface Dice 1, distances 0, volume error 0); one empty mask
does not agree (Dice and surface Dice 0, distances infinite; the volume's error is -100 % where nothing was found and
infinite where nothing was to be found). A single voxel is its own surface. docs/evaluation.md has the whole table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial, stats

from carina.volume.arrays import Doubles, Marks, bounding_box
from carina.volume.grid import Triple

SURFACE_TOLERANCE_MM = 2.0
"""Distance below which two surfaces count as the same."""

BOOTSTRAPS = 1000
"""Draws of patients for an interval."""

ROUNDING_MM = 1e-6
"""Distances that differ by less are the same: surfaces lie on voxels, so many distances are exactly the tolerance."""


def dice(a: Marks, b: Marks) -> float:
    """Dice coefficient, 0 to 1: twice the shared voxels over the voxels of both.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape(a, b)
    inside_a, inside_b = np.asarray(a) != 0, np.asarray(b) != 0
    both = int(np.count_nonzero(inside_a)) + int(np.count_nonzero(inside_b))
    return 2.0 * int(np.count_nonzero(inside_a & inside_b)) / both if both else 1.0


def volume_error_percent(found: Marks, truth: Marks) -> float:
    """Signed error of the found volume in percent of the true one; infinite where only the truth is empty.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape(found, truth)
    count, true_count = int(np.count_nonzero(found)), int(np.count_nonzero(truth))
    if not true_count:
        return math.inf if count else 0.0
    return 100.0 * (count - true_count) / true_count


def volume_error_ml(found: Marks, truth: Marks, voxel_ml: float) -> float:
    """Signed error of the found volume in ml.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape(found, truth)
    return (int(np.count_nonzero(found)) - int(np.count_nonzero(truth))) * voxel_ml


@dataclass(frozen=True, kw_only=True)
class SurfaceAgreement:
    """Normalised surface Dice (0 to 1) and the 95th percentile of the Hausdorff distance in mm."""

    surface_dice: float
    hd95_mm: float


def surface_agreement(
    a: Marks, b: Marks, spacing_mm: Triple, *, tolerance_mm: float = SURFACE_TOLERANCE_MM
) -> SurfaceAgreement:
    """Both figures of two surfaces from one pass: as ``surface_dice`` and ``hausdorff95_mm``.

    Raises:
        ValueError: the shapes differ.
    """
    distances = _surface_distances(a, b, spacing_mm)
    if distances is None:
        return SurfaceAgreement(surface_dice=1.0, hd95_mm=0.0)
    both = np.concatenate(distances)
    apart = np.isfinite(both).all()
    return SurfaceAgreement(
        surface_dice=float(np.count_nonzero(both <= tolerance_mm + ROUNDING_MM)) / both.size,
        hd95_mm=max(float(np.percentile(one, 95)) for one in distances) if apart else math.inf,
    )


def surface_dice(a: Marks, b: Marks, spacing_mm: Triple, *, tolerance_mm: float = SURFACE_TOLERANCE_MM) -> float:
    """Share (0 to 1) of both surfaces that lies within ``tolerance_mm`` of the other (Nikolov et al. 2018).

    ``spacing_mm`` is ``(z, y, x)``.

    Raises:
        ValueError: the shapes differ.
    """
    return surface_agreement(a, b, spacing_mm, tolerance_mm=tolerance_mm).surface_dice


def hausdorff95_mm(a: Marks, b: Marks, spacing_mm: Triple) -> float:
    """The larger of the two 95th percentiles of the distances from one surface to the other, in mm.

    ``spacing_mm`` is ``(z, y, x)``.

    Raises:
        ValueError: the shapes differ.
    """
    return surface_agreement(a, b, spacing_mm).hd95_mm


def _same_shape(a: Marks, b: Marks) -> None:
    if np.shape(a) != np.shape(b):
        raise ValueError(f"masks of shapes {np.shape(a)} and {np.shape(b)} can't be compared; resample one first")


def _surface_distances(a: Marks, b: Marks, spacing_mm: Triple) -> tuple[Doubles, Doubles] | None:
    """Distances in mm from each surface's voxels to the other surface; None when both are empty."""
    _same_shape(a, b)
    surfaces = [_surface_points(mask, spacing_mm) for mask in (a, b)]
    if not any(len(points) for points in surfaces):
        return None
    first, second = surfaces
    return _nearest_mm(first, second), _nearest_mm(second, first)


def _surface_points(mask: Marks, spacing_mm: Triple) -> Doubles:
    inside = np.asarray(mask) != 0
    box = bounding_box(inside)
    if box is None:
        return np.empty((0, 3))
    block = inside[box]
    edge = block & ~ndimage.binary_erosion(block)
    corner = np.array([part.start for part in box])
    points: Doubles = (np.argwhere(edge) + corner) * np.array(spacing_mm)
    return points


def _nearest_mm(points: Doubles, others: Doubles) -> Doubles:
    if not len(others) or not len(points):
        return np.full(len(points), math.inf)
    return np.asarray(spatial.KDTree(others).query(points)[0])


@dataclass(frozen=True, kw_only=True)
class Auc:
    """Area under the ROC curve with its confidence interval, all 0 to 1."""

    auc: float
    low: float
    high: float
    confidence: float


def auc(scores: npt.ArrayLike, positive: npt.ArrayLike, *, confidence: float = 0.95) -> Auc:
    """Area under the ROC curve of ``scores`` (high: positive), ties counting half, with DeLong's interval.

    The interval is the normal one, cut off at 0 and 1; it has no width when the classes are parted fully, which says
    that there are too few cases and not that the figure is sure. Source: DeLong et al., Biometrics 1988; computed from
    midranks as in Sun and Xu, IEEE Signal Processing Letters 2014.

    Raises:
        ValueError: scores and truth differ in length, or one class is absent.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.bool_)
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(f"scores of shape {values.shape} and truth of shape {truth.shape}: expected one line each")
    cases, controls = values[truth], values[~truth]
    if not cases.size or not controls.size:
        raise ValueError(f"an AUC needs both classes; there are {cases.size} positive and {controls.size} negative")
    ranks = stats.rankdata(np.concatenate([cases, controls]))
    above = (ranks[: cases.size] - stats.rankdata(cases)) / controls.size
    below = 1 - (ranks[cases.size :] - stats.rankdata(controls)) / cases.size
    area = float(above.mean())
    variance = _mean_variance(above) + _mean_variance(below)
    half = float(stats.norm.ppf((1 + confidence) / 2)) * math.sqrt(variance)
    return Auc(auc=area, low=max(0.0, area - half), high=min(1.0, area + half), confidence=confidence)


def auc_over_patients(
    scores: npt.ArrayLike,
    positive: npt.ArrayLike,
    patients: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
) -> Auc:
    """`auc` where several scores are of one patient: its interval is a bootstrap's, over ``patients``, not scores.

    Of few patients it is too narrow still. Source: Efron and Tibshirani, 1993, percentiles; whole clusters drawn as in
    Field and Welsh, J R Stat Soc B 2007.

    Raises:
        ValueError: scores, truth and patients differ in length, one class is absent, or all are of one patient.
    """
    values, truth, whose = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.bool_), patients
    area = auc(values, truth, confidence=confidence).auc
    names, number = np.unique(np.asarray(whose), return_inverse=True)
    if number.shape != values.shape or names.size < 2:
        raise ValueError(
            f"{values.size} scores of {number.size} patients, {names.size} of them apart: expected several"
        )
    members = [np.flatnonzero(number == one) for one in range(names.size)]
    areas = []
    for _ in range(BOOTSTRAPS):
        drawn = np.concatenate([members[one] for one in rng.integers(0, names.size, names.size)])
        if 0 < np.count_nonzero(truth[drawn]) < drawn.size:
            areas.append(auc(values[drawn], truth[drawn]).auc)
    low, high = np.quantile(areas, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Auc(auc=area, low=float(low), high=float(high), confidence=confidence)


def _mean_variance(values: Doubles) -> float:
    return float(values.var(ddof=1)) / values.size if values.size > 1 else 0.0
