"""Figures of an evaluation against MONAI, SciPy, scikit-learn and counting by hand, degenerate masks included."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage, spatial, special, stats

from carina.measure.agreement import auc, dice, surface_agreement, volume_error_ml, volume_error_percent
from carina.measure.calibration import (
    HIGHEST,
    LOWEST,
    crossfitted,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    scaled,
)
from carina.measure.detection import RATES, Detection, detect, free_response
from carina.measure.roc import roc_curve, sensitivity_at_specificity, share_interval

SHAPE = (12, 22, 20)
SPACING = (5.0, 0.6, 0.9)
Bools = npt.NDArray[np.bool_]


def blobs(seed: int, threshold: float = 0.6) -> Bools:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).random(SHAPE), 1.5)
    above: Bools = (field - field.min()) / np.ptp(field) > threshold
    return above


def one_voxel(place: tuple[int, int, int]) -> Bools:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[place] = True
    return mask


def plate(axis: int) -> Bools:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask.swapaxes(0, axis)[0] = True
    return mask


PAIRS = {
    "random": (blobs(1), blobs(2)),
    "nearly the same": (blobs(3), blobs(3, 0.63)),
    "scattered": (np.random.default_rng(4).random(SHAPE) > 0.7, np.random.default_rng(5).random(SHAPE) > 0.9),
    "one voxel each": (one_voxel((3, 4, 5)), one_voxel((9, 4, 6))),
    "one voxel in a corner": (one_voxel((0, 0, 0)), blobs(6)),
    "everything": (np.ones(SHAPE, dtype=np.bool_), blobs(7)),
    "plates at the border": (plate(0), plate(2)),
    "the same": (blobs(8), blobs(8)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_masks_agree_as_in_monai_and_scipy(name: str) -> None:
    torch, metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    a, b = PAIRS[name]
    first, second = (torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (a, b))
    found = surface_agreement(a, b, SPACING)
    keys = {"include_background": True, "spacing": list(SPACING)}
    expected = metrics.compute_hausdorff_distance(first, second, percentile=95, **keys).item()
    assert found.hd95_mm == pytest.approx(expected, rel=1e-5)
    expected = metrics.compute_surface_dice(first, second, class_thresholds=[2.0], **keys).item()
    assert found.surface_dice == pytest.approx(expected, rel=1e-6)
    assert dice(a, b) == pytest.approx(metrics.compute_dice(first, second).item())
    assert dice(a, b) == pytest.approx(1 - spatial.distance.dice(a.ravel(), b.ravel()))


@pytest.mark.parametrize("name", ["random", "scattered", "one voxel in a corner", "everything"])
def test_surface_distances_are_those_of_a_distance_transform(name: str) -> None:
    edges = [np.pad(mask, 1) & ~ndimage.binary_erosion(np.pad(mask, 1)) for mask in PAIRS[name]]
    maps = [ndimage.distance_transform_edt(~edge, sampling=SPACING) for edge in edges]
    both = [maps[1][edges[0]], maps[0][edges[1]]]
    found = surface_agreement(*PAIRS[name], SPACING, tolerance_mm=3.0)
    assert found.hd95_mm == pytest.approx(max(np.percentile(one, 95) for one in both))
    assert found.surface_dice == pytest.approx((np.concatenate(both) <= 3.0).mean())


def test_one_empty_mask_is_full_disagreement_as_far_as_monai_defines_it() -> None:
    torch, metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    empty, some = np.zeros(SHAPE, dtype=np.bool_), blobs(1)
    first, second = (torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (empty, some))
    found = surface_agreement(empty, some, SPACING)
    assert (found.surface_dice, found.hd95_mm) == (0, math.inf)
    assert metrics.compute_surface_dice(first, second, class_thresholds=[2.0], include_background=True).item() == 0
    assert metrics.compute_dice(first, second).item() == dice(empty, some) == 0
    assert metrics.compute_dice(first, first, ignore_empty=False).item() == dice(empty, empty) == 1
    found = surface_agreement(empty, empty, SPACING)
    assert (found.surface_dice, found.hd95_mm) == (1, 0)


def test_volume_errors_have_a_sign_and_defined_ends() -> None:
    empty, two = np.zeros(SHAPE, dtype=np.uint8), np.zeros(SHAPE, dtype=np.uint8)
    two[0, 0, :2] = 7
    one = (two > 0) & one_voxel((0, 0, 0))
    assert volume_error_ml(one, two, 0.25) == -0.25
    assert volume_error_percent(one, two) == -50
    assert (volume_error_ml(two, empty, 0.5), volume_error_percent(two, empty)) == (1.0, math.inf)
    assert (volume_error_ml(empty, two, 0.5), volume_error_percent(empty, two)) == (-1.0, -100)
    assert (volume_error_ml(empty, empty, 0.5), volume_error_percent(empty, empty)) == (0, 0)


def block(*corners: tuple[int, int, int], size: int = 3) -> Bools:
    mask = np.zeros((30, 30, 30), dtype=np.bool_)
    for z, y, x in corners:
        mask[z : z + size, y : y + size, x : x + size] = True
    return mask


def test_lesions_are_found_missed_and_made_up() -> None:
    truth = block((2, 2, 2), (2, 12, 2), (20, 20, 20))
    found = block((4, 4, 4), (10, 2, 20), size=2) | block((20, 20, 19))
    seen = detect(found, truth, 0.1, smallest_ml=0.0)
    assert seen.lesions_ml == pytest.approx((2.7, 2.7, 2.7))
    assert seen.found_by_ml == pytest.approx((0.8, 0.0, 2.7))
    assert seen.false_ml == pytest.approx((0.8,))
    assert seen.found == 2 and seen.sensitivity == pytest.approx(2 / 3)


def test_touching_corners_join_and_one_component_may_find_two_lesions() -> None:
    truth = block((2, 2, 2), (2, 2, 6))
    bridge = truth | block((2, 2, 4))
    assert detect(bridge, truth, 0.1).found == 2
    assert len(detect(block((2, 2, 2), (5, 5, 5)), truth, 0.1).false_ml) == 0
    assert len(detect(truth, block((2, 2, 2), (5, 5, 5)), 0.1).lesions_ml) == 1


def test_small_components_do_not_count() -> None:
    truth, found = block((2, 2, 2)) | block((20, 2, 2), size=1), block((2, 2, 2), (20, 2, 2), size=1)
    seen = detect(found, truth, 0.05, smallest_ml=0.1)
    assert seen.lesions_ml == pytest.approx((1.35,))
    assert (seen.found_by_ml, seen.false_ml) == ((0,), ())
    seen = detect(block((20, 2, 1), size=2), truth, 0.05, smallest_ml=0.1)
    assert (seen.found, seen.false_ml) == (0, ()), "what lies on a small lesion is no false positive"
    seen = detect(block((10, 10, 10), size=1) | block((20, 20, 20), size=2), truth, 0.05, smallest_ml=0.1)
    assert seen.false_ml == pytest.approx((0.4,)), "the single voxel is none either"


def test_detection_of_empty_masks() -> None:
    empty, some = block(), block((0, 0, 0))
    assert detect(empty, empty, 1.0).sensitivity is None
    assert detect(empty, empty, 1.0).false_ml == ()
    assert detect(empty, some, 1.0).sensitivity == 0
    seen = detect(some, empty, 1.0)
    assert (seen.sensitivity, seen.false_ml) == (None, (27.0,))
    with pytest.raises(ValueError, match="resample one first"):
        detect(some, some[1:], 1.0)


def test_detection_is_that_of_components_compared_one_by_one() -> None:
    for seed in range(4):
        found, truth = blobs(seed, 0.62), blobs(seed + 10, 0.62)
        structure = np.ones((3, 3, 3))
        (a, count_a), (b, count_b) = (ndimage.label(mask, structure) for mask in (found, truth))
        hits = [max((np.sum(a == k) for k in range(1, count_a + 1) if ((a == k) & (b == n)).any()), default=0)
                for n in range(1, count_b + 1)]  # fmt: skip
        false = [np.sum(a == k) for k in range(1, count_a + 1) if not truth[a == k].any()]
        seen = detect(found, truth, 1.0, smallest_ml=0.0)
        assert seen.found_by_ml == tuple(hits)
        assert seen.false_ml == tuple(false)


def test_free_response_as_in_monai() -> None:
    metrics = pytest.importorskip("monai.metrics")
    rng = np.random.default_rng(2)
    scans = [
        Detection(
            lesions_ml=(1.0,) * 5,
            found_by_ml=tuple(rng.integers(1, 9, 5) * (rng.random(5) < 0.8) * 0.5),
            false_ml=tuple(rng.integers(1, 7, int(rng.integers(0, 6))) * 0.5),
        )
        for _ in range(6)
    ]
    hits = np.array([v for one in scans for v in one.found_by_ml])
    false = np.array([v for one in scans for v in one.false_ml])
    assert (hits == 0).any(), "MONAI leaves out the lowest score, here the zero of the lesions that were missed"
    rates, sensitivity = metrics.compute_froc_curve_data(false, hits, 30, 6)
    curve = free_response(scans)
    assert curve is not None
    found = (curve.false_positives_per_scan, curve.sensitivity)
    assert found[0] == pytest.approx(rates) and found[1] == pytest.approx(sensitivity)
    assert curve.score == pytest.approx(metrics.compute_froc_score(rates, sensitivity, RATES))


def test_free_response_needs_a_lesion() -> None:
    assert free_response([Detection(lesions_ml=(), found_by_ml=(), false_ml=(1.0,))]) is None


def scores_and_truth(seed: int, count: int = 80) -> tuple[npt.NDArray[np.float64], Bools]:
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    return np.round(truth * 0.9 + rng.normal(size=count), 1), truth


def test_roc_curve_and_area_as_in_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for seed in range(3):
        scores, truth = scores_and_truth(seed)
        false, sensitivity, thresholds = metrics.roc_curve(truth, scores, drop_intermediate=False)
        curve = roc_curve(scores, truth)
        assert curve.sensitivity == pytest.approx(sensitivity)
        assert curve.specificity == pytest.approx(1 - false)
        assert curve.thresholds == pytest.approx(thresholds)
        assert auc(scores, truth).auc == pytest.approx(metrics.roc_auc_score(truth, scores))
        assert np.trapezoid(curve.sensitivity, 1 - curve.specificity) == pytest.approx(auc(scores, truth).auc)


def test_sensitivity_at_a_specificity_is_the_best_of_every_threshold() -> None:
    scores, truth = scores_and_truth(7)
    point = sensitivity_at_specificity(scores, truth, specificity=0.9)
    tried = [(scores >= limit) for limit in [*np.unique(scores), np.inf]]
    assert point.sensitivity == max(called[truth].mean() for called in tried if (~called[~truth]).mean() >= 0.9)
    called = scores >= point.threshold
    assert (called[truth].mean(), (~called[~truth]).mean()) == (point.sensitivity, pytest.approx(point.specificity))
    expected = stats.binomtest(int(called[truth].sum()), int(truth.sum())).proportion_ci(method="wilson")
    assert (point.sensitivity_low, point.sensitivity_high) == pytest.approx((expected.low, expected.high))
    assert share_interval(1.0, 5)[0] == pytest.approx(stats.binomtest(5, 5).proportion_ci(method="wilson").low)
    reversed_ = sensitivity_at_specificity([0.9, 0.8, 0.1], [False, False, True], specificity=0.95)
    assert (reversed_.sensitivity, reversed_.threshold) == (0, math.inf)
    with pytest.raises(ValueError, match="there are 0 positive and 2 negative"):
        sensitivity_at_specificity([0.1, 0.2], [False, False], specificity=0.9)


def probabilities_and_truth(seed: int) -> tuple[npt.NDArray[np.float64], Bools]:
    rng = np.random.default_rng(seed)
    values = rng.random(300)
    return values, rng.random(300) < values**2


def test_reliability_as_in_scikit_learn_and_monai() -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    torch, metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    values, truth = probabilities_and_truth(1)
    observed, predicted = calibration.calibration_curve(truth, values, n_bins=10, strategy="uniform")
    curve = reliability(values, truth)
    assert [one.observed for one in curve] == pytest.approx(observed)
    assert [one.predicted for one in curve] == pytest.approx(predicted)
    metric = metrics.CalibrationErrorMetric(num_bins=10, calibration_reduction="expected")
    metric(torch.from_numpy(values)[None, None], torch.from_numpy(truth.astype(float))[None, None])
    assert expected_calibration_error(values, truth) == pytest.approx(float(metric.aggregate()), rel=1e-4)


def test_calibration_ends() -> None:
    assert expected_calibration_error([0.0, 1.0, 1.0], [False, True, True]) == 0
    assert expected_calibration_error([1.0, 0.0], [False, True]) == 1
    (only,) = reliability([1.0], [True])
    assert (only.low, only.high, only.count, only.predicted) == (0.9, 1.0, 1, 1.0)
    with pytest.raises(ValueError, match=r"run from 0.5 to 1.5; expected 0 to 1"):
        reliability([0.5, 1.5], [True, False])


def test_temperature_is_that_of_a_logistic_regression() -> None:
    linear, metrics = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(400, 2)) * 4
    truth = (rng.random(400) < special.expit((logits[:, 1] - logits[:, 0]) / 2.5)).astype(int)
    model = linear.LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(
        logits[:, 1:] - logits[:, :1], truth
    )
    found = fit_temperature(logits, truth)
    assert found == pytest.approx(1 / float(model.coef_[0, 0]), rel=1e-4)
    after = scaled(logits, found)
    assert negative_log_likelihood(logits, truth, temperature=found) == pytest.approx(metrics.log_loss(truth, after))
    assert metrics.log_loss(truth, after) < metrics.log_loss(truth, scaled(logits, 1.0))
    assert fit_temperature(np.log(scaled(logits, 1.0)), truth) == pytest.approx(found, rel=1e-5)


def test_temperature_of_three_classes_as_in_scikit_learn() -> None:
    calibration, frozen = pytest.importorskip("sklearn.calibration"), pytest.importorskip("sklearn.frozen")
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(6)
    features = rng.normal(size=(300, 4))
    truth = np.array([rng.choice(3, p=row) for row in scaled(features @ rng.normal(size=(4, 3)) * 2, 1.8)])
    sure = linear.LogisticRegression(C=10.0).fit(features[:40], truth[:40])
    model = calibration.CalibratedClassifierCV(frozen.FrozenEstimator(sure), method="temperature").fit(features, truth)
    logits = sure.decision_function(features)
    found = fit_temperature(logits, truth)
    assert found > 1.2, "a network fitted to a few cases is too sure"
    assert model.predict_proba(features) == pytest.approx(scaled(logits, found), abs=1e-4)


def test_temperature_ends_and_crossfitting() -> None:
    apart, truth = np.array([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 4.0]]), np.array([0, 0, 1, 1])
    assert fit_temperature(apart, truth) == pytest.approx(LOWEST, rel=1e-3)
    assert fit_temperature(apart, 1 - truth) == pytest.approx(HIGHEST, rel=1e-3)
    rng = np.random.default_rng(8)
    logits = rng.normal(size=(40, 2)) * 5
    classes = (rng.random(40) < special.expit((logits[:, 1] - logits[:, 0]) / 4)).astype(int)
    found = crossfitted(logits, classes)
    others = np.arange(40) % 10 != 3
    assert found[3] == pytest.approx(scaled(logits[3:4], fit_temperature(logits[others], classes[others]))[0])
    assert crossfitted(logits[:1], classes[:1]) == pytest.approx(scaled(logits[:1], 1.0))
    with pytest.raises(ValueError, match="classes run from 0 to 2; the logits have 2"):
        fit_temperature(apart, [0, 1, 2, 0])
