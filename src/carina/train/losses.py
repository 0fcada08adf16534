"""Losses on logits ``(n, classes, x, y, z)`` and integer targets ``(n, x, y, z)``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

HARD = 16
"""Added to a target's class where a voxel is hard: 16 is hard background, 17 hard foreground."""

IGNORED = 2 * HARD
"""The target of a voxel that no loss counts."""

SURE_LOGIT = 30.0
"""The logit of a voxel's class, where nothing is to be learnt from it."""


def ignoring_unknown(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (float32) and classes for losses that know no weights: ignored voxels are background that is found."""
    logits, ignored = logits.float(), target == IGNORED
    if ignored.any():
        found = torch.zeros_like(logits)
        found[:, 0] = SURE_LOGIT
        logits = torch.where(ignored[:, None], found, logits)
    return logits, target % HARD


def dice_ce(logits: Tensor, target: Tensor, *, hard_weight: float = 4.0) -> Tensor:
    """Cross entropy plus one minus the foreground's soft Dice over the whole batch (two classes).

    Voxels marked `HARD` count ``hard_weight`` times in the cross entropy, those marked `IGNORED` nowhere.
    """
    logits = logits.float()
    counts = (target != IGNORED).float()
    foreground = torch.softmax(logits, dim=1)[:, 1] * counts
    weight = counts * (1.0 + (hard_weight - 1.0) * (target >= HARD))
    target = target % HARD
    truth = target.float()
    overlap = 2 * (foreground * truth).sum() + 10.0
    entropy = (functional.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum().clamp(min=1.0)
    return entropy + 1 - overlap / (foreground.sum() + truth.sum() + 10.0)
