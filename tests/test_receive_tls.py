"""The DICOM listener with TLS: who shows a trusted certificate is let in, and nobody else."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import Engine

from carina.config import Settings
from carina.errors import BadConfig
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import orthanc, orthanc_program
from carina.web_settings import TlsSettings
from certificates import self_signed
from receiving import echo, receiver_settings, rows, storescu
from waiting import wait_until


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_ct_series(chest_phantom(shape=(24, 64, 64), lesions=0).volume, tmp_path / "ct")
    return tmp_path / "ct"


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return receiver_settings(tmp_path)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed certificates with their keys: ``node``, ``scanner`` and ``stranger``."""
    return self_signed(tmp_path_factory.mktemp("tls"), "node", "scanner", "stranger")


def test_tls_takes_who_shows_a_trusted_certificate_and_nobody_else(
    node: Settings, engine: Engine, series: Path, certificates: Path
) -> None:
    files = {name: str(certificates / name) for name in ("node.crt", "node.key", "scanner.crt")}
    tls = TlsSettings(certificate=files["node.crt"], key=files["node.key"], trusted=files["scanner.crt"])
    with_tls = msgspec.structs.replace(node, dicom=msgspec.structs.replace(node.dicom, tls=tls))
    listener = DicomListener(InstanceStore(with_tls, engine))
    listener.start()

    def send(name: str) -> int:
        keys = ("+tls", str(certificates / f"{name}.key"), str(certificates / f"{name}.crt"))
        return storescu(listener.port, str(series), *keys, "+cf", files["node.crt"]).returncode

    try:
        assert storescu(listener.port, str(series)).returncode != 0
        assert send("stranger") != 0
        assert rows(engine) == 0
        assert send("scanner") == 0
        assert rows(engine) == 24
    finally:
        listener.stop()


def test_who_connects_by_tls_and_says_nothing_is_not_told(
    node: Settings, engine: Engine, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = TlsSettings(certificate=str(certificates / "node.crt"), key=str(certificates / "node.key"))
    with_tls = msgspec.structs.replace(node, dicom=msgspec.structs.replace(node.dicom, tls=tls))
    listener = DicomListener(InstanceStore(with_tls, engine))
    listener.start()
    try:
        for _ in range(2):  # as `carina echo` does
            socket.create_connection(("127.0.0.1", listener.port)).close()
        assert not echo(listener.port)  # of a peer without TLS
    finally:
        listener.stop()
    assert told(caplog) == [
        "it asked for an association without TLS, and this port takes TLS alone (dicom.tls): closed"
    ]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of connections from here."""
    said = [one.getMessage() for one in caplog.records if one.name == "carina.receive.strangers"]
    return [one.removeprefix("connection from 127.0.0.1: ").removesuffix(".") for one in said]


def test_every_reason_of_a_failed_handshake_is_told_once(
    node: Settings,
    engine: Engine,
    certificates: Path,
    tls_files: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who mends one mistake of a sender's sees the next."""
    files = {name: str(certificates / name) for name in ("node.crt", "node.key", "scanner.crt")}
    both = tmp_path / "both.crt"
    both.write_text((certificates / "scanner.crt").read_text() + (tls_files / "root.crt").read_text())
    tls = TlsSettings(certificate=files["node.crt"], key=files["node.key"], trusted=str(both))
    with_tls = msgspec.structs.replace(node, dicom=msgspec.structs.replace(node.dicom, tls=tls))
    listener = DicomListener(InstanceStore(with_tls, engine))
    listener.start()
    plain = bytes([1, 0, 0, 0, 0, 100, *bytes(100)])
    tries: dict[str, Callable[[], None]] = {
        "it asked for an association without TLS": lambda: speak(listener.port, plain),
        "it spoke HTTP": lambda: speak(listener.port, b"GET / HTTP/1.0\r\n\r\n"),
        "it ended within the TLS handshake": lambda: speak(listener.port, b"\x16\3\1\1\0abc"),
        "its TLS handshake failed (wrong version number)": lambda: speak(listener.port, b"\x99" * 300),
        "it offers no TLS 1.2 or later": lambda: shake(listener.port, old(certificates)),
        "it showed no certificate": lambda: shake(listener.port, client()),
        "its certificate is not taken (self-signed certificate): dicom.tls.trusted has to hold": lambda: shake(
            listener.port, client(certificates / "stranger")
        ),
        "its certificate is not taken (certificate has expired): the sender needs a new one": lambda: shake(
            listener.port, client(tls_files / "expired")
        ),
        "its certificate is not taken (certificate is not yet valid): the sender needs one that is": lambda: shake(
            listener.port, client(tls_files / "early")
        ),
        "it does not trust our certificate": lambda: shake(
            listener.port, client(certificates / "scanner", trusted=certificates / "scanner.crt")
        ),
    }
    try:
        for number, attempt in enumerate(tries.values(), 1):
            attempt()
            attempt()
            wait_until_told(caplog, number)
    finally:
        listener.stop()
    for words, said in zip(tries, told(caplog), strict=True):
        assert said.startswith(words)


def wait_until_told(caplog: pytest.LogCaptureFixture, number: int) -> None:
    wait_until(lambda: len(told(caplog)) >= number)


def client(shows: Path | None = None, trusted: Path | None = None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    if trusted is None:
        made.verify_mode = ssl.CERT_NONE
    else:
        made.load_verify_locations(trusted)
    if shows is not None:
        made.load_cert_chain(shows.with_suffix(".crt"), shows.with_suffix(".key"))
    return made


def old(certificates: Path) -> ssl.SSLContext:
    """A client of TLS 1.1 at most."""
    made = client(certificates / "scanner")
    made.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        made.minimum_version, made.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return made


def shake(port: int, context: ssl.SSLContext) -> None:
    """Try a handshake, and wait until the listener closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain, suppress(OSError):
        context.wrap_socket(plain).recv(1)


def speak(port: int, words: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer, suppress(OSError):
        peer.sendall(words)
        peer.shutdown(socket.SHUT_WR)
        peer.recv(100)


@pytest.mark.skipif(not orthanc_program(), reason="Orthanc is not installed; on Debian: apt-get install orthanc")
def test_orthanc_sends_by_tls(node: Settings, engine: Engine, series: Path, certificates: Path) -> None:
    files = {name: str(certificates / name) for name in ("node.crt", "node.key", "scanner.crt", "scanner.key")}
    tls = TlsSettings(certificate=files["node.crt"], key=files["node.key"], trusted=files["scanner.crt"])
    with_tls = msgspec.structs.replace(node, dicom=msgspec.structs.replace(node.dicom, tls=tls))
    listener = DicomListener(InstanceStore(with_tls, engine))
    listener.start()
    peer = {"AET": "CARINA", "Host": "127.0.0.1", "Port": listener.port, "UseDicomTls": True}
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": files["scanner.crt"],
        "DicomTlsPrivateKey": files["scanner.key"],
        "DicomTlsTrustedCertificates": files["node.crt"],
        "DicomModalities": {"carina": peer},
    }
    try:
        with orthanc(settings=settings) as pacs:
            ids = [
                httpx.post(f"{pacs.http_url}/instances", content=one.read_bytes()).json()["ID"]
                for one in files_of(series)
            ]
            sent = httpx.post(f"{pacs.http_url}/modalities/carina/store", json={"Resources": ids}, timeout=60)
            assert sent.json()["InstancesCount"] == 24
        assert rows(engine) == 24
    finally:
        listener.stop()


def files_of(series: Path) -> list[Path]:
    return sorted(series.glob("*.dcm"))


def test_a_certificate_that_is_none_is_named(node: Settings, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "x.crt").write_text("no certificate")
    tls = TlsSettings(certificate=str(tmp_path / "x.crt"), key=str(tmp_path / "x.crt"))
    wrong = msgspec.structs.replace(node, dicom=msgspec.structs.replace(node.dicom, tls=tls))
    with pytest.raises(BadConfig, match=r"dicom\.tls\.certificate: '\S+x\.crt' holds no certificate"):
        DicomListener(InstanceStore(wrong, engine)).start()
