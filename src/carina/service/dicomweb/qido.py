"""QIDO-RS (PS3.18 10.6): search for studies, series and instances."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from itertools import islice

from pydicom.datadict import dictionary_VR

from carina.service.dicomweb.attributes import (
    Attributes,
    attribute,
    header_record,
    hex_tag,
    known_keyword,
    matches,
)
from carina.service.dicomweb.held import Held, objects_of, study_uids
from carina.service.node import RunningNode
from carina.service.problems import NotUnderstood

_USUAL, _MOST = 100, 1000
"""Results of one answer: where nothing is said, and at most."""

_MOST_OF_A_STUDY = 10_000
"""Series or instances of one study in one answer, at most and where nothing is said."""

_DATES = re.compile(r"|\d{8}|\d*[*?][\d*?]*|\d{8}-(\d{8})?|-\d{8}", re.ASCII)
"""A date or a range of dates (PS3.4 C.2.2.2.5); with wild cards too, as some clients ask."""

_DAY = re.compile(r"(?<!\d)\d{8}(?![\d*?])", re.ASCII)

MOST_UIDS = 100
"""In a list of one request: each study is looked up by itself."""


class Level(IntEnum):
    """What is searched for."""

    STUDY = 0
    SERIES = 1
    INSTANCE = 2


STUDY_KEYWORDS = (
    "SpecificCharacterSet",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "TimezoneOffsetFromUTC",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
)
SERIES_KEYWORDS = (
    "Modality",
    "Manufacturer",
    "SeriesDate",
    "SeriesTime",
    "SeriesDescription",
    "BodyPartExamined",
    "SeriesInstanceUID",
    "SeriesNumber",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
)
INSTANCE_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "InstanceNumber",
    "Rows",
    "Columns",
    "BitsAllocated",
    "NumberOfFrames",
    "DocumentTitle",
    "ContentDate",
    "ContentTime",
)
COUNTED = (
    "ModalitiesInStudy",
    "InstanceAvailability",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "NumberOfSeriesRelatedInstances",
    "RetrieveURL",
)
"""What no header says."""

ALL = STUDY_KEYWORDS + SERIES_KEYWORDS + INSTANCE_KEYWORDS


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked: ``wanted`` maps keywords to what they must match, ``more`` are attributes to be told as well."""

    level: Level
    wanted: Mapping[str, str]
    more: tuple[str, ...] = ()
    limit: int = _USUAL
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class SearchPage:
    """Records of one answer, and whether there are more of them."""

    records: Sequence[Attributes]
    has_more: bool


def parse_query(level: Level, fixed: Mapping[str, str], parameters: Sequence[tuple[str, str]]) -> Query:
    """The query of a request: ``fixed`` are the UIDs of its path.

    Within a study an answer without ``limit`` has everything: 3D Slicer and others ask once for the slices of a series,
    and would load the first hundred as the whole.

    Raises:
        NotUnderstood: a parameter is no attribute of the standard, or a number is none.
    """
    wanted, most = dict(fixed), _MOST_OF_A_STUDY if fixed else _MOST
    more: list[str] = []
    numbers = {"limit": most if fixed else _USUAL, "offset": 0}
    for name, value in parameters:
        if name in numbers:
            numbers[name] = _whole_number(name, value)
        elif name == "includefield":
            more += [] if value == "all" else [_keyword(one) for one in value.split(",") if one]
        elif name != "fuzzymatching":
            wanted[_keyword(name)] = value
    _check_lists(wanted)
    _check_dates(wanted)
    limit, offset = min(numbers["limit"], most), numbers["offset"]
    return Query(level=level, wanted=wanted, more=tuple(more), limit=limit, offset=offset)


def _check_lists(wanted: Mapping[str, str]) -> None:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if len(_uids(wanted.get(keyword, ""))) > MOST_UIDS:
            words = f"{keyword} is a list of more than {MOST_UIDS} UIDs; ask for fewer at once."
            raise NotUnderstood("dicomweb.query", words)


def _check_dates(wanted: Mapping[str, str]) -> None:
    for keyword, value in wanted.items():
        if dictionary_VR(keyword) == "DA" and not _are_dates(value.strip()):
            words = f"{keyword} is {value[:20]!r}; expected YYYYMMDD, or from and to as YYYYMMDD-YYYYMMDD."
            raise NotUnderstood("dicomweb.query", words)


def _are_dates(value: str) -> bool:
    """Whether each day that is named in full is one of the calendar."""
    try:
        for day in _DAY.findall(value):
            datetime.strptime(day, "%Y%m%d")
    except ValueError:
        return False
    return bool(_DATES.fullmatch(value))


def _uids(asked: str) -> list[str]:
    """The UIDs of a list (PS3.4 C.2.2.2.2), each once."""
    return list(dict.fromkeys(asked.replace("\\", ",").split(","))) if asked else []


def _keyword(name: str) -> str:
    keyword = known_keyword(name.strip())
    if keyword is None:
        raise NotUnderstood("dicomweb.query", f"{name[:64]!r} is no attribute; expected a keyword or a tag.")
    return keyword


def _whole_number(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise NotUnderstood("dicomweb.query", f"{name} is {value[:20]!r}; expected a whole number of 0 or more.")
    return int(value)


def search(node: RunningNode, query: Query, url: str) -> SearchPage:
    """The records that match, newest study first; ``url`` is the service's root, which they name their objects by."""
    found = _records(node, query, url)
    records = list(islice(found, query.offset, query.offset + query.limit))
    return SearchPage(records=records, has_more=next(found, None) is not None)


def _records(node: RunningNode, query: Query, url: str) -> Iterator[Attributes]:
    for uid in _uids(query.wanted.get("StudyInstanceUID", "")) or study_uids(node):
        objects = objects_of(node, uid)
        if objects:
            found = _of_study(objects, query, f"{url}/studies/{uid}")
            yield from (record for record in found if matches(record, query.wanted))


def _of_study(objects: Sequence[Held], query: Query, url: str) -> Iterator[Attributes]:
    series: dict[str, list[Held]] = {}
    for held in objects:
        series.setdefault(held.series_uid, []).append(held)
    study = _record(objects[0], STUDY_KEYWORDS, query) | _study_counts(series, objects, url)
    if query.level is Level.STUDY:
        yield study
        return
    asked = _uids(query.wanted.get("SeriesInstanceUID", ""))
    for uid, members in series.items():
        if not asked or uid in asked:
            yield from _of_series(members, study, query, f"{url}/series/{uid}")


def _of_series(objects: Sequence[Held], study: Attributes, query: Query, url: str) -> Iterator[Attributes]:
    series = study | _record(objects[0], SERIES_KEYWORDS, query)
    series |= attribute("NumberOfSeriesRelatedInstances", len(objects)) | attribute("RetrieveURL", url)
    if query.level is Level.SERIES:
        yield series
        return
    for held in objects:
        own = _record(held, INSTANCE_KEYWORDS, query)
        yield series | own | attribute("RetrieveURL", f"{url}/instances/{held.sop_instance_uid}")


def _record(held: Held, keywords: Sequence[str], query: Query) -> Attributes:
    """Attributes of a file, and its identity as the tables know it, whatever its header can be read as."""
    others = [one for one in (*query.more, *query.wanted) if one not in ALL + COUNTED]
    record = header_record(held.path, tuple(dict.fromkeys((*keywords, *others))))
    return record | {tag: value for tag, value in identity_record(held).items() if tag in record}


def identity_record(held: Held) -> Attributes:
    """What the node knows of an object without its header."""
    return (
        attribute("StudyInstanceUID", held.study_uid)
        | attribute("SeriesInstanceUID", held.series_uid)
        | attribute("SOPInstanceUID", held.sop_instance_uid)
        | attribute("SOPClassUID", held.sop_class_uid)
    )


def _study_counts(series: Mapping[str, Sequence[Held]], objects: Sequence[Held], url: str) -> Attributes:
    heads = [header_record(held[0].path, SERIES_KEYWORDS)[hex_tag("Modality")] for held in series.values()]
    modalities = sorted({value for head in heads for value in head.get("Value", ()) if value})
    return (
        attribute("ModalitiesInStudy", *modalities)
        | attribute("InstanceAvailability", "ONLINE")
        | attribute("NumberOfStudyRelatedSeries", len(series))
        | attribute("NumberOfStudyRelatedInstances", len(objects))
        | attribute("RetrieveURL", url)
    )


def instance_record(held: Held) -> Attributes:
    """Everything that a search tells of one object, as far as its header can be read."""
    return _record(held, ALL, Query(level=Level.INSTANCE, wanted={}))
