"""The delivery ledger: a row for every object and destination, from the run that made it until the peer has it.

A row waits, is sent (the peer said that it took it) and is confirmed (the peer was asked afterwards), or has failed for
good. Nothing is sent a second time before the peer was asked, since some archives lose an object that is stored twice:
``begin_sending`` says so in the row, of this job and every other, before the first byte goes out, so that it holds
after a crash as well.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, case, func, insert, select, update

from carina.config import Destination
from carina.database import AUDIT, DELIVERY, EVERY_PROJECT, JOB, draw_in, each_project, is_due
from carina.deliver.answers import Answer, short_status
from carina.deliver.earlier_questions import forget_earlier, remember_earlier
from carina.deliver.identity import file_digest, identity_of, kind_of
from carina.deliver.proof import Proof
from carina.deliver.unknown_destination import why_waiting

_LOG = logging.getLogger(__name__)

AT_ONCE = 25
"""Rows that are looked at in one go: the objects of a few jobs, on one association."""

MOST_PUT_OFF = timedelta(days=2)
"""No row waits for longer than that, whatever its destination's settings say."""

_TURN_KEY = 0x0CA71
"""The first half of the advisory locks of PostgreSQL that ``_await_turn`` takes; any number, but one."""

FAILED_WORDS = (
    "job %d: an object can't be delivered to %s [%s]: carina deliveries list --job %d says why; mend that, then "
    "carina deliveries resend --job %d."
)


class DeliveryState(StrEnum):
    """Where an object is on its way."""

    WAITING = "waiting"
    SENT = "sent"
    CONFIRMED = "confirmed"
    FAILED = "failed"


RESTORED = "restored.json"
"""In the folder of a node that was brought back from a backup: it may have sent what its ledger doesn't know of."""

UNDER_WAY = (DeliveryState.WAITING, DeliveryState.SENT)
_Names = Collection[str] | None
_Ids = Collection[int]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row that is under way; ``path`` is relative to the node's folder, ``ask`` as in the table.

    Until ``doubt_until`` it may still be on its way through the peer, which then says that it doesn't have it.
    """

    id: int
    job_id: int
    destination: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    sha256: str
    state: DeliveryState
    attempts: int
    ask: bool
    sent_at: datetime | None
    doubt_until: datetime | None

    @property
    def is_open_question(self) -> bool:
        """Whether the peer is to be asked for it next."""
        return self.ask or self.state is DeliveryState.SENT

    def is_in_doubt(self, now: datetime) -> bool:
        """Whether it means nothing yet that the peer says not to have it."""
        return self.doubt_until is not None and now < self.doubt_until


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why a row waits or has failed: a stable code, a sentence, and the peer's status where it gave one."""

    code: str
    words: str
    status: int | None = None


def enter(
    connection: Connection,
    job_id: int,
    destinations: Mapping[str, Destination | None],
    files: Sequence[Path],
    *,
    folder: Path,
    now: datetime,
) -> int:
    """Put a job's objects into the ledger, for each destination that takes their kind; gives the number of new rows.

    ``files`` lie below the node's ``folder``. Doing so twice changes nothing. None stands for one that the settings
    don't have: it takes every kind for now, and its rows say that they wait for its name.

    Raises:
        OSError: a file can't be read.
        InvalidDicomError: one is no DICOM file.
    """
    objects = [_object(file, folder) for file in files]
    known, is_restored = _known(connection, job_id), (folder / RESTORED).exists()
    rows = []
    for name in sorted(destinations):
        _await_turn(connection, name)
    for name, destination in destinations.items():
        why = why_waiting(name, is_known=destination is not None)
        begun = _begun(connection, name, [one["sop_instance_uid"] for one in objects])
        for one in objects:
            uid = one["sop_instance_uid"]
            if (name, uid) not in known and takes_kind(destination, one["sop_class_uid"]):
                known.add((name, uid))
                doubt = {"ask": int(is_restored or uid in begun), "doubt_until": begun.get(uid), "created_at": now}
                row = {"job_id": job_id, "destination": name, "state": DeliveryState.WAITING}
                rows.append(one | doubt | row | why)
    if rows:
        connection.execute(insert(DELIVERY), rows)
    return len(rows)


def takes_kind(destination: Destination | None, sop_class_uid: str) -> bool:
    """Whether objects of a SOP class go to a destination; all do of which that is not known."""
    return destination is None or not destination.takes or kind_of(sop_class_uid) in destination.takes


def _known(connection: Connection, job_id: int) -> set[tuple[str, str]]:
    wanted = select(DELIVERY.c.destination, DELIVERY.c.sop_instance_uid).where(DELIVERY.c.job_id == job_id)
    return {(row.destination, row.sop_instance_uid) for row in connection.execute(wanted)}


def _begun(connection: Connection, destination: str, uids: Sequence[str]) -> dict[str, datetime | None]:
    """Those of the objects that any job, of whatever project, has begun to send there; until when they are in doubt."""
    wanted = select(DELIVERY.c.sop_instance_uid, func.max(DELIVERY.c.doubt_until).label("until")).where(
        DELIVERY.c.destination == destination, DELIVERY.c.sop_instance_uid.in_(uids), DELIVERY.c.attempts > 0
    )
    rows = connection.execute(wanted.group_by(DELIVERY.c.sop_instance_uid).execution_options(**EVERY_PROJECT))
    return {row.sop_instance_uid: row.until for row in rows}


def _object(file: Path, folder: Path) -> dict[str, str]:
    """What a row says of an object, whichever its destination."""
    identity = identity_of(file)
    return {
        "sop_class_uid": identity.sop_class_uid,
        "sop_instance_uid": identity.sop_instance_uid,
        "path": file.relative_to(folder).as_posix(),
        "sha256": file_digest(file),
    }


def due(
    connection: Connection,
    destination: str,
    now: datetime,
    *,
    longest: timedelta = MOST_PUT_OFF,
    at_most: int = AT_ONCE,
) -> tuple[Entry, ...]:
    """What is to be sent to a destination, asked about or confirmed now: the oldest first, each object once.

    ``longest`` is the longest that a row of it can have been told to wait.
    """
    wanted = (
        select(DELIVERY)
        .where(
            DELIVERY.c.destination == destination,
            DELIVERY.c.state.in_(UNDER_WAY),
            is_due(DELIVERY.c.not_before, now, longest),
        )
        .order_by(DELIVERY.c.id)
        .limit(at_most)
    )
    entries: dict[str, Entry] = {}
    for row in connection.execute(wanted):
        entries.setdefault(row.sop_instance_uid, entry_of(row))
    return tuple(entries.values())


def entry_of(row: Row[Any]) -> Entry:
    """A row of the table as it is read."""
    return Entry(
        id=row.id,
        job_id=row.job_id,
        destination=row.destination,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        path=row.path,
        sha256=row.sha256,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        ask=bool(row.ask),
        sent_at=row.sent_at,
        doubt_until=row.doubt_until,
    )


def begin_sending(connection: Connection, entry: Entry, doubt_until: datetime) -> bool:
    """Say that an object is about to be sent: from now on the peer is asked before it is sent again, by any job.

    False where the row is not as it was read: somebody else has begun to send it, so it must not be sent now.
    """
    _await_turn(connection, entry.destination)
    unchanged = (DELIVERY.c.id == entry.id) & (DELIVERY.c.attempts == entry.attempts) & (DELIVERY.c.ask == 0)
    unchanged &= DELIVERY.c.state == DeliveryState.WAITING
    begun = connection.execute(update(DELIVERY).where(unchanged).values(attempts=DELIVERY.c.attempts + 1)).rowcount
    if begun:
        same = (DELIVERY.c.destination == entry.destination) & (DELIVERY.c.sop_instance_uid == entry.sop_instance_uid)
        forget_earlier(connection, same)  # what is reported of before says nothing of the object once it is sent again
        _doubt(connection, entry, doubt_until, transaction_uid="")
    return bool(begun)


def _doubt(connection: Connection, entry: Entry, until: datetime, **more: str) -> None:
    """An object may be on its way until then, for whichever job: the peer is asked before it is sent by any."""
    same = (DELIVERY.c.destination == entry.destination) & (DELIVERY.c.sop_instance_uid == entry.sop_instance_uid)
    connection.execute(update(DELIVERY).where(same).values(doubt_until=until, **more))
    connection.execute(update(DELIVERY).where(same, DELIVERY.c.state == DeliveryState.WAITING).values(ask=1))


def _await_turn(connection: Connection, destination: str) -> None:
    """Keep others from beginning to send, or entering, an object of this destination until the transaction ends.

    A row that is entered while another job's object is being begun would not be seen by either. SQLite has one writer.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_TURN_KEY, func.hashtext(destination))))


def mark_sent(
    connection: Connection, entry: Entry, answer: Answer, *, now: datetime, doubt_until: datetime | None = None
) -> None:
    """The peer said that it stored an object, which the audit trail says too; it is to be confirmed."""
    values = {"state": DeliveryState.SENT, "status": answer.status, "sent_at": now, "doubt_until": doubt_until}
    _change(connection, [entry.id], **values, **_UNTROUBLED)
    if doubt_until is not None:
        _doubt(connection, entry, doubt_until)
    if answer.for_ledger:
        add_note(connection, [entry.id], answer.for_ledger)
    subject = f"{entry.sop_instance_uid} of job {entry.job_id} to {entry.destination}"
    connection.execute(insert(AUDIT).values(at=now, who="sender", action="sent", subject=subject))


def mark_confirmed(connection: Connection, ids: Collection[int], proof: Proof, now: datetime) -> None:
    """The peer has the objects; what it last answered stays where that was how it took them, and is no refusal."""
    status = case((DELIVERY.c.state == DeliveryState.SENT, DELIVERY.c.status))
    values = {"confirmed_by": proof, "confirmed_at": now, "transaction_uid": "", "status": status}
    values |= {"state": DeliveryState.CONFIRMED}
    forget_earlier(connection, DELIVERY.c.id.in_(ids))
    _change(connection, ids, **values, **_UNTROUBLED)


def mark_failed(connection: Connection, ids: Collection[int], trouble: Trouble) -> None:
    """The objects can't be delivered, however often it is tried; ``resend`` lets them wait once more."""
    forget_earlier(connection, DELIVERY.c.id.in_(ids))
    _change(connection, ids, state=DeliveryState.FAILED, not_before=None, transaction_uid="", **_troubled(trouble))
    status = "" if trouble.status is None else f", {short_status(trouble.status)}"  # a peer's words may name a patient
    failed = DELIVERY.c.id.in_(ids) & (DELIVERY.c.state == DeliveryState.FAILED)
    for job, name in connection.execute(select(DELIVERY.c.job_id, DELIVERY.c.destination).where(failed)):
        _LOG.warning(FAILED_WORDS, job, name, trouble.code + status, job, job)


def mark_absent(connection: Connection, ids: Collection[int], until: datetime, trouble: Trouble | None = None) -> None:
    """The peer was asked and does not have the objects: they may be sent, from then on."""
    forget_earlier(connection, DELIVERY.c.id.in_(ids))
    values = {"state": DeliveryState.WAITING, "ask": 0, "transaction_uid": "", "not_before": until}
    _change(connection, ids, **values, **(_troubled(trouble) if trouble else {}))


def mark_uncommitted(connection: Connection, ids: Collection[int], trouble: Trouble, until: datetime) -> None:
    """The peer does not commit itself to the objects yet: from then on it is asked again, in another transaction."""
    _change(connection, ids, not_before=until, transaction_uid="", error_code=trouble.code, error=trouble.words)


def mark_refused(connection: Connection, ids: Collection[int], trouble: Trouble, until: datetime) -> None:
    """The peer said that it doesn't store the objects now: they wait until then."""
    put_off(connection, ids, trouble, until)
    _change(connection, ids, doubt_until=None)


def mark_unknown(
    connection: Connection, entry: Entry, trouble: Trouble, *, until: datetime, doubt_until: datetime
) -> None:
    """Nobody knows what became of an object: it waits, and the doubt counts from now, when the attempt ended."""
    put_off(connection, [entry.id], trouble, until)
    _doubt(connection, entry, doubt_until)


def extend_doubt(connection: Connection, destination: str, until: datetime) -> None:
    """What a process that is no more had begun to send may be on its way, whenever it began."""
    rows = (
        (DELIVERY.c.destination == destination) & DELIVERY.c.state.in_(UNDER_WAY) & DELIVERY.c.doubt_until.is_not(None)
    )
    connection.execute(update(DELIVERY).where(rows).values(doubt_until=until))


def shorten_doubt(connection: Connection, destination: str, latest: datetime) -> None:
    """No doubt reaches further ahead than one that begins now; one that does is of before the clock was set back."""
    rows = (DELIVERY.c.destination == destination) & DELIVERY.c.state.in_(UNDER_WAY)
    draw_in(connection, DELIVERY.c.doubt_until, rows, latest)


def waiting_until(connection: Connection, ids: Collection[int], until: datetime) -> Sequence[int]:
    """Those of the rows that wait until exactly then: what ``resend`` has taken, or is over, does not."""
    wanted = select(DELIVERY.c.id).where(DELIVERY.c.id.in_(ids), DELIVERY.c.not_before == until)
    return connection.execute(wanted).scalars().all()


def put_off(connection: Connection, ids: Collection[int], trouble: Trouble, until: datetime) -> None:
    """Leave the objects alone until then, in the state in which they are."""
    _change(connection, ids, not_before=until, **_troubled(trouble))


def mark_asked(connection: Connection, entry: Entry, transaction_uid: str, *, now: datetime, until: datetime) -> None:
    """Storage commitment is asked for, under this transaction; without a report until then it is asked for again.

    The doubt stays where there is one now, since the peer may look before what is on its way arrives, and report late.
    """
    asked = Trouble(code="delivery.unconfirmed", words="storage commitment was asked for, no report has come yet")
    doubt = {} if entry.is_in_doubt(now) else {"doubt_until": None}
    values = {"transaction_uid": transaction_uid, "not_before": until, **doubt}
    remember_earlier(connection, entry.id, transaction_uid)
    _change(connection, [entry.id], **values, **_troubled(asked))


def add_note(connection: Connection, ids: Collection[int], note: str) -> None:
    """Add a sentence to what the rows say."""
    spaced = DELIVERY.c.note + " " + note
    _change(connection, ids, note=func.ltrim(spaced))


_UNTROUBLED: Mapping[str, Any] = {"error_code": "", "error": "", "not_before": None}


def _troubled(trouble: Trouble) -> dict[str, Any]:
    status = {} if trouble.status is None else {"status": trouble.status}
    return {"error_code": trouble.code, "error": trouble.words, **status}


def _change(connection: Connection, ids: Collection[int], **values: Any) -> None:
    """Change rows that are under way; what is confirmed or has failed stays so, whoever comes late."""
    rows = DELIVERY.c.id.in_(ids) & DELIVERY.c.state.in_(UNDER_WAY)
    connection.execute(update(DELIVERY).where(rows).values(**values))


def resend(
    connection: Connection, *, destination: str = "", job_id: int | None = None, among: _Names = None, but: _Ids = ()
) -> int:
    """Let what has failed, waits for its time, or is sent and not confirmed be tried now; how many rows.

    All of it, or that of one destination or job, ``among`` the destinations of the settings: nobody sends to others;
    ``but`` are ids of rows that stay. The peer is asked first whether it has them.
    """
    waits = (DELIVERY.c.state == DeliveryState.WAITING) & DELIVERY.c.not_before.is_not(None)
    unsent = (DELIVERY.c.state == DeliveryState.FAILED) | waits
    unconfirmed = (DELIVERY.c.state == DeliveryState.SENT) & DELIVERY.c.not_before.is_not(None)
    asked = [DELIVERY.c.id.not_in(but), *([DELIVERY.c.destination == destination] if destination else [])]
    asked += [DELIVERY.c.job_id == job_id] if job_id is not None else []
    asked += [DELIVERY.c.destination.in_(among)] if among is not None else []
    again = update(DELIVERY).where(unsent, *asked).values(state=DeliveryState.WAITING, ask=1, not_before=None)
    sooner = update(DELIVERY).where(unconfirmed, *asked).values(not_before=None)
    return sum(int(connection.execute(one).rowcount) for one in (sooner, again))


def counts(connection: Connection, *, job_id: int | None = None) -> dict[str, dict[DeliveryState, int]]:
    """How many objects are in which state, by destination: of every job, or of one."""
    by_index = DELIVERY.c.state, DELIVERY.c.destination  # in the order of ix_delivery_queue, so that nothing is sorted
    wanted = select(*by_index, func.count().label("number")).group_by(*by_index)
    if job_id is not None:
        wanted = wanted.where(DELIVERY.c.job_id == job_id)
    found: dict[str, dict[DeliveryState, int]] = {}
    for of_project in each_project(connection, JOB):  # from the project's jobs on: of others nothing is looked at
        its = wanted.join(JOB, JOB.c.id == DELIVERY.c.job_id).where(*of_project) if of_project else wanted
        for row in connection.execute(its):
            found.setdefault(row.destination, dict.fromkeys(DeliveryState, 0))[DeliveryState(row.state)] += row.number
    return found


def is_delivered(connection: Connection, job_id: int) -> bool:
    """Whether every object of a job is confirmed by every destination that takes it."""
    wanted = select(DELIVERY.c.id).where(DELIVERY.c.job_id == job_id, DELIVERY.c.state != DeliveryState.CONFIRMED)
    return connection.execute(wanted.limit(1)).first() is None
