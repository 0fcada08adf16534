"""How many jobs and deliveries there are in which state: counted once for everybody who looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock, Thread

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from carina.database import read_only
from carina.deliver.ledger import DeliveryState, counts
from carina.jobs.listing import job_counts

_SHORTEST_S = 0.3
_SHARE = 20.0
"""A tally is as good for this many times as long as counting took, so that counting takes little of the machine."""

_LONGEST_S = 0.02
"""Nobody's page waits for a count that takes longer: it is counted behind the pages, which show the last one."""

_STALE_S = 5.0
"""So long after a count was good it is not shown any more: whoever asks waits for a new one."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Jobs by what they are shown as; objects by destination and state."""

    jobs: Mapping[str, int]
    deliveries: Mapping[str, Mapping[DeliveryState, int]]


class Tallies:
    """The tally, counted again when it is asked for and old; while one thread counts, the others see the last one.

    Of many rows it is counted in a thread of its own, and whoever found it old sees the last one too, unless nobody has
    asked for long.
    """

    def __init__(self, engine: Engine, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock_s = engine, clock_s
        self._lock = Lock()
        self._last: tuple[Tally, object] | None = None
        self._good_until_s = self._took_s = 0.0
        self._is_forgotten = False

    def now(self, version: object = None) -> Tally:
        """The tally; with the version of the database that was looked up before, none is old that is of this one."""
        last = self._last
        if last is None or self._is_forgotten:
            with self._lock:
                return self._count(version)
        tally, of_version = last
        old_s = self._clock_s() - self._good_until_s
        is_true = old_s < 0 or (version is not None and version == of_version)
        if is_true or not self._lock.acquire(blocking=False):
            return tally
        if self._took_s > _LONGEST_S and old_s < _STALE_S:
            Thread(target=self._count_behind, args=(version,), name="tally", daemon=True).start()  # lets go of the lock
            return tally
        try:
            return self._count(version)
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Count again for whoever asks next: something was changed by hand, and who did it wants to see that."""
        self._is_forgotten = True

    def _count_behind(self, version: object) -> None:
        try:
            self._count(version)
        except SQLAlchemyError:  # whoever asks next tries again; a page says that the database is away by itself
            pass
        finally:
            self._lock.release()

    def _count(self, version: object) -> Tally:
        last = self._last
        if last is not None and not self._is_forgotten and self._clock_s() < self._good_until_s:
            return last[0]  # others have waited for the same
        began_s, was_forgotten = self._clock_s(), self._is_forgotten
        self._is_forgotten = False  # now, so that what is changed while this counts is counted again
        try:
            with read_only(self._engine) as connection:
                found = Tally(jobs=job_counts(connection), deliveries=counts(connection))
        except SQLAlchemyError:
            self._is_forgotten = was_forgotten or self._is_forgotten
            raise
        self._took_s = self._clock_s() - began_s
        self._good_until_s = self._clock_s() + max(_SHARE * self._took_s, _SHORTEST_S)
        self._last = found, version
        return found
