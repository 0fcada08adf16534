"""A PACS on the loopback address that misbehaves as told, for tests of whoever sends to it.

It counts every C-STORE request, and apart from that those for an object that it had already stored: what some archives
punish with the loss of the object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event, Lock, Thread

from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event as DimseEvent
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from carina.deliver.answers import CLASS_NOT_SUPPORTED, NO_SUCH_OBJECT, SUCCESS
from carina.testing.ports import LOOPBACK, free_port

NOBODY = "NOBODY"
"""The only caller that a refusing PACS takes."""


class Mood(StrEnum):
    """What the PACS does to a C-STORE."""

    FINE = "stores it"
    FULL = "answers A700H to every second object"
    LYING = "answers 0000H and stores nothing"
    FORGETFUL = "stores it and aborts in place of the answer"
    ABORTING = "aborts before it stores the second object of an association"
    LATE = "stores it after the patience of the sender has ended"
    SLOW = "stores it and answers after the patience of the sender has ended"
    PICKY = "answers 0122H"
    COERCING = "stores it and answers B000H"


@dataclass(kw_only=True)
class DifficultPacs:
    """The state of such a PACS; tests set ``mood`` and what else it does, and read what it has seen.

    ``reports_to`` is the AE title and the port that get its reports on storage commitment; without it they go out on
    the association on which they were asked for. A slow one waits for ``slow_s``, or until ``go_on`` is set. One that
    ``commits_later`` keeps what it was asked in ``asked`` until ``report`` is called. Where ``refusal`` is a reason,
    its reports fail what it has stored as well.
    """

    port: int = field(default_factory=free_port)
    ae_title: str = "DIFFICULT"
    mood: Mood = Mood.FINE
    answers_queries: bool = True
    commits: bool = False
    commits_later: bool = False
    refusal: int | None = None
    reports_to: tuple[str, int] | None = None
    slow_s: float = 2.0
    go_on: Event = field(default_factory=Event)
    requests: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    stored: dict[str, Dataset] = field(default_factory=dict)
    asked: list[Dataset] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)
    _server: ThreadedAssociationServer | None = None
    _entity: AE | None = None

    def up(self) -> None:
        """Listen."""
        self._entity = entity = AE(ae_title=self.ae_title)
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax)
        if self.answers_queries:
            entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        if self.commits:
            entity.add_supported_context(StorageCommitmentPushModel)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_ACTION, self._commit),
        ]
        self._server = entity.start_server((LOOPBACK, self.port), block=False, evt_handlers=handlers)

    def down(self) -> None:
        """Stop listening, and break off what is open; what is stored stays."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def refuse(self, *, everybody: bool) -> None:
        """Reject every association, or none."""
        if self._entity is not None:
            self._entity.require_calling_aet = [NOBODY] if everybody else []

    def _store(self, event: DimseEvent) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self._lock:
            self.requests[uid] += 1
            self.again[uid] += uid in self.stored
            number = self.requests.total()
        if self.mood is Mood.LATE:
            self.go_on.wait(self.slow_s)
        status, keeps = self._decide(event.assoc, number)
        if keeps:
            data = DicomBytesIO(event.encoded_dataset())
            with self._lock:
                self.stored[uid] = dcmread(data)
        if self.mood is Mood.SLOW:
            self.go_on.wait(self.slow_s)
        if self.mood is Mood.FORGETFUL:
            event.assoc.abort()
        return status

    def _decide(self, association: Association, number: int) -> tuple[int, bool]:
        """The status and whether the object is kept."""
        match self.mood:
            case Mood.FULL if number % 2:
                return 0xA700, False
            case Mood.LYING:
                return SUCCESS, False
            case Mood.ABORTING if getattr(association, "has_stored", False):
                association.abort()
                return 0x0110, False
            case Mood.PICKY:
                return CLASS_NOT_SUPPORTED, False
            case Mood.COERCING:
                return 0xB000, True
        association.has_stored = True
        return SUCCESS, True

    def _find(self, event: DimseEvent) -> Iterator[tuple[int, Dataset | None]]:
        wanted = str(event.identifier.get("SOPInstanceUID", ""))
        with self._lock:
            found = self.stored.get(wanted)
        if found is not None:
            yield 0xFF00, event.identifier
        yield SUCCESS, None

    def _commit(self, event: DimseEvent) -> tuple[int, None]:
        if self.commits_later:
            self.asked.append(event.action_information)
        else:
            report = self._report(event.action_information)
            Thread(target=self._tell, args=(event.assoc, report), daemon=True).start()
        return SUCCESS, None

    def report(self, asked: Dataset) -> int:
        """Report now, to ``reports_to``, on what it was asked; gives the status that it is answered with."""
        return self._tell_alone(self._report(deepcopy(asked)))

    def _report(self, asked: Dataset) -> Dataset:
        kept, missing = [], []
        for item in asked.ReferencedSOPSequence:
            is_stored = item.ReferencedSOPInstanceUID in self.stored
            if is_stored and self.refusal is None:
                kept.append(item)
            else:
                item.FailureReason = NO_SUCH_OBJECT if self.refusal is None else self.refusal
                missing.append(item)
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        report.ReferencedSOPSequence = Items(kept)
        if missing:
            report.FailedSOPSequence = Items(missing)
        return report

    def _tell(self, asked_on: Association, report: Dataset) -> None:
        """Report on the association of the request, or on one of its own."""
        if self.reports_to is None:
            asked_on.send_n_event_report(*_about(report))
        else:
            self._tell_alone(report)

    def _tell_alone(self, report: Dataset) -> int:
        """On an association of its own; gives the status of the answer, -1 where there is none."""
        if self.reports_to is None:
            return -1
        title, port = self.reports_to
        entity = AE(ae_title=self.ae_title)
        entity.add_requested_context(StorageCommitmentPushModel, ImplicitVRLittleEndian)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = entity.associate(LOOPBACK, port, ae_title=title, ext_neg=[role])
        if not association.is_established:
            return -1
        status, _ = association.send_n_event_report(*_about(report))
        association.release()
        return int(status.get("Status", -1))


def _about(report: Dataset) -> tuple[Dataset, int, UID, UID]:
    """What an N-EVENT-REPORT is sent with."""
    kind = 2 if "FailedSOPSequence" in report else 1
    return report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance


@contextmanager
def difficult_pacs(mood: Mood = Mood.FINE, *, commits: bool = False) -> Iterator[DifficultPacs]:
    """Such a PACS, listening until the block ends."""
    pacs = DifficultPacs(mood=mood, commits=commits)
    pacs.up()
    try:
        yield pacs
    finally:
        pacs.down()
