"""Which object a file holds, read without its pixels or frames."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import UID, EncapsulatedPDFStorage, SegmentationStorage

from carina.config import ObjectKind

LAST_TAG = 0x0020000E
"""Series Instance UID: what identifies an object comes no later."""

LABEL_MAP_SEGMENTATION = UID("1.2.840.10008.5.1.4.1.1.66.7")

SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
"""Every structured report's SOP class lies below this (PS3.6 table A-1)."""


@dataclass(frozen=True, kw_only=True)
class ObjectIdentity:
    """The UIDs of one object, those of what it lies in, and the transfer syntax of its file."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str


def identity_of(file: Path) -> ObjectIdentity:
    """The UIDs in a DICOM file; empty where it has none, but it has a transfer syntax.

    Raises:
        OSError: the file can't be read.
        InvalidDicomError: it is no DICOM file.
    """
    with file.open("rb") as stream:
        header = read_partial(stream, lambda tag, *_: _is_beyond(tag))
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise InvalidDicomError(f"{file.name} names no transfer syntax")
    return ObjectIdentity(
        transfer_syntax_uid=str(syntax),
        sop_class_uid=str(header.get("SOPClassUID", "")),
        sop_instance_uid=str(header.get("SOPInstanceUID", "")),
        series_uid=str(header.get("SeriesInstanceUID", "")),
        study_uid=str(header.get("StudyInstanceUID", "")),
    )


def file_digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def kind_of(sop_class_uid: str) -> ObjectKind:
    """What a destination calls objects of this class in ``takes``."""
    if sop_class_uid in {SegmentationStorage, LABEL_MAP_SEGMENTATION}:
        return ObjectKind.SEG
    if sop_class_uid == EncapsulatedPDFStorage:
        return ObjectKind.PDF
    return ObjectKind.SR if UID(sop_class_uid).startswith(SR_CLASSES) else ObjectKind.OTHER


def _is_beyond(tag: BaseTag) -> bool:
    return int(tag) > LAST_TAG
