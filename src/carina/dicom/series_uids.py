"""UIDs of de-identified series that follow from what they say: one that says something else is another.

A series that was corrected comes under the UIDs that it had. Were those replaced by the same as before, an archive
would keep what it has, and results would refer to slices that say something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue

from carina.dicom.deidentify import PIXELS
from carina.dicom.pseudonyms import Pseudonyms

NOT_OF_A_SERIES = frozenset({"StudyInstanceUID", "FrameOfReferenceUID", "ReferencedFrameOfReferenceUID"})
"""What several series share; it stays as it is where somebody gave a series the same UID."""


def instance_digest(made: Dataset) -> str:
    """A digest of everything that an instance says, however it came: pixels are hashed as they are stored."""
    rest = Dataset()
    for element in made:
        if element.tag != PIXELS:
            rest.add(element)
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, rest)
    digest = hashlib.sha256(stream.getvalue())
    digest.update(made[PIXELS].value)
    return digest.hexdigest()


def series_uids(originals: Iterable[str], digests: Iterable[str], pseudonyms: Pseudonyms) -> Mapping[str, str]:
    """The UIDs of a series and its instances, by those that replaced the originals before it was known what they say.

    Every instance counts, in whatever order: a series that got a slice more is another one too, so that none holds
    slices of two versions.
    """
    said = hashlib.sha256(" ".join(sorted(digests)).encode()).hexdigest()
    return {pseudonyms.uid(original): pseudonyms.uid(original, said) for original in originals}


def give_uids(made: Dataset, uids: Mapping[str, str]) -> frozenset[str]:
    """Replace UIDs in an instance, references as well, and give every UID that is in it then."""
    standing: set[str] = set()
    for element in made.iterall():
        if element.VR == "UI" and element.value:
            values = [_given(str(value), element, uids) for value in _each(element)]
            element.value = values[0] if len(values) == 1 else values
            standing.update(values)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return frozenset(standing)


def _given(uid: str, element: DataElement, uids: Mapping[str, str]) -> str:
    return uid if element.keyword in NOT_OF_A_SERIES else uids.get(uid, uid)


def _each(element: DataElement) -> Iterable[str]:
    return element.value if isinstance(element.value, MultiValue) else [element.value]
