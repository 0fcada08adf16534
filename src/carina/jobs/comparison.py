"""What a job's scan was, or is to be, compared with."""

from __future__ import annotations

from pathlib import Path

import msgspec
from sqlalchemy import Connection

from carina.jobs.earlier import earlier_scans, wish_of
from carina.jobs.listing import Job

OBJECT_FILE = Path("dicom", "change.dcm")
"""Where the report on what changed is in a run's folder."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """``earlier`` are the jobs on earlier scans of the patient with the dates of their studies, the latest first.

    ``said`` is what came of the wish for earlier scans, empty where nothing was wished; ``report`` is the object on
    what changed, relative to the node's folder, empty where none was made.
    """

    earlier: tuple[tuple[int, str], ...] = ()
    said: str = ""
    report: str = ""

    @property
    def lines(self) -> list[str]:
        """The same in words."""
        scans = ", ".join(f"job {number}{f' of {on}' if on else ''}" for number, on in self.earlier)
        named = {"earlier scans": scans, "comparison": self.said, "report on what changed": self.report}
        return [f"{name}: {words}" for name, words in named.items() if words]


def comparison_of(connection: Connection, folder: Path, job: Job) -> Comparison:
    """What is known of a job's comparison; ``folder`` is the node's."""
    wish, report = wish_of(connection, job.id), Path(job.folder, OBJECT_FILE)
    said = (wish.said or f"Asking {wish.peer} for earlier scans.") if wish else ""
    return Comparison(
        earlier=tuple((one.job_id, str(one.on or "")) for one in earlier_scans(connection, job.id)),
        said=said,
        report=report.as_posix() if (folder / report).is_file() else "",
    )
