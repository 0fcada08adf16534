"""The series of an upload: which one was run and why, and how another one of them is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from carina.database import read_only
from carina.errors import BadSeries, CarinaError
from carina.jobs.listing import Job, find_job, jobs_on_source
from carina.jobs.queue import JobEnd
from carina.jobs.sources import source_of
from carina.jobs.terms import Terms
from carina.receive.upload_errors import NoUpload
from carina.receive.uploads import CONTENT
from carina.sections import UPLOADS
from carina.service import changes
from carina.service.node import RunningNode
from carina.service.problems import Conflict, NotThere, without_source
from carina.service.progress import manifest_of

if TYPE_CHECKING:
    from carina.dicom.found import Found


_SAME_NAME = "another volume file of this upload has the same name: send this one alone"


class UploadedSeries(msgspec.Struct, frozen=True, kw_only=True):
    """A series or volume file of an upload; lengths in mm, null where they are not known.

    ``taken`` marks the one that is run where nobody chooses; ``reason`` says why it is, or why not. One can be run by
    its UID (of a volume file, its name without the ending) where ``runnable``; ``jobs`` are those that did, or will.
    """

    uid: str
    part: str
    modality: str
    description: str
    slices: int
    slice_spacing_mm: float | None
    kernel: str
    taken: bool
    runnable: bool
    reason: str
    jobs: tuple[int, ...]


class SeriesOfUpload(msgspec.Struct, frozen=True, kw_only=True):
    """Every series of the upload of a job, the best first."""

    job: int
    series: tuple[UploadedSeries, ...]


def is_of_upload(job: Job) -> bool:
    """Whether a job is on files that somebody uploaded."""
    upload, _, name = job.source.rpartition("/")
    return name == CONTENT and upload.rpartition("/")[0] == UPLOADS


def content_of(node: RunningNode, job: Job) -> Path:
    """The content of the upload that a job is on, as the node finds it now."""
    return node.folder / UPLOADS / Path(job.source).parent.name / CONTENT


@lru_cache(maxsize=1024)
def taken_series(content: Path, rules: str, most_voxels: int) -> frozenset[str]:
    """The UID of what a run takes of an upload where nobody chooses; every header is read for it, once.

    Empty where nothing can be run. What an upload holds never changes.
    """
    from carina.dicom.find import find_series
    from carina.dicom.rules import load_rules

    try:
        found = find_series(content, load_rules(rules), most_voxels=most_voxels)
    except CarinaError:  # its run says why
        return frozenset()
    return frozenset(one.uid for one in found if one.taken)


def series_of_job(node: RunningNode, job_id: int) -> SeriesOfUpload:
    """The series of the upload of a job, judged as a run does; every header is read for it.

    Raises:
        NotThere: there is no such job.
        Conflict: ``upload.none``, the job is on no upload.
        NoUpload: its files are gone.
        BadSeries: there is nothing in it that could be run.
    """
    from carina.api.study import find_series

    job = _job_on_upload(node, job_id)
    content = source_of(node.folder, job)
    if not content.is_dir():
        raise NoUpload("upload.gone", "the files of this upload were removed: send them again.")
    try:
        found = find_series(content, node.settings)
    except BadSeries as error:
        raise BadSeries(error.code, without_source(error.message, str(content))) from error
    with read_only(node.engine) as connection:
        jobs = jobs_on_source(connection, job.source)
    return SeriesOfUpload(job=job.id, series=tuple(_told(found, _runs(node, jobs, found))))


def run_series(node: RunningNode, job_id: int, uid: str) -> Job:
    """Run the pipeline of a job on another series of its upload.

    Raises:
        NotThere: there is no such job, or no such series in its upload.
        Conflict: the series can't be read, or is run already; as of ``series_of_job``.
    """
    job = _job_on_upload(node, job_id)
    named = [one for one in series_of_job(node, job_id).series if one.uid == uid]
    if not named:
        raise NotThere("series.no-such-uid", "there is no such series in this upload; look at what there is.")
    if not any(one.runnable for one in named):
        raise Conflict("upload.unreadable", f"this series can't be run: {named[0].reason}")
    known = [number for one in named for number in one.jobs]
    submitted = node.uploads.submit_again(
        Path(job.source).parent.name, lambda content: _submit(node, job, uid, known, content)
    )
    with read_only(node.engine) as connection:
        return find_job(connection, submitted) or job


def _submit(node: RunningNode, job: Job, uid: str, known: Sequence[int], content: Path) -> int:
    """A job on a series that none is on, neither a known one nor one that was made since they were looked for."""
    with read_only(node.engine) as connection:
        since = [one.id for one in jobs_on_source(connection, job.source) if one.series_uid == uid]
    if going := _going(node, job, [*known, *since]):
        raise Conflict("upload.run-already", f"job {going} runs {job.pipeline} on this series already, or did.")
    terms = Terms(pipeline=job.pipeline, priority=job.priority, destinations=job.destinations, project=job.project)
    return changes.submit_source(node, content.absolute(), terms, uid).id


def _job_on_upload(node: RunningNode, job_id: int) -> Job:
    with read_only(node.engine) as connection:
        job = find_job(connection, job_id)
    if job is None:
        raise NotThere("job.unknown", f"there is no job {job_id}.")
    if not is_of_upload(job):
        raise Conflict(
            "upload.none", f"job {job_id} is not on uploaded files: there is no other series beside its own."
        )
    return job


def _going(node: RunningNode, job: Job, numbers: Sequence[int]) -> int | None:
    """A job of the same pipeline that has not failed."""
    with read_only(node.engine) as connection:
        known = [one for number in numbers if (one := find_job(connection, number))]
    lost = (JobEnd.FAULTED, JobEnd.CANCELED)
    return next((one.id for one in known if one.pipeline == job.pipeline and one.ended not in lost), None)


def _runs(node: RunningNode, jobs: Sequence[Job], found: Sequence[Found]) -> Mapping[str, list[int]]:
    """The jobs by the UID of the series that each is on: the chosen one, that of its run, or else the best."""
    best = next((one.uid for one in found if one.taken), "")
    runs: dict[str, list[int]] = {}
    for job in jobs:
        runs.setdefault(job.series_uid or _run_on(node, job, found) or best, []).append(job.id)
    return runs


def _run_on(node: RunningNode, job: Job, found: Sequence[Found]) -> str:
    manifest = manifest_of(node, job)
    known = manifest.inputs if manifest else {}
    of_file = next((one.uid for one in found if not one.study_uid and one.path.name == known.get("file")), "")
    return str(known.get("series_uid", of_file))


def _told(found: Sequence[Found], runs: Mapping[str, list[int]]) -> Iterator[UploadedSeries]:
    """Each as it is told; of several volumes under one UID the first that can be read is the one that is run."""
    met: set[str] = set()
    for one in found:
        is_first = one.source is not None and one.uid not in met
        if is_first:
            met.add(one.uid)
        yield UploadedSeries(
            uid=one.uid,
            part=one.part,
            modality=one.modality,
            description=one.description,
            slices=one.slices,
            slice_spacing_mm=one.slice_spacing_mm,
            kernel=one.kernel,
            taken=one.taken,
            runnable=is_first,
            reason=_SAME_NAME if one.source and not one.study_uid and not is_first else one.reason,
            jobs=tuple(runs.get(one.uid, ())) if is_first else (),
        )
