"""What readers decided about a run's masks: accepted, rejected, corrected; who and when."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from carina.api.result import Run
from carina.corrections.finish import Finished, finished_of, reader_mask
from carina.corrections.journal import Journal
from carina.corrections.masks import MaskName, decisions_file
from carina.corrections.painting import labels_sha256


class Decision(StrEnum):
    """What a reader decided; a corrected mask is accepted as it is after that."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CORRECTED = "corrected"


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One decision, ``at`` in UTC. ``number`` is that of the finished correction it is about, 0 the network's mask.

    ``sha256`` is the digest of that mask's voxels: a decision about a mask that was made again is void. ``marked_ml``
    is its volume.
    """

    layer: MaskName
    decision: Decision
    reader: str
    at: datetime
    number: int
    sha256: str
    marked_ml: float


def decision_on(run: Run, layer: MaskName) -> DecisionRecord | None:
    """The decision that holds: the last about the mask that is there now; a finished correction is one of its own.

    Raises:
        BadConfig: ``corrections.damaged``; ``run.no-image``, there is no such mask.
    """
    done = finished_of(run.folder, layer)
    number = done[-1].number if done else 0
    sha256 = done[-1].sha256 if done else labels_sha256(reader_mask(run, layer).labels)
    records = Journal(decisions_file(run.folder), DecisionRecord).unread()
    for record in reversed(records):
        if (record.layer, record.number, record.sha256) == (layer, number, sha256):
            return record
    return _of_correction(done[-1]) if done else None


def _of_correction(finished: Finished) -> DecisionRecord:
    return DecisionRecord(
        layer=finished.layer,
        decision=Decision.CORRECTED,
        reader=finished.reader,
        at=finished.at,
        number=finished.number,
        sha256=finished.sha256,
        marked_ml=finished.reader_ml,
    )


def decide(run: Run, layer: MaskName, decision: Decision, reader: str, at: datetime) -> DecisionRecord:
    """Record that a reader accepts or rejects the mask that is there now; it is on the disk when this returns.

    Raises:
        BadConfig: the folder can't be written, a journal is damaged, or there is no such mask.
    """
    done, mask = finished_of(run.folder, layer), reader_mask(run, layer)
    record = DecisionRecord(
        layer=layer,
        decision=decision,
        reader=reader,
        at=at,
        number=done[-1].number if done else 0,
        sha256=labels_sha256(mask.labels),
        marked_ml=mask.volume_ml(),
    )
    journal = Journal(decisions_file(run.folder), DecisionRecord)
    with journal.held():
        journal.unread()
        journal.append(record)
    return record
