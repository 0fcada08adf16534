"""A bundle run on each entry of a data list as ``carina run`` runs it, and compared with the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import msgspec

from carina.cases.datalist import DataList, Item
from carina.cases.purpose import Task
from carina.cases.reading import lung_of
from carina.config import RuntimeKind, RuntimeSettings, Settings
from carina.errors import BadConfig, BadSeries, CarinaError
from carina.evaluate.pictures import classified_slices, compared_slices
from carina.evaluate.summary import sum_up_classification, sum_up_segmentation
from carina.evaluate.values import (
    ClassificationCase,
    Evaluation,
    Failure,
    Picture,
    SegmentationCase,
    Split,
    Subject,
)
from carina.infer.classify import classify
from carina.infer.runtime import Runtime, open_runtime, settled
from carina.infer.segment import segment
from carina.measure.agreement import dice, surface_agreement, volume_error_ml, volume_error_percent
from carina.measure.detection import detect
from carina.models.bundle import Bundle, Covid, Lesion, find_bundle
from carina.volume import Mask, Volume
from carina.volume.files import read_mask, read_volume

WORST = 3
"""This many cases are shown as pictures."""

Tell = Callable[[str, int, int], None]
"""Told what became of a case in a few words, its number from 1, and how many there are."""


def evaluate(
    bundle: Bundle,
    data: DataList,
    *,
    when: datetime,
    split: Split = Split.VALIDATION,
    settings: Settings | None = None,
    tell: Tell | None = None,
) -> Evaluation:
    """Measure ``bundle`` on one part of ``data``; a case that can't be measured is named with its reason.

    A lung bundle is compared with ``lung_image``, or ``label_image`` where there is none, a lesion bundle with
    ``label_image``, a classifier with ``label``. All labels above 0 count as one.

    Raises:
        BadConfig: the part has no entries, or a runtime can't be opened.
    """
    settings = settings or Settings()
    entries = list(_entries(data, split))
    if not entries:
        raise BadConfig(
            "evaluate.empty",
            f"{data.file}: nothing to measure in {split.value!r}; list cases there, or choose another --split.",
        )
    judge = _Judge(bundle, data, settings)
    results = _Results()
    for number, (name, item) in enumerate(entries, start=1):
        try:
            judged = judge.judged(name, item)
            results.add(judged)
            outcome = judged.word
        except CarinaError as error:
            results.failures.append(Failure(case=name, code=error.code, reason=error.message))
            outcome = f"failed: {error.message} [{error.code}]"
        if tell is not None:
            tell(f"{name}: {outcome}", number, len(entries))
    subject = Subject(bundle=bundle, data=data.file, split=split, runtime=judge.described, when=when)
    return results.finished(subject)


def _entries(data: DataList, split: Split) -> Iterator[tuple[str, Item]]:
    """Each entry with a name that no other has: its own, or its path where two files are called the same."""
    chosen = [item for part, _, item in data.entries() if split in (Split.ALL, part)]
    often = Counter(item.name for item in chosen)
    for item in chosen:
        yield (item.name if often[item.name] == 1 else item.image), item


@dataclass(frozen=True)
class _Judged:
    """A case's figures, how good it is (0 to 1), a word on it, and its pictures, painted when asked for."""

    case: SegmentationCase | ClassificationCase
    goodness: float
    word: str
    paint: Callable[[], tuple[Picture, ...]]


class _Judge:
    """Runs one bundle on entries and compares with their truth; runtimes are opened once."""

    def __init__(self, bundle: Bundle, data: DataList, settings: Settings) -> None:
        self.bundle, self.data, self.settings = bundle, data, settings
        self.runtime: Runtime = open_runtime(bundle, self._how)

    @property
    def _how(self) -> RuntimeSettings:
        how = self.settings.runtime
        return settled(msgspec.structs.replace(how, kind=RuntimeKind.TRITON) if how.endpoint else how)

    @property
    def described(self) -> str:
        """How networks ran, in words."""
        how = self._how
        return f"{how.kind}, {how.precision}, plan {how.plan}"

    @cached_property
    def _lung(self) -> tuple[Bundle, Runtime]:
        bundle = find_bundle(self.settings.models.lung, self.settings.models.folders)
        return bundle, open_runtime(bundle, self._how)

    def judged(self, name: str, item: Item) -> _Judged:
        """Measure one entry.

        Raises:
            BadSeries: a file can't be read, the entry lacks its truth, or the mask lies on another grid.
            ModelFailed: the network failed.
        """
        volume = read_volume(self.data.path(item.image))
        if isinstance(self.bundle.carina, Covid):
            return self._classified(name, item, volume, self.bundle.carina)
        is_lesion = isinstance(self.bundle.carina, Lesion)
        listed = item.label_image if is_lesion else lung_of(item, Task.LUNG)
        if not listed:
            key = "label_image" if is_lesion else "lung_image or label_image"
            raise BadSeries("evaluate.no-truth", f"{name}: the list gives no {key} to compare with.")
        truth = self._mask(listed, volume)
        found = segment(volume, self.bundle, self.runtime, self.settings.runtime.plan)
        case = compare(name, found, truth, with_lesions=is_lesion)
        return _Judged(case, case.dice, f"Dice {case.dice:.3f}", lambda: compared_slices(volume, found, truth))

    def _classified(self, name: str, item: Item, volume: Volume, spec: Covid) -> _Judged:
        if len(item.label) != 1 or item.label[0] not in spec.labels:
            known = ", ".join(f"{number} ({word})" for number, word in sorted(spec.labels.items()))
            raise BadSeries(
                "evaluate.no-truth", f"{name}: its label is {list(item.label)}; expected one number of {known}."
            )
        listed = lung_of(item, Task.COVID)
        lung = self._mask(listed, volume) if listed else self._segmented_lung(volume)
        given = classify(volume, lung, self.bundle, self.runtime)
        probabilities = tuple(given[word] for _, word in sorted(spec.labels.items()))
        case = ClassificationCase(case=name, label=item.label[0], probabilities=probabilities)
        goodness = probabilities[case.label]
        return _Judged(
            case,
            goodness,
            f"{spec.labels[case.label]}: probability {goodness:.3f}",
            lambda: classified_slices(volume, lung),
        )

    def _segmented_lung(self, volume: Volume) -> Mask:
        bundle, runtime = self._lung
        return segment(volume, bundle, runtime, self.settings.runtime.plan)

    def _mask(self, listed: str, volume: Volume) -> Mask:
        path = self.data.path(listed)
        mask = read_mask(path)
        if not mask.grid.same_place(volume.grid):
            raise BadSeries(
                "mask.grid",
                f"{path}: holds {mask.grid.shape} voxels from {mask.grid.origin_mm} mm, its image {volume.grid.shape} "
                f"from {volume.grid.origin_mm} mm; expected a mask on the image's grid, resample it first.",
            )
        return mask


def compare(name: str, found: Mask, truth: Mask, *, with_lesions: bool) -> SegmentationCase:
    """The figures of one case; both masks lie on one grid, and any label above 0 counts."""
    a, b = found.labels > 0, truth.labels > 0
    grid = truth.grid
    surfaces = surface_agreement(a, b, grid.spacing_mm)
    return SegmentationCase(
        case=name,
        dice=dice(a, b),
        surface_dice=surfaces.surface_dice,
        hd95_mm=surfaces.hd95_mm,
        truth_ml=truth.volume_ml(),
        found_ml=found.volume_ml(),
        volume_error_ml=volume_error_ml(a, b, grid.voxel_ml),
        volume_error_percent=volume_error_percent(a, b),
        detection=detect(a, b, grid.voxel_ml) if with_lesions else None,
    )


@dataclass
class _Results:
    """Cases and failures so far, and pictures of the worst cases only, so that memory stays small."""

    cases: list[SegmentationCase | ClassificationCase] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    worst: list[tuple[float, str, tuple[Picture, ...]]] = field(default_factory=list)

    def add(self, judged: _Judged) -> None:
        """Take a case in, and paint it where it is among the worst."""
        self.cases.append(judged.case)
        if len(self.worst) == WORST and judged.goodness >= self.worst[-1][0]:
            return
        heading = f"{judged.case.case}: {judged.word}"
        self.worst = sorted([*self.worst, (judged.goodness, heading, judged.paint())], key=lambda one: one[0])[:WORST]

    def finished(self, subject: Subject) -> Evaluation:
        """Everything summed up."""
        segmented = tuple(case for case in self.cases if isinstance(case, SegmentationCase))
        classified = tuple(case for case in self.cases if isinstance(case, ClassificationCase))
        labels = subject.bundle.carina.labels
        return Evaluation(
            subject=subject,
            cases=segmented or classified,
            failures=tuple(self.failures),
            segmentation=sum_up_segmentation(segmented) if segmented else None,
            classification=sum_up_classification(classified, labels) if classified else None,
            worst=tuple((heading, pictures) for _, heading, pictures in self.worst),
        )
