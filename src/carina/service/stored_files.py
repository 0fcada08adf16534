"""Stored files are looked at in turn, so that one that is lost is known before somebody asks for it.

A look costs a few microseconds a file, since nothing is read: whether it is there, and as long as it was. What is
damaged within is found when it is given, sent or run.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import exists, select

from carina.database import INSTANCE, JOB, REMOVAL, read_only
from carina.sections import INCOMING
from carina.service.dicomweb.held import OBJECTS
from carina.service.dicomweb.soundness import Recorded, holds_recorded, is_of_size, note_damaged, recorded_results
from carina.service.node import RunningNode
from carina.service.problems import OutOfReach

INSTANCES_AT_ONCE = 1000
RUNS_AT_ONCE = 20
LOOKED_AT_AGAIN = 100
"""Of a round: with one every five seconds, 100,000 instances are looked at in 9 minutes."""

_MADE_AND_KEPT = (JOB.c.ended == "healthy") & ~exists().where(REMOVAL.c.kind == "run", REMOVAL.c.subject_id == JOB.c.id)


class FilesLook:
    """A look at what a node stores, a part in each round, and at what was seen to be damaged in every one."""

    def __init__(self, node: RunningNode) -> None:
        self._node = node
        self._instance_id, self._job_id, self._again = 0, 0, 0

    def round(self) -> None:
        """Look at the next files; what is damaged or missing is told, and what is right again forgotten.

        Raises:
            FolderAway: the node's folder is not there: what is missing says nothing.
        """
        try:
            self._look_again()
            self._look_at_instances()
            self._look_at_results()
        except OutOfReach:  # the log has it, and so has whoever asks for it
            return

    def _look_again(self) -> None:
        damaged = list(self._node.damaged)
        some = damaged[self._again : self._again + LOOKED_AT_AGAIN]
        self._again = self._again + LOOKED_AT_AGAIN if len(some) == LOOKED_AT_AGAIN else 0
        for path in some:
            if self._is_right(path):
                self._node.damaged.pop(path, None)

    def _is_right(self, path: Path) -> bool:
        """Whether a damaged file holds again what was recorded of it, or is nobody's any more."""
        recorded = self._recorded(path)
        return recorded is None or holds_recorded(path, recorded)

    def _recorded(self, path: Path) -> Recorded | None:
        """What is recorded of a file now; None where no row names it any more."""
        place = path.relative_to(self._node.folder)
        kind, number = place.parts[:2]
        with read_only(self._node.engine) as connection:
            if kind == INCOMING:
                same = (INSTANCE.c.arrival_id == int(number)) & (INSTANCE.c.path == place.as_posix())
                row = connection.execute(select(INSTANCE).where(same)).first()
                return Recorded(row.bytes, row.sha256, has_head=True) if row else None
            kept = select(JOB.c.folder).where(JOB.c.id == int(number), _MADE_AND_KEPT)
            folder = connection.execute(kept).scalar()
        return recorded_results(self._node.folder / folder, OBJECTS).get(path) if folder else None

    def _look_at_instances(self) -> None:
        later = (INSTANCE.c.id > self._instance_id) & (INSTANCE.c.flushed == 1)
        wanted = select(INSTANCE).where(later).order_by(INSTANCE.c.id).limit(INSTANCES_AT_ONCE)
        with read_only(self._node.engine) as connection:
            rows = connection.execute(wanted).all()
        self._instance_id = rows[-1].id if len(rows) == INSTANCES_AT_ONCE else 0
        for row in rows:
            path = self._node.folder / row.path
            if not is_of_size(path, Recorded(row.bytes, row.sha256, has_head=True)):
                self._tell(path, row.sop_instance_uid, is_ours=False)

    def _look_at_results(self) -> None:
        wanted = select(JOB.c.id, JOB.c.folder).where(JOB.c.id > self._job_id, _MADE_AND_KEPT)
        with read_only(self._node.engine) as connection:
            jobs = connection.execute(wanted.order_by(JOB.c.id).limit(RUNS_AT_ONCE)).all()
        self._job_id = jobs[-1].id if len(jobs) == RUNS_AT_ONCE else 0
        for job in jobs:
            for path, recorded in recorded_results(self._node.folder / job.folder, OBJECTS).items():
                if not is_of_size(path, recorded):
                    self._tell(path, str(job.id), is_ours=True)

    def _tell(self, path: Path, whose: str, *, is_ours: bool) -> None:
        """Tell of a file, unless it was removed meanwhile: rows go before files do."""
        self._node.own.check()
        if self._recorded(path) is not None:
            note_damaged(self._node, path, whose, is_ours=is_ours)
