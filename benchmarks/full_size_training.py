"""The published networks at their published sizes: train a step, stop, go on, export, run. Prints a table.

    python benchmarks/full_size_training.py [lung-card lesion-card covid-default]

Examples are random numbers: this measures time and memory, nothing else. For research use only. Not for diagnosis.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from carina.cases.purpose import Task
from carina.config import RuntimeSettings
from carina.infer.runtime import open_runtime
from carina.models.networks import build_network
from carina.train import configure
from carina.train.cards import Facts
from carina.train.checkpoint import random_apart
from carina.train.fit import FitContext, fit
from carina.train.publish import publish
from carina.train.settings import Arithmetic, TrainSettings
from carina.train.team import Team, pick_device

NAMES = ("lung-card", "lesion-card", "covid-default")


class Noise:
    """Random images; the brighter half of the voxels is the foreground."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        image = rng.random((1, *shape), dtype=np.float32)
        if self.settings.task is Task.COVID:
            return image, np.asarray(int(rng.random() < 0.5))
        return image, (image[0] > 0.5).astype(np.int64)

    def validation(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        return iter(())


def measure(name: str, folder: Path) -> dict[str, float]:
    """Seconds of each part, and the process's peak memory in GB so far."""
    task, _, preset = name.partition("-")
    settings = configure.load_train_settings(
        Task(task), preset=preset, changes=["patches.0.batch=1", "arithmetic=f32", "epochs=0", "steps=1"]
    )
    settings = msgspec.structs.replace(settings, tensorboard=False, workers=0, arithmetic=Arithmetic.F32)
    context = FitContext(team=Team(device=pick_device(settings)))
    network = build_network(settings.network)
    seconds = {}

    def timed(part: str, start: float) -> None:
        seconds[part] = time.monotonic() - start

    for part, steps in (("first step", 1), ("resumed step", 2)):
        start = time.monotonic()
        with random_apart(1, context.team.device):
            network = build_network(settings.network)
        fitted = fit(network, Noise(settings), msgspec.structs.replace(settings, steps=steps), folder, context)
        timed(part, start)
    start = time.monotonic()
    network = build_network(settings.network)
    network.load_state_dict(fitted.weights)
    bundle = publish(network, settings, Facts(steps=fitted.step, data="random numbers"), folder)
    timed("export, parity", start)
    shape = settings.patches[0].shape
    runtime = open_runtime(bundle, RuntimeSettings())
    image = np.random.default_rng(0).random((1, 1, *shape), dtype=np.float32)
    runtime(image)
    start = time.monotonic()
    answer = runtime(image)
    timed("forward, OpenVINO", start)
    assert answer.shape[1] == 2 and np.isfinite(answer).all()
    return seconds | {"peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, Path(folder))
        print(name, ", ".join(f"{part} {value:.1f}" for part, value in found.items()), flush=True)
