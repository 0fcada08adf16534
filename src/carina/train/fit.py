"""The training loop: AdamW, warm-up and cosine, averaged weights, checkpoints, resume."""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

Example = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
Draw = Callable[[np.random.Generator], Example]
"""Draws one example: network input ``(1, x, y, z)`` in [0, 1], and its target."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How long and how fast to train; ``settle`` batches set the batch norms' statistics for the averaged weights."""

    steps: int
    batch: int = 2
    peak_rate: float = 2e-3
    weight_decay: float = 1e-5
    seed: int = 1
    average: float = 0.998
    bfloat16: bool = False
    threads: int = 2
    save_every: int = 50
    settle: int = 40


class _Examples(IterableDataset[Example]):
    """Examples ``first, first + 1, ...``; the generator of each is seeded by its number."""

    def __init__(self, draw: Draw, seed: int, first: int, stop: int) -> None:
        self.draw, self.seed, self.first, self.stop = draw, seed, first, stop

    def __iter__(self) -> Iterator[Example]:
        for number in range(self.first, self.stop):
            yield self.draw(np.random.default_rng([self.seed, number]))


def rate_at(step: int, settings: FitSettings) -> float:
    """The learning rate of ``step``: linear warm-up over 5 % of the steps, then a half cosine to 1 % of the peak."""
    warm = max(1, settings.steps // 20)
    if step < warm:
        return settings.peak_rate * (step + 1) / warm
    part = (step - warm) / max(1, settings.steps - warm)
    return settings.peak_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(part, 1.0))))


def fit(
    network: nn.Module, draw: Draw, loss: Callable[[Tensor, Tensor], Tensor], settings: FitSettings, out: Path
) -> nn.Module:
    """Train ``network``; continue from ``out/checkpoint.pt`` if it is there. Returns the averaged network.

    Writes ``log.csv`` (step, loss, rate, seconds) and ``checkpoint.pt`` into ``out``.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(settings.threads)
    network = network.to(memory_format=torch.channels_last_3d)
    averaged = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=settings.weight_decay)
    first = _resume(out / "checkpoint.pt", network, averaged, optimiser)
    examples = _Examples(draw, settings.seed, first * settings.batch, settings.steps * settings.batch)
    loader = DataLoader(examples, batch_size=settings.batch, num_workers=1, prefetch_factor=4)
    network.train()
    recent: list[float] = []
    start = time.monotonic()
    for step, (inputs, target) in enumerate(loader, start=first):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, settings)
        value = _step(network, inputs, target, loss, optimiser, bfloat16=settings.bfloat16)
        recent.append(value)
        _average(averaged, network, min(settings.average, (step + 1) / (step + 10)))
        if (step + 1) % 50 == 0:
            row = (step + 1, float(np.mean(recent)), rate_at(step, settings), time.monotonic() - start)
            _log(out / "log.csv", row)
            recent.clear()
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            _save(out / "checkpoint.pt", step + 1, network, averaged, optimiser)
    return settle_norms(averaged, draw, settings)


def load_averaged(network: nn.Module, checkpoint: Path) -> nn.Module:
    """Put the averaged weights of ``checkpoint`` into ``network``."""
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["averaged"])
    return network


def settle_norms(network: nn.Module, draw: Draw, settings: FitSettings) -> nn.Module:
    """Recompute the batch norms' running statistics over fresh examples, since averaged weights shift them."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if norms:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        network.train()
        examples = _Examples(draw, settings.seed + 7919, 0, settings.settle * settings.batch)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            for inputs, _ in DataLoader(examples, batch_size=settings.batch):
                network(inputs.contiguous(memory_format=torch.channels_last_3d))
    return network.eval()


def _step(
    network: nn.Module,
    inputs: Tensor,
    target: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimiser: torch.optim.Optimizer,
    *,
    bfloat16: bool,
) -> float:
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = network(inputs.contiguous(memory_format=torch.channels_last_3d))
    value = loss(logits, target)
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return float(value.detach())


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, keep: float) -> None:
    old = [v for v in averaged.state_dict().values() if v.is_floating_point()]
    new = [v for v in network.state_dict().values() if v.is_floating_point()]
    torch._foreach_lerp_(old, new, 1 - keep)


def _save(path: Path, step: int, network: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Write beside, then rename: an interrupted save leaves the last good checkpoint."""
    state = {
        "step": step,
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _resume(path: Path, network: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    averaged.load_state_dict(state["averaged"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _log(path: Path, row: tuple[int, float, float, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(("step", "loss", "rate", "seconds"))
        writer.writerow((row[0], f"{row[1]:.4f}", f"{row[2]:.2e}", f"{row[3]:.0f}"))
