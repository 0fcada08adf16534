"""Views of patient data in the audit trail."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from carina.service.changes import audit
from carina.service.node import RunningNode

AGAIN_AFTER_S = 60.0
"""Whoever goes on looking at one thing is noted once a minute: not by slice, and not only on the first day."""

_MOST_KEPT = 10_000


class Seen:
    """Notes who looks at what."""

    def __init__(self, node: RunningNode, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._node, self._clock_s = node, clock_s
        self._lock = Lock()
        self._last_s: OrderedDict[tuple[str, str], float] = OrderedDict()

    def is_noted(self, name: str, subject: str) -> bool:
        """Whether that somebody sees something was noted a moment ago."""
        with self._lock:
            last_s = self._last_s.get((name, subject))
        return last_s is not None and self._clock_s() - last_s < AGAIN_AFTER_S

    def note(self, name: str, subject: str) -> None:
        """Somebody sees something; it is in the trail when this returns."""
        if self.is_noted(name, subject):
            return
        now_s = self._clock_s()
        with self._node.engine.begin() as connection:
            audit(connection, "looked", subject)
        with self._lock:
            self._last_s[name, subject] = now_s
            self._last_s.move_to_end((name, subject))
            while len(self._last_s) > _MOST_KEPT:
                self._last_s.popitem(last=False)
