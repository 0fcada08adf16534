"""One destination's share of the ledger: asked about, sent and confirmed, round by round.

A round leaves every row true at every moment, so that the process may be killed between any two lines: that an object
is being sent is written before it is sent, what the peer said right after it said it. What was begun and did not end is
therefore asked about in the next round, by whichever process comes then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_never

from pydicom.errors import InvalidDicomError
from pynetdicom.association import Association
from sqlalchemy import Connection, Engine

from carina.config import Destination, DicomDestination
from carina.database import Outages, OwnFolder, is_resting, read_only
from carina.deliver import ledger
from carina.deliver.answers import Answer, Outcome
from carina.deliver.channels import Channel, Session
from carina.deliver.commitment import ask_commitment, new_transaction, of_transaction, take_report
from carina.deliver.identity import file_digest, identity_of
from carina.deliver.ledger import DeliveryState, Entry, Trouble
from carina.deliver.losses import mark_lost
from carina.deliver.lost_destinations import unstrand
from carina.deliver.pace import Pace
from carina.deliver.proof import Proof
from carina.deliver.receipt import unreachable
from carina.errors import DeliveryFailed, told

REPORTS_LOOKED_FOR_S = 0.05

LONGEST_REPORT_S = 3600.0
"""The longest wait for a report on storage commitment before it is asked for again."""

UNASKED = "It can't be asked whether it has the object (it answers no queries):"


@dataclass(kw_only=True)
class Courier:
    """Delivers to one destination; ``folder`` is the node's, ``clock`` gives the time in UTC.

    ``is_stopping`` is asked between two objects; what has not been begun then is left for the next process.
    """

    engine: Engine
    folder: Path
    name: str
    destination: Destination
    channel: Channel
    pace: Pace
    clock: Callable[[], datetime]
    is_stopping: Callable[[], bool] = lambda: False
    failures: int = field(default=0, init=False)
    rests_until: datetime | None = field(default=None, init=False)
    _put_off: Sequence[int] = field(default=(), init=False)
    _away: Outages = field(init=False)
    own: OwnFolder = field(init=False)

    def __post_init__(self) -> None:
        self._away = Outages(f"destination {self.name}", self.folder)
        self.own = OwnFolder(self.folder, self.engine)

    def resume(self) -> None:
        """Begin where another process ended, or was killed."""
        with self.engine.begin() as connection:
            unstrand(connection, self.name, self.destination)
            ledger.extend_doubt(connection, self.name, self.clock() + self._patience)

    def round(self) -> bool:
        """Do what is due now; gives whether anything was.

        Raises:
            FolderAway: the node's folder is not there, or not any more, which says nothing of what lies in it.
        """
        self.own.check()
        now = self.clock()
        with read_only(self.engine) as connection:
            if self._rests(connection, now):
                return False
            entries = ledger.due(connection, self.name, now, longest=self._longest_wait)
        if self._is_set_back(entries, now):
            return True
        here = [entry for entry in entries if self._is_here(entry)]
        self.rests_until = None
        if self._try(self._settle, [entry for entry in here if entry.is_open_question]):
            self._try(self._send, [entry for entry in here if not entry.is_open_question])
        return bool(entries)

    def _is_set_back(self, entries: Sequence[Entry], now: datetime) -> bool:
        """Whether a doubt was of before the clock was set back: then it begins now."""
        latest = now + self._patience
        if not any(entry.is_in_doubt(latest) for entry in entries):
            return False
        with self.engine.begin() as connection:
            ledger.shorten_doubt(connection, self.name, latest)
        return True

    def _rests(self, connection: Connection, now: datetime) -> bool:
        """Whether the peer is left alone still: until its time, or until somebody wants it tried now."""
        until = self.rests_until
        if until is None or not is_resting(until, now, self.pace.longest):
            return False
        return len(ledger.waiting_until(connection, self._put_off, until)) == len(self._put_off)

    def _is_here(self, entry: Entry) -> bool:
        """Whether the object's file is where the row says; without it nothing can be done."""
        try:
            identity_of(self.folder / entry.path)
        except (OSError, InvalidDicomError) as error:
            reason = getattr(error, "strerror", None) or "it is no DICOM file"
            self._fail(entry, "delivery.unreadable", f"{entry.path} of the node can't be read ({reason}).")
            return False
        return True

    def _is_as_written(self, entry: Entry) -> bool:
        """Whether the object is what the run wrote; a peer would store, and confirm, whatever became of it since."""
        found = file_digest(self.folder / entry.path)
        if entry.sha256 in ("", found):
            return True
        words = (
            f"{entry.path} of the node was damaged or changed after its run: its SHA-256 is {found[:12]}..., "
            f"expected {entry.sha256[:12]}...; it is not sent. Look at the disk, and run the series again."
        )
        self._fail(entry, "delivery.damaged", words)
        return False

    def _fail(self, entry: Entry, code: str, words: str) -> None:
        with self.own.begin() as connection:
            ledger.mark_failed(connection, [entry.id], Trouble(code=code, words=words))

    def _try(self, work: Callable[[Sequence[Entry]], None], entries: Sequence[Entry]) -> bool:
        """Work on rows, which wait where that failed; where the peer can't be reached, all of it rests: False."""
        if not entries:
            return True
        try:
            work(entries)
        except DeliveryFailed as error:
            self._away.tell(error)
            self.failures += 1
            until = self.clock() + self.pace.after(self.failures)
            with self.engine.begin() as connection:
                trouble = Trouble(code=error.code, words=error.message)
                ledger.put_off(connection, [entry.id for entry in entries], trouble, until)
                self._put_off = ledger.waiting_until(connection, [entry.id for entry in entries], until)
            if error.code == "delivery.unreachable":
                self.rests_until = until
            return self.rests_until is None
        self._away.is_over()
        self.failures = 0
        return True

    def _send(self, entries: Sequence[Entry]) -> None:
        with self.channel.storing([self.folder / entry.path for entry in entries]) as session:
            for entry in entries:
                if self.is_stopping():
                    return
                if not session.is_open:
                    words = "the association ended before every object was sent"
                    raise unreachable(self.name, self.channel.where, words)
                if not self._is_as_written(entry):
                    continue
                with self.engine.begin() as connection:
                    is_ours = ledger.begin_sending(connection, entry, self.clock() + self._patience)
                if is_ours:
                    self._note(entry, self._store(session, entry))

    def _store(self, session: Session, entry: Entry) -> Answer:
        try:
            return session.store(self.folder / entry.path)
        except DeliveryFailed as error:  # no answer, or none to be understood: nobody knows how far the object had come
            answer = Answer(outcome=Outcome.UNKNOWN, note=error.message)
            if error.code != "delivery.unreachable":
                return answer
            self._note(entry, answer)
            self.failures = max(self.failures, entry.attempts)  # a peer that answers queries is no less to be spared
            raise
        except Exception as error:  # noqa: BLE001 - the network edge: what one object sets off keeps no other
            return Answer(outcome=Outcome.UNKNOWN, note=told(error).message)

    def _note(self, entry: Entry, answer: Answer) -> None:
        now = self.clock()
        trouble = Trouble(code="delivery.refused", words=answer.for_ledger, status=answer.status)
        until = now + self.pace.after(entry.attempts + 1)
        with self.engine.begin() as connection:
            match answer.outcome:
                case Outcome.STORED:
                    ledger.mark_sent(connection, entry, answer, now=now, doubt_until=now + self._patience)
                    self.failures = 0
                case Outcome.NEVER:
                    ledger.mark_failed(connection, [entry.id], trouble)
                case Outcome.LATER:
                    ledger.mark_refused(connection, [entry.id], trouble, until)
                case Outcome.UNKNOWN:
                    ledger.mark_unknown(connection, entry, trouble, until=until, doubt_until=now + self._patience)
                case _:
                    assert_never(answer.outcome)

    def _settle(self, entries: Sequence[Entry]) -> None:
        """Ask the peer which of the objects it has: of those that were sent, and before others are sent again."""
        peer = self.destination
        if isinstance(peer, DicomDestination) and peer.commitment and self._commit(entries, peer):
            return
        asked_at = self.clock()
        held = self.channel.held([self.folder / entry.path for entry in entries])
        with self.engine.begin() as connection:
            for entry in entries:
                if held is None:
                    self._unasked(connection, entry)
                elif entry.sop_instance_uid in held:
                    ledger.mark_confirmed(connection, [entry.id], self.channel.proof, self.clock())
                else:
                    self._absent(connection, entry, asked_at)

    def _commit(self, entries: Sequence[Entry], peer: DicomDestination) -> bool:
        """Ask for storage commitment; the report changes the rows, whenever and by whatever way it comes."""
        transaction = new_transaction()

        def begin() -> str:
            now = self.clock()
            with self.engine.begin() as connection:
                for entry in entries:
                    age_s = (now - entry.sent_at).total_seconds() if entry.sent_at else 0.0
                    wait_s = min(max(peer.confirm_s, age_s), LONGEST_REPORT_S)
                    until = now + timedelta(seconds=wait_s)
                    ledger.mark_asked(connection, entry, transaction, now=now, until=until)
            return transaction

        return ask_commitment(
            begin,
            entries,
            self.name,
            peer,
            lambda association: self._linger(association, transaction),
            lambda information: take_report(self.engine, information, self.clock(), self.pace),
        )

    def _linger(self, association: Association, transaction: str) -> None:
        """Keep the association open for a short while, for nodes that report on it."""
        end = time.monotonic() + self.pace.report_s
        while association.is_established and time.monotonic() < end:
            with read_only(self.engine) as connection:
                if not of_transaction(connection, transaction):
                    return
            time.sleep(REPORTS_LOOKED_FOR_S)

    def _unasked(self, connection: Connection, entry: Entry) -> None:
        now = self.clock()
        if entry.state is DeliveryState.SENT:
            ledger.add_note(connection, [entry.id], f"{UNASKED} the status of its answer counts.")
            ledger.mark_confirmed(connection, [entry.id], Proof.STATUS, now)
        else:
            ledger.add_note(connection, [entry.id], f"{UNASKED} sent again unasked.")
            ledger.mark_absent(connection, [entry.id], now)

    def _absent(self, connection: Connection, entry: Entry, asked_at: datetime) -> None:
        """What the peer says not to have: believed if, when it was asked, nothing could be on its way any more."""
        now = self.clock()
        if entry.is_in_doubt(asked_at):
            trouble = Trouble(code="delivery.unconfirmed", words="sent, and not found there yet")
            ledger.put_off(connection, [entry.id], trouble, now + self.pace.look_again)
        elif entry.state is DeliveryState.WAITING:
            ledger.mark_absent(connection, [entry.id], now)
        else:
            trouble = Trouble(code="delivery.lost", words="said to be stored, not found later: it is sent again")
            mark_lost(connection, entry, now, self.pace, trouble)

    @property
    def _longest_wait(self) -> timedelta:
        """The longest that a row waits: after failures, or for a report on storage commitment."""
        peer = self.destination
        is_reported = isinstance(peer, DicomDestination) and peer.commitment
        report_s = max(LONGEST_REPORT_S, peer.confirm_s) if is_reported else 0.0
        return timedelta(seconds=report_s) + self.pace.longest

    @property
    def _patience(self) -> timedelta:
        """How long a peer may say that it doesn't have what was sent; what a folder has is there at once."""
        return timedelta(seconds=0.0 if self.channel.proof is Proof.DIGEST else self.destination.confirm_s)
