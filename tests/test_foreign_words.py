"""What libraries and servers say may quote what they read, a patient's name: it is in no message, which logs have."""

from __future__ import annotations

import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pydicom.uid import RLELossless
from sqlalchemy import Engine
from sqlalchemy.exc import DataError

from carina.dicom import decode
from carina.dicom.decode import DAMAGE, open_pixels
from carina.errors import BadSeries
from carina.receive.part import unwritable_row
from carina.receive.unpack import unpack
from reading_codecs import compressed
from reading_slices import ct_slice, save
from test_notices import Clock, add, notifier
from test_notices import engine as engine

NAME = "Doe^Jane"


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
    refused = DataError("insert", {}, ValueError(f"value too long: {NAME}"))
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
