"""Storage commitment as its provider: who sent us instances asks whether we keep them (PS3.4 annex J)."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import Engine, select

from carina.config import DicomDestination, Settings
from carina.database import INSTANCE
from carina.database.intact import is_intact
from carina.deliver.association import associated
from carina.errors import DeliveryFailed
from carina.receive.sure import assure

NO_SUCH_INSTANCE = 0x0112
"""Failure reason of an instance that is not there (PS3.3 C.14.1.1)."""

CONTEXT = [(StorageCommitmentPushModel, (ExplicitVRLittleEndian, ImplicitVRLittleEndian))]
"""What a report is sent in."""

ALL_THERE, SOME_MISSING = 1, 2
"""Event types of a report (PS3.4 table J.3.3-1)."""

_LOG = logging.getLogger(__name__)


def commitment_report(settings: Settings, engine: Engine, asked: Dataset, project: str) -> tuple[int, Dataset]:
    """The event type and the report for what a peer asked about: what is here, row and file, and what is not.

    What came by the sources of other projects than ``project`` is not here: nobody learns of it.
    """
    report, there, missing = Dataset(), [], []
    report.TransactionUID = asked.TransactionUID
    folder = Path(settings.node.folder)
    others = [name for name, source in settings.sources.items() if source.project != project]
    for wanted in asked.get("ReferencedSOPSequence", []):
        item = Dataset()
        item.ReferencedSOPClassUID = wanted.ReferencedSOPClassUID
        item.ReferencedSOPInstanceUID = wanted.ReferencedSOPInstanceUID
        with engine.connect() as connection:
            same = INSTANCE.c.sop_instance_uid == str(wanted.ReferencedSOPInstanceUID)
            rows = connection.execute(select(INSTANCE).where(same, INSTANCE.c.source.not_in(others))).all()
        if any(is_intact(folder / row.path, row) if row.flushed else assure(folder, row) for row in rows):
            there.append(item)
        else:
            item.FailureReason = NO_SUCH_INSTANCE
            missing.append(item)
    report.ReferencedSOPSequence = there
    if missing:
        report.FailedSOPSequence = missing
    return (SOME_MISSING if missing else ALL_THERE), report


def answer_commitment(settings: Settings, engine: Engine, calling: str, asked: Dataset, project: str) -> None:
    """Send the report on an association of our own, to the destination that has the caller's AE title.

    ``project`` is that of the source that was called.
    """
    known = [(name, one) for name, one in settings.destinations.items() if isinstance(one, DicomDestination)]
    peer = next((one for one in known if one[1].ae_title.strip() == calling), None)
    if peer is None:
        _LOG.warning("%s asks for storage commitment and is no destination: it can't be told. Add it.", calling)
        return
    event_type, report = commitment_report(settings, engine, asked, project)
    threading.Thread(target=_send, args=(*peer, event_type, report), daemon=True, name="commitment").start()


def _send(name: str, peer: DicomDestination, event_type: int, report: Dataset) -> None:
    try:
        with associated(name, peer, CONTEXT, taken=[StorageCommitmentPushModel]) as association:
            association.send_n_event_report(
                report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
    except DeliveryFailed as error:
        _LOG.warning("storage commitment: no report was sent. %s", error.message)
    except (RuntimeError, ValueError) as error:
        _LOG.warning("storage commitment: %s did not take the report (%s).", peer.ae_title, error)
