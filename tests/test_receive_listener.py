"""The DICOM listener: real senders, refusals, many at once, kills, and peers that mean no good."""

from __future__ import annotations

import dataclasses
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import Engine, func, select

from carina.config import DicomDestination, Settings
from carina.database import ARRIVAL, INSTANCE
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore
from carina.receive.transport import LARGEST_PDU, BoundedSocket
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from carina.testing.pacs import orthanc, orthanc_program
from receiving import commitment_report, echo, listening, receiver_settings, rows, storescu
from waiting import wait_until

SERVER = """
import sys, msgspec, time
from carina.config import Settings
from carina.database import open_database
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore
settings = msgspec.json.decode(sys.stdin.readline(), type=Settings)
listener = DicomListener(InstanceStore(settings, open_database(settings.node.database)))
listener.start()
print("listening", flush=True)
time.sleep(3600)
"""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write_ct_series(chest_phantom(shape=(24, 128, 128), lesions=0).volume, folder)
    return folder


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return receiver_settings(tmp_path)


@pytest.fixture
def listener(node: Settings, engine: Engine) -> Iterator[DicomListener]:
    with listening(node, engine) as made:
        yield made


def test_dcmtk_sends_a_series(listener: DicomListener, engine: Engine, series: Path, node: Settings) -> None:
    assert storescu(listener.port, str(series)).returncode == 0
    assert rows(engine) == 24
    stored = sorted((Path(node.node.folder) / "incoming" / "1").glob("*.dcm"))
    sent = {dcmread(file).SOPInstanceUID: dcmread(file).PixelData for file in series.glob("*.dcm")}
    assert {dcmread(file).SOPInstanceUID: dcmread(file).PixelData for file in stored} == sent
    assert storescu(listener.port, str(series)).returncode == 0
    assert rows(engine) == 24


@pytest.mark.parametrize(
    ("called", "calling", "told"),
    [
        ("NOBODY", "CT1", "Called AE Title Not Recognized"),
        ("WARD", "CT2", "Calling AE Title Not Recognized"),
        ("FAR", "CT1", "Calling AE Title Not Recognized"),
    ],
)
def test_who_is_not_let_in_is_told_why(
    listener: DicomListener, engine: Engine, series: Path, called: str, calling: str, told: str
) -> None:
    done = storescu(listener.port, str(series), called=called, calling=calling)
    assert told in done.stdout + done.stderr
    assert rows(engine) == 0


def test_the_source_is_the_one_that_was_called(listener: DicomListener, engine: Engine, series: Path) -> None:
    assert storescu(listener.port, str(series), called="WARD").returncode == 0
    with engine.connect() as connection:
        assert connection.execute(select(ARRIVAL.c.source, ARRIVAL.c.sender)).all() == [("ward", "CT1@127.0.0.1")]


def test_twenty_associations_at_once_lose_nothing(node: Settings, engine: Engine, tmp_path: Path) -> None:
    patient = replace(node, dicom=replace(node.dicom, idle_s=120.0))  # a busy machine lets some of them wait
    volume = chest_phantom(shape=(6, 64, 64), lesions=0).volume
    for number in range(20):
        own = dataclasses.replace(
            volume, uid=f"2.25.{1000 + number}"
        )  # one UID for all of them would keep some apart, by chance
        write_ct_series(own, tmp_path / str(number), settings=SeriesSettings(study=f"study {number}"))
    done: list[int] = []
    with listening(patient, engine) as listener:
        threads = [
            threading.Thread(
                target=lambda n=number: done.append(storescu(listener.port, str(tmp_path / str(n))).returncode)
            )
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert done == [0] * 20
    with engine.connect() as connection:
        counted = select(func.count()).select_from(INSTANCE).group_by(INSTANCE.c.arrival_id)
        assert list(connection.execute(counted).scalars()) == [6] * 20


@pytest.mark.skipif(not orthanc_program(), reason="Orthanc is not installed; on Debian: apt-get install orthanc")
def test_orthanc_sends_real_ct_and_asks_for_commitment(node: Settings, engine: Engine, data: Path) -> None:
    listener = DicomListener(InstanceStore(node, engine))
    listener.start()
    try:
        with orthanc(
            modalities={"carina": ("CARINA", "127.0.0.1", listener.port)}, settings={"OverwriteInstances": False}
        ) as pacs:
            import json
            import urllib.request

            def post(path: str, body: bytes) -> bytes:
                request = urllib.request.Request(f"{pacs.http_url}/{path}", data=body, method="POST")
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return bytes(answer.read())

            files = sorted((data / "ct" / "lungdx-a0002").glob("*"))
            for file in files:
                post("instances", file.read_bytes())
            with urllib.request.urlopen(f"{pacs.http_url}/series", timeout=10) as answer:
                (found,) = json.load(answer)
            post("modalities/carina/store", json.dumps({"Resources": [found], "Synchronous": True}).encode())
            assert rows(engine) == len(pacs.instances())
    finally:
        listener.stop()
    asked, item = Dataset(), Dataset()
    with engine.connect() as connection:
        row = connection.execute(select(INSTANCE)).first()
    assert row is not None
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = row.sop_class_uid, row.sop_instance_uid
    missing = Dataset()
    missing.ReferencedSOPClassUID, missing.ReferencedSOPInstanceUID = CTImageStorage, "1.2.3"
    asked.TransactionUID, asked.ReferencedSOPSequence = "1.2.9", [item, missing]
    event_type, report = commitment_report(node, engine, asked)
    assert event_type == 2
    assert [one.ReferencedSOPInstanceUID for one in report.ReferencedSOPSequence] == [row.sop_instance_uid]
    assert report.FailedSOPSequence[0].FailureReason == 0x0112
    none = commitment_report(node, engine, asked, "trial")[1]
    assert "ReferencedSOPSequence" not in none, "another project's source"


def test_commitment_is_reported_to_who_asks(node: Settings, engine: Engine, series: Path) -> None:
    heard: list[tuple[int, Dataset]] = []
    told = threading.Event()
    peer = AE(ae_title="CT1")
    peer.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)

    def hear(event) -> tuple[int, None]:  # type: ignore[no-untyped-def]
        heard.append((event.event_type, event.event_information))
        told.set()
        return 0x0000, None

    from pynetdicom import evt

    server = peer.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, hear)])
    port = server.server_address[1]
    destination = DicomDestination(host="127.0.0.1", port=port, ae_title="CT1")
    listener = DicomListener(InstanceStore(msgspec.structs.replace(node, destinations={"ct": destination}), engine))
    listener.start()
    try:
        storescu(listener.port, str(series))
        asked, item = Dataset(), Dataset()
        file = dcmread(next(iter(series.glob("*.dcm"))), stop_before_pixels=True)
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = file.SOPClassUID, file.SOPInstanceUID
        asked.TransactionUID, asked.ReferencedSOPSequence = "1.2.9", [item]
        peer.add_requested_context(StorageCommitmentPushModel)
        association = peer.associate("127.0.0.1", listener.port, ae_title="CARINA")
        status, _ = association.send_n_action(asked, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        association.release()
        assert status.Status == 0
        wait_until(told.is_set)
    finally:
        listener.stop()
        server.shutdown()
    assert [(kind, one.TransactionUID) for kind, one in heard] == [(1, "1.2.9")]


def test_a_killed_listener_has_all_that_it_promised(node: Settings, engine: Engine, series: Path) -> None:
    rng = random.Random(3)
    promised: set[str] = set()
    for _ in range(2):
        server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(msgspec.json.encode(node) + b"\n")
        server.stdin.flush()
        assert server.stdout.readline() == b"listening\n"
        promised |= _send_until_killed(node.dicom.port, series, server, rng.randint(1, 20))
        server.wait()
    with engine.connect() as connection:
        stored = {row.sop_instance_uid: row.path for row in connection.execute(select(INSTANCE))}
    assert promised
    assert promised <= set(stored)
    for path in stored.values():
        assert dcmread(Path(node.node.folder) / path).PixelData


def _send_until_killed(port: int, series: Path, server: subprocess.Popen[bytes], after: int) -> set[str]:
    """Send a series; kill the server while an instance is under way. Gives what was answered 0000H."""
    sender = AE(ae_title="CT1")
    sender.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    sender.dimse_timeout = 5  # of a listener that dies while it is sent to there is no more to hear
    association = sender.associate("127.0.0.1", port, ae_title="CARINA")
    promised: set[str] = set()
    for number, file in enumerate(sorted(series.glob("*.dcm"))):
        dataset = dcmread(file)
        if number == after:
            threading.Timer(0.005, server.send_signal, [signal.SIGKILL]).start()
        try:
            status = association.send_c_store(dataset)
        except RuntimeError:
            break
        if status and status.Status == 0:
            promised.add(dataset.SOPInstanceUID)
    server.kill()
    return promised


def test_a_data_set_over_the_limit_is_not_kept(listener: DicomListener, engine: Engine, series: Path) -> None:
    dataset = dcmread(next(iter(series.glob("*.dcm"))))
    dataset.Rows = dataset.Columns = 1200
    dataset.PixelData = bytes(2 * 1200 * 1200)
    sender = AE(ae_title="CT1")
    sender.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = sender.associate("127.0.0.1", listener.port, ae_title="CARINA")
    status = association.send_c_store(dataset)
    assert not status or status.Status == 0xA700
    assert rows(engine) == 0
    assert echo(listener.port)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


@pytest.mark.parametrize("kind", [1, 4])
def test_a_pdu_that_announces_4_gb_takes_no_memory(listener: DicomListener, kind: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with connect(listener.port) as peer:
        peer.sendall(struct.pack(">BBL", kind, 0, 0xFFFFFFF0))
        try:
            for _ in range(200):
                peer.sendall(bytes(100_000))
        except OSError:
            pass
    assert echo(listener.port)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_sockets_that_say_nothing_are_closed_and_bounded(listener: DicomListener) -> None:
    peers = [connect(listener.port) for _ in range(60)]
    for peer in peers:
        with suppress(OSError):
            peer.sendall(b"\x01\x00\x00")
    assert threading.active_count() < 30 * 3 + 20
    for peer in peers:
        try:
            while peer.recv(1000):
                pass
        except ConnectionResetError:
            pass
        peer.close()
    assert echo(listener.port)


def test_a_slow_sender_is_given_up(listener: DicomListener) -> None:
    with connect(listener.port) as peer:
        peer.sendall(struct.pack(">BBL", 1, 0, 1000))
        try:
            while True:
                peer.sendall(b"\x00")
                if peer.recv(1) == b"":
                    break
        except OSError:
            pass
    assert echo(listener.port)


def test_noise_in_place_of_pdus_harms_nothing(listener: DicomListener, engine: Engine) -> None:
    rng = random.Random(8)
    request = bytes.fromhex("0100000000ce0001") + bytes(rng.randrange(256) for _ in range(200))
    for number in range(40):
        damaged = bytearray(request)
        for _ in range(rng.randrange(1, 30)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        damaged[2:6] = struct.pack(">L", len(damaged) - 6) if number % 2 else damaged[2:6]
        with connect(listener.port) as peer:
            try:
                peer.sendall(bytes(damaged[: rng.randrange(6, len(damaged))]))
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(4096):
                    pass
            except OSError:
                pass
    assert echo(listener.port)
    assert rows(engine) == 0


def test_bounded_reads_give_what_the_original_gives(listener: DicomListener) -> None:
    left, right = socket.socketpair()
    reader = BoundedSocket.__new__(BoundedSocket)
    reader.socket = left
    sent = bytes(range(256)) * 300
    threading.Thread(target=right.sendall, args=(sent,)).start()
    assert bytes(reader.recv(10) + reader.recv(len(sent) - 10)) == sent
    right.close()
    assert reader.recv(5) == b""
    with pytest.raises(OSError, match="at most"):
        reader.recv(2 * LARGEST_PDU)
