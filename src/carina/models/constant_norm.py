"""A norm that takes no statistics: each channel is scaled and shifted by constants.

Group norm takes mean and variance over the window, so that a voxel's answer depends on all else that the window shows:
a window full of disease looks to it like a healthy one of another contrast. With constants in their place a network
sees what its convolutions reach, and nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConstantNorm(nn.Module):
    """``(x - mean) / sqrt(variance + eps) * weight + bias``, channel by channel; only weight and bias are learnt.

    It is a batch norm in evaluation, always; runtimes fold it into the convolution beside it. ``mean`` 0 and
    ``variance`` 1 until somebody sets them (`train.norms`).
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """``maps`` ``(n, channels, x, y, z)``, scaled and shifted."""
        return functional.batch_norm(maps, self.mean, self.variance, self.weight, self.bias, eps=self.eps)


def replace_group_norms(network: nn.Module) -> None:
    """Put a `ConstantNorm` in the place of every group norm of ``network``, with its weight and bias."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                norm = ConstantNorm(child.num_channels, eps=child.eps)
                norm.load_state_dict({**norm.state_dict(), **child.state_dict()})
                setattr(module, name, norm)
