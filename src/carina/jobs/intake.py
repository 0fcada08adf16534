"""Complete arrivals become jobs, one for each pipeline of their source, in one transaction with the arrival's state."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select, update

from carina.config import AnySource, Priority, Settings
from carina.database import ARRIVAL, INSTANCE, JOB
from carina.database.one_series import is_of_series
from carina.deliver.routes import routes
from carina.jobs.earlier import is_fetched_as_prior, want_earlier
from carina.jobs.estimate import LARGEST_SLICE, cores_of, memory_mb, others_mb, slice_voxels
from carina.jobs.queue import JobState, NewJob, cancel, submit
from carina.jobs.scan import KnownScan, iso_date
from carina.sections import INCOMING

ARRIVALS_AT_ONCE = 20
"""Arrivals that are taken up in one transaction."""


_LOG = logging.getLogger(__name__)


def take_up(connection: Connection, settings: Settings, now: datetime) -> list[int]:
    """Make the jobs of complete arrivals; gives their ids. Jobs on fewer of their instances are superseded."""
    wanted = (
        select(ARRIVAL)
        .where(ARRIVAL.c.state == "complete")
        .order_by(ARRIVAL.c.id)
        .limit(ARRIVALS_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    made: list[int] = []
    for arrival in connection.execute(wanted).all():
        source = settings.sources.get(arrival.source)
        if source is None:
            reason = f"source {arrival.source} is not in the settings any more: add it under [sources], then release."
            _set_state(connection, arrival.id, "quarantined", reason)
            continue
        made += _jobs_of(connection, arrival, source, settings, now)
        _set_state(connection, arrival.id, "queued", "")
    return made


def _set_state(connection: Connection, arrival_id: int, state: str, reason: str) -> None:
    connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == arrival_id).values(state=state, reason=reason))


def _jobs_of(
    connection: Connection, arrival: Row[Any], source: AnySource, settings: Settings, now: datetime
) -> list[int]:
    folder = Path(settings.node.folder).resolve()
    needed = memory_mb(_voxels(connection, arrival, folder))
    destinations, nowhere = routes(source.destinations, settings.destinations, arrival.sender)
    if nowhere:
        _LOG.warning("arrival %s: %s", arrival.id, nowhere)
    made, scan = [], scan_of_arrival(arrival)
    is_prior = is_fetched_as_prior(connection, arrival)
    for pipeline in source.pipelines:
        earlier = _earlier(connection, arrival, pipeline, folder)
        new = NewJob(
            source=f"{INCOMING}/{arrival.id}",
            pipeline=pipeline,
            memory_mb=needed + others_mb(pipeline),
            cores=cores_of(settings),
            priority=Priority.LOW if is_prior else source.priority,
            destinations=() if is_prior else destinations,
            series_uid=arrival.series_uid,
            project=arrival.project,
            arrival_id=arrival.id,
            received_by=arrival.source,
            scan=scan,
            supersedes=earlier[0].id if earlier else None,
            is_prior=is_prior,
        )
        made.append(submit(connection, new, now))
        if source.earlier and not is_prior:
            want_earlier(connection, made[-1], source.earlier, now)
        for old in earlier:
            if old.state != JobState.STOPPED:
                cancel(connection, old.id, now, why=f"more instances came, job {made[-1]} runs on all of them")
    return made


def scan_of_arrival(arrival: Row[Any]) -> KnownScan | None:
    """What its first instance said; None of one that came before that was kept."""
    if arrival.series_description is None:
        return None
    return KnownScan(
        study_uid=arrival.study_uid,
        study_date=iso_date(arrival.studied),
        study_description=arrival.study_description,
        series_description=arrival.series_description,
        modality=arrival.modality,
    )


def _earlier(connection: Connection, arrival: Row[Any], pipeline: str, folder: Path) -> Sequence[Any]:
    """The jobs of the same pipeline on fewer, or as many, of the same instances, the latest first.

    Those of another source stay: their results go elsewhere. So do those of what is kept apart, which is run by itself
    and in place of nothing, and those on instances that are not here any more.
    """
    if arrival.is_apart:
        return ()
    wanted = select(JOB.c.id, JOB.c.state, JOB.c.arrival_id).join(ARRIVAL, ARRIVAL.c.id == JOB.c.arrival_id)
    same = (JOB.c.pipeline == pipeline) & _of_series(arrival)
    rows = connection.execute(wanted.where(same).order_by(JOB.c.id.desc())).all()
    here = _names(folder, arrival.id)
    return [row for row in rows if (names := _names(folder, row.arrival_id)) and names <= here]


def _names(folder: Path, arrival_id: int) -> set[str]:
    """The files that a run of an arrival reads: named after their instances, those of earlier arrivals with them."""
    return {file.name for file in (folder / INCOMING / str(arrival_id)).glob("*.dcm")}


def _of_series(arrival: Row[Any]) -> ColumnElement[bool]:
    """Whatever came of the series of an arrival by its source, and is not kept apart."""
    return and_(is_of_series(arrival), ARRIVAL.c.source == arrival.source, ARRIVAL.c.is_apart == 0)


def _voxels(connection: Connection, arrival: Row[Any], folder: Path) -> int:
    """About how many voxels a run reads: as many slices as instances came, each as large as the first one's."""
    counts = ARRIVAL.c.id == arrival.id if arrival.is_apart else _of_series(arrival)
    joined = INSTANCE.join(ARRIVAL, ARRIVAL.c.id == INSTANCE.c.arrival_id)
    counted = select(func.count(INSTANCE.c.sop_instance_uid.distinct())).select_from(joined).where(counts)
    count = connection.execute(counted).scalar_one()
    path = connection.execute(select(INSTANCE.c.path).where(INSTANCE.c.arrival_id == arrival.id).limit(1)).scalar()
    return int(count) * (slice_voxels(folder / path) if path else LARGEST_SLICE)
