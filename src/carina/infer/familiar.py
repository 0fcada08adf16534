"""Whether lungs lie inside a classifier's limits, and whether disease is enough for it to see."""

from __future__ import annotations

import numpy as np

from carina.infer.classify import classifier
from carina.measure.joined import marked_share, same_grid
from carina.measure.texts import percent_text
from carina.models.bundle import Bundle
from carina.volume.volume import Mask, Volume

AIRLESS_HU = -250.0
"""Above: lung without much air."""
GAS_HU = -950.0
"""Below: gas, or emphysema (Gevenois and others, AJRCCM 1996)."""


def unlike_training(volume: Volume, lung: Mask, bundle: Bundle) -> tuple[str, ...]:
    """Which limits around the lungs of the bundle's training these lungs pass, a sentence for each; empty: none.

    Limits may leave a margin to what training saw. Lungs inside them can be unlike it in every other way.

    Raises:
        ValueError: the bundle's task is no classification.
    """
    familiar = classifier(bundle).familiar
    values = volume.hu[lung.labels > 0]
    if familiar is None or not values.size:
        return ()
    (low, high), said = familiar.median_hu, []
    median = float(np.median(values))
    if not low <= median <= high:
        said.append(f"The lungs' median is {median:.0f} HU; the classifier's limits are {low:.0f} to {high:.0f}.")
    dense, gas = float((values > AIRLESS_HU).mean()), float((values < GAS_HU).mean())
    if dense > familiar.dense_share:
        said.append(_share(dense, f"denser than {AIRLESS_HU:.0f} HU", familiar.dense_share))
    if gas > familiar.gas_share:
        said.append(_share(gas, f"below {GAS_HU:.0f} HU", familiar.gas_share))
    return tuple(said)


def too_little_marked(lesion: Mask, lung: Mask, bundle: Bundle) -> str:
    """Why a probability of the bundle's would say nothing of the disease that is marked; empty where it says something.

    Nothing marked is no reason: lungs without disease are a class that a classifier is trained on.

    Raises:
        ValueError: the bundle's task is no classification.
        ModelFailed: the masks lie on different grids.
    """
    limits = classifier(bundle).little_disease
    if limits is None:
        return ""
    same_grid("lesion mask", lesion.grid, "lung mask", lung.grid)
    inside, held = np.count_nonzero(lung.labels[lesion.labels > 0]), np.count_nonzero(lung.labels)
    if inside >= limits.enough * held:  # what lies outside the lung mask can only add to it
        return ""
    share = marked_share(lesion, lung)
    if not limits.none < share < limits.enough:
        return ""
    return (
        f"Little disease: {percent_text(100 * share)} % of the lungs are marked as lesion. Up to "
        f"{100 * limits.none:.3g} % counts as nothing marked; from {100 * limits.enough:.3g} % on the classifier's "
        "probability says something."
    )


def _share(seen: float, what: str, most: float) -> str:
    return f"{100 * seen:.0f} % of the lungs are {what}; the classifier's limit is {100 * most:.0f} %."
