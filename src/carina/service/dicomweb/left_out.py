"""What a search of the whole node leaves out, since a file of it can't be read: said with the answer, and in health.

Of one bad file among many a search would else tell nothing at all. What is asked for by its UID is answered with 503.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from carina.service.dicomweb.held import Held, Holding, holding_of, tell_damaged
from carina.service.dicomweb.soundness import holds_recorded
from carina.service.node import RunningNode
from carina.service.problems import NotThere, OutOfReach

_TOLD_FOR = timedelta(days=1)
_NAMED_AT_MOST = 5

_IN_A_HEADER = re.compile(r"[0-9.]{1,64}")

PASSED_BY = '299 carina "Left out, since files of it cannot be read now: {}"'
LOST_FROM_DISK = '299 carina "Left out, since damaged or missing on the disk of the node: {}"'


@dataclass(kw_only=True)
class LeftOut:
    """What one search left out; ``of_node`` is what searches of the node have met so far, with the time."""

    now: Callable[[], datetime]
    of_node: dict[str, datetime]
    studies: dict[str, OutOfReach] = field(default_factory=dict)
    runs: dict[str, OutOfReach] = field(default_factory=dict)
    damaged: list[Held] = field(default_factory=list)
    read: int = 0
    sound: int = 0

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

    def see(self, asked: Holding) -> None:
        """Count what of a study is asked for."""
        self.damaged += asked.damaged
        self.sound += len(asked.sound)

    def check(self) -> None:
        """See that not all was left out that was come to.

        Raises:
            OutOfReach: it was.
        """
        if not self.read:
            for error in (*self.studies.values(), *self.runs.values()):
                raise error
        if not self.sound:
            check_not_damaged(self.damaged)

    @property
    def warnings(self) -> list[str]:
        """What was left out, as the header of an answer says it."""
        kinds = (("study", self.studies), ("results of job", self.runs))
        parts = [f"{what} {_some(list(found))}" for what, found in kinds if found]
        return [PASSED_BY.format("; ".join(parts))] * bool(parts) + damaged_warnings(self.damaged)


def damaged_warnings(damaged: Sequence[Held]) -> list[str]:
    """What is said in the header of an answer of objects that are not in it; nothing where there are none."""
    return [LOST_FROM_DISK.format(_named(damaged))] if damaged else []


def check_not_damaged(damaged: Sequence[Held]) -> None:
    """See that none of what is asked for is damaged.

    Raises:
        OutOfReach: these are; it names them.
    """
    if damaged:
        cures = sorted({"run the series again" if one.job_id else "send its series again" for one in damaged})
        words = f"damaged or missing on the node's disk: {_named(damaged)}; {' and '.join(cures)}."
        raise OutOfReach("dicomweb.damaged", words)


def check_whole(node: RunningNode, held: Held) -> None:
    """See that an object's file holds what was recorded of it; what does not is told to the log and to health.

    Raises:
        NotThere: it was removed meanwhile, or replaced.
        OutOfReach: it does not, or can't be read.
    """
    if holds_recorded(held.path, held.recorded):
        return
    now = holding_of(node, held.study_uid)
    if held.path not in {one.path for one in (*now.sound, *now.damaged)}:
        raise NotThere("dicomweb.none", "this node holds no such object.")
    tell_damaged(node, held)
    check_not_damaged([held])


def _named(damaged: Sequence[Held]) -> str:
    kinds = {
        "instance": [held.sop_instance_uid for held in damaged if held.sop_instance_uid],
        "results of job": list(dict.fromkeys(str(held.job_id) for held in damaged if not held.sop_instance_uid)),
    }
    return "; ".join(f"{what} {_some(found)}" for what, found in kinds.items() if found)


def _some(found: Sequence[str]) -> str:
    more = f" and {len(found) - _NAMED_AT_MOST} more" if len(found) > _NAMED_AT_MOST else ""
    named = [name if _IN_A_HEADER.fullmatch(name) else "of no valid UID" for name in found[:_NAMED_AT_MOST]]
    return f"{', '.join(named)}{more}"


def left_out_lately(of_node: dict[str, datetime], now: datetime) -> int:
    """Of how many studies and jobs searches of the last day left something out, and none has read it since."""
    return sum(at > now - _TOLD_FOR for at in list(of_node.values()))
