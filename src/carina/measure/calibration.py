"""Whether probabilities mean what they say: reliability, expected calibration error, temperature scaling.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017. Pure functions on arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from carina.volume.arrays import Doubles

BINS = 10
FOLDS = 10

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures are looked for between these; one at an end says that the cases can't tell it."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Cases whose probability lies in ``[low, high)`` (the last bin: ``[low, 1]``).

    ``predicted`` is their mean probability, ``observed`` the share that is positive, both 0 to 1.
    """

    low: float
    high: float
    count: int
    predicted: float
    observed: float


def reliability(
    probabilities: npt.ArrayLike, positive: npt.ArrayLike, *, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """The reliability curve of the positive class over bins of equal width; empty bins are left out.

    Raises:
        ValueError: probabilities and truth differ in length, there are none, or one lies outside 0 to 1.
    """
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(positive, dtype=np.bool_)
    if values.shape != truth.shape or values.ndim != 1 or not values.size:
        raise ValueError(
            f"probabilities of shape {values.shape} and truth of shape {truth.shape}: expected one line each"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"probabilities run from {values.min():g} to {values.max():g}; expected 0 to 1")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    return tuple(
        ReliabilityBin(
            low=float(edges[k]),
            high=float(edges[k + 1]),
            count=int(np.count_nonzero(place == k)),
            predicted=float(values[place == k].mean()),
            observed=float(truth[place == k].mean()),
        )
        for k in np.unique(place)
    )


def expected_calibration_error(probabilities: npt.ArrayLike, positive: npt.ArrayLike, *, bins: int = BINS) -> float:
    """The mean distance of ``predicted`` from ``observed`` over the bins of ``reliability``, weighted by cases; 0 to 1.

    Raises:
        ValueError: as ``reliability``.
    """
    curve = reliability(probabilities, positive, bins=bins)
    return sum(one.count * abs(one.predicted - one.observed) for one in curve) / sum(one.count for one in curve)


def negative_log_likelihood(logits: npt.ArrayLike, classes: npt.ArrayLike, *, temperature: float = 1.0) -> float:
    """Mean negative log likelihood of the true ``classes`` ``(n,)`` under ``softmax(logits / temperature)``, in nats.

    ``logits`` are ``(n, classes)``; logarithms of probabilities are logits too.

    Raises:
        ValueError: the shapes do not go together, or there are no cases.
    """
    scores, truth = _checked(logits, classes)
    return _nll(scores, truth, 1 / temperature)


def fit_temperature(logits: npt.ArrayLike, classes: npt.ArrayLike) -> float:
    """The temperature that minimises the negative log likelihood, from ``LOWEST`` to ``HIGHEST``.

    The likelihood is convex in the temperature's inverse, so there is one minimum. Where every case is told right, it
    lies at ``LOWEST``, where the scores are worse than chance, at ``HIGHEST``: ends that say the cases are too few or
    the network is of no use.

    Raises:
        ValueError: as ``negative_log_likelihood``.
    """
    scores, truth = _checked(logits, classes)
    found = optimize.minimize_scalar(
        lambda inverse: _nll(scores, truth, float(inverse)),
        bounds=(1 / HIGHEST, 1 / LOWEST),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return float(1 / found.x)


def scaled(logits: npt.ArrayLike, temperature: float) -> Doubles:
    """Probabilities ``softmax(logits / temperature)``, ``(n, classes)``."""
    probabilities: Doubles = special.softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
    return probabilities


def crossfitted(logits: npt.ArrayLike, classes: npt.ArrayLike, *, folds: int = FOLDS) -> Doubles:
    """Probabilities ``(n, classes)``, each case's at the temperature that the cases of the other folds give.

    So a figure of calibration after scaling is not measured on the cases that were fitted. Case ``i`` is in fold
    ``i % folds``; with fewer cases than folds, each case is a fold. A single case keeps its probabilities.

    Raises:
        ValueError: as ``negative_log_likelihood``.
    """
    scores, truth = _checked(logits, classes)
    fold = np.arange(len(truth)) % folds
    probabilities = scaled(scores, 1.0)
    for k in np.unique(fold) if len(truth) > 1 else ():
        held = fold == k
        probabilities[held] = scaled(scores[held], fit_temperature(scores[~held], truth[~held]))
    return probabilities


def _nll(scores: Doubles, truth: npt.NDArray[np.intp], inverse: float) -> float:
    likelihoods = special.log_softmax(scores * inverse, axis=1)
    return -float(likelihoods[np.arange(len(truth)), truth].mean())


def _checked(logits: npt.ArrayLike, classes: npt.ArrayLike) -> tuple[Doubles, npt.NDArray[np.intp]]:
    scores, truth = np.asarray(logits, dtype=np.float64), np.asarray(classes, dtype=np.intp)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or not truth.size:
        raise ValueError(f"logits of shape {scores.shape} and classes of shape {truth.shape}: expected (n, k) and (n,)")
    if not ((truth >= 0) & (truth < scores.shape[1])).all():
        raise ValueError(f"classes run from {truth.min()} to {truth.max()}; the logits have {scores.shape[1]}")
    return scores, truth
