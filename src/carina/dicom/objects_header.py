"""The source's patient and study, copied so that a study stays one study and every value is valid.

Anonymised and hand-made headers lack required attributes or hold values their VR forbids. What is required but may
be empty (type 2) is then left empty; anything else that is not valid is left out. Nothing is guessed.
"""

from __future__ import annotations

import re
from typing import Any

from pydicom import Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.valuerep import validate_value

from carina.dicom.series import Series
from carina.dicom.uids import derived_uid

REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Type 2 in the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): always written, empty where unknown."""

OPTIONAL = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
)

TERMS = {"PatientSex": ("M", "F", "O"), "PatientIdentityRemoved": ("YES", "NO")}

AGE = re.compile(r"\d{3}[DWMY]")


def patient_and_study(series: Series) -> Dataset:
    """A dataset with the Patient, General Study and Patient Study modules of the source, in UTF-8."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (*REQUIRED, *OPTIONAL):
        value = valid_value(series.header, keyword)
        if value is not None or keyword in REQUIRED:
            setattr(dataset, keyword, value or "")
    if dataset.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in dataset:
        dataset.DeidentificationMethod = "Not stated; see the source series"
    dataset.StudyInstanceUID = study_uid(series)
    return dataset


def nameless_study(series: Series) -> Dataset:
    """The same study with its patient left empty, for makers that quote a patient's name in a warning."""
    dataset = patient_and_study(series)
    for keyword in ("PatientName", "ReferringPhysicianName"):
        setattr(dataset, keyword, "")
    return dataset


def study_uid(series: Series) -> str:
    """The source's Study Instance UID; where it has none, one derived from the series."""
    return series.study_uid or derived_uid("study", series.uid)


def frame_of_reference_uid(series: Series) -> str:
    """The source's Frame of Reference UID; where it has none, one derived from the series."""
    return series.frame_of_reference_uid or derived_uid("frame of reference", series.uid)


def notes(series: Series) -> tuple[str, ...]:
    """What had to be filled or left out, in sentences for the manifest; values are never quoted."""
    said: list[str] = []
    if not series.study_uid:
        said.append("Study Instance UID (0020,000D) is missing: the objects carry one derived from the series.")
    if not series.frame_of_reference_uid:
        said.append("Frame of Reference UID (0020,0052) is missing: the objects carry one derived from the series.")
    left_out = [keyword for keyword in (*REQUIRED, *OPTIONAL) if _is_broken(series.header, keyword)]
    if left_out:
        said.append(f"{', '.join(left_out)}: not valid in the source, left out of the objects.")
    return tuple(said)


def valid_value(header: Dataset, keyword: str) -> Any:
    """The attribute's value as text or number if its VR allows it, else None."""
    try:
        value = header.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom raises many types while it converts a broken value
        return None
    if value is None or isinstance(value, (list, tuple)) or not str(value).strip():
        return None
    text = str(value).strip()
    if keyword in TERMS:
        return text if text in TERMS[keyword] else None
    if keyword == "PatientAge" and not AGE.fullmatch(text):
        return None
    try:
        validate_value(dictionary_VR(keyword), text, config.RAISE)
    except (ValueError, TypeError):
        return None
    return text if _prints(text) else None


def _prints(text: str) -> bool:
    return all(c.isprintable() for c in text)


def _is_broken(header: Dataset, keyword: str) -> bool:
    try:
        has_value = bool(str(header.get(keyword) or "").strip())
    except Exception:  # noqa: BLE001 - a value that can't be converted is one that was there
        has_value = True
    return has_value and valid_value(header, keyword) is None
