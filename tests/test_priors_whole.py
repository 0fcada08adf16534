"""A new scan beside an earlier one that a real Orthanc holds: from the first instance to the report there."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian

from carina import RESEARCH_ONLY
from carina.api.compared import scan_findings
from carina.api.result import Run
from carina.measure.change import LesionChange
from carina.report.change import change_sentences
from carina.report.numbers import page_text
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import Pacs, orthanc, orthanc_program, send
from served_nodes import settings_of
from test_serve import Process, started

ROOT = Path(__file__).resolve().parents[1]

EARLIER, LATER = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"

PIPELINE = """
api-version: 0.4.0
name: ratio
operators:
- {name: reader, container: {image: carina/dicom-reader}, input: [{path: /input}], output: [{path: /output}]}
- name: lung
  container: {image: carina/ai-lung}
  input: [{from: reader, path: /input}]
  output: [{path: /marked, name: marked}]
- name: lesion
  container: {image: carina/ai-covid-lesion}
  input: [{from: reader, path: /input}]
  output: [{path: /marked, name: marked}]
- name: both
  container: {image: carina/lung-lesions}
  input:
  - {from: lesion, name: marked, path: /input}
  - {from: lung, name: marked, path: /label_image}
  - {from: reader, path: /volume}
  output: [{path: /lung, name: lung}, {path: /lesion, name: lesion}]
- name: ratio
  container: {image: carina/ai-volume-ratio}
  input:
  - {from: both, name: lesion, path: /input}
  - {from: both, name: lung, path: /label_image}
  - {from: reader, path: /volume}
  output: [{path: /output}]
- name: report
  container: {image: carina/dicom-report-writer}
  input: [{from: ratio, path: /input}, {path: /dcm}]
  output: [{path: /output, name: dicom}]
"""

SETTINGS = """
[runtime]
precision = "f32"
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
pipelines = ["ratio.yaml"]
destinations = ["PACS"]
quiet_s = 1.0
earlier = "PACS"
earlier_by = "move"
[destinations.PACS]
kind = "dicom"
host = "127.0.0.1"
port = {port}
ae_title = "ORTHANC"
"""


def slices(folder: Path) -> list[Dataset]:
    """A real CT where there is one, else the phantom, without compression."""
    real = Path(os.environ.get("CARINA_TEST_DATA", ROOT.parent / "shared" / "data")) / "ct/lungdx-a0002"
    files: Sequence[Path] = sorted(real.rglob("*.dcm"))
    if not files:
        files = write_ct_series(chest_phantom(shape=(40, 192, 192), lesions=2, seed=2).volume, folder)
    found: list[Dataset] = []
    for file in files:
        dataset = dcmread(file)
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress()
        found.append(dataset)
    return found


def of_study(dataset: Dataset, uid: str, date: str, denser: int = 0) -> Dataset:
    """A slice as one of another study of the patient; ``denser`` is added to what is lung in its left half."""
    made = dcmread(io.BytesIO(written(dataset)))
    made.PatientID, made.StudyDate, made.StudyInstanceUID, made.SeriesInstanceUID = "KW-4711", date, uid, f"{uid}.1"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID(f"{uid}.1.{int(made.InstanceNumber)}")
    made.SeriesDescription = "Thorax 5.0"
    for keyword in ("PatientIdentityRemoved", "DeidentificationMethod", "IssuerOfPatientID"):
        made.pop(keyword, None)
    pixels = made.pixel_array.copy()
    half = pixels[:, pixels.shape[1] // 2 :]
    hu = half * float(made.get("RescaleSlope", 1)) + float(made.get("RescaleIntercept", 0))
    half[(hu > -950) & (hu < -600)] += np.asarray(denser, pixels.dtype)
    made.PixelData = pixels.tobytes()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def written(dataset: Dataset) -> bytes:
    target = io.BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A node whose new scan was compared with one that its PACS held, and both studies as they were sent."""

    node: Process
    folder: Path
    pacs: Pacs
    page: str

    def text(self, path: str) -> str:
        return unescape(httpx.get(f"{self.node.url}{path}").text)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed; scripts/test does that")
    folder = tmp_path_factory.mktemp("whole")
    (folder / "ratio.yaml").write_text(PIPELINE)
    settings = settings_of(folder, "")
    listener = ("CARINA", "127.0.0.1", settings.dicom.port)
    with orthanc(modalities={"carina": listener}) as pacs:
        text = (folder / "carina.toml").read_text()
        (folder / "carina.toml").write_text(SETTINGS.format(port=pacs.dicom_port) + text)
        every = slices(folder / "ct")
        for one in every:
            data = written(of_study(one, EARLIER, "20260301", denser=350))
            urllib.request.urlopen(
                urllib.request.Request(f"{pacs.http_url}/instances", data, method="POST"), timeout=30
            ).close()
        with started(folder, settings) as node:
            node.become_ready()
            at_node = Pacs(
                host="127.0.0.1", dicom_port=node.dicom_port, ae_title="CARINA", instances=tuple, fetch=lambda _: b""
            )
            assert set(send(at_node, [of_study(one, LATER, "20260404") for one in every])) == {0}
            yield Compared(node=node, folder=folder, pacs=pacs, page=watched(node))


def watched(node: Process) -> str:
    """The new scan's page once all is said and sent."""

    def page() -> str:
        return unescape(httpx.get(f"{node.url}/jobs/1").text)

    node.until(lambda: "Compared with job" in (now := page()) and now.count('class="state confirmed"') == 2)
    return page()


def test_the_prior_is_moved_run_and_compared_and_the_report_reaches_the_pacs(compared: Compared) -> None:
    assert "Earlier scans at PACS: 2026-03-01. Compared with job 2 of 2026-03-01." in compared.page
    assert '2026-03-01: <a href="/jobs/2">job 2</a>' in compared.page
    prior = compared.text("/jobs/2")
    assert ("done" in prior, "<dt>Priority</dt><dd>low</dd>" in prior, "Deliveries" in prior) == (True, True, False)
    sent = [dcmread(io.BytesIO(compared.pacs.fetch(uid))) for uid in compared.pacs.instances()]
    ours = sorted((str(one.DocumentTitle), str(one.StudyInstanceUID)) for one in sent if one.Modality == "DOC")
    assert ours == [("Change since earlier scans", LATER), ("Lesion to lung volume ratio", LATER)]
    assert len(sent) == 2 + len(list((compared.folder / "node" / "incoming" / "1").glob("*.dcm")))


def test_page_and_pdf_say_what_both_runs_found(compared: Compared) -> None:
    later, earlier = (scan_findings(Run(compared.folder / "node" / "runs" / job)) for job in ("1", "2"))
    assert earlier.lungs.lesion_ml > later.lungs.lesion_ml
    sentence = change_sentences(LesionChange(earlier=earlier, later=later))[0]
    on_page = page_text(sentence)
    assert sentence.startswith("Within 34 days the volume marked as lesion fell from")
    report = compared.text("/jobs/1/view/report")
    assert (on_page in report, "Lesion ml: 2026-03-01:" in report) == (True, True)
    assert on_page in compared.text("/jobs/1/view/changes?earlier=2")
    assert on_page not in compared.text("/jobs/2/view/report")
    words = words_of(httpx.get(f"{compared.node.url}/jobs/1/view/pdf/change.pdf").content)
    assert sentence.replace("\u00a0", " ") in words
    assert RESEARCH_ONLY in words


def words_of(pdf: bytes) -> str:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (poppler-utils) is not installed")
    text = subprocess.run(["pdftotext", "-raw", "-", "-"], input=pdf, capture_output=True, check=True).stdout.decode()
    return re.sub(r"\s+", " ", text)


def test_the_log_names_no_patient(compared: Compared) -> None:
    code, log = compared.node.stopped()
    assert code == 0
    assert log
    texts = [str(log), *(file.read_text() for file in (compared.folder / "node" / "logs").glob("*"))]
    assert not [text for text in texts if "KW-4711" in text]
