"""What is wrong with a data list, all of it at once and before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from carina.cases.case_checks import SeenCase, look_at
from carina.cases.datalist import PARTS, DataList, without
from carina.cases.held_out import held_out_in
from carina.cases.purpose import Purpose, Targets, Task

THREADS = 2
"""Cases read at a time; each image is held in memory as a whole."""


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """``problems`` forbid training, ``warnings`` do not: sentences that name file and case. ``cache_mb`` is about
    what the prepared cases take."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    cache_mb: float


def check_data(data: DataList, purpose: Purpose, progress: Callable[[int], object] | None = None) -> DataReport:
    """Read every file of the list and say what a training on ``purpose`` would trip over; never raises for bad data.

    Give the list as it will be trained on, after ``with_fold``; cases named in ``leave_out`` are not looked at.
    ``progress`` is told how many cases have been read.
    """
    kept = without(data, purpose.leave_out)
    seen = list(_seen(kept, purpose, progress))
    by_case = [words for one in seen for words in one.problems]
    warned = [words for one in seen for words in one.warnings]
    return DataReport(
        problems=(
            *_empty(kept, purpose, seen),
            *held_out_in(kept),
            *by_case,
            *_across(seen),
            *_classes(kept, purpose, "training"),
            *_no_validation(kept, purpose, Targets.LABELS),
        ),
        warnings=(
            *_left_out(data, purpose),
            *warned,
            *_twice(seen),
            *_classes(kept, purpose, "validation"),
            *_no_validation(kept, purpose, Targets.SYNTHETIC),
        ),
        cache_mb=sum(one.cache_mb for one in seen),
    )


def _seen(data: DataList, purpose: Purpose, progress: Callable[[int], object] | None) -> Iterator[SeenCase]:
    with ThreadPoolExecutor(THREADS) as pool:
        looked = pool.map(lambda listed: look_at(data, purpose, *listed), data.numbered())
        for count, one in enumerate(looked, start=1):
            if progress is not None:
                progress(count)
            yield one


def _no_validation(data: DataList, purpose: Purpose, source: Targets) -> Iterator[str]:
    if data.validation or purpose.source is not source:
        return
    words = f"{data.file}: validation is empty, so "
    if source is Targets.LABELS:
        yield words + "no checkpoint can be chosen; list some patients, or set folds."
    else:
        yield words + "checkpoints are chosen on the lungs that are trained on."


def _empty(data: DataList, purpose: Purpose, seen: Sequence[SeenCase]) -> Iterator[str]:
    if not data.training:
        yield f"{data.file}: training is empty; expected at least one case."
    elif purpose.source is Targets.SYNTHETIC and not any(one.drawable for one in seen if one.part == "training"):
        yield f"{data.file}: every training case shows disease; it is synthesised in lungs that are free of it."


def _left_out(data: DataList, purpose: Purpose) -> Iterator[str]:
    known = {name for _, _, case in data.numbered() for name in (case.name, case.patient)}
    for name in purpose.leave_out:
        if name not in known:
            yield f"{data.file}: leave_out names {name!r}, but no case or patient is called so."


def _across(seen: Sequence[SeenCase]) -> Iterator[str]:
    """What lies in both parts: the same file, the same voxels, the same patient."""
    training, validation = ([one for one in seen if one.part == part] for part in PARTS)
    for one in validation:
        yield from _seen_before(one, training)


def _seen_before(one: SeenCase, training: Sequence[SeenCase]) -> Iterator[str]:
    """Why a validation case is no new one for those who were trained on the others."""
    image, patient = one.case.image, one.case.patient
    images = {other.case.image for other in training}
    contents = {other.content: other.case.image for other in training if other.content}
    patients = {other.case.patient: other.case.image for other in training if other.case.patient}
    if image in images:
        yield f"{image}: is listed for training and for validation."
    elif one.content in contents:
        yield f"{image}: is listed for validation, and its voxels are those of {contents[one.content]} in training."
    elif patient in patients:
        yield f"{image}: validation shows patient {patient!r}, who is in training too ({patients[patient]})."


def _twice(seen: Sequence[SeenCase]) -> Iterator[str]:
    """What is listed twice within a part."""
    first: dict[tuple[str, str], str] = {}
    for one in seen:
        key = (one.part, one.content or one.case.image)
        if key in first:
            yield f"{one.case.image}: is in {one.part} twice, also as {first[key]}."
        first.setdefault(key, one.case.image)


def _classes(data: DataList, purpose: Purpose, part: str) -> Iterator[str]:
    """A class that no case of a part shows."""
    if purpose.task is not Task.COVID or purpose.source is not Targets.LABELS:
        return
    cases = getattr(data, part)
    shown = {value for case in cases for value in case.label}
    missing = sorted(set(range(purpose.classes)) - shown)
    if cases and missing:
        yield f"{data.file}: no {part} case has label {missing[0]}."
