"""Whether what stands under one Series Instance UID is of several patients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from carina.dicom.part10 import OpenFile, find_data_set, open_file, reading
from carina.dicom.values import LONGEST_VALUE, tag_of
from carina.errors import BadSeries

TOLD_APART_BY = ("PatientID", "PatientName")
"""What is read for it, the first that is given counts."""


def patient_of(opened: OpenFile) -> str:
    """A digest that tells patients apart, whatever character set their files declare; empty where none is named."""
    elements = (opened.raw(keyword) for keyword in TOLD_APART_BY)
    return _digest([element.data if element else b"" for element in elements])


def patient_named_in(file: Path) -> str:
    """The same of a file, which is read no further than to that; empty where it is no DICOM file.

    Raises:
        BadSeries: it can't be followed so far, or can't be opened.
    """
    wanted = [tag_of(keyword) for keyword in TOLD_APART_BY]
    found: dict[int, bytes] = {}
    with reading(file) as stream:
        data_set = find_data_set(file.name, stream)
        for element in data_set.elements() if data_set else ():
            if element.tag > max(wanted):
                break
            if data_set and element.tag in wanted:
                found[element.tag] = data_set.value(element, LONGEST_VALUE).data
    return _digest([found.get(tag, b"") for tag in wanted])


def _digest(values: Sequence[bytes]) -> str:
    known = next(filter(None, (value.strip(b" \0") for value in values)), b"")
    return hashlib.sha256(known).hexdigest()[:16] if known else ""


def are_several(patients: Sequence[str]) -> bool:
    """Whether slices (or files) of these patients, one for each, are of more than one.

    Where one alone is named, all are theirs. Where each names another, and there are more than two, the naming is an
    anonymiser's. One that gave every file a name would have left none without: where some name nobody, what is named
    is told apart.
    """
    named = set(patients) - {""}
    return len(named) > 1 and not len(named) == len(patients) > 2


def patients_in(folder: Path) -> Mapping[str, str]:
    """The patient of every DICOM file in a folder by the file's name, whatever it holds; of none in what is damaged."""
    return {file.name: _patient_in(file) for file in sorted(folder.glob("*.dcm"))}


def patients_of(files: Iterable[Path]) -> Iterator[str]:
    """The patient of each of some files, in turn, as ``patients_in`` tells them."""
    return map(_patient_in, files)


def _patient_in(file: Path) -> str:
    try:
        opened = open_file(file, TOLD_APART_BY)
    except BadSeries:
        return ""
    return patient_of(opened) if opened else ""
