"""Delivery to Orthanc and to DCMTK's servers: objects arrive, are confirmed, and none is sent a second time."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import Engine, select

from carina.config import (
    Destination,
    DicomDestination,
    DicomSettings,
    DicomSource,
    DicomwebDestination,
    NodeSettings,
    Settings,
)
from carina.database import DELIVERY, INSTANCE
from carina.deliver import ledger
from carina.deliver.answers import Answer, Outcome
from carina.deliver.commitment import take_report
from carina.deliver.pace import Pace
from carina.deliver.sender import Sender
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore
from carina.testing.pacs import Pacs, orthanc, orthanc_program, send
from carina.testing.ports import LOOPBACK, free_port
from delivery_objects import NOW, add_job, new_ledger, write_objects
from waiting import wait_until

PACE = Pace(first_s=0.2, longest_s=2, idle_s=0.05, report_s=1)


def utc() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class RealPacs:
    """Orthanc, the port that it reports to, and the file in which it notes each object that reaches it."""

    pacs: Pacs
    listener: int
    received: Path

    def requests(self) -> Counter[str]:
        return Counter(self.received.read_text().split()) if self.received.exists() else Counter()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPacs]:
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed")
    folder = tmp_path_factory.mktemp("orthanc")
    received, script, listener = folder / "received", folder / "note.lua", free_port()
    script.write_text(
        "function ReceivedInstanceFilter(dicom, origin, info)\n"
        f"  local file = io.open('{received}', 'a')\n"
        "  file:write(dicom.SOPInstanceUID .. '\\n')\n  file:close()\n  return true\nend\n"
    )
    known = {"carina": ("CARINA", LOOPBACK, listener)}
    with orthanc(modalities=known, settings={"LuaScripts": [str(script)]}) as pacs:
        yield RealPacs(pacs=pacs, listener=listener, received=received)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = new_ledger(tmp_path)
    yield made
    made.dispose()


@contextmanager
def listening(engine: Engine, folder: Path, real: RealPacs) -> Iterator[None]:
    """The node's own listener; its only source has another title, and takes from one scanner alone."""
    settings = Settings(
        node=NodeSettings(folder=str(folder)),
        dicom=DicomSettings(port=real.listener),
        sources={"scanner": DicomSource(ae_title="INTAKE", callers=("SCANNER",))},
        destinations={"PACS": node_of(real, commitment=True)},
    )
    listener = DicomListener(InstanceStore(settings, engine), lambda report: take_report(engine, report, utc(), PACE))
    listener.start()
    try:
        yield
    finally:
        listener.stop()


def deliver(engine: Engine, folder: Path, destination: Destination, files: list[Path]) -> None:
    """A job's objects through a sender of its own, until they are confirmed."""
    with engine.begin() as connection:
        job = add_job(connection)
        ledger.enter(connection, job, {"PACS": destination}, files, folder=folder, now=NOW)
    sender = Sender(engine, folder, {"PACS": destination}, utc, PACE)
    sender.start()
    wait_until(lambda: _is_over(engine, job))
    assert sender.stop()
    with engine.begin() as connection:
        assert ledger.is_delivered(connection, job), ledger.counts(connection, job_id=job)


def _is_over(engine: Engine, job: int) -> bool:
    with engine.begin() as connection:
        return ledger.is_delivered(connection, job)


def rows(engine: Engine) -> set[tuple[str, int, int]]:
    """How it is known, the peer's status and the attempts: of each row."""
    with engine.connect() as connection:
        wanted = select(DELIVERY.c.confirmed_by, DELIVERY.c.status, DELIVERY.c.attempts)
        return {(row.confirmed_by, row.status, row.attempts) for row in connection.execute(wanted)}


def node_of(real: RealPacs, *, commitment: bool = False) -> DicomDestination:
    port = real.pacs.dicom_port
    return DicomDestination(host=LOOPBACK, port=port, ae_title="ORTHANC", commitment=commitment, timeout_s=60)


@pytest.mark.parametrize("way", ["query", "commitment", "web"])
def test_orthanc_gets_each_object_once_and_confirms_it(
    engine: Engine, real: RealPacs, tmp_path: Path, way: str
) -> None:
    study = f"1.2.3.{['query', 'commitment', 'web'].index(way)}"
    files = write_objects(tmp_path / "runs" / "1", study=study)
    web = DicomwebDestination(url=real.pacs.dicomweb_url, timeout_s=60)
    destination = web if way == "web" else node_of(real, commitment=way == "commitment")
    with listening(engine, tmp_path, real):
        deliver(engine, tmp_path, destination, files)
        proof = "commitment" if way == "commitment" else "query"
        assert rows(engine) == {(proof, 200 if way == "web" else 0, 1)}
        deliver(engine, tmp_path, destination, files)
    wanted = {f"{study}.9.{number}" for number in range(1, 6)}
    assert {uid: number for uid, number in real.requests().items() if uid in wanted} == dict.fromkeys(wanted, 1)
    assert wanted <= set(real.pacs.instances())


@pytest.mark.parametrize("way", ["query", "commitment", "web"])
def test_orthanc_says_when_it_lost_an_object_and_gets_it_again(
    engine: Engine, real: RealPacs, tmp_path: Path, way: str
) -> None:
    """What never reached it, though its status said so, is found by each way of asking."""
    study = f"1.2.4.{['query', 'commitment', 'web'].index(way)}"
    files = write_objects(tmp_path / "runs" / "1", study=study)
    url = real.pacs.dicomweb_url
    node = node_of(real, commitment=way == "commitment")
    destination = DicomwebDestination(url=url, timeout_s=60) if way == "web" else node
    with engine.begin() as connection:
        ledger.enter(connection, add_job(connection), {"PACS": destination}, files, folder=tmp_path, now=NOW)
        for entry in ledger.due(connection, "PACS", NOW):
            ledger.begin_sending(connection, entry, NOW)
            ledger.mark_sent(connection, entry, Answer(outcome=Outcome.STORED, status=0), now=NOW)
    with listening(engine, tmp_path, real):
        deliver(engine, tmp_path, destination, files)
    wanted = {f"{study}.9.{number}" for number in range(1, 6)}
    assert {uid: number for uid, number in real.requests().items() if uid in wanted} == dict.fromkeys(wanted, 1)


def test_a_node_that_may_report_may_not_send(engine: Engine, real: RealPacs, tmp_path: Path) -> None:
    """Orthanc is let in for its reports; what it sends under the same titles is refused."""
    dataset = dcmread(write_objects(tmp_path / "runs" / "1")[0])
    here = Pacs(host=LOOPBACK, dicom_port=real.listener, ae_title="CARINA", instances=tuple, fetch=str.encode)
    with listening(engine, tmp_path, real):
        assert send(here, [dataset], calling_ae_title="ORTHANC") == (0x0124,)
        with pytest.raises(RuntimeError, match="did not take the association"):
            send(here, [dataset], calling_ae_title="STRANGER")
    with engine.connect() as connection:
        assert connection.execute(select(INSTANCE)).all() == []


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex((LOOPBACK, port)) == 0


@contextmanager
def dcmtk(program: str, *options: str, folder: Path, port: int) -> Iterator[None]:
    """One of DCMTK's servers, listening until the block ends."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    process = subprocess.Popen([path, *options, str(port)], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), process)
        yield
    finally:
        process.kill()
        process.wait()


def test_dcmqrscp_gets_each_object_once_and_is_asked_by_query(engine: Engine, tmp_path: Path) -> None:
    port, store = free_port(), tmp_path / "store"
    store.mkdir()
    (tmp_path / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nQR {store} RW (200, 1024mb) ANY\nAETable END\n"
    )
    files = write_objects(tmp_path / "runs" / "1")
    destination = DicomDestination(host=LOOPBACK, port=port, ae_title="QR", timeout_s=60)
    with dcmtk("dcmqrscp", "-c", str(tmp_path / "dcmqrscp.cfg"), folder=tmp_path, port=port):
        deliver(engine, tmp_path, destination, files)
        deliver(engine, tmp_path, destination, files)
    assert rows(engine) == {("query", 0, 1), ("query", None, 0)}
    assert len([path for path in store.iterdir() if path.suffix == ".dcm"]) == 5


def test_storescp_answers_no_queries_and_its_status_counts(engine: Engine, tmp_path: Path) -> None:
    port, store = free_port(), tmp_path / "store"
    store.mkdir()
    files = write_objects(tmp_path / "runs" / "1")
    destination = DicomDestination(host=LOOPBACK, port=port, ae_title="STORESCP", timeout_s=60)
    with dcmtk("storescp", "-od", str(store), folder=tmp_path, port=port):
        deliver(engine, tmp_path, destination, files)
    assert rows(engine) == {("status", 0, 1)}
    assert len(list(store.iterdir())) == 5
