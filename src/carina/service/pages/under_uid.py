"""To results by the UID of a series or a study: an address that another system can make.

Where objects of several patients are known under it, nobody is shown another one's: whoever comes has to choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from carina.database import ARRIVAL, INSTANCE, read_only
from carina.dicom.patients import are_several, patients_of
from carina.jobs.kept import FilesState, job_files
from carina.jobs.listing import Job, jobs_under
from carina.jobs.queue import JobEnd
from carina.jobs.sources import source_of
from carina.receive.store import ArrivalState
from carina.service.access.caller import caller_of
from carina.service.arrivals import arrival_read, arrivals_of
from carina.service.dicomweb.held import OBJECTS
from carina.service.node import RunningNode, seen_node
from carina.service.pages.inputs import job_words
from carina.service.pages.job_rows import came_by
from carina.service.pages.rendering import in_turn, page
from carina.service.peer_names import told_to
from carina.service.problems import NotThere
from carina.service.rest.shown import arrival_shown
from carina.service.upload_series import is_of_upload

_NOT_RUN = (ArrivalState.ARRIVING, ArrivalState.COMPLETE, ArrivalState.QUARANTINED, ArrivalState.APART)
"""What came and no job has."""


@dataclass(frozen=True, kw_only=True)
class UnderUid:
    """What is known under a UID of one patient, or may be of one: the job on it, or arrivals that no job has."""

    job: Job | None = None
    arrivals: tuple[int, ...] = ()


async def show_held(request: Request) -> Response:
    """To the results on a series, or on a study's; of several patients' each one's are to be chosen."""
    return await in_turn(request, _held_page)


def _held_page(request: Request) -> Response:
    node, query = seen_node(request), f"?{request.url.query}" if request.url.query else ""
    with read_only(node.engine) as connection:
        known = patients_under(node, connection, **request.path_params)
        if not known:
            raise NotThere("series.unknown", "no series of this UID was run here.")
        if len(known) == 1 and known[0].job:
            return RedirectResponse(_address(node, connection, known[0].job, query), 303)
        entries = [_entry(request, connection, one, query) for one in known]
    [(what, uid)] = request.path_params.items()
    return page(request, "under_uid.html", {"what": what, "uid": uid, "entries": entries})


def _address(node: RunningNode, connection: Connection, job: Job, query: str) -> str:
    """Where the results of a job are, or what became of it."""
    has_results = job.ended == JobEnd.HEALTHY and job_files(connection, node.folder, job).state is FilesState.HERE
    return f"/jobs/{job.id}/view/{query}" if has_results else f"/jobs/{job.id}"


def _entry(request: Request, connection: Connection, one: UnderUid, query: str) -> Mapping[str, Any]:
    """What the page says of one patient's."""
    node, caller = seen_node(request), caller_of(request)
    if one.job is None:
        found = arrivals_of(connection, one.arrivals)
        return {"job": None, "arrivals": [arrival_shown(found[key], caller) for key in one.arrivals]}
    arrival = arrival_read(connection, node.folder, one.job)
    seen = arrival_shown(arrival, caller) if arrival else None
    came = came_by(seen, is_uploaded=seen is None and is_of_upload(one.job))
    href, words = _address(node, connection, one.job, query), job_words(node, connection, one.job)
    job = told_to(one.job, caller, node.every_setting)
    return {"job": job, "href": href, "words": words, "came": came, "arrival": seen}


def patients_under(
    node: RunningNode, connection: Connection, *, series: str = "", study: str = ""
) -> Sequence[UnderUid]:
    """The latest healthy job, else the latest, on a series or a study by its UID; one for each patient of several.

    Nothing where there is no job. Two jobs are one patient's where what they read, or what they made of it, names the
    same, or nobody beside one alone; what of neither is there any more is told apart by what was kept of its arrival.
    """
    jobs = jobs_under(connection, series=series, study=study)
    if not jobs:
        return ()
    came = _came_under(node, connection, series, study)
    run = _run_by_patient(node, jobs, came)
    waiting = _waiting_by_patient(jobs, came, run)
    if len({*run, *waiting} - {""}) <= 1:
        return (UnderUid(job=jobs[0]),)
    latest = [UnderUid(job=job) for job in sorted(run.values(), key=lambda job: job.id)]
    return [*latest, *(UnderUid(arrivals=ids) for ids in sorted(map(tuple, waiting.values())))]


@dataclass(frozen=True, kw_only=True)
class _Came:
    """An arrival, and the patients in it; none where its files are gone."""

    id: int
    state: str
    whose: str
    patients: frozenset[str]


def _came_under(node: RunningNode, connection: Connection, series: str, study: str) -> Sequence[_Came]:
    rows = connection.execute(select(ARRIVAL).where(*_is_under(series, study)).order_by(ARRIVAL.c.id)).all()
    return [
        _Came(
            id=row.id,
            state=row.state,
            whose=row.whose_sha256,
            patients=_patients_below(_arrived(connection, node, row)),
        )
        for row in rows
    ]


def _run_by_patient(node: RunningNode, jobs: Sequence[Job], came: Sequence[_Came]) -> Mapping[str, Job]:
    """The first of some jobs for each patient."""
    known = {one.whose: min(one.patients) for one in came if one.whose and one.patients}
    of_arrival = {one.id: known.get(one.whose, one.whose) for one in came}
    found: dict[str, Job] = {}
    of_source: dict[str, str] = {}
    for job in jobs:
        patient = _patient_of_job(node, job)
        if patient is None:
            patient = of_source.get(job.source) or of_arrival.get(job.arrival_id or 0) or f"unknown of {job.source}"
        of_source.setdefault(job.source, patient)
        found.setdefault(patient, job)
    return found


def _waiting_by_patient(
    jobs: Sequence[Job], came: Sequence[_Came], run: Mapping[str, Job]
) -> Mapping[str, Sequence[int]]:
    """The arrivals that no job has, of patients of whom nothing was run."""
    have_jobs = {job.arrival_id for job in jobs}
    found: dict[str, list[int]] = {}
    for one in came:
        if one.state in _NOT_RUN and one.id not in have_jobs:
            for patient in one.patients - run.keys():
                found.setdefault(patient, []).append(one.id)
    return found


def _is_under(series: str, study: str) -> Iterator[Any]:
    if series:
        yield ARRIVAL.c.series_uid == series
    if study:
        yield ARRIVAL.c.study_uid == study


def _arrived(connection: Connection, node: RunningNode, row: Any) -> Sequence[Path]:
    """The files that came in an arrival: where all are known to be one patient's, the first one alone."""
    wanted = select(INSTANCE.c.path).where(INSTANCE.c.arrival_id == row.id).order_by(INSTANCE.c.id)
    paths = connection.execute(wanted.limit(1) if row.whose_sha256 else wanted).scalars()
    return [node.folder / path for path in paths]


def _patient_of_job(node: RunningNode, job: Job) -> str | None:
    """Whose a job is, by what it reads and what it made: empty where that names nobody, None where nothing is there."""
    read, made = source_of(node.folder, job), node.folder / job.folder / OBJECTS
    for place in (read, made) if job.arrival_id else (made, read):  # a path may hold many a series
        if len(patients := _patients_below(_files_in(place))) == 1:
            return min(patients)
    return None


def _files_in(place: Path) -> Sequence[Path]:
    return sorted(place.glob("*.dcm")) if place.is_dir() else [place] if place.suffix == ".dcm" else []


def _patients_below(files: Sequence[Path]) -> frozenset[str]:
    """The patients of files that are there: nobody, as an empty one, where none is named, or each names another."""
    patients = [_patient_now(file, changed) for file, changed in _changed(files)]
    if not patients:
        return frozenset()
    named = frozenset(patients) - {""}
    return named if len(named) == 1 or are_several(patients) else frozenset({""})


def _changed(files: Sequence[Path]) -> Iterator[tuple[Path, int]]:
    for file in files:
        try:
            yield file, file.stat().st_mtime_ns
        except OSError:
            continue


@lru_cache(maxsize=50_000)
def _patient_now(file: Path, _changed_ns: int) -> str:
    return next(patients_of([file]))
