"""How far a job is: its row, the operators of its run as their manifest says, its deliveries by destination."""

from __future__ import annotations

from pathlib import Path

import msgspec

from carina.database import read_only
from carina.deliver.ledger import DeliveryState, counts
from carina.errors import BadConfig
from carina.jobs.kept import JobFiles, job_files
from carina.jobs.listing import Job, find_job
from carina.pipeline.manifest import Manifest, State, read_manifest
from carina.service.arrivals import arrival_read, instances_read
from carina.service.node import RunningNode
from carina.service.problems import NotThere


class OperatorProgress(msgspec.Struct, frozen=True, kw_only=True):
    """An operator of a run: its state, when it began (ISO 8601), how long it took, and why it failed."""

    name: str
    state: State
    started: str
    seconds: float
    warnings: tuple[str, ...]
    error_code: str
    error: str


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A job and how far it is; ``deliveries`` counts objects by destination and state.

    ``files`` says whether its run is still here, and if not, why: by whom it was removed, and when. ``instances`` is
    how many the run is given, in however many arrivals they came; null of a job by path or on an upload, and once they
    were removed. ``used`` is how many files its volume is read from, by its manifest: a warning says what the others
    are. Null before the run has begun, and once it was removed.
    """

    job: Job
    files: JobFiles
    instances: int | None
    used: int | None
    operators: tuple[OperatorProgress, ...]
    warnings: tuple[str, ...]
    deliveries: dict[str, dict[DeliveryState, int]]


def progress_of(node: RunningNode, job_id: int) -> JobProgress:
    """Look at a job.

    Raises:
        NotThere: there is none of this id.
    """
    with read_only(node.engine) as connection:
        job = find_job(connection, job_id)
        sent = counts(connection, job_id=job_id)
        files = job_files(connection, node.folder, job) if job else None
        came = arrival_read(connection, node.folder, job) if job else None
    if job is None or files is None:
        raise NotThere("job.unknown", f"there is no job {job_id}.")
    manifest = manifest_of(node, job)
    return JobProgress(
        job=job,
        files=files,
        instances=instances_read(came),
        used=files_used(manifest),
        operators=operators_of(manifest),
        warnings=warnings_of(manifest),
        deliveries=sent,
    )


def manifest_of(node: RunningNode, job: Job) -> Manifest | None:
    """The manifest of a job's run; None before it has begun, or where it can't be read."""
    return manifest_in(node.folder, job)


def manifest_in(folder: Path, job: Job) -> Manifest | None:
    """The same by the node's folder."""
    try:
        return read_manifest(folder / job.folder)
    except BadConfig:
        return None


def files_used(manifest: Manifest | None) -> int | None:
    """How many files the volume of a run is read from; None where that is not known."""
    files = manifest.inputs.get("files") if manifest else None
    used = files.get("used") if isinstance(files, dict) else None
    return used if isinstance(used, int) else None


def warnings_of(manifest: Manifest | None) -> tuple[str, ...]:
    """All that a run said, once it has ended."""
    return tuple(manifest.warnings) if manifest else ()


def operators_of(manifest: Manifest | None) -> tuple[OperatorProgress, ...]:
    """The operators of a run, in their order."""
    records = manifest.operators.items() if manifest else ()
    return tuple(
        OperatorProgress(
            name=name,
            state=record.state,
            started=record.started,
            seconds=record.seconds,
            warnings=tuple(record.warnings),
            error_code=record.error.code if record.error else "",
            error=record.error.message if record.error else "",
        )
        for name, record in records
    )
