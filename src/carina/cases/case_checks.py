"""What is wrong with one listed case by itself: its files, its masks, its label."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from carina.cases.datalist import DataList, ListedCase
from carina.cases.purpose import Purpose, Targets, Task
from carina.cases.reading import GRID_MM, is_unusable, lesion_of, lung_of, paths_of, prepared_mb
from carina.errors import BadSeries
from carina.volume.files import read_grid, read_map, read_mask, read_volume
from carina.volume.volume import Mask, Volume

BONE_HU = 100
"""A chest CT reaches above this wherever it shows bone; what does not was windowed or scaled."""
LUNG_MEDIAN_HU = -300.0
"""The median of what a lung mask covers lies below this, unless mask and image do not fit together."""
KEYS = ("label_image", "lung_image", "ignore_image")

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class SeenCase:
    """What is known of a listed case after its files were read.

    ``content`` is a digest of the image's voxels; ``drawable`` says whether disease may be synthesised in its lungs.
    """

    part: str
    case: ListedCase
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    content: str = ""
    drawable: bool = True
    cache_mb: float = 0.0


def look_at(data: DataList, purpose: Purpose, part: str, number: int, case: ListedCase) -> SeenCase:
    """Read every file of a case and say what a training on ``purpose`` would trip over; never raises for bad data."""
    look = _Look(data, purpose, f"{part} case {number}", case)
    look.say(look.problems, case.image, _label_problems(case, purpose))
    look.say(look.problems, case.image, _missing(case, purpose))
    volume = look.image()
    for key in KEYS:
        look.mask(key, volume)
    look.say(look.warnings, case.ignore_image, _unused(case, purpose))
    look.say(look.warnings, case.image, _synthesis_warnings(case, purpose, is_drawable=look.is_drawable))
    return SeenCase(
        part=part,
        case=case,
        problems=tuple(look.problems),
        warnings=tuple(look.warnings),
        content="" if volume is None else hashlib.sha256(volume.hu.tobytes()).hexdigest(),
        drawable=look.is_drawable,
        cache_mb=0.0 if volume is None else prepared_mb(volume.grid, purpose),
    )


class _Look:
    """One case being read, and what was found wrong with it so far."""

    def __init__(self, data: DataList, purpose: Purpose, where: str, case: ListedCase) -> None:
        self.data, self.purpose, self.where, self.case = data, purpose, where, case
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.is_drawable = not is_unusable(case, purpose.task)

    def say(self, told: list[str], listed: str, sentences: Iterable[str]) -> None:
        """Add sentences on a listed file."""
        told += [f"{self.where}, {listed}: {words}" for words in sentences]

    def image(self) -> Volume | None:
        """The image, None where it can't be read."""
        volume = self._read(_read_finite, self.case.image)
        if volume is not None:
            self.say(self.problems, self.case.image, _image_problems(volume))
        return volume

    def mask(self, key: str, volume: Volume | None) -> None:
        """Look at the mask that the list gives under ``key``, if any."""
        listed = getattr(self.case, key)
        mask = self._read(read_mask, listed) if listed else None
        if mask is None:
            return
        if self.purpose.task is Task.COVID and listed == lesion_of(self.case, self.purpose.task):
            self.is_drawable = self.is_drawable and mask.is_empty
        self.say(self.problems, listed, _mask_problems(mask, key, self.case, self.purpose))
        self.say(self.warnings, listed, _mask_warnings(mask, key, self.case, self.purpose))
        if volume is not None:
            self._place(mask, key, volume)

    def _place(self, mask: Mask, key: str, volume: Volume) -> None:
        """Whether the mask lies on the image, and a lung mask on what is lung."""
        listed = getattr(self.case, key)
        misfit = _misfit(mask, volume, self.case.image)
        self.say(self.problems, listed, misfit)
        if not misfit and key == _lung_key(self.case, self.purpose.task):
            self.say(self.warnings, listed, _lung_warnings(mask, volume))

    def _read(self, reader: Callable[[Path], Made], listed: str) -> Made | None:
        """What ``reader`` makes of a listed file; where it can't be read, None and a problem more."""
        path = self.data.path(listed)
        try:
            return reader(path)
        except BadSeries as error:
            words = error.message.removeprefix(f"{path}: ").removeprefix(f"{path.name}: ")
        self.say(self.problems, listed, [words])
        return None


def _read_finite(path: Path) -> Volume:
    """As ``read_volume``, which takes NaN for padding; a network would learn from it, so here it is refused."""
    volume = read_volume(path)
    if "float" in read_grid(path)[1] and not np.isfinite(read_map(path).values).all():
        raise BadSeries("file.no-hu", f"{path.name}: holds values that are no numbers; expected HU everywhere.")
    return volume


def _image_problems(volume: Volume) -> Iterator[str]:
    top = int(volume.hu.max())
    if top < BONE_HU:
        yield (
            f"no value is above {top}; a chest CT in HU reaches {BONE_HU} and more, so this one was windowed or scaled."
        )


def _missing(case: ListedCase, purpose: Purpose) -> Iterator[str]:
    """The mask that a training on labels can't do without, where it is not listed."""
    if purpose.source is Targets.LABELS and not paths_of(case, purpose.task)[purpose.mask]:
        key = "label_image" if purpose.task is Task.LESION else "lung_image"
        yield f"has no {key}; {purpose.task} training needs one."


def _label_problems(case: ListedCase, purpose: Purpose) -> Iterator[str]:
    if purpose.task is not Task.COVID:
        return
    highest = purpose.classes - 1
    if purpose.source is Targets.LABELS and len(case.label) != 1:
        yield f"label holds {list(case.label) or 'nothing'}; expected one class from 0 to {highest}."
    elif any(not 0 <= value <= highest for value in case.label):
        yield f"label is {case.label[0]}; expected a class from 0 to {highest}."


def _mask_problems(mask: Mask, key: str, case: ListedCase, purpose: Purpose) -> Iterator[str]:
    if mask.is_empty and key == _lung_key(case, purpose.task) and not purpose.takes_bellies:
        yield "the lung mask is empty; every chest has lungs."
    above = [value for value in mask.names if value >= purpose.classes]
    if above and key == _target_key(case, purpose):
        yield (
            f"holds the value {above[0]}; the network knows 0 to {purpose.classes - 1}. "
            "Merge values, or raise its classes."
        )


def _target_key(case: ListedCase, purpose: Purpose) -> str:
    """The key of the mask whose values are learnt, empty where none are."""
    if purpose.source is not Targets.LABELS or purpose.task is Task.COVID:
        return ""
    return "label_image" if purpose.task is Task.LESION else _lung_key(case, purpose.task)


def _mask_warnings(mask: Mask, key: str, case: ListedCase, purpose: Purpose) -> Iterator[str]:
    if mask.is_empty and key == "label_image" and lesion_of(case, purpose.task):
        yield "the lesion mask is empty; right for a healthy patient, else a mistake."


def _lung_key(case: ListedCase, task: Task) -> str:
    if case.lung_image:
        return "lung_image"
    return "label_image" if lung_of(case, task) else ""


def _lung_warnings(mask: Mask, volume: Volume) -> Iterator[str]:
    if mask.is_empty:
        return
    middle = float(np.median(volume.hu[mask.labels > 0]))
    if middle > LUNG_MEDIAN_HU:
        yield f"what the lung mask covers has a median of {middle:.0f} HU; is it flipped, or another patient's?"


def _misfit(mask: Mask, volume: Volume, image: str) -> list[str]:
    """How mask and image differ; nothing where they fit."""
    if mask.grid.shape != volume.grid.shape:
        seen, expected = (" x ".join(map(str, one.grid.shape)) for one in (mask, volume))
        return [f"has {seen} voxels (z, y, x), its image {image} has {expected}."]
    if not mask.grid.same_place(volume.grid, tolerance_mm=GRID_MM):
        return [
            f"lies elsewhere than its image {image}: spacing {_words(mask.grid.spacing_mm)} and "
            f"{_words(volume.grid.spacing_mm)} mm (z, y, x), origin {_words(mask.grid.origin_mm)} and "
            f"{_words(volume.grid.origin_mm)} mm, or other axes; resample it onto the image."
        ]
    return []


def _words(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _unused(case: ListedCase, purpose: Purpose) -> Iterator[str]:
    without_places = purpose.task is Task.COVID and not purpose.learns_places
    if case.ignore_image and (purpose.source is Targets.LABELS or without_places):
        yield (
            "is not used; ignore_image is for masks and places that are learnt with "
            'source = "synthetic". Choose that, or take it out.'
        )


def _synthesis_warnings(case: ListedCase, purpose: Purpose, *, is_drawable: bool) -> Iterator[str]:
    if purpose.source is not Targets.SYNTHETIC:
        return
    if not lung_of(case, purpose.task):
        yield "has no lung_image; its lungs will be labelled by a threshold, unseen."
    if not is_drawable:
        yield "shows disease (label 1, or its lesions); nothing is drawn into it."
