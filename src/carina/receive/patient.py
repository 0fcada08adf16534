"""Whose scan it is, as far as two scans can be told to be one patient's, and when it was made."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from carina.dicom.validity import is_date

ASKED_OF_PATIENTS = ("PatientID", "IssuerOfPatientID", "PatientIdentityRemoved", "StudyDate", "StudyTime")
"""What is read for it."""

LONGEST_ID = 64
"""Characters of LO (PS3.5 6.2)."""

NO_PATIENT = re.compile(
    r"[\W_0]*|[\W_]*(anon(ymous|ymi[sz]ed)?[\d\W_]*|unknown|none|null|n/?a|no ?(patient ?)?id|test|dummy|x+)[\W_]*",
    re.IGNORECASE,
)
"""What scanners and de-identifiers write in place of an ID, for many patients at once."""

_DATE = re.compile(r"\d{8}", re.ASCII)
_TIME = re.compile(r"((?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d|60)?)?)(?:(?<=\d{6})\.\d*)?", re.ASCII)
"""Hours, with minutes, with seconds, with a fraction (TM, PS3.5 6.2)."""


@dataclass(frozen=True, kw_only=True)
class ScanOf:
    """A patient's ID and who issued it, and the study's date and time as digits; an empty ``patient_id`` is nobody's.

    The ID of a de-identified scan, one that stands for many patients and one that is no valid value are nobody's;
    ``nobody`` says which of these it is.
    """

    patient_id: str = ""
    issuer: str = ""
    studied: str = ""
    nobody: str = ""

    @property
    def not_sought(self) -> str:
        """Why no earlier scan can be asked for, in words without the patient; empty where one can."""
        return " and ".join(filter(None, (self.nobody, "" if self.studied else "it has no study date")))

    def whose(self, source: str) -> str:
        """What is the same of two scans of one patient, in hexadecimal digits; empty where it is nobody's.

        Two hospitals give one number to two people: without an issuer, the ID counts within the source that took it.
        The digest keeps the ID out of tables; it is no secret, since who knows IDs can try them.
        """
        if not self.patient_id:
            return ""
        parts = self.patient_id, self.issuer, "" if self.issuer else source
        return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def scan_of(said: Mapping[str, str]) -> ScanOf:
    """What a header says, by keyword."""
    studied = study_moment(said["StudyDate"], said["StudyTime"])
    if nobody := _why_nobody(said):
        return ScanOf(studied=studied, nobody=nobody)
    return ScanOf(patient_id=patient_key(said["PatientID"]), issuer=said["IssuerOfPatientID"].strip(), studied=studied)


def _why_nobody(said: Mapping[str, str]) -> str:
    """Why a scan's Patient ID is not one patient's; empty where it is."""
    if said["PatientIdentityRemoved"].strip().upper() == "YES":
        return "it says that the patient's identity was removed (Patient Identity Removed)"
    if not said["PatientID"].strip():
        return "it has no Patient ID"
    if not patient_key(said["PatientID"]):
        return "its Patient ID is no valid one, or one that stands for many patients, as ANONYMOUS does"
    if not _is_value(said["IssuerOfPatientID"].strip()):
        return "its Issuer of Patient ID is no valid value"
    return ""


def patient_key(text: str) -> str:
    """A Patient ID by which a patient is known; empty where it is none."""
    text = text.strip()
    return text if text and _is_value(text) and not NO_PATIENT.fullmatch(text) else ""


def _is_value(text: str) -> bool:
    return len(text) <= LONGEST_ID and "\\" not in text and text.isprintable() if text else True


def study_moment(date: str, time: str) -> str:
    """A study's date and time as digits, to hours, minutes or seconds as they are given; empty where no date is
    or one that there is not.

    Without the time where that is no time. ``is_earlier`` compares two of them.
    """
    found = _DATE.fullmatch(date.strip())
    clock = _TIME.fullmatch(time.strip())
    return found.group() + (clock[1] if clock else "") if found and is_date(found.group()) else ""


def is_earlier(one: str, other: str) -> bool:
    """Whether the first of two moments of studies is known to be the earlier one: what both give has to differ."""
    return one < other and not other.startswith(one)
