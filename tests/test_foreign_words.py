"""What libraries and servers say may quote what they read, a patient's name: it is in no message, which logs have."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import EntryPoint
from pathlib import Path
from threading import Thread

import pytest
from pydicom import Dataset
from pydicom.uid import RLELossless
from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError

from carina.config import DicomwebDestination
from carina.deliver import store_scu
from carina.deliver.answers import status_words
from carina.deliver.identity import ObjectIdentity
from carina.deliver.qido import found_by_qido
from carina.deliver.receipt import DeliveryReceipt, complete
from carina.deliver.stow import echo_server
from carina.dicom import decode
from carina.dicom.decode import DAMAGE, open_pixels
from carina.errors import BadSeries, DeliveryFailed
from carina.pipeline import plugins
from carina.pipeline.values import Json
from carina.receive.part import unwritable_row
from carina.receive.unpack import unpack
from carina.service.problems import NotUnderstood
from carina.service.rest import operation
from reading_codecs import compressed
from reading_slices import ct_slice, save
from test_notices import Clock, add, notifier
from test_notices import engine as engine
from web_answers import Answer, answering, head

NAME = "Doe^Jane"
OURS = ObjectIdentity(
    sop_instance_uid="1.2", sop_class_uid="1.3", study_uid="1.4", series_uid="1.5", transfer_syntax_uid="1.6"
)


@pytest.mark.parametrize("kind", DAMAGE)
def test_of_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    def fail(*_: object) -> None:
        raise kind(f"can't read {NAME}")

    opened = open_pixels(save(compressed(ct_slice((0, 0, 0), 1), RLELossless), tmp_path / "slice"))
    monkeypatch.setitem(decode.DECODERS, RLELossless, fail)
    with pytest.raises(BadSeries, match=rf"slice: pixel data can't be decoded \({kind.__name__}\); send") as caught:
        opened.stored(None)
    assert NAME not in caught.value.message
    assert NAME in caught.value.said, "who sits at the terminal is told"


def test_of_a_zip(tmp_path: Path) -> None:
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr(f"{NAME}.dcm", b"x" * 100)
    archive.write_bytes(archive.read_bytes().replace(NAME.encode(), b"Roe^Jane", 1))  # in one of its two places
    with pytest.raises(BadSeries, match=r"the zip can't be unpacked \(BadZipFile\)") as caught:
        unpack(archive, tmp_path / "to", 10**6)
    assert NAME not in caught.value.message
    assert NAME in caught.value.said


def test_of_a_database(tmp_path: Path) -> None:
    refused = InterfaceError("insert", {}, ValueError(f"value too long: {NAME}"))
    assert unwritable_row(tmp_path, refused).message == "the database can't be written (ValueError)."


class _Talkative(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(500, f"no {NAME} here")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_of_a_webhook(engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(engine, tmp_path, 1)
    server = HTTPServer(("127.0.0.1", 0), _Talkative)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        notices = notifier(engine, tmp_path, Clock(), f"http://127.0.0.1:{server.server_port}/")
        for _ in range(2):  # it is entered, and posted
            notices.round()
    finally:
        server.shutdown()
        server.server_close()
    (line,) = caplog.messages
    assert "answered 500 Internal Server Error" in line
    assert NAME not in line


def peer_says(status: int, comment: object) -> Dataset:
    said = Dataset()
    said.Status = status
    if comment is not None:
        said.ErrorComment = comment
    return said


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xB000, 0xC123, 0x0110, 0x0124])
@pytest.mark.parametrize(
    ("comment", "kept"),
    [
        (f"no room for {NAME}", f", no room for {NAME}"),
        ("one\x1b[31m\r\ntwo\x00 \u202ethree", ", one [31m two three"),
        ("x" * 500, ", " + "x" * 32 + " ... " + "x" * 32),
        (None, ""),
        ("", ""),
    ],
)
def test_of_a_peer_its_comment_is_in_the_ledger_alone(status: int, comment: object, kept: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        answer = store_scu._answer(peer_says(status, comment))
    assert answer.note == status_words(status)
    assert " ".join(answer.for_ledger.removeprefix(answer.note).split()) == kept


def test_of_a_peer_in_no_message(tmp_path: Path) -> None:
    answer = store_scu._answer(peer_says(0xA700, f"no room for {NAME}"))
    file = save(ct_slice((0, 0, 0), 1), tmp_path / "slice")
    sent = store_scu._sent(file, answer)
    with pytest.raises(DeliveryFailed, match=r"did not store 1 of 1 objects: .* \(status 0xA700, out of") as caught:
        complete(DeliveryReceipt(destination="pacs", kind="dicom", where="here", sent=(sent,)))
    assert NAME not in caught.value.message


@pytest.mark.parametrize(
    "answer",
    [[head("text/plain", 503).replace(b"Words", NAME.encode())], [f"{NAME}\r\n\r\n".encode()], [b"HTTP/1.1 \xff\r\n"]],
)
@pytest.mark.parametrize("ask", [echo_server, lambda name, server: found_by_qido([OURS], name, server)])
def test_of_a_web_server(answer: Answer, ask: Callable[[str, DicomwebDestination], object]) -> None:
    with answering(lambda _: answer) as server, pytest.raises(DeliveryFailed, match="pacs") as caught:
        ask("pacs", server)
    assert NAME not in caught.value.message


def test_of_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(f'{{"name": {NAME}')
    with pytest.raises(BadSeries, match=r"facts\.json: is no JSON, or nested more than 64 deep\.$") as caught:
        Json.load([tmp_path / "facts.json"])
    assert caught.value.said


def test_of_a_package_no_more_than_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("licence\n\x1b[31m" + "x" * 5000)

    monkeypatch.setattr(EntryPoint, "load", fail)
    told = plugins._load(EntryPoint("op", "package:OP", "carina.operators"))
    assert isinstance(told, str)
    assert told.startswith("package: its operator package:OP can't be loaded (RuntimeError: licence ")
    assert len(told) < 400
    assert told.isprintable()


def test_of_a_body_that_is_no_json() -> None:
    with pytest.raises(NotUnderstood, match=r"^the body is no JSON\.$"):
        operation._table(f'{{"name": {NAME}'.encode())
