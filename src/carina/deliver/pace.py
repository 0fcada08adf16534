"""How long the sender waits: after a failure longer each time, up to a bound."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

MOST_DOUBLINGS = 30
"""More would only make large numbers: the bound is reached long before."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Waits in seconds: after a first failure and at most, between two looks at a ledger with nothing to do.

    ``report_s`` is how long an association stays open for a report on storage commitment.
    """

    first_s: float = 5.0
    longest_s: float = 300.0
    idle_s: float = 1.0
    report_s: float = 3.0

    def after(self, failures: int) -> timedelta:
        """The wait after so many failures in a row: each twice the one before."""
        doublings = min(max(failures - 1, 0), MOST_DOUBLINGS)
        return timedelta(seconds=min(self.first_s * 2**doublings, self.longest_s))

    @property
    def longest(self) -> timedelta:
        """The longest wait that ``after`` gives."""
        return timedelta(seconds=self.longest_s)

    @property
    def look_again(self) -> timedelta:
        """The wait before the peer is asked once more for what it doesn't find yet."""
        return timedelta(seconds=self.first_s)


PACE = Pace()
