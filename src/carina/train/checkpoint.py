"""What a training needs to resume as if it had never stopped, and the files it is kept in."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from carina.errors import BadConfig
from carina.models.weights import DAMAGED_CHECKPOINT
from carina.train.team import Team

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"


@dataclass(kw_only=True)
class TrainingState:
    """A training under way; ``step`` steps are done. ``recent`` are the losses since the last row of the log."""

    network: nn.Module
    averaged: nn.Module | None
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    best: float | None = None
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)

    @property
    def shown(self) -> nn.Module:
        """The network that is validated and published."""
        return self.network if self.averaged is None else self.averaged


@contextmanager
def random_apart(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of torch, NumPy and Python from ``seed``; afterwards as they were before."""
    before = random_states(device)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        _set_random_states(before, device)


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of the random generators of torch, the GPU, NumPy and Python, as plain values."""
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [str(kind), np.asarray(keys).tolist(), int(place), int(has_gauss), float(gauss)],
        "python": [version, list(words), next_gauss],
    }


def save_checkpoint(path: Path, state: TrainingState, team: Team) -> None:
    """Write ``state`` beside ``path``, then rename: an interrupted save leaves the last good checkpoint."""
    processes = team.gather({"random": random_states(team.device), "recent": state.recent})
    if team.leads:
        values = {
            "step": state.step,
            "network": state.network.state_dict(),
            "averaged": state.averaged.state_dict() if state.averaged else None,
            "optimiser": state.optimiser.state_dict(),
            "scaler": state.scaler.state_dict(),
            "best": state.best,
            "seconds": state.seconds,
            "processes": processes,
        }
        write_atomically(path, values)


def write_atomically(path: Path, values: dict[str, Any]) -> None:
    """Write ``values`` beside ``path``, then rename."""
    part = path.with_name(f"{path.name}.part")
    torch.save(values, part)
    part.replace(path)


def load_checkpoint(path: Path, state: TrainingState, team: Team) -> None:
    """Put the checkpoint ``path`` into ``state`` and the random generators.

    Raises:
        BadConfig: the file is no checkpoint, or was written by another number of processes.
    """
    values = read_checkpoint_file(path)
    processes = values["processes"]
    if len(processes) != team.size:
        raise BadConfig(
            "train.processes",
            f"{path} was written by {len(processes)} processes, not {team.size}: the batches would be others. "
            "Resume with as many, or start anew in another folder.",
        )
    state.network.load_state_dict(values["network"])
    if state.averaged is not None:
        state.averaged.load_state_dict(values["averaged"])
    state.optimiser.load_state_dict(values["optimiser"])
    state.scaler.load_state_dict(values["scaler"])
    state.step, state.best = values["step"], values["best"]
    state.seconds, state.recent = values["seconds"], processes[team.rank]["recent"]
    _set_random_states(processes[team.rank]["random"], team.device)


def read_checkpoint_file(path: Path) -> dict[str, Any]:
    """The values of a file written by `write_atomically`.

    Raises:
        BadConfig: it isn't there, or can't be read.
    """
    if not path.is_file():
        words = "nothing is saved there yet; the settings' save_every says how often a training does that."
        raise BadConfig("train.checkpoint", f"{path}: {words}")
    try:
        values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGED_CHECKPOINT, pickle.UnpicklingError) as error:
        words = f"no checkpoint of Carina ({type(error).__name__}): remove it, or train in another folder."
        raise BadConfig("train.checkpoint", f"{path}: {words}") from error
    return values


def _set_random_states(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    kind, keys, place, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), place, has_gauss, gauss))
    version, words, next_gauss = states["python"]
    random.setstate((version, tuple(words), next_gauss))
