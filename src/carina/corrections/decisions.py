"""What readers decided about a run's masks: accepted, rejected, corrected; who and when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import msgspec

from carina.api.result import Run
from carina.corrections.finish import Finished, finished_of, reader_mask
from carina.corrections.journal import Journal
from carina.corrections.masks import CORRECTIONS, MaskName, decisions_file, masks_made, network_mask
from carina.corrections.painting import labels_sha256
from carina.corrections.standing import Decision, ReaderDecision
from carina.errors import BadConfig, one_line

LONGEST_REJECTION = 200
"""Characters that a reader may give as the reason of a rejection."""


class DecisionRecord(ReaderDecision, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decision as it is stored beside a run; its ``correction`` is called ``number`` in the file.

    ``sha256`` is the digest of the mask's voxels: a decision about a mask that was made again is void. ``marked_ml`` is
    its volume.
    """

    correction: int = msgspec.field(name="number")
    layer: MaskName
    sha256: str
    marked_ml: float


@dataclass(frozen=True, kw_only=True)
class ReadersState:
    """What readers decided about a run's masks, and the correction with which the ratio that holds was measured.

    ``measured`` is None where nothing was corrected, no ratio was measured, or a reader rejected a mask since;
    ``beside`` is the correction of the other mask that was measured with it, None where that was the network's.
    ``trouble`` says why it can't be told: the run's own pages are shown all the same.
    """

    decisions: tuple[DecisionRecord, ...] = ()
    measured: Finished | None = None
    beside: Finished | None = None
    trouble: str = ""

    @property
    def measured_with(self) -> str:
        """Both masks from which the ratio that holds was measured, in words; empty where none holds."""
        if self.measured is None:
            return ""
        other = MaskName.LUNG if self.measured.layer is MaskName.LESION else MaskName.LESION
        beside = _called(self.beside) if self.beside else f"the network's {other} mask"
        return f"{_called(self.measured)} and {beside}"

    @property
    def is_rejected(self) -> bool:
        """Whether a mask from which the ratio was measured is rejected."""
        return any(one.decision is Decision.REJECTED for one in self.decisions)

    @property
    def is_network_s_rejected(self) -> bool:
        """Whether a mask of the network itself is rejected, and not a correction of it."""
        return any(one.decision is Decision.REJECTED and not one.correction for one in self.decisions)

    @property
    def differing(self) -> tuple[DecisionRecord, ...]:
        """The decisions by which what the network left is no longer what holds."""
        return tuple(one for one in self.decisions if one.standing is not Decision.ACCEPTED)


def readers_state(run: Run) -> ReadersState:
    """What readers decided about the masks of a run; nothing is read of a run that nobody looked at."""
    if not (run.folder / CORRECTIONS).is_dir():
        return ReadersState()
    try:
        return _state(run)
    except BadConfig as error:
        return ReadersState(trouble=error.message)


def _state(run: Run) -> ReadersState:
    made = masks_made(run)
    state = ReadersState(decisions=tuple(one for layer in made if (one := decision_on(run, layer)) is not None))
    latest = sorted((done[-1] for layer in made if (done := finished_of(run.folder, layer))), key=lambda one: one.at)
    if not latest or latest[-1].reader_ratio_percent is None or state.is_rejected:
        return state
    return replace(state, measured=latest[-1], beside=latest[0] if len(latest) > 1 else None)


def _called(finished: Finished) -> str:
    return f"{finished.layer} correction {finished.number} of {finished.by}"


def decision_on(run: Run, layer: MaskName) -> DecisionRecord | None:
    """The decision that holds: the last about the mask that is there now; a finished correction is one of its own.

    Raises:
        BadConfig: ``corrections.damaged``; ``run.no-image``, there is no such mask any more.
    """
    done = finished_of(run.folder, layer)
    number = done[-1].number if done else 0
    records = [
        record
        for record in Journal(decisions_file(run.folder), DecisionRecord).unread()
        if (record.layer, record.correction) == (layer, number)
    ]
    if records:
        sha256 = done[-1].sha256 if done else _network_sha256(run, layer)
        for record in reversed(records):
            if record.sha256 == sha256:
                return record
    return _of_correction(done[-1]) if done else None


def rejected_corrections(run: Run, layer: MaskName) -> dict[int, DecisionRecord]:
    """The finished corrections of a mask that a reader rejected, and nobody accepted since, by their numbers.

    Raises:
        BadConfig: ``corrections.damaged``.
    """
    digests = {one.number: one.sha256 for one in finished_of(run.folder, layer)}
    said = Journal(decisions_file(run.folder), DecisionRecord).unread()
    about = [one for one in said if one.layer == layer and digests.get(one.correction) == one.sha256]
    last = {one.correction: one for one in about}
    return {number: one for number, one in last.items() if one.decision is Decision.REJECTED}


def last_words(run: Run) -> tuple[DecisionRecord, ...]:
    """The last word of each reader about each mask of a run, the newest first, whether it still holds or not.

    Raises:
        BadConfig: ``corrections.damaged``.
    """
    said = Journal(decisions_file(run.folder), DecisionRecord).unread()
    said += [_of_correction(one) for layer in MaskName for one in finished_of(run.folder, layer)]
    last = {(one.layer, one.reader): one for one in sorted(said, key=lambda one: one.at)}
    return tuple(sorted(last.values(), key=lambda one: one.at, reverse=True))


def _network_sha256(run: Run, layer: MaskName) -> str:
    files = sorted((run.folder / layer).iterdir()) if (run.folder / layer).is_dir() else []
    return _sha256_of(run.folder, layer, tuple(path.stat().st_mtime_ns for path in files))


@lru_cache(maxsize=4096)
def _sha256_of(folder: Path, layer: MaskName, changed_ns: tuple[int, ...]) -> str:
    """The digest of a mask's voxels, which takes a second of a large one: read again when a file of it has changed."""
    return labels_sha256(network_mask(Run(folder), layer).labels)


def _of_correction(finished: Finished) -> DecisionRecord:
    return DecisionRecord(
        layer=finished.layer,
        decision=Decision.CORRECTED,
        reader=finished.reader,
        at=finished.at,
        correction=finished.number,
        sha256=finished.sha256,
        marked_ml=finished.reader_ml,
        painters=finished.painters,
        finisher=finished.reader,
    )


def decide(
    run: Run, layer: MaskName, decision: Decision, reader: str, at: datetime, reason: str = ""
) -> DecisionRecord:
    """Record that a reader accepts or rejects the mask that is there now; it is on the disk when this returns.

    ``reason`` is that of a rejection, kept in one line.

    Raises:
        BadConfig: the folder can't be written, a journal is damaged, or there is no such mask.
    """
    done, mask = finished_of(run.folder, layer), reader_mask(run, layer)
    record = DecisionRecord(
        layer=layer,
        decision=decision,
        reader=reader,
        at=at,
        correction=done[-1].number if done else 0,
        sha256=labels_sha256(mask.labels),
        marked_ml=mask.volume_ml(),
        reason=one_line(reason).strip(" .") if decision is Decision.REJECTED else "",
        painters=done[-1].painters if done else (),
        finisher=done[-1].reader if done else "",
    )
    journal = Journal(decisions_file(run.folder), DecisionRecord)
    with journal.held():
        journal.unread()
        journal.append(record)
    return record
