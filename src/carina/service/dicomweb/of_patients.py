"""A study whose objects are several patients': each patient's part of it is told as a study of theirs.

So do archives: one Study Instance UID under two patients is a mistake of whoever made it, and what is found under one
of them must not be said to be the other's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from carina.dicom.patients import are_several, patient_named_in
from carina.errors import BadSeries
from carina.service.dicomweb.held import Held
from carina.service.dicomweb.reach import changed_ns, check_reached


@dataclass(frozen=True, kw_only=True)
class PatientsPart:
    """The objects of a study that are one patient's, or that name none where others do."""

    objects: Sequence[Held]

    @cached_property
    def series(self) -> Mapping[str, Sequence[Held]]:
        """They, by their series."""
        found: dict[str, list[Held]] = {}
        for held in self.objects:
            found.setdefault(held.series_uid, []).append(held)
        return found

    def heads(self) -> Iterator[Held]:
        """One object of each batch in each series: by these a study is found, and the first found tells of it."""
        for members in self.series.values():
            yield from heads_of(members)


def heads_of(objects: Sequence[Held]) -> Iterator[Held]:
    """The first object of each batch among those of a series."""
    seen: set[str] = set()
    for held in objects:
        if held.batch not in seen:
            seen.add(held.batch)
            yield held


def patients_parts(objects: Sequence[Held]) -> list[PatientsPart]:
    """The objects of a study by whose they are; who came first is first.

    Raises:
        OutOfReach: a file can't be read.
    """
    of_batch: dict[str, str] = {}
    patients = [_patient(held, of_batch) for held in objects]
    if not are_several(patients):
        return [PatientsPart(objects=objects)] if objects else []
    found: dict[str, list[Held]] = {}
    for held, patient in zip(objects, patients, strict=True):
        found.setdefault(patient, []).append(held)
    return [PatientsPart(objects=part) for part in found.values()]


def _patient(held: Held, of_batch: dict[str, str]) -> str:
    if held.is_of_one and held.batch in of_batch:
        return of_batch[held.batch]
    found = of_batch[held.batch] = _patient_in(held.path, changed_ns(held.path))
    return found


@lru_cache(maxsize=50_000)
def _patient_in(path: Path, _: int) -> str:
    try:
        return patient_named_in(path)
    except BadSeries as error:
        check_reached(error, path)
        return ""
