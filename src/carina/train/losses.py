"""Losses on logits ``(n, classes, x, y, z)`` and integer targets ``(n, x, y, z)``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

HARD = 16
"""Added to a target's class where a voxel is hard: 16 is hard background, 17 hard foreground."""

IGNORED = 2 * HARD
"""The target of a voxel that no loss counts."""

LESION = 4 * HARD
"""Added once for each lesion of an example, the first one's voxels once, the second one's twice, and so on."""

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


def dice_ce(logits: Tensor, target: Tensor, *, hard_weight: float = 4.0, lesion_weight: float = 0.0) -> Tensor:
    """Cross entropy plus one minus the foreground's soft Dice over the whole batch (two classes).

    Voxels marked `HARD` count ``hard_weight`` times in the cross entropy, those marked `IGNORED` nowhere. What is
    missed of numbered lesions (`LESION`) is added ``lesion_weight`` times, as the mean over lesions, large or small.
    """
    logits = logits.float()
    counts = (target != IGNORED).float()
    foreground = torch.softmax(logits, dim=1)[:, 1] * counts
    numbers, hard = target // LESION, target % LESION // HARD == 1
    weight = counts * (1.0 + (hard_weight - 1.0) * hard)
    target = target % HARD
    truth = target.float()
    overlap = 2 * (foreground * truth).sum() + 10.0
    entropy = (functional.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum().clamp(min=1.0)
    loss = entropy + 1 - overlap / (foreground.sum() + truth.sum() + 10.0)
    return loss + lesion_weight * missed_of_lesions(foreground, numbers) if lesion_weight else loss


def missed_of_lesions(foreground: Tensor, numbers: Tensor) -> Tensor:
    """The share of a lesion that is not found, as the mean over all lesions of a batch; 0 where there is none.

    ``foreground`` are probabilities ``(n, x, y, z)``; ``numbers`` counts the lesions of each example from 1, 0 is none.
    A small lesion counts as a large one does (after Kofler and others, "blob loss", IPMI 2023).
    """
    missed = []
    for found, number in zip(foreground.flatten(1), numbers.flatten(1), strict=True):
        sizes = torch.bincount(number).to(found)
        sums = torch.zeros_like(sizes).index_add(0, number, found)
        there = sizes[1:] > 0
        missed.append(1 - sums[1:][there] / sizes[1:][there])
    of_each = torch.cat(missed)
    return of_each.mean() if len(of_each) else foreground.sum() * 0
