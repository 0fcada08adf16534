"""Examples of disease that is synthesised in lungs that are free of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.cases.case import Case, at_slices, scale
from carina.cases.crops import draw_crop, draw_lesson
from carina.cases.purpose import Task
from carina.cases.sampling import Shape
from carina.synth import lesions
from carina.synth.severity import paste_severe
from carina.train.examples import Example, NamedExample
from carina.train.losses import HARD, IGNORED, LESION
from carina.train.patches import PATCH_SPACING_MM, Drawn, draw_lesion_patch, draw_lung_patch
from carina.train.settings import Loss, TrainSettings
from carina.train.whole_lesions import draw_ill_scan
from carina.train.whole_scans import draw_whole_scan
from carina.volume.arrays import Flags, Floats, marked_box

VALIDATION_SEED = 700_000
"""Disease for validation is drawn from here on: training draws from other seeds."""
VALIDATION_CROPS = 48
"""Crops that a classifier is validated on, dealt out over the held-out lungs."""
VALIDATION_SCANS = 16
"""Whole scans that a first look is validated on."""
VALIDATION_LESIONS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticSource:
    """Disease drawn into lungs that are free of it. Without ``held`` lungs validation uses those of training."""

    settings: TrainSettings
    training: Sequence[Case]
    held: Sequence[Case]
    _kept: dict[tuple[int, bool], tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]] = field(
        default_factory=dict, repr=False
    )

    def draw(self, rng: np.random.Generator, shape: Shape) -> Example:
        """One patch or crop; voxels of targets are classes with their marks (`losses`), or `losses.IGNORED`."""
        if self.settings.task is Task.COVID:
            lesson = draw_lesson(self.training, shape, rng, self.settings.other_pneumonias)
            if self.settings.loss is not Loss.CROSS_ENTROPY_PLACES:
                return self._example(lesson.hu, np.asarray(lesson.ill))
            return self._example(lesson.hu, np.where(lesson.ignored & ~lesson.lesion, IGNORED, lesson.lesion))
        if self.settings.whole_scans:
            drawn = self._scan(self.training, shape, rng)
            return self._example(drawn.hu, self._marked(drawn))
        draw = draw_lung_patch if self.settings.task is Task.LUNG else draw_lesion_patch
        drawn = draw(self.training, shape, rng)
        return self._example(drawn.hu, self._marked(drawn))

    def validation(self) -> Iterator[NamedExample]:
        """Whole lungs with lesions of every kind; for lesions once more, severely ill; for classification crops."""
        for number, case in enumerate(self.held):
            if self.settings.task is Task.COVID:
                yield from self._crops(number, case)
                continue
            if self.settings.whole_scans:
                yield from self._scans(number, case)
                continue
            yield self._kept_whole(number, case)
            if self.settings.task is Task.LESION:
                yield self._kept_whole(number, case, severe=True)

    def _kept_whole(self, number: int, case: Case, *, severe: bool = False) -> NamedExample:
        if (number, severe) not in self._kept:
            image, target = self._whole(number, case, severe=severe)
            self._kept[number, severe] = image, target.astype(np.uint8)
        image, kept = self._kept[number, severe]
        return f"{case.name}-severe" if severe else case.name, image, kept.astype(np.int64)

    def _whole(self, number: int, case: Case, *, severe: bool) -> Example:
        rng = np.random.default_rng([VALIDATION_SEED, number, 1] if severe else [VALIDATION_SEED, number])
        step_mm = case.spacing_mm[0]
        hu = np.rint(at_slices(case.hu, step_mm)).astype(np.float32)
        lung, known, ignored = (
            np.zeros(hu.shape, dtype=bool) if mask is None else at_slices(mask.labels, step_mm) >= 0.5
            for mask in (case.lung, case.lesion, case.ignore)
        )
        box = marked_box(lung, 8)
        put = paste_severe if severe else _every_kind
        hu[box], mask = put(hu[box], lung[box], PATCH_SPACING_MM, rng)
        known[box] |= mask
        if self.settings.task is Task.LUNG:
            return self._example(hu, np.where(ignored, IGNORED, lung))
        return self._example(hu[box], np.where(ignored, IGNORED, known)[box])

    def _crops(self, number: int, case: Case) -> Iterator[NamedExample]:
        count = -(-VALIDATION_CROPS // len(self.held))
        for n in range(count):
            rng = np.random.default_rng([VALIDATION_SEED, number, n])
            drawn = draw_crop([case], self.settings.patches[0].shape[::-1], rng, self.settings.other_pneumonias)
            yield f"{case.name}-{n + 1}", *self._example(drawn.hu, np.asarray(drawn.ill))

    def _scans(self, number: int, case: Case) -> Iterator[NamedExample]:
        for n in range(-(-VALIDATION_SCANS // len(self.held))):
            rng = np.random.default_rng([VALIDATION_SEED, number, n])
            shape = self.settings.patches[0].shape[::-1]
            drawn = self._scan([case], shape, rng)
            target = np.where(drawn.ignored, IGNORED, drawn.truth)
            yield f"{case.name}-{n + 1}", *self._example(drawn.hu, target)

    def _scan(self, cases: Sequence[Case], shape: Shape, rng: np.random.Generator) -> Drawn:
        draw = draw_whole_scan if self.settings.task is Task.LUNG else draw_ill_scan
        return draw(cases, shape, self.settings.voxel_mm, rng)

    def _marked(self, drawn: Drawn) -> npt.NDArray[np.int64]:
        """Classes with `HARD` and `LESION` on top (lesions that touch are one), or `IGNORED`."""
        classes = drawn.truth + HARD * drawn.hard.astype(np.int64)
        if self.settings.lesion_weight:
            classes += LESION * ndimage.label(drawn.truth & ~drawn.ignored)[0]
        return np.where(drawn.ignored, IGNORED, classes)

    def _example(self, hu: npt.NDArray[np.generic], target: npt.NDArray[np.generic]) -> Example:
        return scale(hu, self.settings.window_hu), target.astype(np.int64)


def _every_kind(hu: Floats, lung: Flags, spacing_mm: Sequence[float], rng: np.random.Generator) -> tuple[Floats, Flags]:
    """``hu`` with `VALIDATION_LESIONS` lesions in ``lung``, of each kind in turn, and their mask."""
    kinds, mask = list(lesions.Kind), np.zeros(hu.shape, dtype=np.bool_)
    for n in range(VALIDATION_LESIONS):
        drawn = lesions.draw_lesions(lung, spacing_mm, rng, count=1, kind=kinds[n % len(kinds)])
        hu, new = lesions.paste(hu, lung, spacing_mm, drawn, rng)
        mask |= new
    return hu, mask
