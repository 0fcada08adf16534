"""Jobs asked for by path: what can be refused is refused before it waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import Connection, Engine

from carina.api.study import RunSettings, check_pipeline, choose_series
from carina.config import Settings
from carina.database import database_now, read_only
from carina.dicom.series import Source, VolumeFile
from carina.dicom.validity import valid_value
from carina.errors import BadConfig, BadSeries, unreadable
from carina.jobs.estimate import cores_of, memory_mb, others_mb, voxels_below, voxels_of
from carina.jobs.listing import sources_of
from carina.jobs.queue import NewJob, submit_all
from carina.jobs.scan import NOTHING_SAID, SCAN_KEYWORDS, KnownScan, path_words, scan_of_header
from carina.jobs.sources import kept_source
from carina.jobs.terms import AS_USUAL, Terms
from carina.volume.files import volume_suffix


def new_job(path: Path, settings: Settings, terms: Terms = AS_USUAL) -> NewJob:
    """The job for the best series below a path, which stays where it is until the job has run.

    Raises:
        BadSeries: nothing there can be used.
        BadConfig: the pipeline has mistakes, or a destination isn't in the settings.
    """
    _check(settings, terms)
    source = choose_series(path, settings)
    scan = _scan_of(source)
    return NewJob(
        source=kept_source(Path(settings.node.folder), path.resolve()),
        pipeline=_pipeline(terms.pipeline),
        memory_mb=memory_mb(voxels_of(source)) + others_mb(terms.pipeline),
        cores=cores_of(settings),
        priority=terms.priority,
        destinations=tuple(terms.destinations),
        series_uid=getattr(source, "uid", ""),
        project=terms.project,
        scan=scan,
        described=path_words(path.resolve().name, scan),
    )


def _scan_of(source: Source) -> KnownScan:
    """What the header of a series says; a volume file has none."""
    if isinstance(source, VolumeFile):
        return NOTHING_SAID
    return scan_of_header({keyword: valid_value(source.header, keyword) or "" for keyword in SCAN_KEYWORDS})


COHORT_BATCH = 500
"""Jobs of a cohort that are put into the queue in one transaction."""


def untold(_: Connection, __: Sequence[int]) -> None:
    """Nobody is told which jobs were put into the queue."""


def submit_cohort(
    engine: Engine,
    path: Path,
    settings: Settings,
    terms: Terms = AS_USUAL,
    told: Callable[[Connection, Sequence[int]], None] = untold,
) -> tuple[int, int]:
    """A job for each folder and volume file directly below a path; gives how many are new, and how many had one.

    Each is judged by its run, since reading every header of a large archive would take longer than the first runs.
    ``told`` gets the ids of new ones, in the transaction that makes them.

    Raises:
        BadSeries: the path can't be read, or there is nothing to run on.
        BadConfig: the pipeline has mistakes, or a destination isn't in the settings.
    """
    _check(settings, terms)
    folder, definition, cores = Path(settings.node.folder), _pipeline(terms.pipeline), cores_of(settings)
    every = {kept_source(folder, place): place for place in _places(path.resolve())}
    others = others_mb(terms.pipeline)
    with read_only(engine) as connection:
        known = sources_of(connection, definition)
    places = [(name, place) for name, place in every.items() if name not in known]
    for first in range(0, len(places), COHORT_BATCH):
        jobs = [
            NewJob(
                source=name,
                pipeline=definition,
                memory_mb=memory_mb(voxels_below(place)) + others,
                cores=cores,
                priority=terms.priority,
                destinations=tuple(terms.destinations),
                project=terms.project,
            )
            for name, place in places[first : first + COHORT_BATCH]
        ]
        with engine.begin() as connection:
            told(connection, submit_all(connection, jobs, database_now(connection)))
    return len(places), len(every) - len(places)


def _places(path: Path) -> list[Path]:
    try:
        found = sorted(one for one in path.iterdir() if not one.name.startswith(".") and _may_hold_a_series(one))
    except OSError as error:
        raise unreadable(error, path) from error
    if not found:
        raise BadSeries("series.none-found", f"{path}: no folder or volume file lies directly below; expected studies.")
    return found


def _may_hold_a_series(place: Path) -> bool:
    return place.is_dir() or bool(volume_suffix(place))


def _pipeline(pipeline: str) -> str:
    return str(Path(pipeline).resolve()) if Path(pipeline).is_file() else pipeline


def _check(settings: Settings, terms: Terms) -> None:
    for name in terms.destinations:
        if name not in settings.destinations:
            known = ", ".join(sorted(settings.destinations)) or "none"
            raise BadConfig(
                "delivery.unknown-destination", f"destination {name} is not in the settings; known: {known}."
            )
    check_pipeline(RunSettings(settings=settings, pipeline=terms.pipeline))
