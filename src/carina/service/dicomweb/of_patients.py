"""A study whose objects are several patients': each patient's part of it is told as a study of theirs.

So do archives: one Study Instance UID under two patients is a mistake of whoever made it, and what is found under one
of them must not be said to be the other's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from threading import Lock

from carina.dicom.patients import are_several, patient_named_in
from carina.errors import BadSeries
from carina.service.dicomweb.held import Held
from carina.service.dicomweb.reach import changed_ns, check_reached

BATCHES_KEPT = 100_000
"""About 20 MB of them, where each is one patient's."""


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
    patients = _patients(objects)
    if not are_several(patients):
        return [PatientsPart(objects=objects)] if objects else []
    found: dict[str, list[Held]] = {}
    for held, patient in zip(objects, patients, strict=True):
        found.setdefault(patient, []).append(held)
    return [PatientsPart(objects=part) for part in found.values()]


def _patients(objects: Sequence[Held]) -> list[str]:
    """The patient of each object, batch by batch: of those that are known to be one patient's, one is read."""
    batches: dict[str, list[int]] = {}
    for number, held in enumerate(objects):
        batches.setdefault(held.batch if held.is_of_one else f"each of {held.batch}", []).append(number)
    found = [""] * len(objects)
    for numbers in batches.values():
        members = [objects[number] for number in numbers]
        read = members[:1] if members[0].is_of_one else members
        patients = _READ.patients([held.path for held in read])
        for number, patient in zip(numbers, patients * (len(members) // len(read)), strict=True):
            found[number] = patient
    return found


class _PatientsRead:
    """What was read of batches, each as long as its files stay as they are; of one patient's a single word is kept.

    A cache of single files would be run through by one search of a large node, and hold nothing for the next.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()

    def patients(self, paths: Sequence[Path]) -> tuple[str, ...]:
        """The patient of each file.

        Raises:
            OutOfReach: a file can't be read, of which nothing is kept then.
        """
        stamp = sha256("\0".join(f"{path}\0{changed_ns(path)}" for path in paths).encode("utf-8", "surrogateescape"))
        key = stamp.digest()
        with self._lock:
            known = self._kept.get(key)
        if known is None:
            read = tuple(map(_patient_in, paths))
            known = read[:1] if len(set(read)) == 1 else read
        with self._lock:
            self._kept[key] = known
            self._kept.move_to_end(key)
            while len(self._kept) > BATCHES_KEPT:
                self._kept.popitem(last=False)
        return known * len(paths) if len(known) == 1 else known


_READ = _PatientsRead()


def _patient_in(path: Path) -> str:
    try:
        return patient_named_in(path)
    except BadSeries as error:
        check_reached(error, path)
        return ""
