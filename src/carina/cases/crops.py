"""Whole-lung crops for the classifier: half with synthetic COVID-19, half without, all with look-alikes.

Of those without, as many as are asked for show another pneumonia (`pneumonias`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from carina.cases.case import Case
from carina.cases.sampling import Sampler, Shape, bend
from carina.synth import distractors, lesions
from carina.synth.lung_labels import MARGIN_VOXELS
from carina.synth.pneumonias import Pneumonia, draw_pneumonia
from carina.volume.arrays import Flags, Floats, marked_box

LEAST_SHARE = 0.005
"""Disease that takes less of the lungs than this is no lesson: such crops get another lesion."""

MOST_TRIES = 20
"""So often, where there is hardly any lung."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """A whole chest as a classifier is shown it: HU, lungs, disease, and voxels nothing is taught on, ``(z, y, x)``.

    ``spacing_mm`` is ``(z, y, x)``.
    """

    hu: Floats
    lung: Flags
    lesion: Flags
    ignored: Flags
    spacing_mm: tuple[float, float, float]

    @property
    def ill(self) -> bool:
        """Whether there is disease."""
        return bool(self.lesion.any())


def crop(case: Case, shape: Shape, rng: np.random.Generator | None = None) -> Crop:
    """The case's lung box resized to ``shape``.

    With a generator, it is another chest: each side of the box moves by up to 5 %, and the patient is turned by up to
    9 degrees, bent (`sampling.bend`) and half of the time mirrored.
    """
    box = marked_box(case.lungs > 0, MARGIN_VOXELS)
    low = np.array([b.start for b in box], dtype=float)
    size = np.array([b.stop - b.start for b in box], dtype=float)
    angle, mirror = 0.0, 1.0
    if rng is not None:
        low += rng.uniform(-0.05, 0.05, 3) * size
        size *= rng.uniform(0.95, 1.08, 3)
        angle = float(rng.uniform(-0.15, 0.15))
        mirror = float(rng.choice([-1.0, 1.0]))
    step = size / np.array(shape)
    spacing = tuple(float(s) for s in step * np.array(case.spacing_mm))
    moved = np.zeros((2, *shape[1:]), dtype=np.float32)
    if rng is not None:
        moved = bend(shape[1:], spacing[1:], rng) / case.spacing_mm[1]
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos * step[1], -sin * mirror * step[2]], [sin * step[1], cos * mirror * step[2]]])
    first = low + (size - 1) / 2
    first -= np.array([step[0] * (shape[0] - 1), *(turn @ (np.array(shape[1:]) - 1))]) / 2
    place = Sampler(shape, case.hu.shape, first, step[0], turn, moved)
    lung, lesion, ignored = (place.mask(mask) for mask in (case.lung, case.lesion, case.ignore))
    hu = place.sample(case.hu, outside=None)
    return Crop(hu=hu, lung=lung, lesion=lesion, ignored=ignored, spacing_mm=(spacing[0], spacing[1], spacing[2]))


def draw_plain_crop(cases: Sequence[Case], shape: Shape, rng: np.random.Generator) -> Crop:
    """As `draw_crop`, but much disease or none, without look-alikes and noise: what a first lesson shows."""
    one = crop(_healthy(cases, rng), shape, rng)
    return _diseased(one, int(rng.integers(12, 30)), rng) if rng.random() < 0.5 else one


def draw_lesson(cases: Sequence[Case], shape: Shape, rng: np.random.Generator, others: float = 0.0) -> Crop:
    """What a classifier is taught with: plain crops and full ones in equal shares, since full ones alone teach nothing.

    Trained on `draw_crop` alone the loss stays at chance (research log, 5). ``others`` is that of `draw_crop`.
    """
    return draw_plain_crop(cases, shape, rng) if rng.random() < 0.5 else draw_crop(cases, shape, rng, others)


def draw_crop(cases: Sequence[Case], shape: Shape, rng: np.random.Generator, others: float = 0.0) -> Crop:
    """One crop, ill half of the time; cases that hold lesions already are not drawn.

    A third of the ill have disease in one lung only. ``others`` is the share of those without COVID-19 that show
    another pneumonia, which `Crop.ill` does not count.
    """
    one = _look_alikes(crop(_healthy(cases, rng), shape, rng), rng)
    if rng.random() < 0.5:
        where = _one_side(one.lung, rng) if rng.random() < 1 / 3 else one.lung
        one = _diseased(one, int(rng.integers(2, 17)), rng, where)
    elif others and rng.random() < others:
        one = _with_pneumonia(one, rng)
    return _scanned(one, rng)


def draw_other(cases: Sequence[Case], shape: Shape, rng: np.random.Generator, kind: Pneumonia) -> Crop:
    """As `draw_crop`, with a pneumonia of this kind in place of COVID-19."""
    return _scanned(_with_pneumonia(_look_alikes(crop(_healthy(cases, rng), shape, rng), rng), rng, kind), rng)


def _scanned(one: Crop, rng: np.random.Generator) -> Crop:
    """``one`` as scanners differ: motion, kernel, noise, and HU that are a little off."""
    hu = distractors.motion(one.hu, one.spacing_mm, rng) if rng.random() < 0.2 else one.hu
    hu = distractors.kernel_and_noise(hu, one.spacing_mm, rng)
    return replace(one, hu=(hu * rng.uniform(0.95, 1.05) + rng.normal(0, 20)).astype(np.float32))


def _with_pneumonia(one: Crop, rng: np.random.Generator, kind: Pneumonia | None = None) -> Crop:
    """``one`` with a pneumonia that is not COVID-19; None draws any kind."""
    hu, _ = draw_pneumonia(one.hu, one.lung, one.spacing_mm, rng, kind)
    return replace(one, hu=hu)


def _healthy(cases: Sequence[Case], rng: np.random.Generator) -> Case:
    healthy = [case for case in cases if case.lesion is None]
    return healthy[int(rng.integers(len(healthy)))]


def _diseased(one: Crop, count: int, rng: np.random.Generator, where: Flags | None = None) -> Crop:
    """``one`` with ``count`` lesions in ``where`` (by default its lungs), more where they are too small to be seen."""
    where = one.lung if where is None else where
    hu, mask = one.hu, np.zeros(one.lung.shape, dtype=bool)
    for _ in range(MOST_TRIES):
        if np.count_nonzero(mask) > LEAST_SHARE * np.count_nonzero(one.lung):
            break
        drawn = lesions.draw_lesions(where, one.spacing_mm, rng, count=count)
        hu, new = lesions.paste(hu, where, one.spacing_mm, drawn, rng)
        mask, count = mask | new, 1
    return replace(one, hu=hu, lesion=mask)


def _one_side(lung: Flags, rng: np.random.Generator) -> Flags:
    """The left or the right half of ``lung``."""
    side = np.zeros(lung.shape, dtype=bool)
    middle = lung.shape[2] // 2
    half = np.s_[:, :, :middle] if rng.random() < 0.5 else np.s_[:, :, middle:]
    side[half] = lung[half]
    return side


def _look_alikes(one: Crop, rng: np.random.Generator) -> Crop:
    hu, _ = distractors.look_alikes(one.hu, one.lung, one.spacing_mm, rng, distractors.FOR_CLASSIFIERS)
    if rng.random() < 0.5:
        hu = distractors.contrast(hu, rng)
    return replace(one, hu=hu)
