"""SIGKILL of the sender at random moments: at the end every object is at each peer, and none was stored twice.

Usage: python benchmarks/kill_sender.py [KILLS [SEED [CONFIRM_S]]]

A moment is counted from when the sender has started. Three destinations: a PACS that is asked by query, one that is
asked for storage commitment, a folder. Before each kill another job enters the ledger. The PACS are of this process and
outlive every sender; they count what reaches them, and now and then store an object and break off instead of answering.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian
from sqlalchemy import Engine, func, insert, select

from carina.config import Destination, DicomDestination, FolderDestination
from carina.database import DELIVERY, JOB, SCHEMA, open_database, read_only
from carina.deliver import ledger
from carina.deliver.ledger import DeliveryState
from carina.deliver.pace import Pace
from carina.deliver.sender import Sender
from carina.testing.difficult_pacs import DifficultPacs, Mood, difficult_pacs

PACE = Pace(first_s=0.2, longest_s=1.0, idle_s=0.02, report_s=0.5)
CONFIRM_S = 2.0
"""Longer than what a killed sender has sent takes to be stored; on a machine that is short of time, more."""

PACS = ("asked", "committing")
OBJECTS = 3
OBJECT_BYTES = 200_000
LATEST_KILL_S = 0.8
PATIENCE_S = 120.0
FORGETFUL_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What came of it. ``asked`` objects were at a peer that had not answered, and were confirmed, not sent again."""

    kills: int
    objects: int
    delivered: int
    stored_twice: int
    requests: int
    asked: int
    seconds: float


def main(kills: int = 200, seed: int = 1, confirm_s: float = CONFIRM_S) -> Figures:
    """Kill so often, then let a sender finish; prints and gives the figures."""
    folder = Path(tempfile.mkdtemp(prefix="carina-kills-"))
    try:
        with difficult_pacs() as asked, difficult_pacs(commits=True) as committing:
            destinations = _destinations(folder, (asked, committing), confirm_s)
            figures = _kill_and_finish(folder, (asked, committing), destinations, kills, random.Random(seed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(", ".join(f"{key} {value:g}" for key, value in asdict(figures).items()))
    return figures


def _kill_and_finish(
    folder: Path,
    peers: tuple[DifficultPacs, DifficultPacs],
    destinations: Mapping[str, Destination],
    kills: int,
    chance: random.Random,
) -> Figures:
    began = time.monotonic()
    engine = open_database(f"sqlite:///{folder}/node.sqlite")
    SCHEMA.create_all(engine)
    for number in range(kills):
        _enter(engine, folder, destinations, number)
        process = _start(folder, destinations)
        for peer in peers:
            peer.mood = Mood.FORGETFUL if chance.random() < FORGETFUL_SHARE else Mood.FINE
        time.sleep(chance.uniform(0, LATEST_KILL_S))
        process.kill()
        process.join()
    for peer in peers:
        peer.mood = Mood.FINE
    process = _start(folder, destinations)
    _await(engine)
    process.kill()
    process.join()
    figures = _figures(engine, peers, kills, time.monotonic() - began)
    engine.dispose()
    return figures


def _destinations(
    folder: Path, peers: tuple[DifficultPacs, DifficultPacs], confirm_s: float
) -> Mapping[str, Destination]:
    asked, committing = (
        DicomDestination(host="127.0.0.1", port=peer.port, ae_title="A", commitment=peer.commits, confirm_s=confirm_s)
        for peer in peers
    )
    return {"asked": asked, "committing": committing, "share": FolderDestination(path=str(folder / "share"))}


def _start(folder: Path, destinations: Mapping[str, Destination]) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["carina.deliver.sender"])
    told, tells = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(folder, destinations, tells))
    process.start()
    told.poll(PATIENCE_S)
    return process


def _send(folder: Path, destinations: Mapping[str, Destination], started: Connection) -> None:
    engine = open_database(f"sqlite:///{folder}/node.sqlite")
    Sender(engine, folder, destinations, lambda: datetime.now(UTC), PACE).start()
    started.send_bytes(b"x")
    while True:
        time.sleep(PATIENCE_S)


def _enter(engine: Engine, folder: Path, destinations: Mapping[str, Destination], number: int) -> None:
    now = datetime.now(UTC)
    files = [_write_object(folder / "runs" / str(number), number, one) for one in range(OBJECTS)]
    row = {"source": "x", "pipeline": "default", "folder": f"runs/{number}", "state": "stopped", "ended": "healthy"}
    with engine.begin() as connection:
        made = connection.execute(insert(JOB).values(**row, priority=1, memory_mb=1, cores=1, created_at=now))
        key = made.inserted_primary_key
        assert key is not None
        ledger.enter(connection, int(key[0]), destinations, files, folder=folder, now=now)


def _write_object(folder: Path, number: int, one: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = EncapsulatedPDFStorage, f"1.2.3.{number}.9.{one}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.3.{number}", f"1.2.3.{number}.8.{one}"
    dataset.EncapsulatedDocument = bytes(OBJECT_BYTES)
    dataset.save_as(folder / f"object{one}.dcm", enforce_file_format=True)
    return folder / f"object{one}.dcm"


def _await(engine: Engine) -> None:
    """Until nothing is under way, or nothing has moved for long."""
    wanted = select(func.count()).select_from(DELIVERY).where(DELIVERY.c.state.in_(ledger.UNDER_WAY))
    left, end = -1, 0.0
    while left:
        with read_only(engine) as connection:
            now_left = connection.execute(wanted).scalar_one()
        end = time.monotonic() + PATIENCE_S if now_left != left else end
        left = now_left
        if time.monotonic() > end:
            return
        time.sleep(0.2)


def _figures(engine: Engine, peers: tuple[DifficultPacs, DifficultPacs], kills: int, seconds: float) -> Figures:
    with engine.begin() as connection:
        rows = connection.execute(select(DELIVERY)).all()
    confirmed = [row for row in rows if row.state == DeliveryState.CONFIRMED]
    in_pacs = [row for row in confirmed if row.destination in PACS]
    at_peers = dict(zip(PACS, peers, strict=True))
    return Figures(
        kills=kills,
        objects=len(rows),
        delivered=len(confirmed) - sum(row.sop_instance_uid not in at_peers[row.destination].stored for row in in_pacs),
        stored_twice=sum(peer.again.total() for peer in peers),
        requests=sum(peer.requests.total() for peer in peers),
        asked=sum(row.attempts > 0 and row.sent_at is None for row in in_pacs),
        seconds=round(seconds, 1),
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *map(float, sys.argv[3:4]))
