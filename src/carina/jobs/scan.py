"""What lists show of the scan that a job runs on, and find it by: columns of its row; nobody's name or ID."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carina.database import LONGEST_CODE
from carina.dicom.uids import is_uid
from carina.dicom.validity import is_date
from carina.errors import one_line

NOT_DESCRIBED = "series without a description"

_DIGITS = re.compile(r"\d{8}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class KnownScan:
    """What headers say of a series; ``study_date`` is as 2026-03-04. What is not known is empty."""

    study_uid: str = ""
    study_date: str = ""
    study_description: str = ""
    series_description: str = ""
    modality: str = ""

    @property
    def words(self) -> str:
        """Date and description; empty where there is neither."""
        return ", ".join(filter(None, (self.study_date, self.series_description)))

    @property
    def called(self) -> str:
        """What lists call what arrived."""
        return self.words or NOT_DESCRIBED


NOTHING_SAID = KnownScan()

SCAN_KEYWORDS = ("StudyInstanceUID", "StudyDate", "StudyDescription", "SeriesDescription", "Modality")
"""What is read for it."""


def scan_of_header(said: Mapping[str, str]) -> KnownScan:
    """What a header says, by keyword."""
    uid, code = said.get("StudyInstanceUID", ""), said.get("Modality", "")
    return KnownScan(
        study_uid=uid if is_uid(uid) else "",
        study_date=iso_date(said.get("StudyDate", "")),
        study_description=one_line(said.get("StudyDescription", "")),
        series_description=one_line(said.get("SeriesDescription", "")),
        modality=code if len(code) <= LONGEST_CODE else "",
    )


def path_words(name: str, scan: KnownScan) -> str:
    """What lists call what was handed in by path: a folder's or file's name, and what is known of the scan."""
    return f"{name}: {scan.words}" if scan.words else name


def iso_date(digits: str) -> str:
    """The date that digits begin with, as 2026-03-04; empty where they are none that there is."""
    found = _DIGITS.match(digits.strip())
    return f"{found[0][:4]}-{found[0][4:6]}-{found[0][6:]}" if found and is_date(found[0]) else ""


def scan_columns(scan: KnownScan, words: str) -> dict[str, Any]:
    """The columns of a job's row; ``words`` are what lists call what it runs on."""
    called = one_line(words)
    return {
        "study_uid": scan.study_uid,
        "study_date": scan.study_date,
        "study_description": scan.study_description,
        "series_description": scan.series_description,
        "modality": scan.modality,
        "described": called,
        "searched": "\n".join((called, scan.study_description, scan.series_description)).casefold(),
    }
