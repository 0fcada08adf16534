"""How many instances a series has, asked of the PACS that sends it, so that a whole one is run without waiting.

A PACS may pass a series on while it still receives it, and then has at every moment what it has sent. So an answer
counts once it was given twice, some time apart, and the second time after the last instance came.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select, update

from carina.config import Settings
from carina.database import ARRIVAL, INSTANCE, read_only
from carina.database.one_series import is_of_series
from carina.errors import DeliveryFailed
from carina.receive.complete import ARRIVALS_JUDGED, JOINED_LATER
from carina.receive.pull import count_at, peer_called
from carina.receive.store import ArrivalState

SURE_S = 2.0
"""Between the two answers."""

GROWING_S = 2.0
ASK_AGAIN_S = 10.0
"""Between two questions about a series that grows, and about one that doesn't, or to a PACS that failed."""

_LOG = logging.getLogger(__name__)

_OTHER = ARRIVAL.alias()
_OWN = select(func.count()).where(INSTANCE.c.arrival_id == ARRIVAL.c.id).scalar_subquery().label("own")
_HERE = (
    select(func.count(INSTANCE.c.sop_instance_uid.distinct()))
    .join(_OTHER, _OTHER.c.id == INSTANCE.c.arrival_id)
    .where(
        is_of_series(ARRIVAL, _OTHER),
        _OTHER.c.source == ARRIVAL.c.source,
        _OTHER.c.is_apart == 0,
        _OTHER.c.state.in_([ArrivalState.ARRIVING, *JOINED_LATER]),
    )
    .scalar_subquery()
    .label("here")
)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """How many instances a PACS said there are, since when it says so, and when and at how many it was asked last."""

    said: int | None
    since_s: float
    asked_s: float
    here: int

    def is_to_be_asked_again(self, here: int, now_s: float) -> bool:
        """Whether it is time, with so many instances here."""
        if self.said == here:
            return now_s - self.since_s >= SURE_S
        return now_s - self.asked_s >= (ASK_AGAIN_S if here == self.here else GROWING_S)


class Asker:
    """Asks one destination about the series that come in by the sources that name it; receiving waits for none of it.

    Where it has no answer, or another number than came, a series is complete after its quiet time, as ever.
    """

    def __init__(
        self, name: str, settings: Settings, engine: Engine, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.engine, self.clock_s = name, engine, clock_s
        self.peer = peer_called(name, settings)
        self.sources = [one for one, source in settings.sources.items() if source.ask == name]
        self._answers: dict[int, _Answer] = {}
        self._rests_until_s = 0.0
        self._has_failed = False

    def round(self) -> None:
        """Ask about each series whose time it is."""
        growing = self._growing()
        self._forget({row.id for row in growing})
        for row in growing:
            now_s = self.clock_s()
            answer = self._answers.get(row.id)
            if now_s < self._rests_until_s or (answer and not answer.is_to_be_asked_again(row.here, now_s)):
                continue
            try:
                said = count_at(self.name, self.peer, row.study_uid, row.series_uid)
            except DeliveryFailed as error:
                self._rest(error)
            else:
                self._hear(row, said, now_s)

    def _growing(self) -> Sequence[Any]:
        waits = (ARRIVAL.c.state == ArrivalState.ARRIVING) & ARRIVAL.c.source.in_(self.sources)
        waits &= ARRIVAL.c.is_apart == 0  # of these nobody knows how many there are
        wanted = select(ARRIVAL.c.id, ARRIVAL.c.series_uid, ARRIVAL.c.study_uid, _OWN, _HERE)
        with read_only(self.engine) as connection:
            oldest = wanted.where(waits, ARRIVAL.c.expected.is_(None)).order_by(ARRIVAL.c.first_at)
            return connection.execute(oldest.limit(ARRIVALS_JUDGED)).all()

    def _hear(self, row: Any, said: int | None, now_s: float) -> None:
        """Take note of an answer; one that is certain completes the series."""
        self._has_failed = False
        before = self._answers.get(row.id)
        is_same = before is not None and before.said == said
        since_s = before.since_s if before and is_same else now_s
        self._answers[row.id] = _Answer(said=said, since_s=since_s, asked_s=now_s, here=row.here)
        if said is None and not is_same:
            words = "arrival %d: %s gives no number of instances for a CT series of this UID: the quiet time counts."
            _LOG.info(words, row.id, self.name)
        if said == row.here and now_s - since_s >= SURE_S:
            same = (ARRIVAL.c.id == row.id) & (ARRIVAL.c.state == ArrivalState.ARRIVING)
            with self.engine.begin() as connection:
                connection.execute(update(ARRIVAL).where(same).values(expected=row.own))
            del self._answers[row.id]

    def _rest(self, error: DeliveryFailed) -> None:
        """Leave a PACS that failed alone for a while; said once, until it answers."""
        self._rests_until_s = self.clock_s() + ASK_AGAIN_S
        if not self._has_failed:
            words = "how many instances there are can't be asked: series are complete after their quiet time. %s"
            _LOG.warning(words, error.message)
        self._has_failed = True

    def _forget(self, growing: set[int]) -> None:
        """Forget what is complete; said where that is less than there is."""
        for arrival_id in self._answers.keys() - growing:
            last = self._answers.pop(arrival_id)
            if last.said and last.said > last.here:
                words = "arrival %d was complete after its quiet time: %d instances are here, %s has %d."
                _LOG.warning(words, arrival_id, last.here, self.name, last.said)
