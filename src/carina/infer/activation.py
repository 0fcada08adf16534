"""Saliency from one pass: what each place of a classifier's last feature map adds to its answer (class activation).

Zhou and others, "Learning deep features for discriminative localization" (CVPR 2016): in a network that ends in a mean
over all places and one linear layer, an answer is the sum of what the places add, and of a bias. Nothing is
approximated; but a place of the last feature map sees far around itself, and there are few of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from carina.errors import ModelFailed
from carina.infer.classify import by_name, classifier, lung_box, network_input, resized
from carina.infer.runtime import Outputs
from carina.infer.saliency import on_grid
from carina.models.bundle import Bundle, Covid
from carina.volume.arrays import Floats
from carina.volume.resample import cropped, reoriented
from carina.volume.volume import Mask, ScalarMap, Volume

PARTS_UNIT = "part of the log-odds"


class Explained(NamedTuple):
    """The probability of each class by name, and what each place adds to the log-odds of the watched one.

    ``parts`` is None where the network gives no class maps; ``places`` is how many there are along ``(x, y, z)``.
    """

    probabilities: dict[str, float]
    parts: ScalarMap | None
    places: tuple[int, int, int]


def explain(volume: Volume, lung: Mask, bundle: Bundle, network: Outputs) -> Explained:
    """Classify as ``classify`` does, and say from the same pass what each place adds.

    Log-odds are the watched class's score minus the mean of the others'. Values are interpolated linearly between the
    middles of the places, on the volume's grid; 0 outside the lungs' box.

    Raises:
        BadSeries: as ``classify``.
        ValueError: the bundle's task is no classification.
        ModelFailed: the network failed, or gave class maps of another shape.
    """
    spec = classifier(bundle)
    image = network_input(volume, lung, spec)
    scores, *maps = network(image[None, None])
    probabilities = by_name(image, spec, lambda _: scores)
    if not maps:
        return Explained(probabilities, None, (0, 0, 0))
    parts = _parts(maps[0], spec)
    x, y, z = parts.shape
    box = lung_box(lung.labels, spec.margin_voxels)
    lattice = resized(reoriented(cropped(volume.grid, box), spec.orientation), (x, y, z))
    added = ScalarMap(
        values=on_grid(parts.transpose(2, 1, 0), lattice, volume.grid, box),
        grid=volume.grid,
        quantity=f"what the place adds to the log-odds of {spec.labels[spec.saliency.label]}",
        unit=PARTS_UNIT,
        uid=volume.uid,
        made_by=bundle.made_by,
    )
    return Explained(probabilities, added, (x, y, z))


def _parts(classes: Floats, spec: Covid) -> npt.NDArray[np.float64]:
    """What each place adds, ``(x, y, z)``: with the network's bias they add up to the log-odds."""
    if classes.shape[:2] != (1, len(spec.labels)) or classes.ndim != 5:
        raise ModelFailed(
            "model.maps",
            f"The network gave class maps of shape {classes.shape}, expected (1, {len(spec.labels)}, x, y, z): one map "
            "for each of the bundle's labels.",
        )
    watched = classes[0, spec.saliency.label].astype(np.float64)
    others = np.delete(classes[0], spec.saliency.label, axis=0).astype(np.float64)
    parts: npt.NDArray[np.float64] = (watched - others.mean(axis=0)) / (watched.size * spec.temperature)
    return parts
