"""What a job's scan was, or is to be, compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from carina.jobs.earlier import earlier_removed, earlier_scans, wish_of
from carina.jobs.listing import Job

OBJECT_FILE = Path("dicom", "change.dcm")
"""Where the report on what changed is in a run's folder."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """``earlier`` are the jobs on earlier scans of the patient with the dates of their studies, the latest first.

    ``removed`` are those that are not compared with, since their runs were removed: when and why, in sentences.
    ``said`` is what came of the wish for earlier scans, empty where nothing was wished; ``report`` is the object on
    what changed, relative to the node's folder, empty where none was made.
    """

    earlier: tuple[tuple[int, str], ...] = ()
    removed: tuple[str, ...] = ()
    said: str = ""
    report: str = ""

    @property
    def lines(self) -> list[str]:
        """The same in words."""
        scans = ", ".join(f"job {number}{f' of {on}' if on else ''}" for number, on in self.earlier)
        named = {"earlier scans": scans, "comparison": self.said, "report on what changed": self.report}
        gone = [f"earlier scan, not compared with: {words}" for words in self.removed]
        return gone + [f"{name}: {words}" for name, words in named.items() if words]


def removed_words(connection: Connection, job_id: int) -> Mapping[int, str]:
    """Of the earlier scans of a job's patient whose runs were removed, by their jobs, which, when and why."""
    removed = earlier_removed(connection, job_id).items()
    return {one.job_id: f"job {one.job_id}{f' of {one.on}' if one.on else ''}: {said}" for one, said in removed}


def comparison_of(connection: Connection, folder: Path, job: Job) -> Comparison:
    """What is known of a job's comparison; ``folder`` is the node's."""
    wish, report = wish_of(connection, job.id), Path(job.folder, OBJECT_FILE)
    said = (wish.said or f"Asking {wish.peer} for earlier scans.") if wish else ""
    return Comparison(
        earlier=tuple((one.job_id, str(one.on or "")) for one in earlier_scans(connection, job.id)),
        removed=tuple(removed_words(connection, job.id).values()),
        said=said,
        report=report.as_posix() if (folder / report).is_file() else "",
    )
