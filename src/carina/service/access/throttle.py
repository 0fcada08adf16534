"""A pause after failed log-ins, longer with each, for the name that was tried and for the address that tried."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

LONGEST_WAIT_S = 900.0
_FORGOTTEN_S = 3600.0
_MOST_KEPT = 20_000


@dataclass(frozen=True, kw_only=True)
class _Failures:
    number: int
    last_s: float

    def pause_s(self, free: int) -> float:
        return 0.0 if self.number < free else min(2.0 ** min(self.number - free, 60), LONGEST_WAIT_S)


class Throttle:
    """Failures by key, of which ``free`` in a row cost nothing: people mistype.

    They are kept in memory, the oldest forgotten first: what a stranger can fill is bounded.
    """

    def __init__(self, *, free: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._free, self._clock_s = free, clock_s
        self._lock = Lock()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def wait_s(self, key: str) -> int:
        """How many whole seconds to wait before another try; 0: it may be made now."""
        now_s = self._clock_s()
        with self._lock:
            known = self._failures.get(key)
        return max(0, math.ceil(known.last_s + known.pause_s(self._free) - now_s)) if known else 0

    def failed(self, key: str) -> None:
        """A try that failed."""
        now_s = self._clock_s()
        with self._lock:
            before = self._failures.pop(key, None)
            number = before.number if before and now_s - before.last_s < _FORGOTTEN_S else 0
            self._failures[key] = _Failures(number=number + 1, last_s=now_s)
            while len(self._failures) > _MOST_KEPT:
                self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """A try that did not fail: what failed before it was a person who mistyped."""
        with self._lock:
            self._failures.pop(key, None)
