"""A bundle run on each case of a data list as ``carina run`` runs it, and compared with the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import msgspec

from carina.cases.datalist import DataList, ListedCase
from carina.cases.purpose import Task
from carina.cases.reading import read_case
from carina.config import RuntimeKind, RuntimeSettings, Settings
from carina.errors import BadConfig, BadSeries, CarinaError
from carina.evaluate.pictures import classified_slices, compared_slices
from carina.evaluate.summary import sum_up_classification, sum_up_segmentation
from carina.evaluate.values import (
    CaseAgreement,
    CaseClassification,
    Evaluation,
    FailedCase,
    ReportPicture,
    Split,
    Subject,
)
from carina.infer.classify import classify
from carina.infer.runtime import Runtime, open_runtime, with_precision
from carina.infer.segment import segment
from carina.measure.agreement import dice, surface_agreement, volume_error_ml, volume_error_percent
from carina.measure.detection import detect
from carina.models.bundle import Bundle, Covid, Lesion, find_bundle
from carina.volume import Mask, Volume

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
        BadConfig: the part has no cases, or a runtime can't be opened.
    """
    settings = settings or Settings()
    listed = list(_named(data, split))
    if not listed:
        raise BadConfig(
            "evaluate.empty",
            f"{data.file}: nothing to measure in {split.value!r}; list cases there, or choose another --split.",
        )
    judge = _Judge(bundle, data, settings)
    results = _Results()
    for number, (name, one) in enumerate(listed, start=1):
        try:
            judged = judge.judged(name, one)
            results.add(judged)
            outcome = judged.word
        except CarinaError as error:
            results.failures.append(FailedCase(case=name, code=error.code, reason=error.message))
            outcome = f"failed: {error.message} [{error.code}]"
        if tell is not None:
            tell(f"{name}: {outcome}", number, len(listed))
    subject = Subject(bundle=bundle, data=data.file, split=split, runtime=judge.described, when=when)
    return results.finished(subject)


def _named(data: DataList, split: Split) -> Iterator[tuple[str, ListedCase]]:
    """Each case with a name that no other has: its own, or its path where two files are called the same."""
    chosen = [case for part, _, case in data.numbered() if split in (Split.ALL, part)]
    often = Counter(case.name for case in chosen)
    for case in chosen:
        yield (case.name if often[case.name] == 1 else case.image), case


@dataclass(frozen=True)
class _Judged:
    """A case's figures, how good it is (0 to 1), a word on it, and its pictures, painted when asked for."""

    case: CaseAgreement | CaseClassification
    goodness: float
    word: str
    paint: Callable[[], tuple[ReportPicture, ...]]


class _Judge:
    """Runs one bundle on cases and compares with their truth; runtimes are opened once."""

    def __init__(self, bundle: Bundle, data: DataList, settings: Settings) -> None:
        self.bundle, self.data, self.settings = bundle, data, settings
        self.runtime: Runtime = open_runtime(bundle, self._how)

    @property
    def _how(self) -> RuntimeSettings:
        how = self.settings.runtime
        return with_precision(msgspec.structs.replace(how, kind=RuntimeKind.TRITON) if how.endpoint else how)

    @property
    def described(self) -> str:
        """How networks ran, in words."""
        how = self._how
        return f"{how.kind}, {how.precision}, plan {how.plan}"

    @cached_property
    def _lung(self) -> tuple[Bundle, Runtime]:
        bundle = find_bundle(self.settings.models.lung, self.settings.models.folders)
        return bundle, open_runtime(bundle, self._how)

    def judged(self, name: str, listed: ListedCase) -> _Judged:
        """Measure one case.

        Raises:
            BadSeries: a file can't be read, the case lacks its truth, or a mask does not lie on the image's voxels.
            ModelFailed: the network failed.
        """
        if isinstance(self.bundle.carina, Covid):
            return self._classified(name, listed, self.bundle.carina)
        is_lesion = isinstance(self.bundle.carina, Lesion)
        task, mask = (Task.LESION, "lesion") if is_lesion else (Task.LUNG, "lung")
        case = read_case(self.data, listed, task, (mask,))
        truth = case.lesion if is_lesion else case.lung
        if truth is None:
            key = "label_image" if is_lesion else "lung_image or label_image"
            raise BadSeries("evaluate.no-truth", f"{name}: the list gives no {key} to compare with.")
        marked = segment(case.volume, self.bundle, self.runtime, self.settings.runtime.plan)
        result = compare(name, marked, truth, with_lesions=is_lesion)
        return _Judged(
            result, result.dice, f"Dice {result.dice:.3f}", lambda: compared_slices(case.volume, marked, truth)
        )

    def _classified(self, name: str, listed: ListedCase, spec: Covid) -> _Judged:
        if len(listed.label) != 1 or listed.label[0] not in spec.labels:
            known = ", ".join(f"{number} ({word})" for number, word in sorted(spec.labels.items()))
            raise BadSeries(
                "evaluate.no-truth", f"{name}: its label is {list(listed.label)}; expected one number of {known}."
            )
        case = read_case(self.data, listed, Task.COVID, ("lung",))
        lung = case.lung or self._segmented_lung(case.volume)
        given = classify(case.volume, lung, self.bundle, self.runtime)
        probabilities = tuple(given[word] for _, word in sorted(spec.labels.items()))
        result = CaseClassification(case=name, label=listed.label[0], probabilities=probabilities)
        goodness = probabilities[result.label]
        return _Judged(
            result,
            goodness,
            f"{spec.labels[result.label]}: probability {goodness:.3f}",
            lambda: classified_slices(case.volume, lung),
        )

    def _segmented_lung(self, volume: Volume) -> Mask:
        bundle, runtime = self._lung
        return segment(volume, bundle, runtime, self.settings.runtime.plan)


def compare(name: str, marked: Mask, truth: Mask, *, with_lesions: bool) -> CaseAgreement:
    """The figures of one case; both masks lie on one grid, and any label above 0 counts."""
    a, b = marked.labels > 0, truth.labels > 0
    grid = truth.grid
    surfaces = surface_agreement(a, b, grid.spacing_mm)
    return CaseAgreement(
        case=name,
        dice=dice(a, b),
        surface_dice=surfaces.surface_dice,
        hd95_mm=surfaces.hd95_mm,
        truth_ml=truth.volume_ml(),
        found_ml=marked.volume_ml(),
        volume_error_ml=volume_error_ml(a, b, grid.voxel_ml),
        volume_error_percent=volume_error_percent(a, b),
        detection=detect(a, b, grid.voxel_ml) if with_lesions else None,
    )


@dataclass
class _Results:
    """Cases and failures so far, and pictures of the worst cases only, so that memory stays small."""

    cases: list[CaseAgreement | CaseClassification] = field(default_factory=list)
    failures: list[FailedCase] = field(default_factory=list)
    worst: list[tuple[float, str, tuple[ReportPicture, ...]]] = field(default_factory=list)

    def add(self, judged: _Judged) -> None:
        """Take a case in, and paint it where it is among the worst."""
        self.cases.append(judged.case)
        if len(self.worst) == WORST and judged.goodness >= self.worst[-1][0]:
            return
        heading = f"{judged.case.case}: {judged.word}"
        self.worst = sorted([*self.worst, (judged.goodness, heading, judged.paint())], key=lambda one: one[0])[:WORST]

    def finished(self, subject: Subject) -> Evaluation:
        """Everything summed up."""
        segmented = tuple(case for case in self.cases if isinstance(case, CaseAgreement))
        classified = tuple(case for case in self.cases if isinstance(case, CaseClassification))
        labels = subject.bundle.carina.labels
        return Evaluation(
            subject=subject,
            cases=segmented or classified,
            failures=tuple(self.failures),
            segmentation=sum_up_segmentation(segmented) if segmented else None,
            classification=sum_up_classification(classified, labels) if classified else None,
            worst=tuple((heading, pictures) for _, heading, pictures in self.worst),
        )
