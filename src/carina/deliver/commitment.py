"""Storage commitment as its user: a node is asked whether it keeps objects for good (PS3.4 annex J).

The answer is a report of its own, on the same association or later on one that the node opens to our listener. Both
hand it to ``take_report``; the transaction's UID, which only we and the node know, says which rows it is about.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import Column, ColumnElement, Connection, Engine, select, update

from carina.config import DicomDestination
from carina.database import DELIVERY
from carina.deliver.answers import (
    CLASS_CONFLICT,
    CLASS_NOT_SUPPORTED,
    NO_SUCH_OBJECT,
    SUCCESS,
    Outcome,
    dimse_outcome,
    status_words,
)
from carina.deliver.association import NO_CONTEXT, accepts, address, associated
from carina.deliver.earlier_questions import take_answer, was_asked_under
from carina.deliver.ledger import (
    UNDER_WAY,
    DeliveryState,
    Entry,
    Trouble,
    entry_of,
    mark_absent,
    mark_confirmed,
    mark_failed,
    mark_uncommitted,
)
from carina.deliver.losses import mark_lost
from carina.deliver.pace import PACE, Pace
from carina.deliver.proof import Proof
from carina.deliver.reported import PeerReport, hear_report
from carina.deliver.store_scu import ECHO_CONTEXT, NO_ANSWER
from carina.errors import DeliveryFailed

REQUEST = 1
"""The action type of a request (PS3.4 table J.3.2-1)."""

KNOWS_NO_COMMITMENT = {CLASS_NOT_SUPPORTED, NO_SUCH_OBJECT, 0x0118, 0x0123, 0x0211}
"""Statuses of a node that knows no storage commitment, or none for us."""

UNCOMMITTED = "delivery.uncommitted"
"""The code of what a peer doesn't commit itself to."""

MOST_CONTRADICTIONS = 8
"""After so many reports on an object that contradict themselves its delivery has failed."""

MOST_REFUSALS = 8
"""After so many reports that an object is refused for good its delivery has failed."""

MOST_DELAYS = 300
"""After so many that refuse it for a reason that may pass, or for none: about a day."""

_LOG = logging.getLogger(__name__)
_CONTRADICTS = "contradicts itself: it keeps and fails the object, or fails it twice"


def new_transaction() -> str:
    """A UID that nobody can guess (PS3.5 annex B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def ask_commitment(
    begin: Callable[[], str],
    entries: Iterable[Entry],
    name: str,
    peer: DicomDestination,
    linger: Callable[[Association], None],
    take: Callable[[PeerReport], None],
) -> bool:
    """Ask a node to commit itself to objects; False where it knows no storage commitment.

    ``begin`` writes down that it is asked, and under which transaction; it is called just before, since what reaches
    nobody is no question. ``linger`` keeps the association open for a report on it as long as it likes, ``take`` gets
    that report.

    Raises:
        DeliveryFailed: the node can't be reached, or takes no request this time.
    """

    def report(event: Event) -> tuple[int, None]:
        return hear_report(event, take)

    contexts = [(StorageCommitmentPushModel, (ImplicitVRLittleEndian,)), ECHO_CONTEXT]
    try:
        with associated(name, peer, contexts, [(evt.EVT_N_EVENT_REPORT, report)]) as association:
            if not accepts(association, StorageCommitmentPushModel):
                return False
            is_taken = _request(association, _information(begin(), entries), f"{name} ({address(peer)})")
            if is_taken:
                linger(association)
            return is_taken
    except DeliveryFailed as error:
        if error.code == NO_CONTEXT:
            return False
        raise


def _request(association: Association, information: Dataset, where: str) -> bool:
    model, instance = StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    try:
        status, _ = association.send_n_action(information, REQUEST, model, instance)
    except RuntimeError as error:  # the association has ended
        raise _unasked(where, str(error)) from error
    if "Status" not in status:
        raise _unasked(where, NO_ANSWER)
    if status.Status in KNOWS_NO_COMMITMENT:
        return False
    if status.Status != SUCCESS:
        raise _unasked(where, status_words(int(status.Status)))
    return True


def _information(transaction_uid: str, entries: Iterable[Entry]) -> Dataset:
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = Items([_reference(entry) for entry in entries])
    return information


def _reference(entry: Entry) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = entry.sop_class_uid
    reference.ReferencedSOPInstanceUID = entry.sop_instance_uid
    return reference


def _unasked(where: str, reason: str) -> DeliveryFailed:
    return DeliveryFailed("delivery.query", f"{where} took no request for storage commitment: {reason}.")


def of_transaction(connection: Connection, transaction_uid: str) -> tuple[Entry, ...]:
    """What is under way and was last asked about under a transaction."""
    its = (DELIVERY.c.transaction_uid == transaction_uid) & (DELIVERY.c.transaction_uid != "")
    return _under_way(connection, its)


def _under_way(connection: Connection, rows: ColumnElement[bool]) -> tuple[Entry, ...]:
    wanted = select(DELIVERY).where(rows, DELIVERY.c.state.in_(UNDER_WAY))
    return tuple(entry_of(row) for row in connection.execute(wanted))


def take_report(engine: Engine, report: PeerReport, now: datetime, pace: Pace = PACE) -> None:
    """Write into the ledger what a node reported on storage commitment.

    The first answer counts for each transaction and object. Where an object was asked about anew since, a report on an
    earlier question can be late: what it keeps is confirmed, what it fails is left to the newest. One on a question
    from before the object was last sent is refused. What one report both keeps and fails, or fails for several reasons,
    is neither kept nor absent: it is asked about again, ``MOST_CONTRADICTIONS`` times at most. What is stored, and
    refused each time, is sent or asked about again ``MOST_REFUSALS`` or ``MOST_DELAYS`` times at most.

    Raises:
        ReportRefused: it can't be meant, and changes nothing.
    """
    with engine.begin() as connection:
        entries = of_transaction(connection, report.transaction_uid)
        earlier = _under_way(connection, was_asked_under(report.transaction_uid))
        report.check_classes({entry.sop_instance_uid: entry.sop_class_uid for entry in (*entries, *earlier)})
        for entry in earlier:
            _take_late(connection, entry, report, now)
        for entry in entries:
            uid = entry.sop_instance_uid
            reasons = report.failed.get(uid, set())
            if reasons and (uid in report.kept or len(reasons) > 1):
                _contradicted(connection, entry, now, pace)
            elif reasons:
                _refused(connection, entry, next(iter(reasons)), now, pace)
            elif uid in report.kept:
                mark_confirmed(connection, [entry.id], Proof.COMMITMENT, now)


def _take_late(connection: Connection, entry: Entry, report: PeerReport, now: datetime) -> None:
    """What is reported of an object under another transaction than the newest that it was asked about."""
    uid = entry.sop_instance_uid
    if uid not in report.kept | report.failed.keys():
        return
    if not take_answer(connection, entry.id, report.transaction_uid):
        return
    if uid not in report.failed:
        mark_confirmed(connection, [entry.id], Proof.COMMITMENT, now)
        return
    words = "job %d: %s refuses an object that it was asked about anew since: the newest answer counts."
    _LOG.info(words, entry.job_id, entry.destination)


def _contradicted(connection: Connection, entry: Entry, now: datetime, pace: Pace) -> None:
    """A report says two things of an object: asked again after longer pauses, until it is clear that the peer errs."""
    count = _counted(connection, entry, DELIVERY.c.contradicted)
    if count < MOST_CONTRADICTIONS:
        trouble = Trouble(code=UNCOMMITTED, words=f"the report on storage commitment {_CONTRADICTS}")
        mark_uncommitted(connection, [entry.id], trouble, _later(entry, now, pace.after(count)))
        return
    who = f"{count} reports on storage commitment contradict themselves: {entry.destination} keeps and fails the object"
    _give_up(connection, entry, f"{who}, or fails it twice")


def _refused(connection: Connection, entry: Entry, status: int | None, now: datetime, pace: Pace) -> None:
    """An object that the node does not commit itself to: absent, of another class, or to be asked about once more."""
    reason = _reason(status)
    trouble = Trouble(code=UNCOMMITTED, words=f"storage commitment was refused: {reason}", status=status)
    is_absent = status == NO_SUCH_OBJECT and entry.doubt_until is None  # there was no doubt when it was asked
    if status == CLASS_CONFLICT:
        mark_failed(connection, [entry.id], trouble)
        return
    if is_absent and entry.state is not DeliveryState.SENT:
        mark_absent(connection, [entry.id], now, trouble)
        return
    if is_absent:
        mark_lost(connection, entry, now, pace, trouble)
        return
    count = _counted(connection, entry, DELIVERY.c.refused)
    if count >= (MOST_REFUSALS if _is_for_good(status) else MOST_DELAYS):
        times = f"{entry.destination} refused storage commitment {count} times, the last time with {reason}"
        _give_up(connection, entry, times, status)
        return
    mark_uncommitted(connection, [entry.id], trouble, _later(entry, now, pace.after(max(count, entry.attempts))))


def _reason(status: int | None) -> str:
    return "no reason given" if status is None else status_words(status)


def _is_for_good(status: int | None) -> bool:
    """Whether the same object meets it however often it is asked about."""
    return status is not None and dimse_outcome(status) is Outcome.NEVER


def _counted(connection: Connection, entry: Entry, counter: Column[int]) -> int:
    """One more report of a kind on a delivery; how many it were."""
    counted = update(DELIVERY).where(DELIVERY.c.id == entry.id).values({counter: counter + 1}).returning(counter)
    return int(connection.execute(counted).scalar_one())


def _give_up(connection: Connection, entry: Entry, seen: str, status: int | None = None) -> None:
    """A delivery has failed by its peer's reports; it is asked as often again where somebody wants it tried."""
    connection.execute(update(DELIVERY).where(DELIVERY.c.id == entry.id).values(contradicted=0, lost=0, refused=0))
    how = f"mend it there, or set destinations.{entry.destination}.commitment to false, then resend; it is asked first"
    mark_failed(connection, [entry.id], Trouble(code=UNCOMMITTED, words=f"{seen}: {how}.", status=status))


def _later(entry: Entry, now: datetime, wait: timedelta) -> datetime:
    return max(now, entry.doubt_until or now) + wait
