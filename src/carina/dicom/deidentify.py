"""A CT instance without its patient: a new dataset that gets only what can't identify anybody (PS3.15 E).

Nothing is copied because it was not forbidden: each element is judged, in sequences as well, and what can't be read,
or is not of the standard's own value representation, is left out. File meta information and preamble are made anew;
pixels are decoded and stored without compression, whose streams may carry comments.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy.typing as npt
from pydicom import Dataset
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
)
from pydicom.uid import LegacyConvertedEnhancedCTImageStorage as LegacyConvertedEnhancedCT

from carina.dicom.confidentiality import (
    CODES,
    DESCRIPTOR_TAGS,
    DEVICE_TAGS,
    EMPTY_KEYWORDS,
    HARMLESS_WORDS,
    KNOWN_TERMS,
    Deed,
    Profile,
    Retained,
)
from carina.dicom.pseudonyms import Pseudonyms
from carina.dicom.uids import is_uid
from carina.errors import BadSeries

TAKEN_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCT)
"""Of other classes (secondary capture, ultrasound, photographs, documents) the pixels may name the patient."""

DRAWN = frozenset({"SCREEN SAVE", "SCREENSHOT", "CAPTURE", "REPORT", "DOSE", "DOSE_INFO", "TEXT"})
"""Values of Image Type that say that text is drawn in the pixels."""

PIXELS = Tag(0x7FE0, 0x0010)
KERNEL = Tag(0x0018, 0x1210)

_NUMBERS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"})
_TEXT_NUMBERS = frozenset({"DS", "IS"})
_MOVED = frozenset({"DA", "DT", "TM"})
_NOT_READ = (AttributeError, KeyError, TypeError, ValueError, NotImplementedError, OverflowError, struct.error)
_CLOCK = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", re.ASCII)
_SMALL_NUMBER = re.compile(r"\d{1,2}([.,]\d{1,2})?(mm)?", re.ASCII)
_KERNEL = re.compile(
    r"FC\d\d|[BDHIQTU][rlvfcmu]?[1-8]\d[a-z]?|STANDARD|LUNG|BONE|BONEPLUS|DETAIL|EDGE|SOFT|CHEST|[A-EL]|Y[A-E]|\d",
    re.ASCII,
)
"""Names of reconstruction kernels, and Siemens' strength of the iteration."""

_FEW = frozenset(f"{age:03}Y" for age in range(90, 100))


def check_drawn(dataset: Dataset, name: str) -> None:
    """See that no text is expected in the pixels.

    Raises:
        BadSeries: ``deidentify.burned-in``, the class or an attribute says that there may be.
    """
    if dataset.get("SOPClassUID") not in TAKEN_CLASSES:
        kind = UID(str(dataset.get("SOPClassUID", ""))).name
        raise _burned_in(name, f"its class is {kind if kind in _NAMES else 'another'}")
    for keyword in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        if str(dataset.get(keyword) or "NO").strip().upper() != "NO":
            raise _burned_in(name, f"{keyword} is not NO")
    if "ConversionType" in dataset:
        raise _burned_in(name, "it was captured (Conversion Type)")
    drawn = {str(value).upper() for value in _values(dataset.get("ImageType"))} & DRAWN
    if drawn:
        raise _burned_in(name, f"Image Type says {min(drawn)}")


_NAMES = frozenset(entry[0] for entry in UID_dictionary.values())


def _burned_in(name: str, why: str) -> BadSeries:
    words = "its pixels may show the patient's name. Only CT images without burned-in text are de-identified."
    return BadSeries("deidentify.burned-in", f"{name}: {why}: {words}")


def deidentified(header: Dataset, frames: npt.NDArray[Any], profile: Profile, pseudonyms: Pseudonyms) -> Dataset:
    """An instance without its patient, in Explicit VR Little Endian, under the UIDs that replace those it had.

    ``series_uids`` gives those that it is sent under, once it is known what the whole series says.
    ``header`` is the data set without pixel data, ``frames`` its stored values, ``(frame, row, column)``, without
    the bits that the header leaves unused, where overlays were kept.
    """
    made = _judged(header, profile, pseudonyms)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(made, keyword, pseudonyms.uid(str(header.get(keyword, ""))))
    made.BitsAllocated = 8 * frames.dtype.itemsize
    made.BitsStored = min(int(header.BitsStored), made.BitsAllocated)
    made.HighBit = made.BitsStored - 1
    data = frames.astype(frames.dtype.newbyteorder("<")).tobytes()
    made.add(DataElement(PIXELS, "OW", data + bytes(len(data) % 2)))
    _name(made, profile, pseudonyms)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def _name(made: Dataset, profile: Profile, pseudonyms: Pseudonyms) -> None:
    """Say who it is now, and how it was de-identified (PS3.15 E.1.1, PS3.3 C.7.1.1 and C.12.1)."""
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientID = made.PatientName = pseudonyms.patient_id()
    for keyword in EMPTY_KEYWORDS:
        if keyword not in made:
            setattr(made, keyword, "")
    made.PatientIdentityRemoved = "YES"
    made.BurnedInAnnotation = "NO"
    made.DeidentificationMethod = "DICOM PS3.15 Basic Profile, by Carina"
    made.LongitudinalTemporalInformationModified = "MODIFIED" if Retained.DATES in profile.retained else "REMOVED"
    made.DeidentificationMethodCodeSequence = Items([_code(one) for one in (None, *sorted(profile.retained))])


def _code(option: Retained | None) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodeMeaning = CODES[option]
    code.CodingSchemeDesignator = "DCM"
    return code


def _judged(dataset: Dataset, profile: Profile, pseudonyms: Pseudonyms) -> Dataset:
    made = Dataset()
    for element in _elements(dataset):
        kept = _kept(element, profile, pseudonyms)
        if kept is not None:
            made.add(kept)
    return made


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    """The elements that can be read, with the value representation that the standard gives them."""
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
            if element.VR in dictionary_VR(element.tag).split(" or "):
                yield element
        except _NOT_READ:
            continue


def _kept(element: DataElement, profile: Profile, pseudonyms: Pseudonyms) -> DataElement | None:
    """What is left of an element."""
    deed = profile.deed(element.tag)
    if deed is Deed.UID:
        return _uids(element, pseudonyms)
    if _is_moved(element, profile):
        return _with(element, [_moved(str(value), element.VR, pseudonyms) for value in _values(element.value)])
    if deed is not Deed.JUDGE:
        return None
    return _items(element, profile, pseudonyms) if element.VR == "SQ" else _leaf(element, pseudonyms)


def _is_moved(element: DataElement, profile: Profile) -> bool:
    is_time = element.VR in _MOVED and not element.tag.is_private and element.keyword != "PatientBirthDate"
    return is_time and Retained.DATES in profile.retained


def _items(element: DataElement, profile: Profile, pseudonyms: Pseudonyms) -> DataElement | None:
    items = [_judged(item, profile, pseudonyms) for item in element.value]
    return _with(element, Items(items)) if any(len(item) for item in items) else None


def _leaf(element: DataElement, pseudonyms: Pseudonyms) -> DataElement | None:
    if element.tag in DEVICE_TAGS:  # only where the profile retains them
        return element
    if element.VR in _NUMBERS:
        return element if all(_is_number(value) for value in _values(element.value)) else None
    if element.VR in _TEXT_NUMBERS:
        return _with(element, [_number(value) for value in _values(element.value)])
    if element.VR == "UI":
        return _uids(element, pseudonyms)
    return _text(element)


def _text(element: DataElement) -> DataElement | None:
    values = [str(value) for value in _values(element.value)]
    if element.tag in KNOWN_TERMS:
        return _with(element, [term for value in values if (term := _term(value, element.tag))])
    if element.tag in DESCRIPTOR_TAGS:
        return _with(element, [_cleaned(value) for value in values])
    judge = _JUDGES.get(element.tag)
    return _with(element, values) if judge and all(map(judge, values)) else None


def _is_kernel(text: str) -> bool:
    return _KERNEL.fullmatch(text) is not None


def _is_age(text: str) -> bool:
    """Of ages over 89 years there are so few that they identify."""
    return re.fullmatch(r"0\d\d[DWMY]", text, re.ASCII) is not None and text not in _FEW


_JUDGES: Mapping[BaseTag, Callable[[str], bool]] = {KERNEL: _is_kernel, Tag(0x0010, 0x1010): _is_age}


def _term(value: str, tag: BaseTag) -> str:
    """A value if it is a known term; of a manufacturer, the word in it that is one."""
    words = [value.strip().upper(), *re.split(r"[^A-Z]+", value.upper())] if tag == _MANUFACTURER else [value.strip()]
    return next((word for word in words if word in KNOWN_TERMS[tag]), "")


_MANUFACTURER = Tag(0x0008, 0x0070)


def _cleaned(text: str) -> str:
    words = re.split(r"[\s_,;:/()]+", text)
    return " ".join(word for word in words if word.lower() in HARMLESS_WORDS or _SMALL_NUMBER.fullmatch(word))


def _moved(text: str, vr: str, pseudonyms: Pseudonyms) -> str:
    if vr == "TM":
        return text if _CLOCK.fullmatch(text) else ""
    day, clock = pseudonyms.moved_date(text[:8]), text[8:]
    return day + (clock if day and vr == "DT" and _CLOCK.fullmatch(clock) else "")


def _number(value: Any) -> str:
    """A number as it is written anew; empty where a text stands in its place."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return ""
    if not math.isfinite(number):
        return ""
    text = str(int(number)) if number.is_integer() and abs(number) < 1e12 else f"{number:.10g}"
    return text if len(text) <= 16 else f"{number:.8g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _uids(element: DataElement, pseudonyms: Pseudonyms) -> DataElement | None:
    if element.VR != "UI":
        return None
    return _with(element, [_uid(str(value), pseudonyms) for value in _values(element.value)])


def _uid(value: str, pseudonyms: Pseudonyms) -> str:
    """A UID of the standard's as it is, any other replaced; what is none is left out."""
    if value in UID_dictionary:
        return value
    return pseudonyms.uid(value) if is_uid(value) else ""


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]


def _with(element: DataElement, values: Any) -> DataElement | None:
    """The element with other values; None where one of them is empty."""
    if isinstance(values, list):
        if not values or not all(values):
            return None
        values = values[0] if len(values) == 1 else values
    return DataElement(element.tag, element.VR, values)
