"""What a value of each VR may be (PS3.5 6.2), for values that are copied from a stranger's header into our objects."""

from __future__ import annotations

import math
import re
from datetime import date

from pydicom import Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue

from carina.dicom.uids import is_uid
from carina.dicom.values import BINARY, NUMBER_TEXT, UNKNOWN, decoded, tag_of

VR_CHARACTERS = {"LO": 64, "SH": 16, "DS": 16, "IS": 12}

PERSON_GROUPS, PERSON_COMPONENTS, PERSON_CHARACTERS = 3, 5, 64
"""Alphabetic, ideographic and phonetic form; family to suffix; characters of each form."""

FORMS = {
    "AS": re.compile(r"\d{3}[DWMY]", re.ASCII),
    "CS": re.compile(r"[A-Z0-9 _]{1,16}"),
    "IS": re.compile(r"[+-]?\d+", re.ASCII),
    "TM": re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", re.ASCII),
}

TERMS = {"PatientSex": {"M", "F", "O"}, "PatientIdentityRemoved": {"YES", "NO"}}
"""Attributes that allow a few words only."""

DESCRIPTIONS = frozenset({"StudyDescription", "SeriesDescription", "DeidentificationMethod", "ConvolutionKernel"})
"""Free text, in which a control character is worth no more than the space it becomes."""


CUT_TEXTS = frozenset({"StudyDescription", "SeriesDescription", "DeidentificationMethod"})
"""Beside names of people, what says the same where its end is missing: an identifier that is cut is another one."""


def valid_value(header: Dataset, keyword: str) -> str | None:
    """An attribute's value if its VR, multiplicity and terms allow it, else None; several are joined by a backslash.

    Names of people and descriptions that are too long, and valid otherwise, are cut to what is allowed.
    """
    values = [_cut(keyword, value) for value in _spaced_values(header, keyword)]
    is_single = dictionary_VM(tag_of(keyword)) == "1"
    if not any(values) or (is_single and len(values) > 1) or not set(values) <= TERMS.get(keyword, set(values)):
        return None
    vr = dictionary_VR(tag_of(keyword))
    return "\\".join(values) if all(is_valid(vr, value) for value in values) else None


def is_cut(header: Dataset, keyword: str) -> bool:
    """Whether an attribute's value is valid but for its length, and is cut."""
    stated = _spaced_values(header, keyword)
    return valid_value(header, keyword) is not None and any(_cut(keyword, value) != value for value in stated)


def _cut(keyword: str, value: str) -> str:
    """The value as long as is allowed, where its length alone is wrong."""
    if not _is_readable(value):
        return value
    if dictionary_VR(tag_of(keyword)) == "PN":
        cut = "=".join(_cut_to(PERSON_CHARACTERS, group, " ^") for group in value.split("="))
        return cut if _has_components(value) else value
    return _cut_to(VR_CHARACTERS["LO"], value, " ") if keyword in CUT_TEXTS else value


def _cut_to(longest: int, text: str, loose_ends: str) -> str:
    return text if len(text) <= longest else text[:longest].rstrip(loose_ends)


def _spaced_values(header: Dataset, keyword: str) -> list[str]:
    return [_spaced(value) if keyword in DESCRIPTIONS else value for value in _stated(header, keyword)]


def _spaced(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text).strip()


def is_broken(header: Dataset, keyword: str) -> bool:
    """Whether an attribute holds something, and that is not valid."""
    return any(_stated(header, keyword)) and valid_value(header, keyword) is None


def _stated(header: Dataset, keyword: str) -> list[str]:
    """An attribute's values as text, whatever they are; none where it is absent or empty. Never raises."""
    tag = tag_of(keyword)
    element = header.get_item(tag) if tag in header else None
    if element is None:
        return []
    if isinstance(element, RawDataElement):
        values = _decoded(header, element)
    elif isinstance(element.value, (list, tuple, MultiValue)):
        values = [str(value) for value in element.value]
    else:
        values = ["" if element.value is None else str(element.value)]
    values = [value.strip(" \0") for value in values]
    return values if any(values) else []


def _decoded(header: Dataset, element: RawDataElement) -> list[str]:
    """The texts of an element that pydicom has not converted yet: it would guess at what it can't decode."""
    if element.VR in BINARY:
        return [UNKNOWN]
    is_own = element.tag == tag_of("SpecificCharacterSet")
    return decoded(element.value or b"", () if is_own else _stated(header, "SpecificCharacterSet")).split("\\")


def is_valid(vr: str, text: str) -> bool:
    """Whether one value is what its VR allows, without characters that don't print or couldn't be read."""
    if not _is_readable(text) or "\\" in text or len(text) > VR_CHARACTERS.get(vr, len(text)):
        return False
    if vr in VR_CHECKS:
        return VR_CHECKS[vr](text)
    return vr not in FORMS or FORMS[vr].fullmatch(text) is not None


def _is_readable(text: str) -> bool:
    return text.isprintable() and UNKNOWN not in text


def _is_name(text: str) -> bool:
    return _has_components(text) and all(len(group) <= PERSON_CHARACTERS for group in text.split("="))


def _has_components(name: str) -> bool:
    groups = name.split("=")
    return len(groups) <= PERSON_GROUPS and all(group.count("^") < PERSON_COMPONENTS for group in groups)


def is_date(text: str) -> bool:
    """Whether a text is a day as DICOM writes it, and one that there is: ``20260304``."""
    if len(text) != 8 or not (text.isascii() and text.isdigit()):
        return False
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def _is_decimal(text: str) -> bool:
    return NUMBER_TEXT.fullmatch(text) is not None and math.isfinite(float(text))


VR_CHECKS = {"DA": is_date, "DS": _is_decimal, "PN": _is_name, "UI": is_uid}
