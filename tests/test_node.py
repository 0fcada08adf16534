"""The whole node as a process: a study is sent to it, runs, reaches a PACS, and is seen on its pages."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dicomweb_client.api import DICOMwebClient
from playwright.sync_api import Browser, expect
from pydicom import dcmread

from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import Pacs, orthanc, orthanc_program
from served_nodes import settings_of
from test_serve import Process, started

ROOT = Path(__file__).resolve().parents[1]

MINUTES = 5 * 60


@pytest.fixture(scope="module")
def pacs() -> Iterator[Pacs]:
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed; scripts/test does that")
    with orthanc() as one:
        yield one


REAL = "ct/lungdx-a0002"
"""A real series of 30 slices."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A real CT where there is one, else the phantom."""
    real = Path(os.environ.get("CARINA_TEST_DATA", ROOT.parent / "shared" / "data")) / REAL
    if real.is_dir():
        return sorted(file for file in real.rglob("*") if file.is_file() and file.suffix == ".dcm")
    folder = tmp_path_factory.mktemp("study") / "ct"
    return list(write_ct_series(chest_phantom(shape=(40, 192, 192), lesions=2, seed=2).volume, folder))


SETTINGS = """
[runtime]
precision = "f32"
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
destinations = ["PACS"]
quiet_s = 1.0
[destinations.PACS]
kind = "dicom"
host = "127.0.0.1"
port = {port}
ae_title = "ORTHANC"
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Pacs) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("node")
    settings = settings_of(folder, SETTINGS.format(port=pacs.dicom_port))
    with started(folder, settings) as one:
        one.become_ready()
        yield one


def store(node: Process, files: list[Path]) -> None:
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("DCMTK is not installed; scripts/test does that")
    fast = {"TCP_NODELAY": "1", "TCP_BUFFER_LENGTH": "131072", "PATH": os.environ["PATH"]}
    command = [program, "-aec", "CARINA", "127.0.0.1", str(node.dicom_port), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, env=fast, timeout=MINUTES)
    assert done.returncode == 0, done.stderr


def test_a_study_that_is_sent_is_run_delivered_and_shown(
    node: Process, pacs: Pacs, study: list[Path], browser: Browser
) -> None:
    page = browser.new_page()
    page.goto(node.url)
    expect(page.get_by_text("No job yet")).to_be_visible()
    store(node, study)
    row = page.get_by_role("row").filter(has=page.locator("#job-1"))
    expect(row).to_contain_text("running")
    expect(row.get_by_role("progressbar")).to_be_visible()
    node.run_to_its_end(1)
    expect(row).to_contain_text("done")
    node.until(lambda: len(pacs.instances()) == 5)
    expect(row).to_contain_text("PACS: 5 of 5 confirmed")
    row.get_by_role("link", name="Results").click()
    expect(page.get_by_text("For research use only. Not for diagnosis.").first).to_be_visible()
    page.close()
    made = DICOMwebClient(f"{node.url}/dicom-web")
    series = dcmread(study[0]).StudyInstanceUID
    found = made.search_for_instances(series)
    ours = {one["00080018"]["Value"][0] for one in found} - {dcmread(file).SOPInstanceUID for file in study}
    assert len(ours) == 5
    assert set(pacs.instances()) == ours
    for uid in ours:
        assert study_of(pacs.fetch(uid)) == series


def study_of(data: bytes) -> str:
    return str(dcmread(io.BytesIO(data)).StudyInstanceUID)


def test_the_server_stays_small_and_without_a_network(node: Process) -> None:
    mapped = Path(f"/proc/{node.process.pid}/maps").read_text()
    assert not [name for name in ("torch", "openvino", "onnxruntime") if name in mapped]


def test_logs_name_the_job_and_no_patient(node: Process, study: list[Path]) -> None:
    """Last: it ends the node."""
    code, log = node.stopped()
    assert code == 0
    header = dcmread(study[0])
    text = "\n".join(map(str, log))
    assert str(header.PatientName) not in text
    assert str(header.PatientID) not in text
    assert any(line.get("job") == 1 for line in log)
