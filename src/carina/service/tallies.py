"""How many jobs and deliveries there are in which state: counted once for everybody who looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import Engine

from carina.database import read_only
from carina.deliver.ledger import DeliveryState, counts
from carina.jobs.listing import job_counts

_SHORTEST_S = 0.5
_SHARE = 10.0
"""A tally is as good for this many times as long as counting took, so that counting takes little of the machine."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Jobs by what they are shown as; objects by destination and state."""

    jobs: Mapping[str, int]
    deliveries: Mapping[str, Mapping[DeliveryState, int]]


class Tallies:
    """The tally, counted again when it is asked for and old; while one thread counts, the others see the last one."""

    def __init__(self, engine: Engine, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock_s = engine, clock_s
        self._lock = Lock()
        self._last: Tally | None = None
        self._good_until_s = 0.0

    def now(self) -> Tally:
        """The tally."""
        last = self._last
        if last is not None and (self._clock_s() < self._good_until_s or not self._lock.acquire(blocking=False)):
            return last
        if last is None:
            self._lock.acquire()
        try:
            return self._count()
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Count again for whoever asks next: something was changed by hand, and who did it wants to see that."""
        self._good_until_s = 0.0

    def _count(self) -> Tally:
        if self._last is not None and self._clock_s() < self._good_until_s:  # others have waited for the same
            return self._last
        began_s = self._clock_s()
        with read_only(self._engine) as connection:
            found = Tally(jobs=job_counts(connection), deliveries=counts(connection))
        self._good_until_s = self._clock_s() + max(_SHARE * (self._clock_s() - began_s), _SHORTEST_S)
        self._last = found
        return found
