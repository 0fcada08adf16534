"""From `storescu` to a corrected mask in a real Orthanc: a node's process, a real browser, and a reader not ours."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from pydicom import dcmread

from carina.api.result import Run
from carina.corrections.masks import MaskName, network_mask
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import Pacs, orthanc, orthanc_program
from carina.volume import Mask
from corrected_runs import RADIUS_MM, decided, disc, ready, saved
from dicom_objects_samples import errors_of, placed, truth
from receiving import storescu
from served_nodes import settings_of
from test_priors_whole import PIPELINE
from test_serve import Process, started

SETTINGS = """
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
project = "trial"
pipelines = ["ratio.yaml"]
destinations = ["PACS"]
quiet_s = 1.0
[destinations.PACS]
kind = "dicom"
host = "127.0.0.1"
port = {port}
ae_title = "ORTHANC"
"""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A node to which a series was sent, and the PACS to which its results go."""

    node: Process
    pacs: Pacs
    folder: Path

    @property
    def run(self) -> Run:
        return Run(self.folder / "node" / "runs" / "1")

    def in_pacs(self, reader: str) -> list[bytes]:
        """The segmentations there whose maker is a reader."""
        files = [self.pacs.fetch(uid) for uid in self.pacs.instances()]
        made = [(file, dcmread(io.BytesIO(file))) for file in files]
        return [file for file, one in made if one.Modality == "SEG" and one.ContentCreatorName == reader]


@pytest.fixture
def sent(tmp_path: Path) -> Iterator[Sent]:
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed; scripts/test does that")
    write_ct_series(chest_phantom(shape=(32, 192, 192), lesions=2, seed=2).volume, tmp_path / "ct")
    (tmp_path / "ratio.yaml").write_text(PIPELINE)
    settings = settings_of(tmp_path, "")
    with orthanc() as pacs:
        file = tmp_path / "carina.toml"
        file.write_text(SETTINGS.format(port=pacs.dicom_port) + file.read_text())
        with started(tmp_path, settings) as node:
            yield Sent(node=node, pacs=pacs, folder=tmp_path)


def test_a_series_is_sent_run_corrected_and_found_in_the_pacs(browser: Browser, sent: Sent, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{sent.node.url}/projects/trial")
    assert send_series(sent) == 0
    sent.node.run_to_its_end(1)
    page.get_by_role("link", name="Results").click()  # the page shows it by itself, once it is there
    expect(page.locator(".axial img")).to_be_visible()
    expected = corrected(page, sent)
    with page.expect_response("**/send"):  # a page that is left takes what it asks for with it
        page.get_by_role("button", name="Send").click()
    page.goto(f"{sent.node.url}/jobs/1")
    row = page.locator("tr", has=page.get_by_text(uid_of_correction(sent)))
    sent.node.until(lambda: bool(sent.in_pacs("Doe^Jane")))
    expect(row.locator(".state")).to_have_text("confirmed")
    page.close()
    (found,) = sent.in_pacs("Doe^Jane")
    path = tmp_path / "from-pacs.dcm"
    path.write_bytes(found)
    assert errors_of(path) == []
    np.testing.assert_array_equal(placed(path, tmp_path / "itk")[1], truth(expected, 1))


def send_series(sent: Sent) -> int:
    """Send the series once the node receives; gives the exit code."""
    sent.node.become_ready()
    return storescu(sent.node.dicom_port, str(sent.folder / "ct")).returncode


def corrected(page: Page, sent: Sent) -> Mask:
    """Paint a disc on the axial slice in which no lesion is, finish, and give the mask as it should be."""
    network = network_mask(sent.run, MaskName.LESION)
    grid = network.grid
    at = (grid.shape[0] // 2, grid.shape[1] // 2, grid.shape[2] // 3)
    page.goto(f"{sent.node.url}/jobs/1/view/correct/lesion?at={','.join(map(str, at))}")
    ready(page)
    page.get_by_label("Name", exact=True).fill("Jane Doe")
    page.get_by_label("Radius").fill(str(RADIUS_MM))
    page.locator(".axial .picture").press(" ")
    saved(page)
    page.get_by_role("button", name="Finish the correction").click()
    decided(page, "Corrected by Jane Doe")
    painted = (network.labels > 0) | disc(grid, "axial", at, RADIUS_MM)
    assert painted.sum() > (network.labels > 0).sum()
    return replace(network, labels=painted.astype(np.uint8))


def uid_of_correction(sent: Sent) -> str:
    path = sent.run.folder / "corrections" / "lesion-1" / "dicom" / "lesion-seg.dcm"
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
