"""STOW-RS (PS3.18 10.5): a body's instances go to the store one by one, the answer says what became of each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from carina.dicom.uids import is_uid
from carina.receive.files import FileSays, arriving_file, read_says, spooled
from carina.receive.instance import NOT_UNDERSTOOD, TAKEN_LATER, NotAccepted
from carina.receive.multipart import DICOM_TYPE, BadBody, ContentType, dicom_parts
from carina.receive.refused import RefusalLog
from carina.receive.store import Accepted, InstanceStore, SentBy

OTHER_STUDY = 0xA901
"""Failure reason of an instance of another study than the request is for: of the range of data sets that don't match
(PS3.18 table I.2-2)."""

REFERENCED, FAILED, OTHER_FAILURES = "00081199", "00081198", "0008119A"
"""Sequences of the answer (PS3.18 table I.1-1): what was stored, what was not, what was no instance."""

NAMELESS_LISTED = 100
"""Parts that are no instance which an answer lists: a body of 14 bytes a part would have 40 bytes for each otherwise.

What is an instance is always listed, whatever became of it.
"""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StowRequest:
    """What a request says beside its body; ``study_uid`` is the study that its address names, if it names one.

    ``retrieve_root`` is the address of our WADO-RS, empty: the answer says no address.
    """

    origin: SentBy
    content_type: str
    study_uid: str = ""
    retrieve_root: str = ""


@dataclass(frozen=True, kw_only=True)
class StowAnswer:
    """The HTTP status, the body as DICOM JSON, and what was wrong with the request itself: its code and one line."""

    status: int
    body: dict[str, Any]
    code: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    says: FileSays
    refused: NotAccepted | None = None


@dataclass
class _Report:
    outcomes: list[_Outcome] = field(default_factory=list)
    broken: BadBody | None = None


def store_over_the_web(store: InstanceStore, request: StowRequest, chunks: Iterable[bytes]) -> StowAnswer:
    """Accept the instances of a body that comes in chunks, with or without a stated length.

    An instance is listed as stored only once it is on the disk for good. Where the body breaks off, or what ``chunks``
    raises passes through, what was stored by then stays. Memory is bounded by a chunk and the length of the answer.
    """
    report, refusals = _Report(), RefusalLog(_LOG, request.origin.who)
    try:
        for content_type, data in dicom_parts(request.content_type, chunks):
            outcome = _take(store, request, content_type, data)
            report.outcomes.append(outcome)
            if outcome.refused is not None:
                refusals.tell(outcome.refused)
    except BadBody as error:
        _LOG.warning("from %s: %s [%s, %d]", request.origin.who, error.message, error.code, error.status)
        report.broken = error
    finally:
        refusals.end()
    answer = StowAnswer(status=_status(report), body=_body(report, request.retrieve_root))
    return replace(answer, code=report.broken.code, message=report.broken.message) if report.broken else answer


def _take(store: InstanceStore, request: StowRequest, content_type: ContentType, data: Iterator[bytes]) -> _Outcome:
    says = FileSays()
    try:
        if content_type.name != DICOM_TYPE:
            words = f"a part is {content_type.name[:80]!r}; expected {DICOM_TYPE}."
            raise NotAccepted(NOT_UNDERSTOOD, "stow.part-type", words)
        largest = store.settings.dicom.instance_mb * 1_000_000
        with spooled(store.own, data, largest) as file:
            says = read_says(file)
            _check_study(says, request.study_uid)
            with arriving_file(file, says) as arriving:
                became = store.accept(arriving, request.origin)
    except NotAccepted as error:
        kept = NotAccepted(error.status, error.code, error.message)  # without what its traceback holds, 20,000 times
        return _Outcome(says=says, refused=kept)
    if became is Accepted.REPEATED:
        _LOG.debug("from %s: an instance came again.", request.origin.who)
    return _Outcome(says=says)


def _check_study(says: FileSays, wanted: str) -> None:
    if wanted and says.study_uid != wanted:
        words = f"instance {says.sop_instance_uid[:64]}: it is of another study than the request's address names."
        raise NotAccepted(OTHER_STUDY, "stow.other-study", words)


def _status(report: _Report) -> int:
    """200, 202 or 409 as all, some or none were stored; 503 where they may be later (PS3.18 table 10.5.3-1)."""
    if report.broken:
        return report.broken.status
    refused = [one.refused for one in report.outcomes if one.refused]
    if not report.outcomes:
        return 400
    if len(refused) < len(report.outcomes):
        return 202 if refused else 200
    return 503 if all(one.code in TAKEN_LATER for one in refused) else 409


def _body(report: _Report, root: str) -> dict[str, Any]:
    lists: dict[str, list[dict[str, Any]]] = {REFERENCED: [], FAILED: [], OTHER_FAILURES: []}
    for one in report.outcomes:
        lists[_list_of(one)].append(_names(one.says) | _became(one, root))
    if report.broken and report.outcomes:
        lists[OTHER_FAILURES].append(_value("00081197", "US", NOT_UNDERSTOOD))
    del lists[OTHER_FAILURES][NAMELESS_LISTED:]
    body: dict[str, Any] = {name: {"vr": "SQ", "Value": items} for name, items in lists.items() if items}
    studies = {one.says.study_uid for one in report.outcomes if not one.refused}
    if root and len(studies) == 1:
        body |= _value("00081190", "UR", f"{root}/studies/{studies.pop()}")
    return body


def _list_of(one: _Outcome) -> str:
    if not one.refused:
        return REFERENCED
    return FAILED if _names(one.says) else OTHER_FAILURES


def _names(says: FileSays) -> dict[str, Any]:
    """An instance's class and UID; nothing where it has none that can be said."""
    if not is_uid(says.sop_class_uid) or not is_uid(says.sop_instance_uid):
        return {}
    return _value("00081150", "UI", says.sop_class_uid) | _value("00081155", "UI", says.sop_instance_uid)


def _became(one: _Outcome, root: str) -> dict[str, Any]:
    """Why an instance was refused, or where it can be had."""
    if one.refused:
        return _value("00081197", "US", one.refused.status)
    says = one.says
    place = f"{root}/studies/{says.study_uid}/series/{says.series_uid}/instances/{says.sop_instance_uid}"
    return _value("00081190", "UR", place) if root else {}


def _value(tag: str, vr: str, value: str | int) -> dict[str, Any]:
    return {tag: {"vr": vr, "Value": [value]}}
