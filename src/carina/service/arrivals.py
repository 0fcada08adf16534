"""Looking at what arrived: a page of series by key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from carina.database import ARRIVAL, INSTANCE, JOB, each_project
from carina.jobs.listing import Job
from carina.jobs.scan import iso_date
from carina.receive.store import ArrivalState
from carina.sections import INCOMING

RELEASED_RESULTS = (
    "These are results of Carina's, as their objects or this node's deliveries say: what a run finds in them is not "
    "what it finds in a scan."
)
"""The warning of who releases what was kept."""

RELEASED_IN_VAIN = "Its run is refused for the reason for which it waited: {reason}."
"""The warning of who releases what can't be run as it is."""

HELD_BACK = (ArrivalState.QUARANTINED, ArrivalState.APART)
"""What waits until somebody releases it."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """Instances of one series that came together. Times are UTC; ``source`` is its name in the settings.

    ``series_description`` is null where it came before descriptions were kept.
    """

    id: int
    state: ArrivalState
    reason: str
    project: str
    source: str
    sender: str
    study_uid: str
    series_uid: str
    study_date: str
    study_description: str
    series_description: str | None
    modality: str
    expected: int | None
    instances: int
    first_at: datetime
    last_at: datetime


class ArrivalPage(msgspec.Struct, frozen=True, kw_only=True):
    """Series that arrived, the latest first; ``next`` as of jobs."""

    arrivals: tuple[Arrival, ...]
    next: int | None


class ReleasedArrival(Arrival, frozen=True, kw_only=True):
    """An arrival that was released, and the project that it was in before: another source takes it to its own.

    ``warning`` is a sentence where what is run may be none of what is to be run, or where it held several patients'
    instances: ``parts`` are the arrivals then in which each one's are by themselves.
    """

    project_before: str
    warning: str = ""
    parts: tuple[int, ...] = ()

    @property
    def told(self) -> str:
        """As what it is released, and in which project it was and is."""
        is_moved = self.project_before != self.project
        told = f"from project {self.project_before} to" if is_moved else "as before in project"
        return f"released as {self.source}, {told} {self.project}"


_COUNT = select(func.count()).where(INSTANCE.c.arrival_id == ARRIVAL.c.id).scalar_subquery().label("instances")
_COLUMNS: Mapping[str, ColumnElement[Any]] = {**ARRIVAL.c, "instances": _COUNT, "study_date": ARRIVAL.c.studied}
_WANTED: Select[Any] = select(*(_COLUMNS[name] for name in Arrival.__struct_fields__))


def find_arrival(connection: Connection, arrival_id: int) -> Arrival | None:
    """An arrival by its id; None where there is none."""
    row = connection.execute(_WANTED.where(ARRIVAL.c.id == arrival_id)).first()
    return None if row is None else _arrival(row)


def list_arrivals(
    connection: Connection, *, states: Sequence[str] = (), before: int | None = None, at_most: int = 100
) -> tuple[Arrival, ...]:
    """The latest arrivals first, those with an id below ``before``: the next page begins where the last one ended."""
    wanted = _WANTED.order_by(ARRIVAL.c.id.desc()).limit(at_most)
    if before is not None:
        wanted = wanted.where(ARRIVAL.c.id < before)
    chosen = [_is_in(ArrivalState(state)) for state in dict.fromkeys(states)] or [[]]
    every = [[*common, *its] for common in each_project(connection, ARRIVAL) for its in chosen]  # each by an index
    found = [row for conditions in every for row in connection.execute(wanted.where(*conditions)).all()]
    return tuple(map(_arrival, sorted(found, key=lambda row: row.id, reverse=True)[:at_most]))


def _is_in(state: ArrivalState) -> list[ColumnElement[bool]]:
    """What rows in a state have, as it is told; `ArrivalState` says how the table tells what is joined."""
    if state not in (ArrivalState.QUEUED, ArrivalState.JOINED):
        return [ARRIVAL.c.state == state]
    has_reason = ARRIVAL.c.reason != "" if state is ArrivalState.JOINED else ARRIVAL.c.reason == ""
    return [ARRIVAL.c.state == ArrivalState.QUEUED, has_reason]


def arrivals_of(connection: Connection, ids: Sequence[int]) -> dict[int, Arrival]:
    """Arrivals by their ids."""
    if not ids:
        return {}
    rows = connection.execute(_WANTED.where(ARRIVAL.c.id.in_(ids))).all()
    return {one.id: one for one in map(_arrival, rows)}


def arrivals_read(connection: Connection, folder: Path, ids: Sequence[int]) -> dict[int, Arrival]:
    """Arrivals by their ids, each with the instances that its run reads; ``folder`` is the node's."""
    found = arrivals_of(connection, ids)
    return {key: msgspec.structs.replace(one, instances=_read_of(folder, one)) for key, one in found.items()}


def arrival_read(connection: Connection, folder: Path, job: Job) -> Arrival | None:
    """The arrival of a job with the instances that its run reads; None of one by path, or on an upload."""
    ids = [] if job.arrival_id is None else [job.arrival_id]
    return arrivals_read(connection, folder, ids).get(job.arrival_id or 0)


def instances_read(arrival: Arrival | None) -> int | None:
    """How many instances the run of a job reads, by its `arrival_read`; None without one, or once they were removed."""
    return None if arrival is None or arrival.state is ArrivalState.REMOVED else arrival.instances


def _read_of(folder: Path, one: Arrival) -> int:
    """How many instances a run of an arrival reads, in however many arrivals they came.

    Its folder says it, since nothing else knows what lay beside when the arrival was complete: others of the series may
    have waited then, been run, kept or apart, and some were released as another source's since. Where the folder is not
    there, or lacks files, it is what came in the arrival alone.
    """
    place = folder / INCOMING / str(one.id)
    try:
        return max(one.instances, _files_in(place, place.stat().st_mtime_ns))
    except OSError:
        return one.instances


@lru_cache(maxsize=10_000)
def _files_in(place: Path, _changed_ns: int) -> int:
    """The instances in a folder, which is listed once for as long as it stays as it is: a page has fifty of them."""
    with os.scandir(place) as files:
        return sum(file.name.endswith(".dcm") for file in files)


def job_states(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The states of the jobs of arrivals, each once, by the arrivals that have jobs: how one ended, where it has."""
    wanted = select(JOB.c.arrival_id, JOB.c.state, JOB.c.ended).where(JOB.c.arrival_id.in_(ids)).order_by(JOB.c.id)
    found: dict[int, dict[str, None]] = {}
    for row in connection.execute(wanted):
        found.setdefault(row.arrival_id, {})[row.ended or row.state] = None
    return {arrival: tuple(states) for arrival, states in found.items()}


def first_files(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """The path of each arrival's first instance, relative to the node's folder."""
    if not ids:
        return {}
    first = select(func.min(INSTANCE.c.id)).where(INSTANCE.c.arrival_id.in_(ids)).group_by(INSTANCE.c.arrival_id)
    wanted = select(INSTANCE.c.arrival_id, INSTANCE.c.path).where(INSTANCE.c.id.in_(first))
    return {row.arrival_id: row.path for row in connection.execute(wanted)}


def _arrival(row: Row[Any]) -> Arrival:
    values: dict[str, Any] = dict(zip(Arrival.__struct_fields__, row, strict=True))
    is_joined = values["state"] == ArrivalState.QUEUED and values["reason"]
    values["state"] = ArrivalState.JOINED if is_joined else ArrivalState(values["state"])
    values["study_date"] = iso_date(values["study_date"])
    return Arrival(**values)
