"""The source's patient and study, copied so that a study stays one study and every value is valid.

Anonymised and hand-made headers lack required attributes or hold values their VR forbids. What is required but may
be empty (type 2) is then left empty; anything else that is not valid is left out. Nothing is guessed. Names of people
and descriptions that are too long are cut; identifiers are not, since what is cut is another one.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement

from carina.dicom.series import Series
from carina.dicom.uids import derived_uid, is_uid
from carina.dicom.validity import is_broken, is_cut, valid_value
from carina.dicom.values import tag_of

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

LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

KEPT = ("PatientPosition", "KVP", "ConvolutionKernel")
"""What a derived CT image keeps of its source besides patient and study, where it is valid."""

AXES_DECIMALS = 9
"""Of unit vectors, which are computed: the last bits may differ between processors."""


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
    dataset.add(DataElement(tag_of("StudyInstanceUID"), "UI", study_uid(series), validation_mode=IGNORE))
    return dataset


def nameless_study(series: Series) -> Dataset:
    """The same study with its patient left empty, for makers that quote a patient's name in a warning."""
    dataset = patient_and_study(series)
    for keyword in ("PatientName", "ReferringPhysicianName"):
        setattr(dataset, keyword, "")
    return dataset


def study_uid(series: Series) -> str:
    """The source's Study Instance UID; where it has none that can be kept, one derived from the series."""
    return series.study_uid if is_uid(series.study_uid) else derived_uid("study", series.uid)


def frame_of_reference_uid(series: Series) -> str:
    """The source's Frame of Reference UID; where it has none that can be kept, one derived from the series."""
    stated = series.frame_of_reference_uid
    return stated if is_uid(stated) else derived_uid("frame of reference", series.uid)


def said_of(series: Series) -> tuple[str, ...]:
    """All that objects say of their source besides its UIDs: whose it is, where it lies and how it was acquired.

    A source that was corrected and sent again under the same UIDs has other words here, an unchanged one the same.
    """
    whose = (f"{element.keyword} {element.value}" for element in patient_and_study(series))
    kept = (f"{keyword} {valid_value(series.header, keyword)}" for keyword in (*KEPT, *LOSSY))
    return (*whose, *kept, *_geometry(series))


def _geometry(series: Series) -> tuple[str, ...]:
    """Frame of reference, matrix, spacing, orientation, and each slice's class and position."""
    axes = (round(value, AXES_DECIMALS) for axis in series.slice_axes for value in axis)
    return (
        f"frame of reference {frame_of_reference_uid(series)}",
        f"matrix {series.rows} {series.columns}",
        f"spacing {_numbers(series.pixel_spacing_mm)}",
        f"axes {_numbers(axes)}",
        *(f"{one.sop_class_uid} at {_numbers(one.position_mm)}" for one in series.instances),
    )


def _numbers(values: Iterable[float]) -> str:
    """Numbers in the shortest words that tell them apart; no negative zero."""
    return " ".join(repr(float(value) + 0.0) for value in values)


def notes(series: Series) -> tuple[str, ...]:
    """What had to be filled or left out, in sentences for the manifest; values are never quoted."""
    said: list[str] = []
    if not series.study_uid:
        said.append("Study Instance UID (0020,000D) is missing: the objects carry one derived from the series.")
    if not series.frame_of_reference_uid:
        said.append("Frame of Reference UID (0020,0052) is missing: the objects carry one derived from the series.")
    left_out = [keyword for keyword in (*REQUIRED, *OPTIONAL) if is_broken(series.header, keyword)]
    if left_out:
        said.append(f"{', '.join(left_out)}: not valid in the source, left out of the objects.")
    cut = [keyword for keyword in (*REQUIRED, *OPTIONAL) if is_cut(series.header, keyword)]
    if cut:
        said.append(f"{', '.join(cut)}: longer than 64 characters in the source, cut to 64 in the objects.")
    return tuple(said)
