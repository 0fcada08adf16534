"""Pulling from a DICOMweb server: its CT series are searched for (QIDO-RS), and retrieved (WADO-RS; PS3.18 10.6, 10.4).

What comes goes through the same door as what is sent to us. The server is believed nothing: studies and series that
weren't asked for are passed over, and lengths, parts, answers and time are bounded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from carina.config import DicomwebDestination
from carina.deliver.answers import code_words
from carina.deliver.dicomweb import AnswerBudget, WebStream, exchange, first_value, found_items, refused, streamed
from carina.dicom.uids import is_uid
from carina.errors import DeliveryFailed
from carina.receive.fetch import MOST_ANSWERS, Fetched, FoundSeries, Wanted, announced, sent_by_peer
from carina.receive.files import arriving_file, read_says, spooled
from carina.receive.instance import NO_ROOM, NOT_UNDERSTOOD, NotAccepted
from carina.receive.multipart import DICOM_TYPE, BadBody, ContentType, dicom_parts
from carina.receive.store import InstanceStore, SentBy

ASKED_AT_ONCE = 200
"""Studies, or series of a study."""

MOST_REQUESTS, MOST_SEARCH_BYTES, MOST_SEARCH_S = 2000, 2**25, 600.0
"""Of a whole search: a patient of some hundred studies takes two requests for each, and 2 MB."""

AS_STORED = f'multipart/related; type="{DICOM_TYPE}"; transfer-syntax=*'
"""Instances in the transfer syntax in which the server has them (PS3.18 8.7.3.5.2)."""

_ESCAPED = re.compile(r"[^A-Za-z0-9._~*?-]+")

_STUDY_UID, _SERIES_UID, _INSTANCE_UID, _MODALITY = "0020000D", "0020000E", "00080018", "00080060"
_ISSUER, _BODY_PART = "00100021", "00180015"
_STUDY_KEYS = {"AccessionNumber": "00080050", "PatientID": "00100020", "StudyInstanceUID": _STUDY_UID}


def search_series(name: str, server: DicomwebDestination, wanted: Wanted) -> tuple[FoundSeries, ...]:
    """The CT series of a server that fit, the latest study first.

    Raises:
        DeliveryFailed: the server can't be reached, takes no queries, or answers without end.
    """
    asked = {"AccessionNumber": wanted.accession, "PatientID": wanted.patient_id, "StudyInstanceUID": wanted.study_uid}
    keys = {key: value for key, value in asked.items() if value}
    found = []
    search = _Search(name, server)
    for study in search.pages("/studies", keys | {"includefield": _ISSUER}, _STUDY_UID):
        if not all(_fits(value, _text(study, _STUDY_KEYS[key])) for key, value in keys.items()):
            continue
        uid = _text(study, _STUDY_UID)
        of_study = {"Modality": "CT", "includefield": _BODY_PART}
        of_study |= {"SeriesInstanceUID": wanted.series_uid} if wanted.series_uid else {}
        for series in search.pages(f"/studies/{uid}/series", of_study, _SERIES_UID):
            if _text(series, _MODALITY) == "CT" and wanted.series_uid in ("", _text(series, _SERIES_UID)):
                found.append(_found(study, series))
    return tuple(sorted(found, key=lambda one: one.study_date, reverse=True))


def instances_on_server(name: str, server: DicomwebDestination, series: FoundSeries) -> frozenset[str]:
    """The SOP Instance UIDs that a server has of a series: not every server says how many there are.

    Raises:
        DeliveryFailed: as ``search_series``.
    """
    path = f"/studies/{series.study_uid}/series/{series.series_uid}/instances"
    return frozenset(_text(one, _INSTANCE_UID) for one in _Search(name, server).pages(path, {}, _INSTANCE_UID))


def _found(study: Any, series: Any) -> FoundSeries:
    return FoundSeries(
        study_uid=_text(study, _STUDY_UID),
        series_uid=_text(series, _SERIES_UID),
        study_date=_text(study, "00080020"),
        description=_text(series, "0008103E"),
        instances=announced(first_value(series, "00201209")),
        study_time=_text(study, "00080030"),
        body_part=_text(series, _BODY_PART),
        patient_id=_text(study, "00100020"),
        issuer=_text(study, _ISSUER),
    )


def _asked(value: str) -> str:
    """A value as it is asked for: what an address would have to escape becomes a wildcard, since not every server
    undoes that (Orthanc's plugin of 2022 finds nothing then); the answers are compared with the value itself."""
    return _ESCAPED.sub("*", value)


def _fits(wanted: str, seen: str) -> bool:
    """Whether a value is what was asked for; a server may ignore a key, or not return it."""
    return wanted.strip() == seen or (not seen and _asked(wanted) == wanted)


def _text(item: Any, tag: str) -> str:
    value = first_value(item, tag)
    return str(value).strip() if isinstance(value, str | int) else ""


class _Search:
    """Queries that belong together, and are bounded together: in requests, bytes, time, and what they find."""

    def __init__(self, name: str, server: DicomwebDestination) -> None:
        self._name, self._server, self._found = name, server, 0
        until_s = time.monotonic() + MOST_SEARCH_S
        self._budget = AnswerBudget(requests=MOST_REQUESTS, size=MOST_SEARCH_BYTES, until_s=until_s)

    def pages(self, path: str, keys: Mapping[str, str], uid_tag: str) -> Iterator[Any]:
        """What a query finds, page by page, each UID once; ends where a page has nothing new."""
        seen: set[str] = set()
        passed = 0
        while True:
            asked = {**keys, "limit": ASKED_AT_ONCE, "offset": passed}
            query = "&".join(f"{key}={_asked(str(value))}" for key, value in asked.items())
            items = self._items(f"{path}?{query}")
            new = {uid: item for item in items if is_uid(uid := _text(item, uid_tag)) and uid not in seen}
            if not new:
                return
            seen |= new.keys()
            self._count(len(new))
            passed += len(items)
            yield from new.values()

    def _items(self, address: str) -> list[Any]:
        answer = exchange(self._name, self._server, address, budget=self._budget)
        if not answer.is_fine:
            raise refused(self._name, self._server, answer)
        return found_items(self._name, self._server, answer)

    def _count(self, found: int) -> None:
        self._found += found
        if self._found > MOST_ANSWERS:
            words = f"{self._name} ({self._server.url}): more than {MOST_ANSWERS} answers to one search; ask for less."
            raise DeliveryFailed("fetch.too-many", words)


def retrieve_series(
    name: str, server: DicomwebDestination, series: FoundSeries, store: InstanceStore, source: str
) -> Fetched:
    """Retrieve a series, instance by instance into the node's store.

    Raises:
        DeliveryFailed: the server can't be reached, or failed before everything was here; what came is kept.
    """
    fetched = Fetched()
    address = urlsplit(server.url).netloc.rpartition("@")[2][:128]
    sent_by = sent_by_peer(source, address, series)
    path = f"/studies/{series.study_uid}/series/{series.series_uid}"
    with streamed(name, server, path, AS_STORED) as stream:
        _check_answer(name, server, stream)
        try:
            for content_type, data in dicom_parts(stream.content_type, stream.chunks):
                _take(store, sent_by, content_type, _no_longer(store, data), fetched)
        except BadBody as error:
            words = f"{name} ({server.url}): its answer can't be followed: {error.message}"
            raise DeliveryFailed("fetch.body", words) from error
    return fetched


def _check_answer(name: str, server: DicomwebDestination, stream: WebStream) -> None:
    if stream.code != 200:
        words = f"{name} ({server.url}): WADO-RS answered {code_words(stream.code)}: check its URL, user or token."
        raise DeliveryFailed("fetch.refused", words)
    if stream.encoding not in ("", "identity"):
        words = f"{name} ({server.url}): WADO-RS answered in the encoding {stream.encoding[:40]!r}; expected none."
        raise DeliveryFailed("fetch.body", words)


def _no_longer(store: InstanceStore, data: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of a part; one that is over the limit ends the answer, which may never end by itself."""
    largest, size = store.settings.dicom.instance_mb * 1_000_000, 0
    for chunk in data:
        size += len(chunk)
        if size > largest:
            words = f"an instance is over the limit of {largest // 1_000_000} MB (dicom.instance_mb)."
            raise BadBody(413, "receive.too-large", words)
        yield chunk


def _take(
    store: InstanceStore, sent_by: SentBy, content_type: ContentType, data: Iterator[bytes], fetched: Fetched
) -> None:
    uid = ""
    try:
        if content_type.name != DICOM_TYPE:
            for _ in data:  # here, where it is bounded
                pass
            words = f"a part is {content_type.name[:80]!r}; expected {DICOM_TYPE}."
            raise NotAccepted(NOT_UNDERSTOOD, "stow.part-type", words)
        with spooled(store.own, data, store.settings.dicom.instance_mb * 1_000_000) as file:
            says = read_says(file)
            uid = says.sop_instance_uid
            with arriving_file(file, says) as arriving:
                fetched.add(uid, store.accept(arriving, sent_by))
    except NotAccepted as error:
        fetched.came.add(uid)
        fetched.refused.append(error.message)
        if error.status == NO_ROOM:
            raise BadBody(503, error.code, error.message) from error  # the rest would be refused as well
