"""Pulling from a DICOM node: its CT series of a study are found (C-FIND), and got or moved to us (PS3.4 annex C).

What is got (C-GET) comes on the same association and goes through the same door as what is sent to us; what is moved
(C-MOVE) comes to our listener, which the node must know by its AE title.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from carina.config import DicomDestination
from carina.deliver.answers import SUCCESS, status_words
from carina.deliver.association import address, associated
from carina.deliver.find_scu import PENDING
from carina.dicom.headers import CT_CLASSES
from carina.dicom.syntaxes import ENCAPSULATED, NATIVE
from carina.dicom.uids import is_uid
from carina.errors import DeliveryFailed
from carina.receive.instance import Arriving, NotAccepted
from carina.receive.moves import PRIOR_MESSAGE
from carina.receive.store import Accepted, InstanceStore, SentBy

PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
SYNTAXES = (*PLAIN, *(UID(one) for one in (*NATIVE, *ENCAPSULATED) if one not in PLAIN))
"""Transfer syntaxes in which CT is asked for: all that are read here, so that it can come as the peer has stored it."""

TAKEN = tuple((sop_class, (syntax,)) for syntax in SYNTAXES for sop_class in CT_CLASSES)
"""A presentation context for each: of several syntaxes in one, a peer picks one, and may not be able to write it.

An association has 128 at most (PS3.8 7.1.1.13).
"""

BY_MOVE = '`carina fetch --move` (in a source: earlier_by = "move") has it send to our listener instead.'

STUDY_SAYS = {"StudyDate": "", "StudyTime": "", "IssuerOfPatientID": ""}
SERIES_SAYS = {"SeriesDescription": "", "BodyPartExamined": "", "NumberOfSeriesRelatedInstances": ""}
"""What is asked for beside the keys of a query."""

MOST_ANSWERS = 5000
"""Studies and series together that one search may find, however many queries it makes."""

SEARCHED_S = 120.0
"""Time for all queries of a search: a peer that answers each of thousands slowly would hold up everybody else."""

WITHOUT_SOME = 0xB000
"""What a retrieval is ended with of which single instances could not be sent (PS3.4 C.4.3.1.4)."""

MOST_INSTANCES = 100_000
"""More than any series has: a peer that says so counts something else."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is looked for; empty keys match everything, and one of them at least is given."""

    accession: str = ""
    patient_id: str = ""
    study_uid: str = ""
    series_uid: str = ""


@dataclass(frozen=True, kw_only=True)
class FoundSeries:
    """A CT series of a node; ``instances`` is how many it says there are, None where it doesn't say.

    ``patient_id``, ``issuer``, ``study_time`` and ``body_part`` are empty where it doesn't say them. ``is_prior`` is
    one that is fetched to compare with.
    """

    study_uid: str
    series_uid: str
    study_date: str
    description: str
    instances: int | None
    study_time: str = ""
    body_part: str = ""
    patient_id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    is_prior: bool = False


@dataclass
class Fetched:
    """What became of a fetch: how many instances are here now, how many of them were before, and whose UIDs came.

    ``refused`` has the sentences on those that were not accepted, ``ended`` what the peer said at its end, if not that
    all is well.
    """

    accepted: int = 0
    repeated: int = 0
    came: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    ended: str = ""

    def add(self, sop_instance_uid: str, became: Accepted) -> None:
        """Count one that is here for good."""
        self.accepted += 1
        self.repeated += became is Accepted.REPEATED
        self.came.add(sop_instance_uid)


def find_on_node(name: str, peer: DicomDestination, wanted: Wanted) -> tuple[FoundSeries, ...]:
    """The CT series of a node that fit, the latest study first.

    Raises:
        DeliveryFailed: the node can't be reached, doesn't answer queries, or refuses this one.
    """
    keys = {"AccessionNumber": wanted.accession, "PatientID": wanted.patient_id, "StudyInstanceUID": wanted.study_uid}
    with associated(name, peer, [(StudyRootQueryRetrieveInformationModelFind, PLAIN)]) as association:
        search = _Search(association, name, peer)
        studies = list(search.find("STUDY", keys | STUDY_SAYS))
        found = []
        for study in studies:
            uid = str(study.get("StudyInstanceUID", ""))
            of_study = {"StudyInstanceUID": uid, "SeriesInstanceUID": wanted.series_uid, "Modality": "CT"}
            asked = of_study | SERIES_SAYS
            found += [found_series(study, series) for series in search.find("SERIES", asked)]
    ct = [series for series in found if series is not None]
    return tuple(sorted(ct, key=lambda one: one.study_date, reverse=True))


def instances_on_node(name: str, peer: DicomDestination, series: FoundSeries) -> frozenset[str]:
    """The SOP Instance UIDs that a node has of a series, asked one by one: not every node says how many there are.

    Raises:
        DeliveryFailed: as ``find_on_node``.
    """
    keys = {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid, "SOPInstanceUID": ""}
    with associated(name, peer, [(StudyRootQueryRetrieveInformationModelFind, PLAIN)]) as association:
        search = _Search(association, name, peer)
        return frozenset(str(one.get("SOPInstanceUID", "")) for one in search.find("IMAGE", keys))


def found_series(study: Dataset, series: Dataset) -> FoundSeries | None:
    """What an answer says of a CT series; None of another, and where a UID is none."""
    study_uid, series_uid = str(study.get("StudyInstanceUID", "")), str(series.get("SeriesInstanceUID", ""))
    if str(series.get("Modality", "")) != "CT" or not is_uid(study_uid) or not is_uid(series_uid):
        return None
    return FoundSeries(
        study_uid=study_uid,
        series_uid=series_uid,
        study_date=str(study.get("StudyDate", "") or ""),
        description=str(series.get("SeriesDescription", "") or ""),
        instances=announced(series.get("NumberOfSeriesRelatedInstances")),
        study_time=str(study.get("StudyTime", "") or ""),
        body_part=str(series.get("BodyPartExamined", "") or ""),
        patient_id=str(study.get("PatientID", "") or ""),
        issuer=str(study.get("IssuerOfPatientID", "") or ""),
    )


def announced(count: Any) -> int | None:
    """How many instances a peer says a series has; None where it doesn't say, or nonsense."""
    try:
        number = int(str(count))
    except ValueError:
        return None
    return number if 0 < number <= MOST_INSTANCES else None


class _Search:
    """Queries on one association, which together find so much, and take so long, and no more."""

    def __init__(self, association: Association, name: str, peer: DicomDestination) -> None:
        self._association, self._name, self._peer = association, name, peer
        self._answers, self._until = 0, time.monotonic() + SEARCHED_S

    def find(self, level: str, keys: Mapping[str, str]) -> Iterator[Dataset]:
        """What the peer answers to a query.

        Raises:
            DeliveryFailed: it fails, or the search is over its bounds, which ends the association.
        """
        query = Dataset()
        query.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(query, keyword, value or None)
        if not self._association.is_established:
            raise _broken(self._name, self._peer)
        for status, found in self._association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
            code = _code(status, self._name, self._peer)
            self._count()
            if code in PENDING and found is not None:
                yield found
            elif code not in (*PENDING, SUCCESS):
                raise DeliveryFailed("fetch.query", f"{self._name}: the query failed ({status_words(code)}).")

    def _count(self) -> None:
        self._answers += 1
        is_late = time.monotonic() > self._until
        if is_late or self._answers > MOST_ANSWERS:
            self._association.abort()
            what = f"no end within {SEARCHED_S:g} s" if is_late else f"more than {MOST_ANSWERS} answers to one search"
            raise DeliveryFailed("fetch.too-many", f"{self._name}: {what}; ask for less.")


def _code(status: Dataset, name: str, peer: DicomDestination) -> int:
    if not status:
        raise _broken(name, peer)
    return int(status.Status)


def _broken(name: str, peer: DicomDestination) -> DeliveryFailed:
    """A peer that ends the association in place of an answer: Orthanc does so to whom it lets store alone."""
    words = f"{name} ({address(peer)}): the association ended before the answer"
    return DeliveryFailed("fetch.broken", f"{words}: see whether it lets {peer.calling_ae_title} query, or try again.")


def sent_by_peer(source: str, who: str, series: FoundSeries) -> SentBy:
    """Where the instances of a series come from that is fetched from a peer, and count as a source's."""
    return SentBy(source, who, series.instances, series_uid=series.series_uid, is_prior=series.is_prior)


def get_series(name: str, peer: DicomDestination, series: FoundSeries, store: InstanceStore, source: str) -> Fetched:
    """Get a series on an association of our own, instance by instance into the node's store.

    Raises:
        DeliveryFailed: the node can't be reached, or failed before everything was here; what came is kept.
    """
    fetched = Fetched()
    sent_by = sent_by_peer(source, f"{peer.ae_title}@{peer.host}", series)

    def take(event: Event) -> int:
        request = event.request
        arriving = Arriving(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            is_agreed=True,
            data=request.DataSet.getbuffer(),
        )
        try:
            fetched.add(arriving.sop_instance_uid, store.accept(arriving, sent_by))
        except NotAccepted as error:
            fetched.came.add(arriving.sop_instance_uid)
            fetched.refused.append(error.message)
            return error.status
        return SUCCESS

    model = StudyRootQueryRetrieveInformationModelGet
    with associated(name, peer, [(model, PLAIN), *TAKEN], [(evt.EVT_C_STORE, take)], CT_CLASSES) as association:
        for status, _ in association.send_c_get(_identifier(series), model):
            code = _code(status, name, peer)
            if code in (*PENDING, SUCCESS):
                continue
            if code == WITHOUT_SOME and fetched.came:
                fetched.ended = f"C-GET ended with {status_words(code)}"
            elif not fetched.refused:
                words = f"{name} ({address(peer)}): C-GET failed ({status_words(code)}); {BY_MOVE}"
                raise DeliveryFailed("fetch.get", words)
    return fetched


def move_series(name: str, peer: DicomDestination, series: FoundSeries, to: str) -> int:
    """Have a node send a series to our listener, which it knows as ``to``; gives how many it says it has sent.

    Raises:
        DeliveryFailed: the node can't be reached, doesn't know us, or failed.
    """
    model, completed = StudyRootQueryRetrieveInformationModelMove, 0
    with associated(name, peer, [(model, PLAIN)]) as association:
        number = PRIOR_MESSAGE if series.is_prior else 1
        for status, _ in association.send_c_move(_identifier(series), to, model, number):
            code = _code(status, name, peer)
            completed = int(status.get("NumberOfCompletedSuboperations") or completed)
            if code not in (*PENDING, SUCCESS):
                words = (
                    f"{name} ({address(peer)}): C-MOVE to {to} failed ({status_words(code)}); does it know us? It "
                    "sends to this node's listener, which is there while carina serve runs."
                )
                raise DeliveryFailed("fetch.move", words)
    return completed


def _identifier(series: FoundSeries) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID, identifier.SeriesInstanceUID = series.study_uid, series.series_uid
    return identifier
