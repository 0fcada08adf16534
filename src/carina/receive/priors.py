"""Fetching the earlier chest CT of a new scan's patient from the peer that the scan's source names.

The new scan's job waits for none of it. What is asked for is written down before its first instance can come, so that
it is run as what it is; each try is counted before it begins, so that whatever happens there are few of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update

from carina.config import AnySource
from carina.database import ARRIVAL, INSTANCE, JOB, PRIOR, PRIOR_SERIES, PriorState, database_now, is_due
from carina.database.one_series import is_of_series
from carina.dicom.part10 import open_file
from carina.dicom.rules import load_rules
from carina.errors import BadConfig, CarinaError, told, without_words
from carina.receive.fetch import FoundSeries, Wanted
from carina.receive.patient import ASKED_OF_PATIENTS, ScanOf, scan_of
from carina.receive.prior_choice import earlier_chests
from carina.receive.pull import find_at, peer_called, pull
from carina.receive.store import InstanceStore

PAUSES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15))
"""After a try that failed; after as many more, what is there has to do."""

ASKED_IN_A_ROUND = 20

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A wish for earlier scans, and the scan that it is for."""

    id: int
    attempts: int
    arrival_id: int
    study_uid: str
    source: str


class PriorFetcher:
    """Asks one peer for what is wanted of it."""

    def __init__(self, store: InstanceStore, peer: str) -> None:
        self.store, self.peer = store, peer

    def round(self) -> int:
        """Ask for everything that is due, one after the other; gives how many were.

        Raises:
            FolderAway: the node's folder is not there, or not any more: what was asked for is asked for again.
        """
        self.store.own.check()
        with self.store.engine.connect() as connection:
            due = _due(connection, self.peer, database_now(connection))
        for asked in due:
            self._ask(asked)
        return len(due)

    def _ask(self, asked: _Asked) -> None:
        if asked.attempts > len(PAUSES):  # the last one was killed
            self._say(asked, PriorState.FETCHED, f"Earlier scans could not be fetched from {self.peer}.")
            return
        with self.store.own.begin() as connection:
            again = database_now(connection) + PAUSES[min(asked.attempts, len(PAUSES) - 1)]
            _set(connection, asked.id, attempts=asked.attempts + 1, not_before=again)
        try:
            self._say(asked, PriorState.FETCHED, self._fetch(asked))
        except Exception as error:  # noqa: BLE001 - the network edge: whatever one peer answers holds up no other wish
            self._failed(asked, error)

    def _failed(self, asked: _Asked, error: Exception) -> None:
        is_last = asked.attempts >= len(PAUSES) or isinstance(error, BadConfig)
        more = "What is here already is compared with." if is_last else "It will be asked again."
        said = f"Earlier scans could not be fetched: {self._why(error)} {more}"
        self._say(asked, PriorState.FETCHED if is_last else PriorState.ASKED, said)

    def _why(self, error: Exception) -> str:
        """Why a try failed. What a fault of ours quotes is not told: it may be of a patient."""
        if isinstance(error, CarinaError | OSError):
            return told(error).message
        _LOG.error("asking %s for earlier scans: %s", self.peer, without_words(error))
        return f"a fault of Carina's ({type(error).__name__}), see the log."

    def _say(self, asked: _Asked, state: PriorState, said: str) -> None:
        with self.store.own.begin() as connection:
            _set(connection, asked.id, state=state, said=said)

    def _fetch(self, asked: _Asked) -> str:
        """Fetch, and say what came.

        Raises:
            CarinaError: the settings don't fit, the scan is gone, or the peer failed.
        """
        settings = self.store.settings
        source, peer = settings.sources.get(asked.source), peer_called(self.peer, settings)
        if source is None:
            raise BadConfig("priors.source", f"source {asked.source} is not in the settings any more.")
        scan = self._scan(asked)
        if scan.not_sought:
            return f"Earlier scans are not asked for: {scan.not_sought}."
        listed = find_at(self.peer, peer, Wanted(patient_id=scan.patient_id))
        rules = load_rules(source.series_rules or settings.series_rules)
        chosen = earlier_chests(listed, scan, asked.study_uid, rules, source.earlier_studies)
        if not chosen:
            return f"{self.peer} has no earlier chest CT of the patient."
        wanted = self._note(asked, chosen)
        came = list(pull(self.peer, peer, wanted, self.store, asked.source, is_moved=source.earlier_by == "move"))
        short = [one.words for one in came if not one.is_whole]
        dates = ", ".join(_day(series) for series in chosen)
        return f"Earlier scans at {self.peer}: {dates}.{' ' if short else ''}{'; '.join(short)}"

    def _scan(self, asked: _Asked) -> ScanOf:
        with self.store.engine.connect() as connection:
            first = select(INSTANCE.c.path).where(INSTANCE.c.arrival_id == asked.arrival_id).order_by(INSTANCE.c.id)
            path = connection.execute(first.limit(1)).scalar()
        opened = open_file(self.store.folder / path, ASKED_OF_PATIENTS) if path else None
        if opened is None:
            raise BadConfig("priors.gone", "the scan's instances are not here any more.")
        return scan_of({keyword: opened.text(keyword) for keyword in ASKED_OF_PATIENTS})

    def _note(self, asked: _Asked, chosen: Sequence[FoundSeries]) -> list[FoundSeries]:
        """Write down which series are compared with, and give those that have to be fetched.

        Not those of which anything came before by the scan's source, in whatever state its arrival is: who sent that
        sends the rest, and its results are delivered.
        """
        with self.store.engine.begin() as connection:
            noted = select(PRIOR_SERIES.c.series_uid, PRIOR_SERIES.c.is_fetched).where(
                PRIOR_SERIES.c.prior_id == asked.id
            )
            is_fetched = {row.series_uid: row.is_fetched for row in connection.execute(noted)}
            by_source = select(ARRIVAL.c.id).where(ARRIVAL.c.source == asked.source).limit(1)
            came = {one.series_uid: connection.execute(by_source.where(is_of_series(one))).first() for one in chosen}
            new = {uid: int(first is None) for uid, first in came.items() if uid not in is_fetched}
            if new:
                rows = [{"prior_id": asked.id, "series_uid": uid, "is_fetched": value} for uid, value in new.items()]
                connection.execute(insert(PRIOR_SERIES), rows)
        return [replace(series, is_prior=True) for series in chosen if (is_fetched | new)[series.series_uid]]


def _day(series: FoundSeries) -> str:
    date = series.study_date
    return f"{date[:4]}-{date[4:6]}-{date[6:8]}"


def _due(connection: Connection, peer: str, now: datetime) -> list[_Asked]:
    is_time = is_due(PRIOR.c.not_before, now, PAUSES[-1])
    wanted = (
        select(PRIOR.c.id, PRIOR.c.attempts, JOB.c.arrival_id, ARRIVAL.c.study_uid, ARRIVAL.c.source)
        .join(JOB, JOB.c.id == PRIOR.c.job_id)
        .join(ARRIVAL, ARRIVAL.c.id == JOB.c.arrival_id)
        .where(PRIOR.c.state == PriorState.ASKED, PRIOR.c.peer == peer, is_time)
    )
    return [_Asked(**row._mapping) for row in connection.execute(wanted.order_by(PRIOR.c.id).limit(ASKED_IN_A_ROUND))]


def _set(connection: Connection, prior_id: int, **values: Any) -> None:
    connection.execute(update(PRIOR).where(PRIOR.c.id == prior_id).values(**values))


def peers_of(sources: Sequence[AnySource]) -> tuple[str, ...]:
    """The peers from which sources have earlier scans fetched, each once."""
    return tuple(dict.fromkeys(source.earlier for source in sources if source.earlier))
