"""What de-identification does to each attribute: the Basic Application Level Confidentiality Profile (PS3.15 E).

Table E.1-1 comes from ``dicom-anonymizer``, which keeps it up to date with the standard. The profile lets attributes
that it doesn't list be kept; here they are kept only where their value can't hold a text, or is one of known terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import import_module

from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag, Tag

TABLE = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"


class Deed(StrEnum):
    """What is done to an attribute's value."""

    REMOVE = "remove"
    EMPTY = "empty"
    UID = "uid"
    JUDGE = "judge"
    """Not in the table: kept where its value can't identify anybody."""


class Retained(StrEnum):
    """Options of the profile (PS3.15 E.3): what is kept after all, or cleaned in place of being removed."""

    DATES = "dates"
    """Retain Longitudinal Temporal Information With Modified Dates: all of a patient's dates, moved by one time."""
    DEVICE = "device"
    """Retain Device Identity."""
    PATIENT = "patient"
    """Retain Patient Characteristics."""
    DESCRIPTORS = "descriptors"
    """Clean Descriptors: of a description, the words that are known to name no one."""


CODES: Mapping[Retained | None, tuple[str, str]] = {
    None: ("113100", "Basic Application Confidentiality Profile"),
    Retained.DATES: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    Retained.DEVICE: ("113109", "Retain Device Identity Option"),
    Retained.PATIENT: ("113108", "Retain Patient Characteristics Option"),
    Retained.DESCRIPTORS: ("113105", "Clean Descriptors Option"),
}
"""Codes of De-identification Method Code Sequence (PS3.16 CID 7050)."""

EMPTY_KEYWORDS = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
)
"""Type 2 in every image's Patient and General Study modules: left empty where they are not retained."""

_UID_GROUPS = ("U_TAGS",)
_OTHER_GROUPS = ("D_TAGS", "Z_TAGS", "X_TAGS", "Z_D_TAGS", "X_Z_TAGS", "X_D_TAGS", "X_Z_D_TAGS", "X_Z_U_STAR_TAGS")


def _tags(*keywords: str) -> frozenset[BaseTag]:
    return frozenset(Tag(tag) for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None)


DEVICE_TAGS = _tags(
    "StationName",
    "DeviceSerialNumber",
    "DeviceUID",
    "DeviceID",
    "GantryID",
    "GeneratorID",
    "DetectorID",
    "XRaySourceID",
    "XRayDetectorID",
    "SourceManufacturer",
    "PerformedStationName",
    "ScheduledStationName",
    "LensMake",
    "LensModel",
    "LensSerialNumber",
)

PATIENT_TAGS = _tags("PatientSex", "PatientAge", "PatientSize", "PatientWeight", "SmokingStatus", "PregnancyStatus")

DESCRIPTOR_TAGS = _tags(
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
    "ContrastBolusAgent",
    "AcquisitionProtocolDescription",
)

OPTION_TAGS = {
    Retained.DEVICE: DEVICE_TAGS,
    Retained.PATIENT: PATIENT_TAGS,
    Retained.DESCRIPTORS: DESCRIPTOR_TAGS,
}

_HARMLESS = """
abdomen abdominal adult angio apex arterial axial base body bone brain brust c+ c- cap cardiac chest contrast
coronal covid covid-19 ct cta dose expiration expiratory follow followup hd helical hr hrct hu inspiration
inspiratory ir iterative kernel localizer low lung lunge lungs mediastinum mip mm mpr native neck non no oblique
paediatric pediatric pelvis plain portal post pre prone protocol pulmonary recon reconstruction routine sagittal
scan scout screening series soft spiral standard standing supine thick thin thorax tissue topogram ultra upper up
vein venous volume w window with without wo
"""

HARMLESS_WORDS = frozenset(_HARMLESS.split())
"""Words that a cleaned description may keep, beside numbers of one or two digits with or without ``mm``."""

KNOWN_TERMS: Mapping[BaseTag, frozenset[str]] = {
    Tag(tag): frozenset(terms.split())
    for keyword, terms in {
        "ImageType": "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER MPR MIP MINIP AVERAGE HELIX CT_SOM5 VOLUME "
        "RESAMPLED SPI SEQ STD NONE MIXED PROJECTION REFORMATTED MULTIPLANAR SNRG DET_AB",
        "FrameType": "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER MPR VOLUME NONE MIXED RESAMPLED",
        "Modality": "CT",
        "PhotometricInterpretation": "MONOCHROME1 MONOCHROME2",
        "PatientPosition": "HFS HFP HFDR HFDL FFS FFP FFDR FFDL",
        "RotationDirection": "CW CC",
        "RescaleType": "HU US",
        "LossyImageCompression": "00 01",
        "BodyPartExamined": "CHEST THORAX LUNG ABDOMEN CHESTABDOMEN CHESTABDPELVIS WHOLEBODY HEAD NECK",
        "Laterality": "L R",
        "PatientSex": "M F O",
        "SmokingStatus": "YES NO UNKNOWN",
        "PixelPresentation": "COLOR MONOCHROME MIXED TRUE_COLOR",
        "VolumetricProperties": "VOLUME SAMPLED DISTORTED MIXED",
        "VolumeBasedCalculationTechnique": "NONE MAX_IP MIN_IP VOLUME_RENDER SURFACE_RENDER MPR CURVED_MPR MIXED",
        "AcquisitionType": "SEQUENCED SPIRAL CONSTANT_ANGLE STATIONARY FREE",
        "ExposureModulationType": "NONE",
        "ContentQualification": "PRODUCT RESEARCH SERVICE",
        "Manufacturer": "GE SIEMENS PHILIPS TOSHIBA CANON HITACHI UIH NEUSOFT CARINA",
    }.items()
    if (tag := tag_for_keyword(keyword)) is not None
}
"""What of code strings, and of two texts, is kept: values of which every one is among the known terms."""


@dataclass(frozen=True)
class Profile:
    """The basic profile with options."""

    retained: frozenset[Retained] = frozenset()

    def deed(self, tag: BaseTag) -> Deed:
        """What is done to an attribute; a private one is never kept."""
        if tag.is_private or _is_overlay_or_curve(tag):
            return Deed.REMOVE
        option = next((option for option, tags in OPTION_TAGS.items() if tag in tags), None)
        if option in self.retained:
            return Deed.JUDGE
        return table().get(tag, Deed.REMOVE if option else Deed.JUDGE)


def _is_overlay_or_curve(tag: BaseTag) -> bool:
    """Groups 50xx and 60xx: drawn over the image, and often the patient's name."""
    return tag.group >> 8 in (0x50, 0x60)


@cache
def table() -> Mapping[BaseTag, Deed]:
    """Table E.1-1 without its repeating groups: what is to be replaced by a dummy is emptied or removed here."""
    found = import_module(TABLE)
    deeds = {Tag(tag): Deed.REMOVE for group in _OTHER_GROUPS for tag in getattr(found, group) if len(tag) == 2}
    deeds |= {Tag(tag): Deed.UID for group in _UID_GROUPS for tag in getattr(found, group)}
    return deeds | {Tag(tag): Deed.EMPTY for keyword in EMPTY_KEYWORDS if (tag := tag_for_keyword(keyword))}
