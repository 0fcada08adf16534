"""Uploads in a real browser: interrupted, dropped, given up, and with a node that loses answers or fails."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from carina.config import load_settings
from carina.receive.uploads import LARGEST_CHUNK
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume.files import write_volume
from served_nodes import settings_of
from test_access_browser import look_over
from test_serve import Process, started
from test_uploads_served import begin, put
from tiny_networks import tiny_environment


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of a DICOM series that takes several chunks, the same as a folder, and a NIfTI file."""
    folder = tmp_path_factory.mktemp("files")
    volume = chest_phantom(shape=(36, 200, 200), lesions=1).volume
    series = write_ct_series(volume, folder / "series")
    with zipfile.ZipFile(folder / "study.zip", "w") as archive:
        for number, file in enumerate(series):
            archive.write(file, f"CT/{number}.dcm")
        noise = io.BytesIO(b"".join(hashlib.sha256(bytes([number])).digest() * 1000 for number in range(250)))
        archive.writestr("notes.txt", noise.getvalue())
    write_volume(volume, folder / "chest.nii.gz")
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A node's process whose networks are tiny."""
    folder = tmp_path_factory.mktemp("running")
    settings_of(folder)
    file, bundles = folder / "carina.toml", tiny_environment(folder / "bundles")
    names = [f'{name.removeprefix("CARINA_MODELS_").lower()} = "{value}"' for name, value in bundles.items()]
    models = "\n".join(names).replace(f'folders = "{folder / "bundles"}"', f'folders = ["{folder / "bundles"}"]')
    file.write_text(f"{file.read_text()}\n[models]\n{models}\n")
    with started(folder, load_settings(file, {})) as one:
        one.become_ready()
        yield one


def job_of(page: Page) -> int:
    said = page.locator("#upload-said")
    expect(said).to_contain_text("Uploaded: it is job")
    return int(said.inner_text().partition("job ")[2].partition(".")[0])


def source_of(node: Process, job: int) -> Path:
    return node.folder / str(httpx.get(f"{node.url}/api/v1/jobs/{job}").json()["job"]["source"])


def seen_to_its_end(page: Page, node: Process, job: int) -> dict[str, Any]:
    """A run takes as long as the machine needs; once it has stopped, the page shows it by itself."""
    found = node.run_to_its_end(job)
    row = page.get_by_role("row").filter(has=page.locator(f"#job-{job}"))
    expect(row).to_contain_text("done")
    return found


def test_an_interrupted_zip_is_resumed_by_another_page_and_run(browser: Browser, running: Process, files: Path) -> None:
    sent: list[str] = []

    def after_two(route: Route) -> None:
        sent.append(route.request.url)
        if len(sent) <= 2:
            route.continue_()  # later ones hang, as when a cable was pulled

    first = browser.new_page(viewport={"width": 390, "height": 800})
    first.route("**/chunk?*", after_two)
    first.goto(running.url)
    first.get_by_label("Files or a zip").set_input_files(files / "study.zip")
    expect(first.get_by_role("progressbar", name="Uploaded")).to_be_visible()
    while len(sent) < 3:
        first.wait_for_timeout(50)
    first.close()
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    chunks: list[str] = []
    page.on("request", lambda one: chunks.append(one.url) if "/chunk?" in one.url else None)
    page.goto(running.url)
    came = 100 * 2 * LARGEST_CHUNK // (files / "study.zip").stat().st_size
    expect(page.get_by_text("1 file, begun")).to_contain_text("has come")
    page.get_by_label("Files or a zip").set_input_files(files / "study.zip")
    job = job_of(page)
    expect(page.get_by_role("heading", name="Unfinished")).to_have_count(0)
    assert 10 < came < 100
    assert chunks[0].endswith(f"offset={2 * LARGEST_CHUNK}")
    found = seen_to_its_end(page, running, job)
    assert Path(found["job"]["source"]).name == "content"
    upload = running.folder / found["job"]["source"]
    assert len(list((upload / "study" / "CT").iterdir())) == 36
    page.close()


def test_a_nifti_file_is_dropped_and_a_folder_is_chosen(
    browser: Browser, running: Process, files: Path, tmp_path: Path
) -> None:
    with_hidden = shutil.copytree(files / "series", tmp_path / "series")
    for name, content in ((".DS_Store", "x"), ("empty.dcm", "")):
        (with_hidden / name).write_text(content)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(running.url)
    data = base64.b64encode((files / "chest.nii.gz").read_bytes()).decode()
    page.evaluate(
        """(data) => {
          const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "chest.nii.gz", { lastModified: 1 }));
          for (const kind of ["dragover", "drop"])
            document.body.dispatchEvent(
              new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }),
            );
        }""",
        data,
    )
    dropped = job_of(page)
    page.get_by_label("Files or a zip").set_input_files(files / "chest.nii.gz")
    expect(page.locator("#upload-said")).to_contain_text(f"The same scan is here already: job {dropped}.")
    expect(page.locator("#upload-said a").last).to_have_attribute("href", f"/jobs/{dropped}")
    httpx.post(f"{running.url}/api/v1/jobs/{job_of(page)}/cancel")
    page.reload()
    page.get_by_label("A folder").set_input_files(with_hidden)
    chosen = job_of(page)
    expect(page.locator("#upload-said")).to_contain_text("2 hidden or empty files were left out.")
    seen_to_its_end(page, running, dropped)
    page.goto(f"{running.url}/jobs/{dropped}")
    expect(page.get_by_role("link", name="Results")).to_be_visible()
    httpx.post(f"{running.url}/api/v1/jobs/{chosen}/cancel")
    kept = source_of(running, dropped) / "chest.nii.gz"
    assert kept.read_bytes() == (files / "chest.nii.gz").read_bytes()
    assert wrong == []
    page.close()


def test_the_upload_is_given_up_by_keyboard_and_what_is_no_scan_is_said(
    browser: Browser, running: Process, tmp_path: Path
) -> None:
    with httpx.Client(base_url=running.url) as client:
        put(client, begin(client, key="x", size=100).json()["id"], bytes(50))
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(running.url)
    look_over(page, 390)
    expect(page.get_by_text("50 % of 100 B has come")).to_be_visible()
    with page.expect_navigation():
        page.get_by_role("button", name="Give up the upload of").press("Enter")
    expect(page.get_by_text("50 % of 100 B has come")).to_have_count(0)
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    page.get_by_label("Files or a zip").set_input_files(tmp_path / "broken.zip")
    words = "Not uploaded: broken.zip: a file that is called .zip is no zip archive"
    expect(page.locator("#upload-said")).to_contain_text(words)
    expect(page.locator("#upload-percent")).to_be_empty()
    (tmp_path / ".hidden").write_bytes(b"x")
    page.get_by_label("Files or a zip").set_input_files(tmp_path / ".hidden")
    words = "there is nothing in what you chose but hidden or empty files."
    expect(page.locator("#upload-said")).to_contain_text(words)
    page.reload()
    expect(page.get_by_role("heading", name="Run on files of your own")).to_be_visible()
    expect(page.get_by_role("heading", name="Unfinished")).to_have_count(0)  # sent again it would be the same
    page.close()


def resumed_page(browser: Browser, url: str, file: Path, handle: Callable[[Route], None], times: int) -> Page:
    """A page that uploads a file; its first requests that send a chunk are handled otherwise."""
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.route("**/chunk?*", handle, times=times)
    page.goto(url)
    page.evaluate("window.setTimeout = ((old) => (work, ms) => old(work, ms / 50))(window.setTimeout)")
    page.evaluate(
        """() => {
          window.told = [];
          const said = document.getElementById("upload-said");
          new MutationObserver(() => window.told.push(said.innerText)).observe(said, { childList: true });
        }"""
    )
    page.get_by_label("Files or a zip").set_input_files(file)
    return page


def lost(route: Route) -> None:
    """The node takes the chunk, and its answer gets lost."""
    assert route.fetch().status == 200
    route.abort()


def broken(route: Route) -> None:
    route.fulfill(status=503, json={"code": "x", "detail": "there is trouble."})


def test_a_lost_answer_is_asked_for_and_a_fault_is_told(browser: Browser, running: Process, tmp_path: Path) -> None:
    for name, handle, words in (
        ("lost.nii", lost, "The node does not answer. The next try is in 1 s."),
        ("fault.nii", broken, "The node can't do it now: there is trouble. The next try is in 1 s."),
    ):
        (tmp_path / name).write_bytes(name.encode() * LARGEST_CHUNK)
        page = resumed_page(browser, running.url, tmp_path / name, handle, 1)
        job = job_of(page)
        assert words in page.evaluate("told")
        place = source_of(running, job)
        assert (place / name).read_bytes() == (tmp_path / name).read_bytes()
        page.close()


def test_a_fault_that_lasts_ends_the_upload_which_is_kept(browser: Browser, running: Process, tmp_path: Path) -> None:
    (tmp_path / "lasting.nii").write_bytes(b"x" * 5000)
    page = resumed_page(browser, running.url, tmp_path / "lasting.nii", broken, 8)
    expect(page.locator("#upload-said")).to_have_text(
        "Not uploaded: there is trouble. It was tried 8 times; choose the same files later."
    )
    page.get_by_label("Files or a zip").set_input_files(tmp_path / "lasting.nii")
    job_of(page)
    page.close()


def test_what_only_lacks_its_job_is_not_sent_again(browser: Browser, running: Process, tmp_path: Path) -> None:
    (tmp_path / "whole.nii").write_bytes(b"y" * 5000)
    page = browser.new_page()
    page.route("**/finish", lambda route: route.fulfill(status=404, json={"code": "x", "detail": "not now."}), times=1)
    page.goto(running.url)
    page.get_by_label("Files or a zip").set_input_files(tmp_path / "whole.nii")
    expect(page.locator("#upload-said")).to_have_text("Not uploaded: not now.")
    chunks: list[str] = []
    page.on("request", lambda one: chunks.append(one.url) if "/chunk?" in one.url else None)
    page.get_by_label("Files or a zip").set_input_files(tmp_path / "whole.nii")
    job_of(page)
    assert chunks == []
    page.close()
