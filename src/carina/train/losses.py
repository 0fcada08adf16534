"""Losses on logits ``(n, classes, x, y, z)`` and integer targets ``(n, x, y, z)``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy plus one minus the foreground's soft Dice over the whole batch (two classes)."""
    logits = logits.float()
    foreground = torch.softmax(logits, dim=1)[:, 1]
    truth = target.float()
    overlap = 2 * (foreground * truth).sum() + 10.0
    return functional.cross_entropy(logits, target) + 1 - overlap / (foreground.sum() + truth.sum() + 10.0)


def class_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of logits ``(n, classes)``."""
    return functional.cross_entropy(logits.float(), target)
