"""The processes that train together: one alone, or several started by ``torchrun``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from carina.errors import BadConfig
from carina.train.settings import Arithmetic, Device, TrainSettings

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Team:
    """This process's ``rank`` among ``size`` processes, and the device it computes on."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over the team."""
        if self.size == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)

    def mean(self, value: Tensor) -> float:
        """The mean of ``value`` over the team."""
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
            value /= self.size
        return float(value)

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, in the order of ranks."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        distributed.all_gather_object(gathered, value)
        return gathered

    def share(self, network: nn.Module) -> None:
        """Give every process the leader's weights and statistics."""
        if self.size > 1:
            for value in network.state_dict().values():
                distributed.broadcast(value, 0)


@contextmanager
def join_team(settings: TrainSettings, environment: Mapping[str, str]) -> Iterator[Team]:
    """The team that ``torchrun``'s variables in ``environment`` describe; without them this process alone.

    Raises:
        BadConfig: the settings want a GPU, or arithmetic that only a GPU has, and there is none.
    """
    device = pick_device(settings, int(environment.get("LOCAL_RANK", "0")))
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(device=device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(rank=distributed.get_rank(), size=size, device=device)
    finally:
        distributed.destroy_process_group()


def pick_device(settings: TrainSettings, local_rank: int = 0) -> torch.device:
    """The device that ``settings`` ask for; ``local_rank`` is the process's number on its machine.

    Raises:
        BadConfig: it is not there, or does not have the arithmetic.
    """
    there = torch.cuda.is_available()
    if settings.device is Device.CUDA and not there:
        raise BadConfig(
            "train.device", 'device = "cuda", but torch sees no GPU; use auto or cpu, or install a CUDA torch.'
        )
    use = there and settings.device is not Device.CPU
    if settings.arithmetic is Arithmetic.F16 and not use:
        raise BadConfig(
            "train.arithmetic", 'arithmetic = "f16" needs a GPU, and this training would run on a CPU; use bf16 or f32.'
        )
    if use and local_rank >= torch.cuda.device_count():
        raise BadConfig(
            "train.device", f"Process {local_rank} of this machine has no GPU: torch sees {torch.cuda.device_count()}."
        )
    return torch.device("cuda", local_rank) if use else torch.device("cpu")
