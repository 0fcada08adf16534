"""Storage commitment as its provider: who sent us instances asks whether we keep them (PS3.4 annex J)."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import Engine, select

from carina.config import DicomDestination, Settings
from carina.database import INSTANCE
from carina.database.intact import is_intact
from carina.receive.sure import assure

NO_SUCH_INSTANCE = 0x0112
"""Failure reason of an instance that is not there (PS3.3 C.14.1.1)."""

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
    known = [one for one in settings.destinations.values() if isinstance(one, DicomDestination)]
    peer = next((one for one in known if one.ae_title == calling), None)
    if peer is None:
        _LOG.warning("%s asks for storage commitment and is no destination: it can't be told. Add it.", calling)
        return
    event_type, report = commitment_report(settings, engine, asked, project)
    threading.Thread(target=_send, args=(peer, event_type, report), daemon=True, name="commitment").start()


def _send(peer: DicomDestination, event_type: int, report: Dataset) -> None:
    node = AE(ae_title=peer.calling_ae_title)
    node.acse_timeout = node.dimse_timeout = node.network_timeout = peer.timeout_s
    node.add_requested_context(StorageCommitmentPushModel, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    association = node.associate(peer.host, peer.port, ae_title=peer.ae_title, ext_neg=[role])
    if not association.is_established:
        _LOG.warning("storage commitment: %s at %s:%d can't be reached.", peer.ae_title, peer.host, peer.port)
        return
    try:
        association.send_n_event_report(
            report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
    except (RuntimeError, ValueError) as error:
        _LOG.warning("storage commitment: %s did not take the report (%s).", peer.ae_title, error)
    finally:
        association.release()
