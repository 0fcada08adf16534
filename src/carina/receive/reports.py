"""The reports on storage commitment that the node owes: checked, sent and tried again beside the listener."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import Engine

from carina.config import DicomDestination, Settings
from carina.database import FolderAway, Outages, OwnFolder
from carina.deliver.answers import SUCCESS, WARNINGS, status_words
from carina.deliver.association import address, associated
from carina.deliver.callers import destinations_of_caller
from carina.deliver.pace import PACE, Pace
from carina.deliver.store_scu import NO_ANSWER
from carina.errors import DeliveryFailed
from carina.receive.commitment import PROCESSING_FAILURE, CommitmentRequest, failure_reasons, report_on
from carina.receive.durability import DATABASE_FAILS
from carina.receive.instance import NotAccepted
from carina.receive.owed_reports import (
    GIVEN_UP_H,
    Owed,
    add_owed,
    end_outdated,
    end_owed,
    keep_reasons,
    next_owed,
    numbers_owed,
    size_of_owed,
    try_later,
)
from carina.receive.part import unwritable_row

NOT_AUTHORISED = 0x0124
RESOURCE_LIMITATION = 0x0213

REQUESTS_OWED = 64
"""Requests of one peer that wait for their report."""

INSTANCES_OWED = 200_000
"""Instances that the requests of one peer which wait for their report name together, some 60 MB."""

CONTEXT = [(StorageCommitmentPushModel, (ExplicitVRLittleEndian, ImplicitVRLittleEndian))]
"""What a report is sent in."""

HEARD_LATER = {PROCESSING_FAILURE, RESOURCE_LIMITATION}
"""Statuses of a peer that may take the same report another time."""

_LOG = logging.getLogger(__name__)


class CommitmentReports:
    """What is owed to each destination, in the order of the requests, until it is sent or ``GIVEN_UP_H`` have passed.

    It is in the database, so that it outlives the process. A destination that is owed something has a thread, which
    ends with the last report.
    """

    def __init__(self, settings: Settings, engine: Engine, pace: Pace = PACE) -> None:
        self.settings, self.engine, self.pace = settings, engine, pace
        self._folder = Path(settings.node.folder)
        self._outages = Outages("storage commitment: reports wait", self._folder)
        self._at_work: set[str] = set()
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Try what an earlier process left as well; what can't be is told."""
        with self.engine.begin() as connection:
            outdated, owed = end_outdated(connection), numbers_owed(connection)
        for name, number in outdated.items():
            words = "storage commitment: %d report(s) did not reach %s in %g hours; they are not tried again."
            _LOG.warning(words, number, name, GIVEN_UP_H)
        for name, number in owed.items():
            if isinstance(peer := self.settings.destinations.get(name), DicomDestination):
                self._work_for(name, peer)
            else:
                words = "storage commitment: %d report(s) wait for %s, which the settings don't have as a destination "
                _LOG.warning(words + 'of kind "dicom": add it within %g hours.', number, name, GIVEN_UP_H)

    def owe(self, calling: str, address: str, request: CommitmentRequest) -> None:
        """Have what a peer asked for checked and reported, to the destination that it is.

        Raises:
            NotAccepted: it is no destination, or can't be told from another; it is owed too much; or the database takes
                no row.
        """
        name, peer = self._destination(calling, address)
        try:
            with self._lock, self.engine.begin() as connection:
                before, instances = size_of_owed(connection, name)
                if before >= REQUESTS_OWED or (before and instances + len(request.references) > INSTANCES_OWED):
                    words = f"{before} requests of {calling} for storage commitment wait for their report"
                    raise NotAccepted(RESOURCE_LIMITATION, "receive.commitment", f"{words}: one more is refused.")
                add_owed(connection, name, request)
        except DATABASE_FAILS as error:
            why = unwritable_row(self._folder, error)
            raise NotAccepted(RESOURCE_LIMITATION, why.code, why.message) from error
        self._work_for(name, peer)

    def stop(self) -> None:
        """Try nothing more; what is still owed is tried after the next start."""
        self._stopped.set()

    def _destination(self, calling: str, address: str) -> tuple[str, DicomDestination]:
        names, why = destinations_of_caller(self.settings.destinations, calling, address)
        for name in names:
            if isinstance(one := self.settings.destinations[name], DicomDestination):
                return name, one
        words = f"{calling} asks for storage commitment, and can't be told: {why}"
        raise NotAccepted(NOT_AUTHORISED, "receive.commitment", f"{words}; it is refused. Look at [destinations].")

    def _work_for(self, name: str, peer: DicomDestination) -> None:
        with self._lock:
            if name in self._at_work or self._stopped.is_set():
                return
            self._at_work.add(name)
        threading.Thread(target=self._work, args=(name, peer), daemon=True, name="commitment").start()

    def _work(self, name: str, peer: DicomDestination) -> None:
        """Pay what is owed; whatever ends it early leaves the destination to the next request's thread."""
        try:
            self._pay(name, peer)
        finally:
            self._at_work.discard(name)

    def _pay(self, name: str, peer: DicomDestination) -> None:
        failures, last = 0, 0
        while not self._stopped.is_set():
            is_over = False
            try:
                if (one := self._next(name, last)) is None:
                    return
                last = one.id
                is_over = self._is_settled(name, peer, one)
                self._outages.is_over()
            except FolderAway:  # what was looked for there is looked for again
                pass
            except DATABASE_FAILS as error:
                self._outages.tell(unwritable_row(self._folder, error))
            failures = 0 if is_over else failures + 1
            if failures:
                self._stopped.wait(self.pace.after(failures).total_seconds())

    def _next(self, name: str, last: int) -> Owed | None:
        """The next in turn; where there is none, whoever comes with one is to begin a thread."""
        with self._lock, self.engine.begin() as connection:
            found = next_owed(connection, name, last)
            if found is None:
                self._at_work.discard(name)
            return found

    def _is_settled(self, name: str, peer: DicomDestination, one: Owed) -> bool:
        """Whether a report was sent, or is not to be tried again."""
        why, is_later = self._try(name, peer, one)
        with self.engine.begin() as connection:
            if is_later:
                is_later = try_later(connection, one)
            else:
                end_owed(connection, one)
        if why and not (is_later and one.is_tried):
            then = f"it is tried for {GIVEN_UP_H:g} hours" if is_later else "it is not tried again"
            _LOG.warning("storage commitment: a report did not reach %s: %s; %s.", name, why.rstrip("."), then)
        return not is_later

    def _try(self, name: str, peer: DicomDestination, one: Owed) -> tuple[str, bool]:
        """Check what is asked about, once, and send the report; what went wrong, and whether it may go well later."""
        try:
            reasons = self._reasons(one) if one.reasons is None else one.reasons
            status = _send(name, peer, *report_on(one.request, reasons))
        except DeliveryFailed as error:
            return error.message, True
        except (*DATABASE_FAILS, FolderAway):
            raise
        except Exception as error:  # noqa: BLE001 - the network edge: one report that breaks holds up no other
            return type(error).__name__, True  # its words may hold UIDs
        is_fine = status == SUCCESS or status in WARNINGS
        return ("" if is_fine else status_words(status)), status in HEARD_LATER

    def _reasons(self, one: Owed) -> list[int | None]:
        reasons = failure_reasons(self.settings, self.engine, one.request)
        with OwnFolder(self._folder, self.engine).begin() as connection:
            keep_reasons(connection, one, reasons)
        return reasons


def _send(name: str, peer: DicomDestination, event_type: int, report: Dataset) -> int:
    """Send a report on an association of our own; the status that it is answered with.

    Raises:
        DeliveryFailed: nobody takes it, or answers.
        RuntimeError: the association ends before it is sent.
    """
    with associated(name, peer, CONTEXT, taken=[StorageCommitmentPushModel]) as association:
        status, _ = association.send_n_event_report(
            report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    if "Status" not in status:
        raise DeliveryFailed("delivery.report", f"{name} ({address(peer)}): {NO_ANSWER}.")
    return int(status.Status)
