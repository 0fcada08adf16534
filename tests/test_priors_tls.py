"""The patient's earlier scan, fetched by itself from a real Orthanc that speaks TLS alone, as the node does."""

from __future__ import annotations

import subprocess
import urllib.request
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import UID

from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import orthanc, orthanc_program
from certificates import self_signed
from reading_pipeline import READING
from served_nodes import settings_of
from test_serve import Process, started

SLICES = 40

SETTINGS = """
[dicom.tls]
certificate = "{certificates}/node.crt"
key = "{certificates}/node.key"
trusted = "{certificates}/known.crt"
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
pipelines = ["reading.yaml"]
quiet_s = 1.0
earlier = "PACS"
earlier_by = "{by}"
[destinations.PACS]
kind = "dicom"
host = "127.0.0.1"
port = {port}
ae_title = "ORTHANC"
tls_trusted = "{certificates}/pacs.crt"
tls_certificate = "{certificates}/node.crt"
tls_key = "{certificates}/node.key"
tls_name = "localhost"
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = self_signed(tmp_path_factory.mktemp("tls"), "node", "pacs", "scanner")
    (made / "known.crt").write_text("".join((made / f"{name}.crt").read_text() for name in ("pacs", "scanner")))
    return made


def scan(folder: Path, study: str, day: str) -> list[Path]:
    files = list(write_ct_series(chest_phantom(shape=(SLICES, 200, 200), lesions=0).volume, folder))
    for number, file in enumerate(files):
        header = dcmread(file)
        header.PatientID, header.StudyDate, header.StudyInstanceUID = "KW-4711", day, study
        header.SeriesInstanceUID = f"{study}.1"
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = UID(f"{study}.1.{number}")
        header.save_as(file)
    return files


@pytest.mark.parametrize("by", ["move", "get"])
def test_the_prior_is_fetched_by_tls_and_run(tmp_path: Path, certificates: Path, by: str) -> None:
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed; scripts/test does that")
    (tmp_path / "reading.yaml").write_text(READING)
    node_settings = settings_of(tmp_path, "")
    with orthanc(settings=speaking_tls(certificates, node_settings.dicom.port)) as pacs:
        file = tmp_path / "carina.toml"
        text = SETTINGS.format(certificates=certificates, by=by, port=pacs.dicom_port)
        file.write_text(text + file.read_text())
        for earlier in scan(tmp_path / "earlier", "2.25.1", "20260301"):
            request = urllib.request.Request(f"{pacs.http_url}/instances", earlier.read_bytes(), method="POST")
            urllib.request.urlopen(request, timeout=30).close()
        with started(tmp_path, node_settings) as node:
            node.become_ready()
            sent_by_tls(scan(tmp_path / "later", "2.25.2", "20260404"), certificates, node)
            jobs = both_ended(node)
            assert node.stopped()[0] == 0
    assert [(job["study_uid"], job["priority"], job["ended"]) for job in jobs] == [
        ("2.25.1", "low", "healthy"),
        ("2.25.2", "normal", "healthy"),
    ]
    assert len(list((tmp_path / "node" / "incoming").rglob("*.dcm"))) == 2 * SLICES


def speaking_tls(certificates: Path, port: int) -> dict[str, object]:
    peer = {"AET": "CARINA", "Host": "127.0.0.1", "Port": port, "UseDicomTls": True}
    return {
        "DicomModalities": {"carina": peer},
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(certificates / "pacs.crt"),
        "DicomTlsPrivateKey": str(certificates / "pacs.key"),
        "DicomTlsTrustedCertificates": str(certificates / "node.crt"),
        "DicomTlsRemoteCertificateRequired": True,
    }


def sent_by_tls(files: list[Path], certificates: Path, node: Process) -> None:
    keys = ("+tls", certificates / "scanner.key", certificates / "scanner.crt", "+cf", certificates / "node.crt")
    words: list[str | Path] = ["storescu", *keys, "-aec", "CARINA", "127.0.0.1", str(node.dicom_port), *files]
    subprocess.run(words, check=True)


def both_ended(node: Process) -> list[dict[str, object]]:
    def jobs() -> list[dict[str, object]]:
        found: list[dict[str, object]] = httpx.get(f"{node.url}/api/v1/jobs").json()["jobs"]
        return found

    node.until(lambda: [bool(job["ended"]) for job in jobs()] == [True, True])
    return sorted(jobs(), key=lambda job: str(job["study_uid"]))
