"""A job asked for by path: what can be refused is refused before it waits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carina.api.study import RunSettings, check_pipeline, choose_series
from carina.config import Priority, Settings
from carina.errors import BadConfig
from carina.jobs.estimate import cores_of, memory_mb, voxels_of
from carina.jobs.queue import NewJob


def new_job(
    path: Path,
    settings: Settings,
    *,
    pipeline: str = "default",
    priority: Priority = Priority.NORMAL,
    destinations: Sequence[str] = (),
) -> NewJob:
    """The job for the best series below a path, which stays where it is until the job has run.

    Raises:
        BadSeries: nothing there can be used.
        BadConfig: the pipeline has mistakes, or a destination isn't in the settings.
    """
    for name in destinations:
        if name not in settings.destinations:
            known = ", ".join(sorted(settings.destinations)) or "none"
            raise BadConfig(
                "delivery.unknown-destination", f"destination {name} is not in the settings; known: {known}."
            )
    check_pipeline(RunSettings(settings=settings, pipeline=pipeline))
    source = choose_series(path, settings)
    return NewJob(
        source=str(path.resolve()),
        pipeline=str(Path(pipeline).resolve()) if Path(pipeline).is_file() else pipeline,
        memory_mb=memory_mb(voxels_of(source)),
        cores=cores_of(settings),
        priority=priority,
        destinations=tuple(destinations),
        series_uid=getattr(source, "uid", ""),
    )
