"""One instance on its way in: its file meta information, and the UIDs that its data set says."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from carina import __version__
from carina.database import FOLDER_AWAY
from carina.database.intact import FILE_BEGINS
from carina.dicom.part10 import OpenFile, open_file
from carina.dicom.patients import TOLD_APART_BY, patient_of
from carina.dicom.syntaxes import ENCAPSULATED, IMPLICIT, NATIVE
from carina.dicom.uids import is_uid
from carina.errors import CarinaError
from carina.receive.patient import ASKED_OF_PATIENTS, ScanOf, scan_of

IMPLEMENTATION_UID = "2.25.196411270312455110861049215377028134157"
"""Names Carina as the writer of a file's meta information; drawn once at random (PS3.5 annex B.2)."""

WHOSE_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
UID_BYTES = re.compile(rb"[0-9.]+[ \0]?")

ASKED = (
    *WHOSE_UIDS,
    "Modality",
    "StudyDescription",
    "SeriesDescription",
    "Manufacturer",
    *ASKED_OF_PATIENTS,
)


class NotAccepted(CarinaError):
    """An instance that is not accepted; ``status`` is the DIMSE status that its sender gets."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code, message)
        self.status = status


NO_ROOM = 0xA700
WRONG_CLASS = 0xA900
NOT_UNDERSTOOD = 0xC000
"""Statuses of the storage service (PS3.4 table B.2-1): out of resources, data set and class differ, not understood."""

FULL_CODE, UNWRITABLE_CODE = "receive.disk-full", "receive.unwritable"
TAKEN_LATER = (FULL_CODE, UNWRITABLE_CODE, FOLDER_AWAY)
"""Codes of what is refused now and may be taken later: it is the node that can't, whatever is sent."""


@dataclass(frozen=True, kw_only=True)
class Announced:
    """What a sender says that an instance is, and how it is encoded.

    ``is_agreed`` is whether the transfer syntax was agreed on for it. That of a file is what whoever wrote it once
    said, and many are wrong.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    is_agreed: bool = False


@dataclass(frozen=True, kw_only=True)
class Arriving(Announced):
    """A data set as it came, encoded in its transfer syntax."""

    data: bytes | memoryview


@dataclass(frozen=True, kw_only=True)
class Header:
    """What decides where an instance belongs, and what lists say of it; ``patient`` is as ``patient_of`` has it."""

    study_uid: str
    series_uid: str
    modality: str
    manufacturer: str
    study_description: str
    series_description: str
    scan: ScanOf
    patient: str


def file_head(said: Announced) -> bytes:
    """The preamble and the file meta information (PS3.10 7.1) of the file that is to hold a data set."""
    elements = b"".join(
        (
            _element(0x01, b"OB", b"\x00\x01"),
            _element(0x02, b"UI", said.sop_class_uid.encode()),
            _element(0x03, b"UI", said.sop_instance_uid.encode()),
            _element(0x10, b"UI", said.transfer_syntax_uid.encode()),
            _element(0x12, b"UI", IMPLEMENTATION_UID.encode()),
            _element(0x13, b"SH", f"CARINA_{__version__}"[:16].encode()),
        )
    )
    return FILE_BEGINS + _element(0x00, b"UL", struct.pack("<I", len(elements))) + elements


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 0002 in explicit VR little endian (PS3.5 7.1.2), its value padded to an even length."""
    value += (b"\x00" if vr == b"UI" else b" ") * (len(value) % 2)
    size = struct.pack("<HI", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH", 0x0002, element) + vr + size + value


def check_uids(said: Announced) -> None:
    """See that what a sender says of an instance can be true, before a byte of it is written.

    Raises:
        NotAccepted: a UID is none.
    """
    named = {
        "SOP Class UID": said.sop_class_uid,
        "SOP Instance UID": said.sop_instance_uid,
        "transfer syntax": said.transfer_syntax_uid,
    }
    for name, uid in named.items():
        if not is_uid(uid):
            raise NotAccepted(
                NOT_UNDERSTOOD, "receive.uid", f"{name} {uid[:80]!r} is no UID; expected digits and dots."
            )


def header_of(file: Path, said: Announced) -> Header:
    """What the written data set itself says, which must be what the sender said.

    Raises:
        NotAccepted: it can't be read, ends early, names another instance or class, or lacks a UID.
    """
    uid = said.sop_instance_uid
    try:
        opened = open_file(file, (*ASKED, *TOLD_APART_BY), to_its_end=True)
    except CarinaError as error:
        words = error.message.removeprefix(f"{file.name}: ")
        raise NotAccepted(NOT_UNDERSTOOD, error.code, f"instance {uid}: {words}") from error
    if opened is None:
        raise NotAccepted(NOT_UNDERSTOOD, "receive.no-data-set", f"instance {uid}: what came is no DICOM data set.")
    if said.is_agreed:
        _check_encoding(opened, said)
    for keyword in WHOSE_UIDS:
        _check_padding(opened, keyword, uid)
    found = {keyword: opened.text(keyword) for keyword in ASKED}
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if not is_uid(found[keyword]):
            raise NotAccepted(NOT_UNDERSTOOD, "receive.uid", f"instance {uid}: its {keyword} is missing or no UID.")
    if found["SOPInstanceUID"] != uid or found["SOPClassUID"] != said.sop_class_uid:
        raise NotAccepted(
            WRONG_CLASS, "receive.differs", f"instance {uid}: its data set names another instance or class."
        )
    return Header(
        study_uid=found["StudyInstanceUID"],
        series_uid=found["SeriesInstanceUID"],
        modality=found["Modality"],
        manufacturer=found["Manufacturer"],
        study_description=found["StudyDescription"],
        series_description=found["SeriesDescription"],
        scan=scan_of(found),
        patient=patient_of(opened),
    )


def _check_padding(opened: OpenFile, keyword: str, uid: str) -> None:
    """See that nothing follows a UID but the byte that makes its length even: a NUL (PS3.5 9.1), or a blank.

    An instance with more, as a line feed, is refused. Its file would be kept exactly, yet rows, queries and results
    would name it without what follows: under two UIDs, of which archives that compare bytes take either for another
    object. Whoever writes it has to mend it. One blank is what many devices pad with, and everybody reads as padding.
    """
    raw = opened.raw(keyword)
    data = raw.data if raw is not None else b""
    if UID_BYTES.fullmatch(data) or not data.strip(b" \0"):  # one that is missing is told as that
        return
    words = f"instance {uid}: its {keyword} has more than digits, dots and one byte of padding: {data[:80]!r}"
    raise NotAccepted(NOT_UNDERSTOOD, "receive.uid", f"{words}; the sender has to mend it.")


def _check_encoding(opened: OpenFile, said: Announced) -> None:
    """See that a data set is encoded as was agreed; elsewhere it could not be read under that name.

    Of a transfer syntax that is not read here it isn't known how it is encoded: some vendors' own are implicit.
    """
    syntax = said.transfer_syntax_uid
    if syntax not in (*NATIVE, *ENCAPSULATED) or opened.is_implicit == (syntax == IMPLICIT):
        return
    is_written, agreed = ("Implicit", "Explicit") if opened.is_implicit else ("Explicit", "Implicit")
    words = (
        f"instance {said.sop_instance_uid}: its data set is in {is_written} VR, agreed on was {agreed} VR "
        f"({syntax}); the sender has to send what it negotiates."
    )
    raise NotAccepted(NOT_UNDERSTOOD, "receive.encoding", words)
