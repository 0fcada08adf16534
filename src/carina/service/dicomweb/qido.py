"""QIDO-RS (PS3.18 10.6): search for studies, series and instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import islice

from carina.service.dicomweb.attributes import attribute, header_record, hex_tag, matches
from carina.service.dicomweb.held import Held, Holding, holding_of, runs_elsewhere, study_uids
from carina.service.dicomweb.json_values import Attributes
from carina.service.dicomweb.left_out import LeftOut
from carina.service.dicomweb.of_patients import PatientsPart, heads_of, patients_parts
from carina.service.dicomweb.search_keys import (
    can_be_matched,
    check_path,
    check_wish,
    gathered,
    is_universal,
    key_named,
    leads_to_private,
    listed_uids,
    outermost,
)
from carina.service.node import RunningNode
from carina.service.problems import NotUnderstood

_USUAL, _MOST = 100, 1000
"""Results of one answer: where nothing is said, and at most."""

_MOST_OF_A_STUDY = 10_000
"""Series or instances of one study in one answer, at most and where nothing is said."""


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
    "RequestAttributesSequence",
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

NO_KEYS = frozenset({"limit", "offset", "includefield", "fuzzymatching", "accept", "charset"})
"""Parameters that ask for no attribute: the last two stand for headers (PS3.18 8.3.3)."""

OF_HEADS = STUDY_KEYWORDS + SERIES_KEYWORDS
"""What is read of a study or a series."""

ALL = OF_HEADS + INSTANCE_KEYWORDS


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked: ``wanted`` maps keys to what they must match, ``more`` are attributes to be told as well.

    ``unmatched`` are keys that were asked for and can't be matched: what they say is passed by.
    """

    level: Level
    wanted: Mapping[str, str]
    more: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    limit: int = _USUAL
    offset: int = 0

    @property
    def deepest(self) -> Level:
        """The level at which all can be matched that is asked for: that of the answer, or one below it."""
        return max((self.level, *(_level_of(key) for key, wish in self.wanted.items() if not is_universal(wish))))


@dataclass(frozen=True, kw_only=True)
class SearchPage:
    """Records of one answer, whether there are more of them, and warnings that name what can't be read."""

    records: Sequence[Attributes]
    has_more: bool
    warnings: Sequence[str] = ()


def parse_query(level: Level, fixed: Mapping[str, str], parameters: Sequence[tuple[str, str]]) -> Query:
    """The query of a request: ``fixed`` are the UIDs of its path.

    Within a study an answer without ``limit`` has everything: 3D Slicer and others ask once for the slices of a series,
    and would load the first hundred as the whole.

    Raises:
        NotUnderstood: a parameter is no attribute of the standard, or what it says can be no value of it.
    """
    most = _MOST_OF_A_STUDY if fixed else _MOST
    asked = _keys_of(parameters)
    for key, wish in asked.items():
        check_wish(key, wish)
        check_path(key, wish, fixed)
    matched = {key: wish for key, wish in asked.items() if can_be_matched(key)}
    return Query(
        level=level,
        wanted={**matched, **fixed},
        more=_included([value for name, value in parameters if name == "includefield"]),
        unmatched=tuple(sorted(key for key in asked.keys() - matched.keys() if not is_universal(asked[key]))),
        limit=min(_whole_number(parameters, "limit", most if fixed else _USUAL), most),
        offset=_whole_number(parameters, "offset", 0),
    )


def _keys_of(parameters: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    asked: dict[str, str] = {}
    for name, value in parameters:
        if name not in NO_KEYS:
            key = key_named(name)
            asked[key] = gathered(key, value, asked)
    return asked


def _included(values: Sequence[str]) -> tuple[str, ...]:
    """The attributes of ``includefield``; those that are private are told by no search."""
    keys = [key_named(one) for value in values if value != "all" for one in value.split(",") if one]
    return tuple(outermost(key) for key in keys if not leads_to_private(key))


def _level_of(key: str) -> Level:
    """The highest level at which a key can be matched; what no table has is looked for at the head of each series."""
    if key in STUDY_KEYWORDS or (key in COUNTED and key != "NumberOfSeriesRelatedInstances"):
        return Level.STUDY
    return Level.INSTANCE if key in INSTANCE_KEYWORDS else Level.SERIES


def _whole_number(parameters: Sequence[tuple[str, str]], name: str, otherwise: int) -> int:
    values = [value for asked, value in parameters if asked == name]
    for value in values:
        if not value.isascii() or not value.isdigit() or len(value) > 9:
            raise NotUnderstood("dicomweb.query", f"{name} is {value[:20]!r}; expected a whole number of 0 or more.")
    return int(values[-1]) if values else otherwise


def search(node: RunningNode, query: Query, url: str) -> SearchPage:
    """The records that match, newest study first; ``url`` is the service's root, which they name their objects by.

    Raises:
        OutOfReach: a file of a study that is named can't be read now; of all studies, none can be told.
    """
    left_out = LeftOut(now=node.now, of_node=node.left_out)
    named = listed_uids(query.wanted.get("StudyInstanceUID", ""))
    found = _of_named(node, named, query, url, left_out) if named else _of_all(node, query, url, left_out)
    records = list(islice(found, query.offset, query.offset + query.limit))
    has_more = next(found, None) is not None
    left_out.check()
    return SearchPage(records=records, has_more=has_more, warnings=left_out.warnings)


def _of_named(
    node: RunningNode, uids: Sequence[str], query: Query, url: str, left_out: LeftOut
) -> Iterator[Attributes]:
    elsewhere = runs_elsewhere(node)
    for uid in uids:
        yield from _of_one(holding_of(node, uid, elsewhere), query, f"{url}/studies/{uid}", left_out)


def _of_all(node: RunningNode, query: Query, url: str, left_out: LeftOut) -> Iterator[Attributes]:
    """The records of every study that can be read, each of them whole or not at all."""
    elsewhere = runs_elsewhere(node, left_out.run)
    for uid in study_uids(node, elsewhere):
        records: list[Attributes] = []
        with left_out.study(uid):
            records = list(_of_one(holding_of(node, uid, elsewhere), query, f"{url}/studies/{uid}", left_out))
        yield from records


def _of_one(holding: Holding, query: Query, url: str, left_out: LeftOut) -> Iterator[Attributes]:
    """The records of a study, of each patient's part by itself."""
    left_out.see(within(holding, query.wanted))
    for part in patients_parts(holding.sound):
        yield from _matching(part, query, url)


def within(holding: Holding, wanted: Mapping[str, str]) -> Holding:
    """What of a study is in the series and under the instances that are asked for; all where none is named."""
    series, instances = (listed_uids(wanted.get(one, "")) for one in ("SeriesInstanceUID", "SOPInstanceUID"))

    def is_asked(held: Held) -> bool:
        return (not series or held.series_uid in series) and (not instances or held.sop_instance_uid in instances)

    sound, damaged = ([held for held in one if is_asked(held)] for one in (holding.sound, holding.damaged))
    if not sound and not damaged:  # it may be one of those that can't be known any more
        damaged = [held for held in holding.damaged if not held.sop_instance_uid]
    return Holding(sound=sound, damaged=damaged)


@dataclass(frozen=True)
class _Told:
    """A study, a series or an instance: in which series it is (none of a study), and what each of its heads says."""

    series_uid: str
    records: Iterator[Attributes]


def _matching(part: PatientsPart, query: Query, url: str) -> Iterator[Attributes]:
    """The records that match, each by what one object itself says.

    Where a key belongs to a level below, those with a match in them by such keys.
    """
    own = {key: wish for key, wish in query.wanted.items() if _level_of(key) <= query.level}
    matched = _series_with(part, query, url)
    for one in _told(part, query, url):
        if matched is None or (one.series_uid in matched if one.series_uid else matched):
            yield from islice((record for record in one.records if matches(record, own)), 1)


def _series_with(part: PatientsPart, query: Query, url: str) -> set[str] | None:
    """The series in which something matches by keys of levels below; None where none of these is asked for."""
    if query.deepest is query.level:
        return None
    below = {key: wish for key, wish in query.wanted.items() if _level_of(key) > query.level}
    inside = _told(part, replace(query, level=query.deepest), url)
    return {one.series_uid for one in inside if any(matches(record, below) for record in one.records)}


def _told(part: PatientsPart, query: Query, url: str) -> Iterator[_Told]:
    counts = _study_counts(part, url)
    if query.level is Level.STUDY:
        yield _Told("", (_record(held, STUDY_KEYWORDS, query) | counts for held in part.heads()))
        return
    asked = listed_uids(query.wanted.get("SeriesInstanceUID", ""))
    for uid, members in part.series.items():
        if not asked or uid in asked:
            yield from _told_of_series(members, counts, query, f"{url}/series/{uid}")


def _told_of_series(objects: Sequence[Held], counts: Attributes, query: Query, url: str) -> Iterator[_Told]:
    counts = counts | attribute("NumberOfSeriesRelatedInstances", len(objects)) | attribute("RetrieveURL", url)
    if query.level is Level.SERIES:
        records = (_record(held, OF_HEADS, query) | counts for held in heads_of(objects))
        yield _Told(objects[0].series_uid, records)
        return
    for held in objects:
        place = attribute("RetrieveURL", f"{url}/instances/{held.sop_instance_uid}")
        yield _Told(held.series_uid, iter([_record(held, ALL, query) | counts | place]))


def _record(held: Held, keywords: Sequence[str], query: Query) -> Attributes:
    """Attributes of a file, and its identity as the tables know it, whatever its header can be read as."""
    asked = (*query.more, *map(outermost, query.wanted))
    others = [one for one in asked if one not in ALL + COUNTED]
    of_file = OF_HEADS if set(keywords) <= set(OF_HEADS) else ALL  # of a head all that any level tells, in one reading
    read = header_record(held.path, tuple(dict.fromkeys((*of_file, *others))))
    record = {tag: read[tag] for tag in map(hex_tag, (*keywords, *others))}
    return record | {tag: value for tag, value in identity_record(held).items() if tag in record}


def identity_record(held: Held) -> Attributes:
    """What the node knows of an object without its header."""
    return (
        attribute("StudyInstanceUID", held.study_uid)
        | attribute("SeriesInstanceUID", held.series_uid)
        | attribute("SOPInstanceUID", held.sop_instance_uid)
        | attribute("SOPClassUID", held.sop_class_uid)
    )


def _study_counts(part: PatientsPart, url: str) -> Attributes:
    heads = [header_record(held.path, OF_HEADS)[hex_tag("Modality")] for held in part.heads()]
    modalities = sorted({value for head in heads for value in head.get("Value", ()) if value})
    return (
        attribute("ModalitiesInStudy", *modalities)
        | attribute("InstanceAvailability", "ONLINE")
        | attribute("NumberOfStudyRelatedSeries", len(part.series))
        | attribute("NumberOfStudyRelatedInstances", len(part.objects))
        | attribute("RetrieveURL", url)
    )


def instance_record(held: Held) -> Attributes:
    """Everything that a search tells of one object, as far as its header can be read."""
    return _record(held, ALL, Query(level=Level.INSTANCE, wanted={}))
