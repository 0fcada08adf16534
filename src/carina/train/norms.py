"""From group norms to constants: what a network's norms have seen in training patches, averaged and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def fix_norms(network: nn.Module, grouped: nn.Module, batches: Iterable[Tensor]) -> None:
    """Put the weights of ``grouped`` into ``network``, and for its group norms constants: their mean over ``batches``.

    ``network`` is the same with a `ConstantNorm` for each group norm. Mean and variance are those of each patch and
    group, as group norm takes them, averaged over the patches of all batches ``(n, 1, x, y, z)``; channels of a group
    share them.

    Raises:
        ValueError: there is no batch.
    """
    norms = {name: module for name, module in grouped.named_modules() if isinstance(module, nn.GroupNorm)}
    sums = {name: torch.zeros(2, norm.num_groups, dtype=torch.float64) for name, norm in norms.items()}
    hooks = [norm.register_forward_pre_hook(_adding_to(sums[name])) for name, norm in norms.items()]
    grouped.eval()
    patches = 0
    for batch in batches:
        grouped(batch)
        patches += len(batch)
    for hook in hooks:
        hook.remove()
    if not patches:
        raise ValueError("constants are means over patches, and there is no patch")
    state = grouped.state_dict()
    for name, norm in norms.items():
        mean, variance = (sums[name] / patches).float().repeat_interleave(norm.num_channels // norm.num_groups, dim=1)
        state |= {f"{name}.mean": mean, f"{name}.variance": variance}
    network.load_state_dict(state)


def _adding_to(sums: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook before a group norm that adds each patch's means and variances ``(2, groups)`` to ``sums``."""

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.GroupNorm)
        maps = inputs[0].float().reshape(len(inputs[0]), norm.num_groups, -1)
        variance, mean = torch.var_mean(maps, dim=2, correction=0)
        sums.add_(torch.stack([mean.sum(dim=0), variance.sum(dim=0)]).double().cpu())

    return add
