"""A training step of the lesion and the lung network: arithmetic and memory format against float32, channels last.

    python benchmarks/training_step.py [--shape 224 224 32] [--steps 4]

Ways take turns, so that a busy machine slows all of them; then all once more with the memory kept that a step frees,
as training does. Examples are random numbers. For research use only. Not for diagnosis.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from carina.cases.purpose import Task
from carina.models.networks import build_network
from carina.train import configure
from carina.train.fit import keep_freed_memory
from carina.train.losses import dice_ce
from carina.train.objective import optimiser_of

LAST, CONTIGUOUS = torch.channels_last_3d, torch.contiguous_format
WAYS = {
    "float32, channels last": (torch.float32, LAST),
    "bfloat16, channels last": (torch.bfloat16, LAST),
    "bfloat16, contiguous": (torch.bfloat16, CONTIGUOUS),
}


def stepper(task: Task, shape: Sequence[int], way: tuple[torch.dtype, torch.memory_format]) -> Callable[[], None]:
    """One step of the starter's network, loss and optimiser on one random patch of ``shape`` ``(x, y, z)``."""
    settings, (dtype, format_) = configure.load_train_settings(task, preset="starter"), way
    network = build_network(settings.network).to(memory_format=format_)
    optimiser = optimiser_of(network, settings)
    image = torch.rand(1, 1, *shape).contiguous(memory_format=format_)
    target = (image[:, 0] > 0.5).long()

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            logits = network(image)
        optimiser.zero_grad(set_to_none=True)
        dice_ce(logits, target).backward()
        optimiser.step()

    return step


def main() -> None:
    """Print the median seconds of each way, and how many times as fast as the first it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(224, 224, 32))
    parser.add_argument("--steps", type=int, default=4)
    asked = parser.parse_args()
    tasks = (Task.LESION, Task.LUNG)
    freed = {task: timed(task, asked.shape, asked.steps) for task in tasks}
    keep_freed_memory()
    for task in tasks:
        first = next(iter(freed[task].values()))
        for memory, found in ("given back", freed[task]), ("kept", timed(task, asked.shape, asked.steps)):
            for name, median in found.items():
                print(f"{task}, {name}, memory {memory}: {median:.2f} s a step, {first / median:.2f} times the first's")


def timed(task: Task, shape: Sequence[int], steps: int) -> dict[str, float]:
    """The median seconds of a step, by way."""
    steppers = {name: stepper(task, shape, way) for name, way in WAYS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(steps + 1):
        for name, step in steppers.items():
            start = time.monotonic()
            step()
            if turn:
                seconds[name].append(time.monotonic() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


if __name__ == "__main__":
    main()
