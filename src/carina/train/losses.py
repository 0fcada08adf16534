"""Losses on logits ``(n, classes, x, y, z)`` and integer targets ``(n, x, y, z)``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

HARD = 2
"""Added to a target's class where a voxel is hard: 2 is hard background, 3 hard foreground."""


def dice_ce(logits: Tensor, target: Tensor, *, hard_weight: float = 4.0) -> Tensor:
    """Cross entropy plus one minus the foreground's soft Dice over the whole batch (two classes).

    Voxels marked `HARD` count ``hard_weight`` times in the cross entropy.
    """
    logits = logits.float()
    foreground = torch.softmax(logits, dim=1)[:, 1]
    weight = 1.0 + (hard_weight - 1.0) * (target >= HARD)
    target = target % HARD
    truth = target.float()
    overlap = 2 * (foreground * truth).sum() + 10.0
    entropy = (functional.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
    return entropy + 1 - overlap / (foreground.sum() + truth.sum() + 10.0)


def class_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of logits ``(n, classes)``."""
    return functional.cross_entropy(logits.float(), target)
