"""What is minimised and how weights move: losses, optimisers and learning rates by their settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from carina.train import guide, losses
from carina.train.settings import Loss, Optimiser, Schedule, TrainSettings

LossFunction = Callable[[Any, Tensor], Tensor]
"""What the network says, logits ``(n, classes, ...)`` in most cases, and classes ``(n, ...)``, to a number."""


def loss_function(loss: Loss, *, hard_weight: float = 4.0, lesion_weight: float = 0.0) -> LossFunction:
    """The loss by its name; all take marked voxels (`losses`), only dice-ce weights hard ones and counts lesions."""
    from monai.losses import DiceCELoss, DiceLoss

    if loss is Loss.DICE_CE:
        return partial(losses.dice_ce, hard_weight=hard_weight, lesion_weight=lesion_weight)
    if loss is Loss.CROSS_ENTROPY:
        return _cross_entropy
    if loss is Loss.CROSS_ENTROPY_PLACES:
        return guide.places
    published = (
        DiceLoss(softmax=True, to_onehot_y=True)
        if loss is Loss.DICE
        else DiceCELoss(softmax=True, to_onehot_y=True, squared_pred=True)
    )

    def counted(logits: Tensor, target: Tensor) -> Tensor:
        logits, classes = losses.ignoring_unknown(logits, target)
        loss: Tensor = published(logits, classes[:, None])
        return loss

    return counted


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    if target.ndim > 1:
        logits, target = losses.ignoring_unknown(logits, target)
    return functional.cross_entropy(logits.float(), target)


def optimiser_of(network: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser of ``settings`` over the network's weights."""
    kind = torch.optim.Adam if settings.optimiser is Optimiser.ADAM else torch.optim.AdamW
    return kind(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)


def rate_at(step: int, steps: int, settings: TrainSettings, *, processes: int = 1) -> float:
    """The learning rate of ``step`` (from 0) of ``steps``.

    ``cosine``: linear warm-up over 5 % of the steps, then a half cosine to 1 % of the peak.
    """
    peak = settings.rate * (processes if settings.scale_rate else 1)
    if settings.schedule is Schedule.CONSTANT:
        return peak
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    part = (step - warm) / max(1, steps - warm)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(part, 1.0))))
