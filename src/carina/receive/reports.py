"""The reports on storage commitment that the node owes: checked, sent and tried again beside the listener."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import Engine, exc

from carina.config import DicomDestination, Settings
from carina.deliver.answers import SUCCESS, WARNINGS, status_words
from carina.deliver.association import address, associated
from carina.deliver.pace import PACE, Pace
from carina.deliver.store_scu import NO_ANSWER
from carina.errors import DeliveryFailed
from carina.receive.commitment import PROCESSING_FAILURE, CommitmentRequest, commitment_report
from carina.receive.instance import NotAccepted

NOT_AUTHORISED = 0x0124
RESOURCE_LIMITATION = 0x0213

REQUESTS_OWED = 64
"""Requests of one peer that wait for their report."""

INSTANCES_OWED = 200_000
"""Instances that the requests of one peer which wait for their report name together, some 60 MB."""

GIVEN_UP_H = 24.0
"""How long a report is tried."""

CONTEXT = [(StorageCommitmentPushModel, (ExplicitVRLittleEndian, ImplicitVRLittleEndian))]
"""What a report is sent in."""

HEARD_LATER = {PROCESSING_FAILURE, RESOURCE_LIMITATION}
"""Statuses of a peer that may take the same report another time."""

_LOG = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Owed:
    request: CommitmentRequest
    until_s: float
    report: tuple[int, Dataset] | None = None
    is_tried: bool = False


class CommitmentReports:
    """What is owed to each destination, in the order of the requests, until it is sent or ``GIVEN_UP_H`` have passed.

    A destination that is owed something has a thread, which ends with the last report. Of what is owed nothing is
    kept when the node ends. ``clock`` gives seconds.
    """

    def __init__(
        self, settings: Settings, engine: Engine, pace: Pace = PACE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings, self.engine, self.pace, self.clock = settings, engine, pace, clock
        self._owed: dict[str, deque[_Owed]] = {}
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def owe(self, calling: str, request: CommitmentRequest) -> None:
        """Have what a peer asked for checked and reported, to the destination that has its AE title.

        Raises:
            NotAccepted: it is no destination, or is owed too much.
        """
        name, peer = self._destination(calling)
        with self._lock:
            before = self._owed.get(name, deque())
            names = len(request.references) + sum(len(one.request.references) for one in before)
            if len(before) >= REQUESTS_OWED or (before and names > INSTANCES_OWED):
                words = f"{len(before)} requests of {calling} for storage commitment wait for their report"
                raise NotAccepted(RESOURCE_LIMITATION, "receive.commitment", f"{words}: one more is refused.")
            before.append(_Owed(request=request, until_s=self.clock() + GIVEN_UP_H * 3600))
            if name not in self._owed:
                self._owed[name] = before
                threading.Thread(target=self._work, args=(name, peer, before), daemon=True, name="commitment").start()

    def stop(self) -> None:
        """Try nothing more; what is still owed is lost, and told."""
        with self._lock:
            owed = {name: len(reports) for name, reports in self._owed.items()}
            self._stopped.set()
        for name, count in owed.items():
            _LOG.warning("storage commitment: %d report(s) to %s are lost; it has to ask again.", count, name)

    def _destination(self, calling: str) -> tuple[str, DicomDestination]:
        for name, one in self.settings.destinations.items():
            if isinstance(one, DicomDestination) and one.ae_title.strip() == calling:
                return name, one
        words = (
            f"{calling} asks for storage commitment and is no destination: it can't be told, and is refused. Add it."
        )
        raise NotAccepted(NOT_AUTHORISED, "receive.commitment", words)

    def _work(self, name: str, peer: DicomDestination, owed: deque[_Owed]) -> None:
        """Pay what is owed; whatever ends it early leaves the destination to the next request's thread."""
        try:
            self._pay(name, peer, owed)
        finally:
            with self._lock:
                if self._owed.get(name) is owed:
                    del self._owed[name]

    def _pay(self, name: str, peer: DicomDestination, owed: deque[_Owed]) -> None:
        failures = 0
        while not self._stopped.is_set():
            is_over = self._is_settled(name, peer, owed[0])
            with self._lock:
                if is_over:
                    owed.popleft()
                else:
                    owed.rotate(-1)
                if not owed:
                    del self._owed[name]
                    return
            failures = 0 if is_over else failures + 1
            if failures:
                self._stopped.wait(self.pace.after(failures).total_seconds())

    def _is_settled(self, name: str, peer: DicomDestination, one: _Owed) -> bool:
        """Whether a report was sent, or is not to be tried again."""
        why, is_later = self._try(name, peer, one)
        is_later = is_later and self.clock() < one.until_s
        if why and not (is_later and one.is_tried):
            then = f"it is tried for {GIVEN_UP_H:g} hours" if is_later else "it is not tried again"
            _LOG.warning("storage commitment: a report did not reach %s: %s; %s.", name, why.rstrip("."), then)
        one.is_tried = True
        return not is_later

    def _try(self, name: str, peer: DicomDestination, one: _Owed) -> tuple[str, bool]:
        """Check what is asked about, once, and send the report; what went wrong, and whether it may go well later."""
        try:
            one.report = one.report or commitment_report(self.settings, self.engine, one.request)
            status = _send(name, peer, *one.report)
        except DeliveryFailed as error:
            return error.message, True
        except (RuntimeError, ValueError, OSError, exc.SQLAlchemyError) as error:  # words of these may hold UIDs
            return type(error).__name__, True
        is_fine = status == SUCCESS or status in WARNINGS
        return ("" if is_fine else status_words(status)), status in HEARD_LATER


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
