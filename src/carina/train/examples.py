"""What a training is shown: one source of examples for labels that exist, one for disease that is synthesised.

Examples are in the networks' order: input float32 ``(1, x, y, z)`` in [0, 1], target int64 ``(x, y, z)``, or ``()``
for classification that is not told where disease lies. An example depends on its generator alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from carina.cases.case import Case, scale, to_slices
from carina.cases.crops import draw_crop, draw_lesson
from carina.cases.datalist import DataList, without
from carina.cases.purpose import Source, Task
from carina.cases.reading import is_unusable, read_cases
from carina.errors import BadConfig
from carina.synth import lesions
from carina.synth.lung_labels import lung_box
from carina.train.losses import HARD, IGNORED
from carina.train.patches import SPACING_MM, draw_lesion_patch, draw_lung_patch
from carina.train.settings import Loss, TrainSettings

Example = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
Shape = tuple[int, int, int]

VALIDATION_SEED = 700_000
"""Disease for validation is drawn from here on: training draws from other seeds."""
VALIDATION_CROPS = 48
"""Crops that a classifier is validated on, dealt out over the held-out lungs."""
VALIDATION_LESIONS = 6


class ExampleSource(Protocol):
    """Where examples come from."""

    def draw(self, rng: np.random.Generator, shape: Shape) -> Example:
        """One training example of ``shape`` ``(x, y, z)``."""
        ...

    def validation(self) -> Iterator[tuple[str, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """Name, input and target of each validation example, the same ones every time; whole volumes for masks."""
        ...


def open_source(data: DataList, settings: TrainSettings) -> ExampleSource:
    """Prepare the list's entries, those named in ``leave_out`` apart, and open them as a source of examples.

    Raises:
        BadSeries: a file can't be read.
        BadConfig: nothing is left to draw from.
    """
    seen = without(data, settings.leave_out)
    if not seen.training:
        raise BadConfig("datalist.empty", f"{data.file}: no training entry is left; look at training and leave_out.")
    if settings.source is Source.LABELS:
        from carina.train.labelled import LabelledSource

        return LabelledSource(seen, settings)
    return _open_synthetic(seen, settings)


def _open_synthetic(data: DataList, settings: TrainSettings) -> ExampleSource:
    parts = []
    for items in (data.training, data.validation):
        usable = [item for item in items if not is_unusable(item, settings.task)]
        cases = read_cases(data, usable, settings.purpose)
        if settings.task is Task.COVID:
            cases = [case for case in cases if case.lesion is None]
        parts.append(cases)
    if not parts[0]:
        raise BadConfig(
            "datalist.no-lungs",
            f"{data.file}: no training entry has lungs free of disease (label 0 or none), and disease is synthesised "
            "in such lungs only.",
        )
    return SyntheticSource(settings=settings, training=parts[0], held=parts[1] or parts[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticSource:
    """Disease drawn into lungs that are free of it. Without ``held`` lungs validation uses those of training."""

    settings: TrainSettings
    training: Sequence[Case]
    held: Sequence[Case]
    _kept: dict[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]] = field(default_factory=dict, repr=False)

    def draw(self, rng: np.random.Generator, shape: Shape) -> Example:
        """One patch or crop; voxels of targets are classes, `losses.HARD` on top of them, or `losses.IGNORED`."""
        size = shape[::-1]
        if self.settings.task is Task.COVID:
            lesson = draw_lesson(self.training, size, rng)
            if self.settings.loss is not Loss.CROSS_ENTROPY_PLACES:
                return self._example(lesson.hu, np.asarray(lesson.ill))
            return self._example(lesson.hu, np.where(lesson.ignored & ~lesson.lesion, IGNORED, lesson.lesion))
        draw = draw_lung_patch if self.settings.task is Task.LUNG else draw_lesion_patch
        drawn = draw(self.training, size, rng)
        return self._example(drawn.hu, np.where(drawn.ignored, IGNORED, drawn.truth + HARD * drawn.hard))

    def validation(self) -> Iterator[tuple[str, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """Whole lungs with lesions of every kind; for classification crops, half of them ill."""
        for number, case in enumerate(self.held):
            if self.settings.task is Task.COVID:
                yield from self._crops(number, case)
            else:
                if number not in self._kept:
                    image, target = self._whole(number, case)
                    self._kept[number] = image, target.astype(np.uint8)
                image, kept = self._kept[number]
                yield case.name, image, kept.astype(np.int64)

    def _whole(self, number: int, case: Case) -> Example:
        rng = np.random.default_rng([VALIDATION_SEED, number])
        slices, labels = to_slices(case)
        hu, lung = slices.astype(np.float32), labels > 0
        known, ignored = (
            np.zeros_like(lung) if mask is None else to_slices(dataclasses.replace(case, lung=mask))[1] > 0
            for mask in (case.lesion, case.ignore)
        )
        kinds, box = list(lesions.Kind), lung_box(lung, 8)
        for n in range(VALIDATION_LESIONS):
            drawn = lesions.draw_lesions(lung[box], SPACING_MM, rng, count=1, kind=kinds[n % len(kinds)])
            hu[box], mask = lesions.paste(hu[box], lung[box], SPACING_MM, drawn, rng)
            known[box] |= mask
        if self.settings.task is Task.LUNG:
            return self._example(hu, np.where(ignored, IGNORED, lung))
        return self._example(hu[box], np.where(ignored, IGNORED, known)[box])

    def _crops(self, number: int, case: Case) -> Iterator[tuple[str, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        count = -(-VALIDATION_CROPS // len(self.held))
        for n in range(count):
            rng = np.random.default_rng([VALIDATION_SEED, number, n])
            drawn = draw_crop([case], self.settings.patches[0].shape[::-1], rng)
            yield f"{case.name}-{n + 1}", *self._example(drawn.hu, np.asarray(drawn.ill))

    def _example(self, hu: npt.NDArray[np.generic], target: npt.NDArray[np.generic]) -> Example:
        """Scaled, and from ``(z, y, x)`` to the networks' ``(x, y, z)``."""
        image = np.ascontiguousarray(scale(hu, self.settings.window_hu).transpose(2, 1, 0)[None])
        return image, target.transpose().astype(np.int64, order="C")
