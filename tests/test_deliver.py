"""Delivery: to folders, to a DICOM node and to a DICOMweb server, and what is said when it fails."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from carina.config import DicomDestination, DicomwebDestination, FolderDestination, Settings
from carina.deliver.deliver import deliver, deliver_to, echo
from carina.errors import DeliveryFailed
from carina.testing.pacs import Pacs, memory_pacs, orthanc, orthanc_program
from carina.testing.ports import free_port

UIDS = ("1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    written = []
    for number, uid in enumerate(UIDS):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = EncapsulatedPDFStorage, uid
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        dataset.PatientID, dataset.PatientName, dataset.Modality = "1", "Doe^Jane", "DOC"
        dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
        dataset.EncapsulatedDocument = b"%PDF-1.4 " + b"x" * 1000 + bytes(1)
        path = tmp_path / f"object{number}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        written.append(path)
    return written


def node(pacs: Pacs, **more: Any) -> DicomDestination:
    return DicomDestination(host=pacs.host, port=pacs.dicom_port, ae_title=pacs.ae_title, timeout_s=60, **more)


def test_an_unknown_destination_becomes_a_folder_of_its_name_with_a_warning(files: list[Path], tmp_path: Path) -> None:
    receipt = deliver(files, "MYPACS", Settings(), tmp_path / "run" / "MYPACS")
    assert "MYPACS is not configured" in receipt.warning
    assert sorted(path.name for path in (tmp_path / "run" / "MYPACS").iterdir()) == [file.name for file in files]
    assert [sent.sop_instance_uid for sent in receipt.sent] == list(UIDS)


def test_a_folder_destination_gets_the_files_whole(files: list[Path], tmp_path: Path) -> None:
    settings = Settings(destinations={"archive": FolderDestination(path=str(tmp_path / "archive"))})
    receipt = deliver(files, "archive", settings, tmp_path / "unused")
    assert receipt.warning == "" and not (tmp_path / "unused").exists()
    assert (tmp_path / "archive" / "object1.dcm").read_bytes() == files[1].read_bytes()


def test_a_folder_that_cannot_be_written_is_named(files: list[Path], tmp_path: Path) -> None:
    destination = FolderDestination(path=str(files[0] / "below-a-file"))
    with pytest.raises(DeliveryFailed, match=r"archive: folder .*below-a-file can't be written"):
        deliver_to(files, "archive", destination)
    with pytest.raises(DeliveryFailed, match="can't be written"):
        echo("archive", destination)
    echo("archive", FolderDestination(path=str(tmp_path / "not" / "there" / "yet")))


def test_a_node_stores_every_object_and_the_same_one_once(files: list[Path]) -> None:
    with memory_pacs() as pacs:
        echo("PACS", node(pacs))
        first, second = (deliver_to(files, "PACS", node(pacs)) for _ in range(2))
        assert pacs.instances() == UIDS
    assert first == second and all(sent.stored and not sent.note for sent in first.sent)


def test_each_status_is_looked_at(files: list[Path]) -> None:
    with (
        memory_pacs(statuses=iter([0x0000, 0xA700, 0xB000])) as pacs,
        pytest.raises(
            DeliveryFailed, match=r"did not store 1 of 3 objects: object1.dcm \(status 0xA700, out of resources\)"
        ) as error,
    ):
        deliver_to(files, "PACS", node(pacs))
    assert error.value.code == "delivery.incomplete"


def test_a_node_that_does_not_answer_is_named(files: list[Path]) -> None:
    peer = DicomDestination(host="127.0.0.1", port=free_port(), ae_title="NOBODY", timeout_s=2)
    with pytest.raises(DeliveryFailed, match=r"PACS \(NOBODY@127.0.0.1:\d+\) can't be reached: nothing answers there"):
        deliver_to(files, "PACS", peer)
    with pytest.raises(DeliveryFailed, match="Check address, port and AE titles"):
        echo("PACS", peer)


@pytest.fixture(scope="module")
def real_pacs() -> Iterator[Pacs]:
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed")
    with orthanc() as pacs:
        yield pacs


def test_orthanc_takes_c_store(files: list[Path], real_pacs: Pacs, tmp_path: Path) -> None:
    echo("PACS", node(real_pacs))
    deliver_to(files, "PACS", node(real_pacs))
    deliver_to(files, "PACS", node(real_pacs))
    assert real_pacs.instances() == UIDS
    (tmp_path / "back.dcm").write_bytes(real_pacs.fetch(UIDS[0]))
    assert dcmread(tmp_path / "back.dcm").EncapsulatedDocument == dcmread(files[0]).EncapsulatedDocument


def test_orthanc_takes_stow_rs(files: list[Path], real_pacs: Pacs) -> None:
    server = DicomwebDestination(url=real_pacs.dicomweb_url, timeout_s=60)
    echo("WEB", server)
    receipt = deliver_to(files, "WEB", server)
    assert [sent.stored for sent in receipt.sent] == [True, True, True]
    assert real_pacs.instances() == UIDS


def test_a_dicomweb_server_that_does_not_answer_or_refuses_is_named(files: list[Path], real_pacs: Pacs) -> None:
    with pytest.raises(DeliveryFailed, match=r"WEB \(http://127.0.0.1:\d+/x\) can't be reached"):
        deliver_to(files, "WEB", DicomwebDestination(url=f"http://127.0.0.1:{free_port()}/x", timeout_s=2))
    with pytest.raises(DeliveryFailed, match="answered 404"):
        deliver_to(files, "WEB", DicomwebDestination(url=f"{real_pacs.http_url}/nothing", timeout_s=60))
    with pytest.raises(DeliveryFailed, match="must start with http:// or https://"):
        echo("WEB", DicomwebDestination(url="file:///etc"))


def test_a_dicomweb_answer_is_read_object_by_object(files: list[Path]) -> None:
    answer = {
        "00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [UIDS[0]]}}]},
        "00081198": {
            "vr": "SQ",
            "Value": [{"00081155": {"vr": "UI", "Value": [UIDS[1]]}, "00081197": {"vr": "US", "Value": [0x0122]}}],
        },
    }
    seen: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.update(self.headers.items())
            self.send_response(202)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    destination = DicomwebDestination(url=f"http://127.0.0.1:{server.server_port}", token="secret", timeout_s=60)
    with pytest.raises(DeliveryFailed, match="2 of 3 objects") as error:
        deliver_to(files, "WEB", destination)
    server.shutdown()
    assert "2 of 3 objects: object1.dcm (failure reason 0x0122); object2.dcm (the answer does not mention it)" in str(
        error.value
    )
    assert seen["Authorization"] == "Bearer secret" and "secret" not in str(error.value)


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"ok"',
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]",
        b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"00081199": 3}',
        b'HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{"00081199":{"Value":[3]}}',
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\nContent-Length: 0\r\n\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 " + b"9" * 100_000,
        b"",
    ],
)
def test_whatever_a_dicomweb_server_answers_is_one_line(files: list[Path], answer: bytes) -> None:
    """A line of the delivery's own, and what it was told never goes to another server."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked = b""
            while b"--\r\n" not in asked[-200:]:
                asked += connection.recv(65536)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(DeliveryFailed, match=r"WEB \(http") as error:
        deliver_to(files[:1], "WEB", DicomwebDestination(url=url, token="secret", timeout_s=60))
    listener.close()
    assert "\n" not in error.value.message and "secret" not in error.value.message


@pytest.mark.parametrize("url", ["http://[::1", "http://a b/", "http://x\0y/", "http://" + "a" * 300, "http:///x"])
def test_an_address_that_can_not_be_is_unreachable(url: str) -> None:
    with pytest.raises(DeliveryFailed, match=r"WEB .* can't be reached"):
        echo("WEB", DicomwebDestination(url=url, timeout_s=2))


@pytest.mark.parametrize(
    ("host", "port", "ae_title"),
    [
        ("nowhere.invalid", 104, "PACS"),
        ("a b", 104, "PACS"),
        ("x" * 300, 104, "PACS"),
        ("127.0.0.1", 70000, "PACS"),
        ("127.0.0.1", -1, "PACS"),
        ("127.0.0.1", 104, "x" * 20),
        ("127.0.0.1", 104, "a\\b"),
    ],
)
def test_a_node_that_can_not_be_is_unreachable(host: str, port: int, ae_title: str) -> None:
    with pytest.raises(DeliveryFailed, match=r"PACS .* can't be reached"):
        echo("PACS", DicomDestination(host=host, port=port, ae_title=ae_title, timeout_s=2))
