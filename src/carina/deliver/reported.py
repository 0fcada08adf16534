"""What a node reports on storage commitment (PS3.4 J.3.3), judged before anything of it is believed."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from carina.deliver.answers import CLASS_CONFLICT, NO_SUCH_OBJECT, SUCCESS, status_words

ALL_KEPT, SOME_REFUSED = 1, 2
"""Event types of a report (PS3.4 table J.3.3-1)."""

NO_SUCH_EVENT, INVALID_VALUE, NO_SUCH_CLASS = 0x0113, 0x0115, 0x0118
"""Statuses of an N-EVENT-REPORT that is not taken (PS3.7 10.1.1.1.8)."""

REPORT_STATUSES = {
    NO_SUCH_CLASS: "the Affected SOP Class UID is not Storage Commitment Push Model",
    NO_SUCH_EVENT: "another Event Type than 1 or 2",
    INVALID_VALUE: "the Transaction UID is none that waits for a report; an item lacks its SOP class or instance; or "
    "the sequences are not those of the event type: 1 names no failed instance, 2 at least one",
    NO_SUCH_OBJECT: "the Affected SOP Instance UID is not the well-known one, or no instance is of the transaction",
    CLASS_CONFLICT: "an instance of the transaction is named with another SOP class",
}
"""What else than 0000H a report is answered with; then nothing of it is believed."""

_LOG = logging.getLogger(__name__)


class ReportRefused(Exception):
    """A report that can't be meant: the status that it is answered with, and why."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class PeerReport:
    """What is kept, what fails for which reasons (None: it says none), and the SOP classes that it names them with.

    Of what fails since the peer has it with another class there are none: some name that one.
    """

    transaction_uid: str
    classes: Mapping[str, set[str]]
    kept: frozenset[str]
    failed: Mapping[str, set[int | None]]

    def check_classes(self, asked: Mapping[str, str]) -> None:
        """Compare with the SOP classes of the instances that the transaction asks about.

        Raises:
            ReportRefused: an instance has another class here, or none is of the transaction.
        """
        if not asked:
            raise ReportRefused(INVALID_VALUE, "its Transaction UID (0008,1195) is none that waits for a report")
        if not asked.keys() & (self.kept | self.failed.keys()):
            raise ReportRefused(NO_SUCH_OBJECT, "it names no instance of its transaction")
        if any(self.classes[uid] != {asked[uid]} for uid in self.classes.keys() & asked.keys()):
            raise ReportRefused(CLASS_CONFLICT, "it names an instance with another SOP class")


def read_report(event_type: int | None, information: Dataset) -> PeerReport:
    """The event information of an N-EVENT-REPORT.

    Raises:
        ReportRefused: it is none of the standard's.
    """
    if event_type not in (ALL_KEPT, SOME_REFUSED):
        raise ReportRefused(NO_SUCH_EVENT, f"its event type is {event_type}, expected {ALL_KEPT} or {SOME_REFUSED}")
    transaction_uid = information.get("TransactionUID")
    if not isinstance(transaction_uid, str):
        raise ReportRefused(INVALID_VALUE, "its Transaction UID (0008,1195) is none")
    kept, refused = _items(information, "ReferencedSOPSequence"), _items(information, "FailedSOPSequence")
    if event_type == ALL_KEPT and (refused or not kept):
        raise ReportRefused(INVALID_VALUE, "its event type says that all is kept, its sequences don't")
    if event_type == SOME_REFUSED and not refused:
        raise ReportRefused(INVALID_VALUE, "its event type says that something failed, and no item does")
    return _report_of(str(transaction_uid), [_reference(item) for item in kept], refused)


def _report_of(transaction_uid: str, kept: Sequence[tuple[str, str]], refused: Sequence[Dataset]) -> PeerReport:
    classes: dict[str, set[str]] = defaultdict(set)
    failed: dict[str, set[int | None]] = defaultdict(set)
    for sop_class, instance in kept:
        classes[instance].add(sop_class)
    for item in refused:
        reason, (sop_class, instance) = item.get("FailureReason"), _reference(item)
        failed[instance].add(reason if isinstance(reason, int) else None)
        if reason != CLASS_CONFLICT:
            classes[instance].add(sop_class)
    uids = frozenset(instance for _, instance in kept)
    return PeerReport(transaction_uid=transaction_uid, classes=classes, kept=uids, failed=failed)


def hear_report(event: Event, take: Callable[[PeerReport], None]) -> tuple[int, None]:
    """Answer an N-EVENT-REPORT: ``take`` believes it, or refuses it by ``ReportRefused``."""
    try:
        if event.request.AffectedSOPClassUID != StorageCommitmentPushModel:
            raise ReportRefused(NO_SUCH_CLASS, "its SOP class is not Storage Commitment Push Model")
        if event.request.AffectedSOPInstanceUID != StorageCommitmentPushModelInstance:
            raise ReportRefused(NO_SUCH_OBJECT, "its SOP instance is not the well-known one")
        take(read_report(event.event_type, event.event_information))
    except ReportRefused as error:
        peer = event.assoc.acceptor if event.assoc.is_requestor else event.assoc.requestor
        who = f"{peer.ae_title.strip()}@{peer.address_info.address}"
        words = "a report on storage commitment is not believed"
        _LOG.warning("from %s: %s: %s (%s).", who, words, error, status_words(error.status))
        return error.status, None
    return SUCCESS, None


def _items(information: Dataset, keyword: str) -> tuple[Dataset, ...]:
    value = information.get(keyword)
    if value is not None and not isinstance(value, Items):
        raise ReportRefused(INVALID_VALUE, f"its {keyword} is no sequence")
    return tuple(value or ())


def _reference(item: Dataset) -> tuple[str, str]:
    """The SOP class and the SOP instance that an item names."""
    found = item.get("ReferencedSOPClassUID"), item.get("ReferencedSOPInstanceUID")
    if not all(isinstance(one, str) and one for one in found):
        raise ReportRefused(INVALID_VALUE, "an item lacks its SOP class or instance")
    return str(found[0]), str(found[1])
