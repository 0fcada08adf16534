"""The jobs of a node as the table of a cohort: a row for each, with what its run found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Engine

from carina.api.cohort_table import CohortTable, Fate, Item, findings_of
from carina.config import Settings
from carina.database import read_only
from carina.errors import CarinaError
from carina.jobs.kept import FilesState, job_files
from carina.jobs.listing import Job, every_job
from carina.jobs.sources import source_of

FATES = {
    "pending": Fate.WAITING,
    "running": Fate.WAITING,
    "healthy": Fate.DONE,
    "faulted": Fate.FAILED,
    "canceled": Fate.LEFT_OUT,
}
"""What the states of jobs are called in a cohort."""


def write_jobs_table(
    engine: Engine, settings: Settings, to: Path | Callable[[str], None], *, pipelines: Sequence[str] = ()
) -> Mapping[Fate, int]:
    """Write a row for each job (of these pipelines) ``to`` a file, as in ``cohort.csv``; gives their numbers.

    In place of a file, ``to`` may be what takes the text.

    Raises:
        BadConfig: the table can't be written.
    """
    with read_only(engine) as connection:
        jobs = list(every_job(connection, pipelines=pipelines))
    items = [_item(engine, job, Path(settings.node.folder)) for job in jobs]
    if isinstance(to, Path):
        CohortTable(to, items).write()
    else:
        to(CohortTable(Path(), items).text())
    return Counter(item.fate for item in items)


def _item(engine: Engine, job: Job, folder: Path) -> Item:
    place = source_of(folder, job)
    item = Item(
        name=f"job {job.id}",
        place=str(place),
        study_uid=job.study_uid,
        series_uid=job.series_uid,
        folder=folder / job.folder,
        fate=FATES[job.shown_state],
        code=job.error_code,
        message=job.error,
    )
    if item.fate is not Fate.DONE:
        return item
    try:
        return replace(item, findings=findings_of(folder / job.folder))
    except CarinaError as error:  # its run was removed, or damaged since
        return _without_findings(engine, job, folder, replace(item, code=error.code, message=error.message))


def _without_findings(engine: Engine, job: Job, folder: Path, item: Item) -> Item:
    """The row of a healthy job whose run can't be read: done all the same where the node itself removed it."""
    with read_only(engine) as connection:
        files = job_files(connection, folder, job)
    item = replace(item, findings=_remembered(job))
    if files.state is FilesState.HERE:
        return replace(item, fate=Fate.FAILED)
    fate = Fate.DONE if files.state is FilesState.REMOVED else Fate.FAILED
    return replace(item, fate=fate, code=files.code, message=files.said)


def _remembered(job: Job) -> dict[str, str | float]:
    """The columns of a run that can't be read, as far as the job's row has them."""
    ratio = {} if job.ratio_percent is None else {"lungs ratio_percent": job.ratio_percent}
    more = f" And {job.warnings - 1} more." if job.warnings > 1 else ""
    return ratio | ({"warnings": f"{job.first_warning}{more}"} if job.warnings else {})
