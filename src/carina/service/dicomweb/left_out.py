"""What a search of the whole node leaves out, since a file of it can't be read: said with the answer, and in health.

Of one bad file among many a search would else tell nothing at all. What is asked for by its UID is answered with 503.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from carina.service.problems import OutOfReach

_TOLD_FOR = timedelta(days=1)
_NAMED_AT_MOST = 5

_IN_A_HEADER = re.compile(r"[0-9.]{1,64}")

PASSED_BY = '299 carina "Left out, since files of it cannot be read now: {}"'


@dataclass(kw_only=True)
class LeftOut:
    """What one search left out; ``of_node`` is what searches of the node have met so far, with the time."""

    now: Callable[[], datetime]
    of_node: dict[str, datetime]
    studies: dict[str, OutOfReach] = field(default_factory=dict)
    runs: dict[str, OutOfReach] = field(default_factory=dict)
    read: int = 0

    @contextmanager
    def study(self, uid: str) -> Iterator[None]:
        """Leave a study out where the block meets a file of it that can't be read.

        Raises:
            OutOfReach: no file can be.
        """
        with self._passed(self.studies, uid):
            yield
            self.read += 1

    @contextmanager
    def run(self, job_id: int) -> Iterator[None]:
        """The same of what a job made."""
        with self._passed(self.runs, str(job_id)):
            yield

    @contextmanager
    def _passed(self, found: dict[str, OutOfReach], name: str) -> Iterator[None]:
        try:
            yield
        except OutOfReach as error:
            if not error.is_of_one:
                raise
            found[name] = error
            self.of_node[name] = self.now()
        else:
            self.of_node.pop(name, None)

    def check(self) -> None:
        """See that not all was left out that was come to.

        Raises:
            OutOfReach: it was.
        """
        if not self.read:
            for error in (*self.studies.values(), *self.runs.values()):
                raise error

    @property
    def warning(self) -> str:
        """What was left out, as the header of an answer says it; empty where nothing was."""
        kinds = (("study", self.studies), ("results of job", self.runs))
        parts = [f"{what} {_some(found)}" for what, found in kinds if found]
        return PASSED_BY.format("; ".join(parts)) if parts else ""


def _some(found: dict[str, OutOfReach]) -> str:
    more = f" and {len(found) - _NAMED_AT_MOST} more" if len(found) > _NAMED_AT_MOST else ""
    named = [name if _IN_A_HEADER.fullmatch(name) else "of no valid UID" for name in list(found)[:_NAMED_AT_MOST]]
    return f"{', '.join(named)}{more}"


def left_out_lately(of_node: dict[str, datetime], now: datetime) -> int:
    """Of how many studies and jobs searches of the last day left something out, and none has read it since."""
    return sum(at > now - _TOLD_FOR for at in list(of_node.values()))
