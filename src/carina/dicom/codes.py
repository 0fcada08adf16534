"""Coded terms: what a segment is, where it lies, what is measured.

Codes that PS3.16 lists are compared with pydicom's tables by a test; ``UNLISTED`` names the others and their source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydicom.sr.coding import Code

PRIVATE_SCHEME = "99CARINA"

ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
TISSUE = Code("85756007", "SCT", "Tissue")
LUNG = Code("39607008", "SCT", "Lung")
LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")
SUPERIOR = Code("264217000", "SCT", "Superior")
INTERMEDIATE = Code("11896004", "SCT", "Intermediate")
INFERIOR = Code("261089000", "SCT", "Inferior")
INFILTRATE = Code("112121", "DCM", "Infiltrate")
GROUND_GLASS = Code("112120", "DCM", "Ground glass opacity")
CONSOLIDATION = Code("RID43255", "RADLEX", "consolidation")
COVID_19 = Code("840539006", "SCT", "COVID-19")

VOLUME = Code("118565006", "SCT", "Volume")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
MEAN = Code("373098007", "SCT", "Mean")
LESION_RATIO = Code("lesion-ratio", PRIVATE_SCHEME, "Lesion volume as a part of lung volume")
LESION_COUNT = Code("lesion-count", PRIVATE_SCHEME, "Number of separate lesions")
LESION_VOLUME = Code("lesion-volume", PRIVATE_SCHEME, "Volume of lesion in region")

ML = Code("cm3", "UCUM", "cubic centimeter")
PERCENT = Code("%", "UCUM", "Percent")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
NO_UNITS = Code("1", "UCUM", "no units")

CHEST_CT = Code("24627-2", "LN", "CT Chest Report")
SEGMENTED = Code("113076", "DCM", "Segmentation")
SOURCE_OF_PROCESSING = Code("121322", "DCM", "Source image for image processing operation")
MODIFYING = Code("109103", "DCM", "Modifying Equipment")
FINDINGS_SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")
WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
AI_FAMILY = Code("123110", "DCM", "Artificial Intelligence")

UNLISTED = {
    COVID_19: "SNOMED CT 2020-03 interim release, COVID-19 (disorder)",
    CONSOLIDATION: "RadLex, RSNA",
}
"""Codes that no table of PS3.16 lists, with where they come from."""


class Structure(StrEnum):
    """What a segment can be."""

    LUNGS = "lungs"
    LEFT_LUNG = "left lung"
    RIGHT_LUNG = "right lung"
    LESION = "COVID-19 lesion"
    GROUND_GLASS = "ground-glass opacity"
    CONSOLIDATION = "consolidation"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class SegmentCodes:
    """The codes of a segment (PS3.3 C.8.20.4) and the colour it is shown in, CIE L*a*b*."""

    category: Code
    kind: Code
    modifiers: tuple[Code, ...] = ()
    region: Code | None = None
    region_modifier: Code | None = None
    color_lab: tuple[float, float, float] = (70.0, 0.0, 0.0)


BLUE_LAB = (62.0, -9.0, -38.0)
GREEN_LAB = (72.0, -42.0, 16.0)
ORANGE_LAB = (68.0, 33.0, 68.0)
YELLOW_LAB = (88.0, -6.0, 70.0)
PURPLE_LAB = (62.0, 36.0, -16.0)

SEGMENT_CODES = {
    Structure.LUNGS: SegmentCodes(category=ANATOMICAL_STRUCTURE, kind=LUNG, color_lab=BLUE_LAB),
    Structure.LEFT_LUNG: SegmentCodes(category=ANATOMICAL_STRUCTURE, kind=LUNG, modifiers=(LEFT,), color_lab=BLUE_LAB),
    Structure.RIGHT_LUNG: SegmentCodes(
        category=ANATOMICAL_STRUCTURE, kind=LUNG, modifiers=(RIGHT,), color_lab=GREEN_LAB
    ),
    Structure.LESION: SegmentCodes(
        category=ABNORMAL_STRUCTURE, kind=INFILTRATE, modifiers=(COVID_19,), region=LUNG, color_lab=ORANGE_LAB
    ),
    Structure.GROUND_GLASS: SegmentCodes(
        category=ABNORMAL_STRUCTURE, kind=GROUND_GLASS, region=LUNG, color_lab=ORANGE_LAB
    ),
    Structure.CONSOLIDATION: SegmentCodes(
        category=ABNORMAL_STRUCTURE, kind=CONSOLIDATION, region=LUNG, color_lab=PURPLE_LAB
    ),
    Structure.OTHER: SegmentCodes(category=TISSUE, kind=TISSUE, color_lab=YELLOW_LAB),
}

WORDS = (
    ("groundglass", Structure.GROUND_GLASS),
    ("ggo", Structure.GROUND_GLASS),
    ("consolidation", Structure.CONSOLIDATION),
    ("lesion", Structure.LESION),
    ("covid", Structure.LESION),
    ("infiltrat", Structure.LESION),
    ("leftlung", Structure.LEFT_LUNG),
    ("lungleft", Structure.LEFT_LUNG),
    ("rightlung", Structure.RIGHT_LUNG),
    ("lungright", Structure.RIGHT_LUNG),
    ("lung", Structure.LUNGS),
)
"""Word in a label name (letters only, lower case) and what it means; the first that occurs wins."""


def structure_of(label: str) -> Structure:
    """What a segment's name means: ``Lung-seg``, ``GroundGlass-seg``, ``left lung``, ``COVID-19 lesion``.

    A name without a known word is ``OTHER``, coded as tissue: its own text then says what it is.
    """
    letters = "".join(c for c in label.lower() if c.isalpha())
    return next((structure for word, structure in WORDS if word in letters), Structure.OTHER)


def tracked_names(labels: Sequence[str]) -> list[str]:
    """What segments are tracked by, one for each label and each another: the structure's name where one shows it.

    Of several that show one structure only the first has its name, the others their label.
    """
    names: list[str] = []
    for number, label in enumerate(labels, start=1):
        structure = structure_of(label)
        wanted = [label] if structure is Structure.OTHER else [structure.value, label]
        names.append(next((one for one in wanted if one not in names), f"{label} {number}"))
    return names


def probability_code(name: str) -> Code:
    """The private code of a class probability: ``COVID-19`` gives ``p-covid-19``, at most 16 characters."""
    return Code(f"p-{name.lower().replace(' ', '-')}"[:16], PRIVATE_SCHEME, f"Probability of {name}"[:64])
