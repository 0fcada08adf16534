"""Where the input of a job lies: what the node itself keeps is named within its folder, which may be moved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from carina.database import REMOVAL
from carina.jobs.listing import Job
from carina.sections import INCOMING


def kept_source(folder: Path, source: Path) -> str:
    """How a job's row names its input: relative to the node's folder where it lies in that, else by its whole path."""
    whole = source.absolute()
    within = (above for above in (folder.absolute(), folder.resolve()) if whole.is_relative_to(above))
    return next((whole.relative_to(above).as_posix() for above in within), str(whole))


def source_of(folder: Path, job: Job) -> Path:
    """The folder or file that a job's run reads, where the node's folder is now."""
    return folder.absolute() / job.source


@dataclass(frozen=True, kw_only=True)
class GoneSource:
    """That the series of a run can't be read: ``said`` is why, without an end. ``is_for_good`` where nothing brings it
    back but sending it again."""

    said: str
    is_for_good: bool

    @property
    def code(self) -> str:
        """The code of an error that says so."""
        return "corrections.series-gone" if self.is_for_good else "corrections.series-away"

    @property
    def words(self) -> str:
        """What that means for who would correct its masks, and what they can do."""
        if self.is_for_good:
            return (
                f"{self.said}, so the masks of this run can't be corrected any more: send the series again, and "
                "correct the result of that."
            )
        return (
            f"{self.said}: a correction can be painted, but not finished before it is there again; every stroke is "
            "kept until then."
        )


def gone_source(connection: Connection, folder: Path, job: Job) -> GoneSource | None:
    """What became of a job's input that is not there; None where it is. ``folder`` is the node's, and is there."""
    if (removed := _removed(connection, job)) is not None:
        return GoneSource(said=removed, is_for_good=True)
    try:
        source_of(folder, job).stat()
    except (FileNotFoundError, NotADirectoryError):
        is_own = not Path(job.source).is_absolute()
        words = "the series of this run is not on this node any more" if is_own else _ELSEWHERE
        return GoneSource(said=words, is_for_good=is_own)
    except OSError:  # whoever reads it is told why that can't be done
        return None
    return None


_ELSEWHERE = "the series of this run is not now where it was when the job was submitted"


def _removed(connection: Connection, job: Job) -> str | None:
    """When and why retention removed a job's arrival; from then on the files are nobody's."""
    above, _, name = job.source.rpartition("/")
    named = int(name) if above == INCOMING and name.isdecimal() else None
    arrival_id = job.arrival_id or named
    if arrival_id is None:
        return None
    wanted = select(REMOVAL.c.begun_at, REMOVAL.c.why)
    row = connection.execute(wanted.where(REMOVAL.c.kind == INCOMING, REMOVAL.c.subject_id == arrival_id)).first()
    if row is None:
        return None
    return f"the series of this run was removed by retention on {row.begun_at.astimezone():%Y-%m-%d} ({row.why})"
