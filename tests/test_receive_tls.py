"""The DICOM listener with TLS: who shows a trusted certificate is let in, and nobody else."""

from __future__ import annotations

import shutil
import socket
import subprocess
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
from receiving import echo, receiver_settings, rows, storescu


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_ct_series(chest_phantom(shape=(24, 64, 64), lesions=0).volume, tmp_path / "ct")
    return tmp_path / "ct"


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return receiver_settings(tmp_path)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two self-signed certificates with their keys: ``node`` and ``scanner``."""
    folder = tmp_path_factory.mktemp("tls")
    program = shutil.which("openssl") or pytest.skip("openssl is not installed; on Debian: apt-get install openssl")
    for name in ("node", "scanner", "stranger"):
        made = [str(program), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
        subprocess.run(
            [*made, "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt"], check=True, capture_output=True
        )
    return folder


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
    [told] = [one.getMessage() for one in caplog.records if one.name == "carina.receive.strangers"]
    assert "it failed (" in told
    assert "UNEXPECTED_EOF" not in told


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
    with pytest.raises(BadConfig, match=r"x\.crt.*can't be used .*expected PEM files"):
        DicomListener(InstanceStore(wrong, engine)).start()
