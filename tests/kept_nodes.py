"""Nodes with arrivals, runs and deliveries in every state, for the tests of what is kept and what is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from sqlalchemy import Connection, Engine, insert, select

from carina.database import ARRIVAL, DELIVERY, INSTANCE, JOB
from carina.pipeline.digests import Digest
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord, State, write_manifest

DIGEST = sha256(bytes(1000)).hexdigest()
TODAY = datetime(2026, 6, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class KeptJob:
    """A job on an arrival: its state, how it ended, how long ago, and where its objects are on their way."""

    state: str = "stopped"
    ended: str = "healthy"
    days: float = 10.0
    deliveries: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KeptArrival:
    """An arrival of a series that came some days ago, with its jobs."""

    series: str = "1"
    state: str = "queued"
    days: float = 10.0
    jobs: tuple[KeptJob, ...] = ()


def fill(engine: Engine, folder: Path, arrivals: Sequence[KeptArrival]) -> None:
    """Put arrivals into an empty node, with files of 1000 bytes; ids count from 1."""
    with engine.begin() as connection:
        for arrival in arrivals:
            _add_arrival(connection, folder, arrival)


def _add_arrival(connection: Connection, folder: Path, arrival: KeptArrival) -> None:
    came = TODAY - timedelta(days=arrival.days)
    row = {"series_uid": arrival.series, "study_uid": "1.2", "source": "scanner", "sender": "CT", "reason": ""}
    made = insert(ARRIVAL).values(**row, state=arrival.state, first_at=came, last_at=came).returning(ARRIVAL.c.id)
    arrival_id = int(connection.execute(made).scalar_one())
    for number in range(2):
        path = f"incoming/{arrival_id}/{number}.dcm"
        uids = {"sop_instance_uid": f"9.{arrival_id}.{number}", "sop_class_uid": "1", "transfer_syntax_uid": "1"}
        said = {"source": "scanner", "sha256": DIGEST, "bytes": 1000, "path": path, "accepted_at": came}
        connection.execute(insert(INSTANCE).values(arrival_id=arrival_id, **uids, **said))
        _write(folder / path)
    for job in arrival.jobs:
        _add_job(connection, folder, arrival_id, job)


def _add_job(connection: Connection, folder: Path, arrival_id: int, job: KeptJob) -> None:
    at = TODAY - timedelta(days=job.days)
    stopped = at if job.state == "stopped" else None
    ended = job.ended if job.state == "stopped" else ""
    row = {"arrival_id": arrival_id, "source": "x", "pipeline": "default", "folder": "", "priority": 1}
    sized = {"memory_mb": 1, "cores": 1, "created_at": at, "stopped_at": stopped}
    made = insert(JOB).values(**row, **sized, state=job.state, ended=ended).returning(JOB.c.id)
    job_id = int(connection.execute(made).scalar_one())
    connection.execute(JOB.update().where(JOB.c.id == job_id).values(folder=f"runs/{job_id}"))
    _write(folder / f"runs/{job_id}/dicom/1.dcm")
    write_manifest(a_manifest(), folder / f"runs/{job_id}")
    _write(folder / f"logs/job-{job_id}-1.log")
    for number, state in enumerate(job.deliveries):
        uids = {"destination": f"d{number}", "sop_class_uid": "1", "sop_instance_uid": f"8.{job_id}.{number}"}
        path = f"runs/{job_id}/dicom/1.dcm"
        connection.execute(insert(DELIVERY).values(job_id=job_id, **uids, path=path, state=state, created_at=at))


def a_manifest() -> Manifest:
    """The manifest of a run that wrote the one object."""
    record = OperatorRecord(
        image="carina/dicom-writer",
        state=State.DONE,
        outputs={"/output": ["dicom/1.dcm"]},
        files={"dicom/1.dcm": Digest(bytes=1000, sha256=DIGEST)},
    )
    return Manifest(
        state=State.DONE,
        fingerprint="1",
        started=TODAY.isoformat(),
        definition=DefinitionRecord(name="default", file="default.yaml", sha256="1"),
        operators={"write": record},
    )


def _write(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(1000))


def folders(node: Path, kind: str) -> set[int]:
    """The ids of the folders that are there, of ``incoming`` or ``runs``."""
    return {int(one.name) for one in (node / kind).glob("*")}


def dangling(engine: Engine, node: Path) -> list[str]:
    """What a row names and is not there, of instances and of objects that are not confirmed."""
    unconfirmed = select(DELIVERY.c.path).where(DELIVERY.c.state != "confirmed")
    with engine.connect() as connection:
        paths = [*connection.execute(select(INSTANCE.c.path)).scalars(), *connection.execute(unconfirmed).scalars()]
    return [path for path in paths if not (node / path).is_file()]
