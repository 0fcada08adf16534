"""Agreement figures against MONAI, SciPy and counting by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from carina.measure.agreement import auc, auc_over_patients, dice, hausdorff95_mm, surface_dice, volume_error_percent

SPACING = (2.5, 0.7, 0.8)


def blobs(seed: int, *, threshold: float = 0.55) -> npt.NDArray[np.bool_]:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).random((16, 30, 26)), 2)
    low, high = field.min(), field.max()
    return np.asarray((field - low) / (high - low) > threshold)


def cases() -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    full, point = np.ones((6, 8, 7), dtype=np.bool_), np.zeros((6, 8, 7), dtype=np.bool_)
    point[0, 0, 0] = True
    return [(blobs(1), blobs(2)), (blobs(3), blobs(3, threshold=0.6)), (full, point), (point, point), (full, full)]


@pytest.mark.parametrize("number", range(5))
def test_the_same_as_monai(number: int) -> None:
    torch, metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    a, b = cases()[number]
    first, second = (torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (a, b))
    assert dice(a, b) == pytest.approx(metrics.compute_dice(first, second).item())
    expected = metrics.compute_hausdorff_distance(
        first, second, include_background=True, percentile=95, spacing=list(SPACING)
    )
    assert hausdorff95_mm(a, b, SPACING) == pytest.approx(expected.item(), rel=1e-5)
    expected = metrics.compute_surface_dice(
        first, second, class_thresholds=[2.0], include_background=True, spacing=list(SPACING)
    )
    assert surface_dice(a, b, SPACING) == pytest.approx(expected.item(), rel=1e-6)


def test_distances_are_those_of_every_pair_of_points() -> None:
    a, b = blobs(5), blobs(6)
    edges = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.array(SPACING) for mask in (a, b)]
    table = cdist(*edges)
    both = [table.min(axis=1), table.min(axis=0)]
    assert hausdorff95_mm(a, b, SPACING) == pytest.approx(max(np.percentile(one, 95) for one in both))
    near = sum(np.count_nonzero(one <= 2.0) for one in both) / sum(one.size for one in both)
    assert surface_dice(a, b, SPACING) == pytest.approx(near)


def test_a_shift_is_its_own_distance() -> None:
    a = np.zeros((20, 40, 40), dtype=np.bool_)
    a[5:15, 10:30, 10:30] = True
    b = np.roll(a, 3, axis=2)
    assert dice(a, b) == pytest.approx(17 / 20)
    assert hausdorff95_mm(a, b, (1.0, 1.0, 1.0)) == pytest.approx(3.0)
    assert surface_dice(a, b, (1.0, 1.0, 0.5)) == 1.0
    assert surface_dice(a, b, (1.0, 1.0, 1.0)) < 1.0
    assert volume_error_percent(a, b) == 0


def test_empty_masks() -> None:
    empty, full = np.zeros((3, 4, 5), dtype=np.bool_), np.ones((3, 4, 5), dtype=np.uint8)
    assert (dice(empty, empty), surface_dice(empty, empty, SPACING), hausdorff95_mm(empty, empty, SPACING)) == (1, 1, 0)
    for a, b in ((empty, full), (full, empty)):
        assert (dice(a, b), surface_dice(a, b, SPACING)) == (0, 0)
        assert hausdorff95_mm(a, b, SPACING) == math.inf
    assert volume_error_percent(full, empty) == math.inf
    assert volume_error_percent(empty, full) == -100
    assert volume_error_percent(empty, empty) == 0


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks of shapes \(2, 2, 2\) and \(2, 2, 3\) can't be compared"):
        dice(np.ones((2, 2, 2), dtype=np.bool_), np.ones((2, 2, 3), dtype=np.bool_))


def test_auc_is_the_share_of_pairs_in_order_with_ties_half() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random(60) < 0.4
    scores = np.round(truth * 0.8 + rng.normal(size=60), 1)
    pairs = scores[truth][:, None] - scores[~truth]
    assert auc(scores, truth).auc == pytest.approx(np.mean(pairs > 0) + np.mean(pairs == 0) / 2)


def test_delongs_interval_is_that_of_its_definition_and_near_the_bootstraps() -> None:
    rng = np.random.default_rng(11)
    truth = np.repeat([True, False], [60, 90])
    scores = np.round(truth * 1.0 + rng.normal(size=150), 1)
    found = auc(scores, truth)
    kernel = (scores[truth][:, None] > scores[~truth]) + 0.5 * (scores[truth][:, None] == scores[~truth])
    variance = kernel.mean(axis=1).var(ddof=1) / 60 + kernel.mean(axis=0).var(ddof=1) / 90
    assert found.high - found.auc == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-6)
    assert found.auc - found.low == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-6)
    drawn = [kernel[rng.integers(0, 60, 60)][:, rng.integers(0, 90, 90)].mean() for _ in range(2000)]
    assert [found.low, found.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.01)


def test_an_interval_over_patients_is_as_wide_as_they_differ() -> None:
    """In seven of ten patients scores tell, in three they mislead; whoever counts scores sees 400 that mostly tell."""
    rng = np.random.default_rng(5)
    truth, whose = np.tile([True, False], 200), np.repeat(np.arange(10), 40)
    scores = np.where(whose < 7, truth, ~truth) + rng.normal(size=400) * 0.5
    by_score, by_patient = auc(scores, truth), auc_over_patients(scores, truth, whose, rng)
    assert by_patient.auc == by_score.auc and by_patient.low < by_patient.auc < by_patient.high
    assert by_patient.high - by_patient.low > 3 * (by_score.high - by_score.low)
    apart = auc_over_patients(scores, truth, np.arange(400), rng)
    assert [apart.low, apart.high] == pytest.approx([by_score.low, by_score.high], abs=0.02)


def test_an_interval_over_patients_needs_several() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="4 scores of 4 patients, 1 of them apart: expected several"):
        auc_over_patients([1, 2, 3, 4], [True, False, True, False], ["a"] * 4, rng)
    with pytest.raises(ValueError, match="4 scores of 2 patients"):
        auc_over_patients([1, 2, 3, 4], [True, False, True, False], ["a", "b"], rng)


def test_auc_ends() -> None:
    apart = auc([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert (apart.auc, apart.low, apart.high) == (1, 1, 1)
    assert auc([1, 1, 1, 1], [False, False, True, True]).auc == 0.5
    assert auc([0.9, 0.1], [False, True]).auc == 0
    with pytest.raises(ValueError, match="needs both classes; there are 2 positive and 0 negative"):
        auc([0.1, 0.2], [True, True])
    with pytest.raises(ValueError, match=r"scores of shape \(2,\) and truth of shape \(3,\)"):
        auc([0.1, 0.2], [True, False, True])
