"""A bundle tried on the phantom: does it run as a pipeline would run it, and does what it gives make sense?"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import numpy.typing as npt

from carina.config import RuntimeSettings
from carina.errors import ModelFailed
from carina.infer.classify import classify
from carina.infer.runtime import open_runtime
from carina.infer.segment import segment
from carina.models.bundle import Bundle, Covid, Lesion, Lung, Windows
from carina.synth.phantom import Phantom, chest_phantom

TRIAL_SHAPE = (48, 128, 128)
"""Of the phantom, ``(z, y, x)``."""


def try_on_phantom(bundle: Bundle, settings: RuntimeSettings | None = None, seed: int = 1) -> str:
    """Run the bundle on a synthetic chest, in the fast plan, and say in a sentence what it found.

    A figure is no pass or fail: networks trained on patients may dislike a phantom. It shows a wrong orientation or
    window: lungs come out empty, or as everything but the lungs.

    Raises:
        BadConfig: the runtime can't be opened.
        ModelFailed: the network failed, or its probabilities don't sum to 1.
    """
    phantom = chest_phantom(shape=TRIAL_SHAPE, seed=seed)
    runtime = open_runtime(bundle, settings)
    if isinstance(bundle.carina, Covid):
        found = classify(phantom.volume, phantom.lung, bundle, runtime)
        if abs(sum(found.values()) - 1) > 1e-4:
            raise ModelFailed(
                "trial.probabilities", f"Bundle {bundle.name}: probabilities sum to {sum(found.values())}."
            )
        return ", ".join(f"{label} {value:.3f}" for label, value in found.items())
    mask = segment(phantom.volume, _sparing(bundle, bundle.carina), runtime)
    return _overlap(np.asarray(mask.labels > 0), phantom, bundle.carina.task)


def _sparing(bundle: Bundle, spec: Lung | Lesion) -> Bundle:
    """The same bundle with as few windows as cover the lungs' box."""
    few = Windows(patch=spec.original.patch, overlap=0.0)
    return replace(bundle, carina=msgspec.structs.replace(spec, fast=few))


def _overlap(found: npt.NDArray[np.bool_], phantom: Phantom, task: str) -> str:
    truth = np.asarray((phantom.lung if task == "lung" else phantom.lesion).labels > 0)
    both = int(np.count_nonzero(found & truth))
    total = int(np.count_nonzero(found)) + int(np.count_nonzero(truth))
    ml = float(np.count_nonzero(found)) * phantom.volume.grid.voxel_ml
    what = "lungs" if task == "lung" else "lesions"
    return f"{ml:.0f} ml marked, Dice {2 * both / total if total else 1.0:.2f} with the phantom's {what}"
