"""DICOMweb servers that ask who is there, and whose certificate this machine doesn't know by itself."""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from carina.config import DicomwebDestination
from carina.deliver.deliver import echo
from carina.errors import DeliveryFailed
from carina.testing.pacs import orthanc, orthanc_program
from certificates import self_signed

LOGIN = "Basic " + base64.b64encode("carina:s€cret".encode()).decode()


class Asks(BaseHTTPRequestHandler):
    """Finds nothing for who logs in, and says 401 to everybody else."""

    def do_GET(self) -> None:
        is_known = self.headers.get("Authorization") in (LOGIN, "Bearer token")
        self.send_response(204 if is_known else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = self_signed(tmp_path_factory.mktemp("tls"), "server")
    file = folder / "server.pem"
    file.write_text((folder / "server.key").read_text() + (folder / "server.crt").read_text())
    return file


@pytest.fixture(scope="module")
def port(certificate: Path) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Asks)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def at(port: int, certificate: Path, **more: Any) -> DicomwebDestination:
    fields = {"tls_trusted": str(certificate.with_suffix(".crt")), "timeout_s": 60, **more}
    return DicomwebDestination(url=f"https://localhost:{port}/dicom-web", **fields)


@pytest.mark.parametrize("shown", [{"user": "carina", "password": "s€cret"}, {"token": "token"}])
def test_who_logs_in_is_answered(port: int, certificate: Path, shown: dict[str, str]) -> None:
    echo("web", at(port, certificate, **shown))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "answered 401 Unauthorized: check its URL, user or token"),
        ({"user": "carina", "password": "wrong"}, "answered 401 Unauthorized: check its URL, user or token"),
        ({"tls_trusted": ""}, "nobody whom this machine trusts signs its certificate. Put what does into tls_trusted"),
        (
            {"tls_trusted": "/etc/hostname"},
            "tls_trusted: '/etc/hostname' holds no certificate. Expected certificates in PEM",
        ),
        ({"tls_trusted": "nowhere.crt"}, "tls_trusted: 'nowhere.crt' is not there. Expected certificates in PEM"),
    ],
)
def test_what_is_wrong_is_one_line_without_the_password(
    port: int, certificate: Path, more: dict[str, str], words: str
) -> None:
    with pytest.raises(DeliveryFailed, match=words) as error:
        echo("web", at(port, certificate, **more))
    assert "\n" not in error.value.message and "wrong" not in error.value.message


def test_orthanc_with_its_own_users_is_logged_in_to() -> None:
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed")
    with orthanc(settings={"AuthenticationEnabled": True, "RegisteredUsers": {"carina": "secret"}}) as pacs:
        echo("web", DicomwebDestination(url=pacs.dicomweb_url, user="carina", password="secret", timeout_s=60))
        with pytest.raises(DeliveryFailed, match="answered 401 Unauthorized: check its URL, user or token"):
            echo("web", DicomwebDestination(url=pacs.dicomweb_url, user="carina", timeout_s=60))
