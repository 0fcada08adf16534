"""What is wrong with a data list, all of it at once and before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from carina.cases.datalist import PARTS, DataList, Item, without
from carina.cases.purpose import Purpose, Source, Task
from carina.cases.reading import is_unusable, lesion_of, lung_of, mask_of, prepared_mb
from carina.errors import BadSeries
from carina.volume.files import read_grid, read_mask, read_volume, volume_suffix
from carina.volume.volume import Mask, Volume

BONE_HU = 100
"""A chest CT reaches above this wherever it shows bone; what does not was windowed or scaled."""
GRID_MM = 0.1
"""A mask's corners lie this near to its image's; NIfTI headers keep places in single precision."""
LUNG_HU = -300.0
"""The median of what a lung mask covers lies below this, unless mask and image do not fit together."""
T = TypeVar("T")

THREADS = 2
"""Files read at a time; each is held in memory as a whole."""


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """``problems`` forbid training, ``warnings`` do not: sentences that name file and entry. ``cache_mb`` is about
    what the prepared entries take."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    cache_mb: float


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What is known of one entry after its files were read.

    ``content`` is a digest of the image's voxels; ``drawable`` says whether disease may be synthesised in its lungs.
    """

    part: str
    item: Item
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    content: str = ""
    drawable: bool = True
    cache_mb: float = 0.0


def check_data(data: DataList, purpose: Purpose, progress: Callable[[int], object] | None = None) -> DataReport:
    """Read every file of the list and say what ``purpose`` would trip over; never raises for bad data.

    Give the list as it will be trained on, after ``with_fold``; entries named in ``leave_out`` are not looked at.
    ``progress`` is told how many entries have been read.
    """
    kept = without(data, purpose.leave_out)
    seen: list[_Seen] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for one in pool.map(lambda entry: _entry(data, purpose, *entry), kept.entries()):
            seen.append(one)
            if progress is not None:
                progress(len(seen))
    problems = [*_empty(kept, purpose, seen), *(p for one in seen for p in one.problems)]
    warnings = [*_left_out(data, purpose), *(w for one in seen for w in one.warnings)]
    for found, told in ((_across(seen), problems), (_twice(seen), warnings)):
        told.extend(found)
    for words, is_problem in _classes(kept, purpose):
        (problems if is_problem else warnings).append(words)
    if not kept.validation:
        words = f"{data.file}: validation is empty, so "
        if purpose.source is Source.LABELS:
            problems.append(words + "no checkpoint can be chosen; list some patients, or set folds.")
        else:
            warnings.append(words + "checkpoints are chosen on the lungs that are trained on.")
    return DataReport(problems=tuple(problems), warnings=tuple(warnings), cache_mb=sum(one.cache_mb for one in seen))


def _empty(data: DataList, purpose: Purpose, seen: Sequence[_Seen]) -> Iterator[str]:
    if not data.training:
        yield f"{data.file}: training is empty; expected at least one entry."
    elif purpose.source is Source.SYNTHETIC and not any(one.drawable for one in seen if one.part == "training"):
        yield f"{data.file}: every training entry shows disease; it is synthesised in lungs that are free of it."


def _left_out(data: DataList, purpose: Purpose) -> Iterator[str]:
    known = {name for _, _, item in data.entries() for name in (item.name, item.patient)}
    for name in purpose.leave_out:
        if name not in known:
            yield f"{data.file}: leave_out names {name!r}, but no entry or patient is called so."


def _entry(data: DataList, purpose: Purpose, part: str, number: int, item: Item) -> _Seen:
    """Everything about one entry by itself."""
    where = f"{part} entry {number}"
    problems = [f"{where}, {item.image}: {words}" for words in _label_problems(item, purpose)]
    warnings: list[str] = []
    is_drawable = not is_unusable(item, purpose.task)
    wanted = _wanted(item, purpose)
    problems += [f"{where}, {item.image}: has no {key}; {purpose.task} training needs one." for key in wanted]
    volume = _read(_read_finite, data, item.image, where, problems)
    if volume is not None:
        top = int(volume.hu.max())
        if top < BONE_HU:
            problems.append(
                f"{where}, {item.image}: no value is above {top}; a chest CT in HU reaches {BONE_HU} and more, so this "
                "one was windowed or scaled."
            )
    for key in ("label_image", "lung_image", "ignore_image"):
        listed = getattr(item, key)
        mask = _read(read_mask, data, listed, where, problems) if listed else None
        if mask is None:
            continue
        named = f"{where}, {listed}"
        is_lesions = purpose.task is Task.COVID and listed == lesion_of(item, purpose.task)
        is_drawable = is_drawable and not (is_lesions and not mask.is_empty)
        problems += [f"{named}: {words}" for words in _mask_problems(mask, key, item, purpose)]
        warnings += [f"{named}: {words}" for words in _mask_warnings(mask, key, item, purpose)]
        if volume is not None:
            fit = _fit(mask, volume, item.image)
            problems += [f"{named}: {fit}"] if fit else []
            if not fit and not mask.is_empty and key == _lung_key(item, purpose.task):
                warnings += [f"{named}: {words}" for words in _lung_warnings(mask, volume)]
    placeless = purpose.task is Task.COVID and not purpose.learns_places
    if item.ignore_image and (purpose.source is Source.LABELS or placeless):
        warnings.append(
            f"{where}, {item.ignore_image}: is not used; ignore_image is for masks and places that are learnt with "
            'source = "synthetic". Choose that, or take it out.'
        )
    if purpose.source is Source.SYNTHETIC and not lung_of(item, purpose.task):
        warnings.append(f"{where}, {item.image}: has no lung_image; its lungs will be labelled by a threshold, unseen.")
    if purpose.source is Source.SYNTHETIC and not is_drawable:
        warnings.append(f"{where}, {item.image}: shows disease (label 1, or its lesions); nothing is drawn into it.")
    return _Seen(
        part=part,
        item=item,
        problems=tuple(problems),
        warnings=tuple(warnings),
        content="" if volume is None else hashlib.sha256(volume.hu.tobytes()).hexdigest(),
        drawable=is_drawable,
        cache_mb=0.0 if volume is None else prepared_mb(volume.grid, purpose),
    )


def _read_finite(path: Path) -> Volume:
    """As ``read_volume``; ITK reads what is no number in a NIfTI file as 0, so nibabel looks for it."""
    volume = read_volume(path)
    if volume_suffix(path) in (".nii", ".nii.gz") and "float" in read_grid(path)[1]:
        import nibabel

        if not np.isfinite(np.asarray(nibabel.load(path).dataobj)).all():
            raise BadSeries("file.no-hu", f"{path.name}: holds values that are no numbers; expected HU everywhere.")
    return volume


def _read(reader: Callable[[Path], T], data: DataList, listed: str, where: str, problems: list[str]) -> T | None:
    """What ``reader`` makes of a listed file; where it can't be read, None and a problem more."""
    path = data.path(listed)
    try:
        return reader(path)
    except BadSeries as error:
        words = error.message.removeprefix(f"{path}: ").removeprefix(f"{path.name}: ")
    except Exception as error:  # noqa: BLE001, a file that breaks its reader is a problem of the file
        words = f"can't be read ({type(error).__name__})."
    problems.append(f"{where}, {listed}: {words}")
    return None


def _wanted(item: Item, purpose: Purpose) -> list[str]:
    """Masks that the training can't do without and the entry lacks."""
    if purpose.source is Source.SYNTHETIC or mask_of(item, purpose.task):
        return []
    return ["label_image" if purpose.task is Task.LESION else "lung_image"]


def _lung_key(item: Item, task: Task) -> str:
    if item.lung_image:
        return "lung_image"
    return "label_image" if lung_of(item, task) else ""


def _label_problems(item: Item, purpose: Purpose) -> Iterator[str]:
    highest = _highest(purpose)
    if purpose.task is Task.COVID and purpose.source is Source.LABELS and len(item.label) != 1:
        yield f"label holds {list(item.label) or 'nothing'}; expected one class from 0 to {highest}."
    elif purpose.task is Task.COVID and any(not 0 <= value <= highest for value in item.label):
        yield f"label is {item.label[0]}; expected a class from 0 to {highest}."


def _mask_problems(mask: Mask, key: str, item: Item, purpose: Purpose) -> Iterator[str]:
    if mask.is_empty and key == _lung_key(item, purpose.task):
        yield "the lung mask is empty; every chest has lungs."
    highest = _highest(purpose)
    target = "label_image" if purpose.task is Task.LESION else _lung_key(item, purpose.task)
    is_target = key == target and purpose.source is Source.LABELS and purpose.task is not Task.COVID
    above = [value for value in mask.names if value > highest]
    if is_target and above:
        yield f"holds the value {above[0]}; the network knows 0 to {highest}. Merge values, or raise its classes."


def _mask_warnings(mask: Mask, key: str, item: Item, purpose: Purpose) -> Iterator[str]:
    if mask.is_empty and key == "label_image" and lesion_of(item, purpose.task):
        yield "the lesion mask is empty; right for a healthy patient, else a mistake."


def _lung_warnings(mask: Mask, volume: Volume) -> Iterator[str]:
    middle = float(np.median(volume.hu[mask.labels > 0]))
    if middle > LUNG_HU:
        yield f"what the lung mask covers has a median of {middle:.0f} HU; is it flipped, or another patient's?"


def _fit(mask: Mask, volume: Volume, image: str) -> str:
    """How mask and image differ, empty where they fit."""
    if mask.grid.shape != volume.grid.shape:
        seen, expected = (" x ".join(map(str, one.grid.shape)) for one in (mask, volume))
        return f"has {seen} voxels (z, y, x), its image {image} has {expected}."
    if not mask.grid.same_place(volume.grid, tolerance_mm=GRID_MM):
        return (
            f"lies elsewhere than its image {image}: spacing {_words(mask.grid.spacing_mm)} and "
            f"{_words(volume.grid.spacing_mm)} mm (z, y, x), origin {_words(mask.grid.origin_mm)} and "
            f"{_words(volume.grid.origin_mm)} mm, or other axes; resample it onto the image."
        )
    return ""


def _words(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _highest(purpose: Purpose) -> int:
    return purpose.classes - 1


def _across(seen: Sequence[_Seen]) -> Iterator[str]:
    """What lies in both parts: the same file, the same voxels, the same patient."""
    training, validation = ([one for one in seen if one.part == part] for part in PARTS)
    images = {one.item.image for one in training}
    contents = {one.content: one.item.image for one in training if one.content}
    patients = {one.item.patient: one.item.image for one in training if one.item.patient}
    for one in validation:
        image, patient = one.item.image, one.item.patient
        if image in images:
            yield f"{image}: is listed for training and for validation."
        elif one.content in contents:
            yield f"{image}: is listed for validation, and its voxels are those of {contents[one.content]} in training."
        elif patient in patients:
            yield f"{image}: validation shows patient {patient!r}, who is in training too ({patients[patient]})."


def _twice(seen: Sequence[_Seen]) -> Iterator[str]:
    """What is listed twice within a part."""
    first: dict[tuple[str, str], str] = {}
    for one in seen:
        key = (one.part, one.content or one.item.image)
        if key in first:
            yield f"{one.item.image}: is in {one.part} twice, also as {first[key]}."
        first.setdefault(key, one.item.image)


def _classes(data: DataList, purpose: Purpose) -> Iterator[tuple[str, bool]]:
    """Classes that nobody shows, and whether that is a problem."""
    if purpose.task is not Task.COVID or purpose.source is not Source.LABELS:
        return
    for part in PARTS:
        items = getattr(data, part)
        shown = {value for item in items for value in item.label}
        missing = sorted(set(range(_highest(purpose) + 1)) - shown)
        if items and missing:
            yield f"{data.file}: no {part} entry has label {missing[0]}.", part == "training"
