"""How much arithmetic a network takes, and how much the machine can do."""

from __future__ import annotations

import time
from typing import Any

import torch

from carina.models.bundle import Bundle
from carina.models.networks import build_network


def gmac(bundle: Bundle, shape: tuple[int, ...]) -> float:
    """10^9 multiply-adds of the convolutions and linear layers for one input of ``shape``, without running it."""
    with torch.device("meta"):
        network = build_network(bundle.carina.network).eval()
    total = 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal total
        each = module.weight[0].numel()
        transposed = isinstance(module, torch.nn.ConvTranspose3d)
        total += (inputs[0].numel() if transposed else output.numel()) * each

    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.empty(shape, device="meta"))
    return total / 1e9


def peak_gmac_per_second(size: int = 4096, repeats: int = 3) -> float:
    """10^9 multiply-adds a second that a large float32 matrix product reaches here, the best of some."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    best = 0.0
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.matmul(a, b)
        best = max(best, size**3 / (time.perf_counter() - start) / 1e9)
    return best
