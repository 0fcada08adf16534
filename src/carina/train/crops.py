"""Whole-lung crops for the classifier: half with synthetic COVID-19, half without, all with look-alikes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from carina.train import distractors, lesions
from carina.train.data import Case
from carina.train.fields import Bool
from carina.train.lesions import HU
from carina.train.patches import Shape

MARGIN_VOXELS = 5


def lung_box(lung: Bool, margin: int = MARGIN_VOXELS) -> tuple[slice, slice, slice]:
    """The box of ``lung`` (``(z, y, x)``, not empty) with ``margin`` voxels on every side, inside the array."""
    sides = []
    for axis, size in enumerate(lung.shape):
        at = np.flatnonzero(lung.any(axis=tuple(a for a in range(3) if a != axis)))
        sides.append(slice(max(0, int(at[0]) - margin), min(size, int(at[-1]) + margin + 1)))
    return sides[0], sides[1], sides[2]


def crop(case: Case, shape: Shape, rng: np.random.Generator | None = None) -> tuple[HU, Bool, tuple[float, ...]]:
    """The case's lung box resized to ``shape``: HU, lung, spacing in mm ``(z, y, x)``.

    With a generator, each side of the box moves by up to 5 % and the patient turns by up to 9 degrees.
    """
    box = lung_box(case.lung > 0)
    low = np.array([b.start for b in box], dtype=float)
    size = np.array([b.stop - b.start for b in box], dtype=float)
    angle = 0.0
    if rng is not None:
        low += rng.uniform(-0.05, 0.05, 3) * size
        size *= rng.uniform(0.95, 1.08, 3)
        angle = float(rng.uniform(-0.15, 0.15))
    step = size / np.array(shape)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[step[0], 0, 0], [0, cos * step[1], -sin * step[2]], [0, sin * step[1], cos * step[2]]])
    middle = low + (size - 1) / 2
    offset = middle - matrix @ ((np.array(shape) - 1) / 2)
    hu = ndimage.affine_transform(case.hu, matrix, offset, shape, np.float32, order=1, mode="nearest")
    lung = ndimage.affine_transform(case.lung, matrix, offset, shape, np.float32, order=1) >= 0.5
    return hu, lung, tuple(float(s) for s in step * np.array(case.spacing_mm))


def draw_plain_crop(cases: Sequence[Case], shape: Shape, rng: np.random.Generator) -> tuple[HU, bool]:
    """As `draw_crop`, but much disease or none, without look-alikes and noise: what a first lesson shows."""
    healthy = [case for case in cases if case.lesion is None]
    hu, lung, spacing = crop(healthy[int(rng.integers(len(healthy)))], shape, rng)
    ill = bool(rng.random() < 0.5)
    if ill:
        drawn = lesions.draw_lesions(lung, spacing, rng, count=int(rng.integers(12, 30)))
        hu, _ = lesions.paste(hu, lung, spacing, drawn, rng)
    return hu, ill


def draw_lesson(cases: Sequence[Case], shape: Shape, rng: np.random.Generator) -> tuple[HU, bool]:
    """What a classifier is taught with: plain crops and full ones in equal shares, since full ones alone teach nothing.

    Trained on `draw_crop` alone the loss stays at chance (research log, 5).
    """
    return draw_plain_crop(cases, shape, rng) if rng.random() < 0.5 else draw_crop(cases, shape, rng)


def draw_crop(cases: Sequence[Case], shape: Shape, rng: np.random.Generator) -> tuple[HU, bool]:
    """HU ``(z, y, x)`` of one crop and whether it holds disease; cases that hold lesions already are not drawn."""
    healthy = [case for case in cases if case.lesion is None]
    hu, lung, spacing = crop(healthy[int(rng.integers(len(healthy)))], shape, rng)
    if rng.random() < 0.5:
        hu, lung = hu[:, :, ::-1], lung[:, :, ::-1]
    hu = _look_alikes(hu, lung, spacing, rng)
    ill = bool(rng.random() < 0.5)
    if ill:
        drawn = lesions.draw_lesions(lung, spacing, rng, count=int(rng.integers(4, 17)))
        hu, _ = lesions.paste(hu, lung, spacing, drawn, rng)
    if rng.random() < 0.2:
        hu = distractors.motion(hu, spacing, rng)
    hu = distractors.kernel_and_noise(hu, spacing, rng)
    return (hu * rng.uniform(0.95, 1.05) + rng.normal(0, 20)).astype(np.float32), ill


def _look_alikes(hu: HU, lung: Bool, spacing: Sequence[float], rng: np.random.Generator) -> HU:
    if rng.random() < 0.6:
        hu = distractors.breath(hu, lung, rng)
    if rng.random() < 0.5:
        hu = distractors.dependent(hu, lung, spacing, rng)
    if rng.random() < 0.5:
        hu = distractors.nodules(hu, lung, spacing, rng, count=int(rng.integers(1, 8)))
    if rng.random() < 0.15:
        hu, _ = distractors.effusion(hu, lung, spacing, rng)
    return hu
