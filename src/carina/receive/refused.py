"""What the log says of instances that are refused: the first of each reason, and at the end how many there were.

Whoever sends one that is refused may send ten thousand.
"""

from __future__ import annotations

import logging
from collections import Counter

from carina.receive.instance import NotAccepted

REFUSALS_TOLD = 10
"""Lines on one reason of one association or request."""


class RefusalLog:
    """Of one association or request; ``who`` sends it, as the log names senders."""

    def __init__(self, log: logging.Logger, who: str) -> None:
        self._log, self._who = log, who
        self._refused: Counter[str] = Counter()

    def tell(self, error: NotAccepted) -> None:
        """Say that an instance is refused, unless enough of its reason were told."""
        if self.has_room(error.code):
            self._log.warning("from %s: %s [%s, %04XH]", self._who, error.message, error.code, error.status)

    def has_room(self, reason: str) -> bool:
        """Count one more of a reason; whether it is to be told by itself."""
        self._refused[reason] += 1
        return self._refused[reason] <= REFUSALS_TOLD

    def end(self) -> None:
        """Say how many there were of the reasons of which not all were told."""
        for reason, number in self._refused.items():
            if number > REFUSALS_TOLD:
                words = "from %s: %d instances were refused for one reason [%s]; the first %d are above."
                self._log.warning(words, self._who, number, reason, REFUSALS_TOLD)
        self._refused.clear()
