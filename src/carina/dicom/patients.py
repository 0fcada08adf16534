"""Whether what stands under one Series Instance UID is of several patients."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from carina.dicom.part10 import OpenFile, open_file
from carina.errors import BadSeries

TOLD_APART_BY = ("PatientID", "PatientName")
"""What is read for it, the first that is given counts."""


def patient_of(opened: OpenFile) -> str:
    """A digest that tells patients apart, whatever character set their files declare; empty where none is named."""
    elements = (opened.raw(keyword) for keyword in TOLD_APART_BY)
    known = next(filter(None, (element.data.strip(b" \0") for element in elements if element)), b"")
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


def _patient_in(file: Path) -> str:
    try:
        opened = open_file(file, TOLD_APART_BY)
    except BadSeries:
        return ""
    return patient_of(opened) if opened else ""
