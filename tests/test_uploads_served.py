"""Uploads over the web: who may, what becomes a job, what is removed, and all of it in a real browser."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import threading
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from sqlalchemy import insert, select, update

from access_nodes import Guarded, guarded
from carina.config import load_settings
from carina.database import JOB, REMOVAL
from carina.keeping.backup import save_node
from carina.keeping.restore import restore_node
from carina.receive.uploads import LARGEST_CHUNK
from carina.service.node import RunningNode
from carina.service.serve import node_of
from carina.service.uploads import sweep_uploads
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume.files import write_volume
from served_nodes import NOON, opened, serving, settings_of
from test_access_browser import look_over
from test_serve import Process, started
from tiny_networks import tiny_environment

DATA = b"some bytes of a scan" * 10


def digest_of(chunk: bytes) -> dict[str, str]:
    return {"content-digest": f"sha-256=:{base64.b64encode(hashlib.sha256(chunk).digest()).decode()}:"}


def begin(client: httpx.Client, key: str = "k", size: int = len(DATA), files: int = 1) -> httpx.Response:
    return client.post("/api/v1/uploads", json={"key": key, "files": files, "bytes": size})


def put(client: httpx.Client, upload: str, chunk: bytes, name: str = "scan.nii", offset: int = 0) -> httpx.Response:
    where: dict[str, str | int] = {"name": name, "offset": offset}
    return client.put(f"/api/v1/uploads/{upload}/chunk", params=where, content=chunk, headers=digest_of(chunk))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded")) as served:
        yield served


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_an_upload_is_its_owners_alone(node: Guarded) -> None:
    own_page = {"sec-fetch-site": "same-origin", "accept": "*/*"}
    with (
        node.program("operator") as operator,
        node.person("admin", **own_page) as admin,
        node.program("reader") as reader,
    ):
        assert code_of(begin(reader)) == (403, "access.role")
        upload = begin(operator).json()["id"]
        assert put(operator, upload, DATA[:50]).json() == {"bytes": 50}
        place = f"/api/v1/uploads/{upload}"
        assert operator.get(place).json() == begin(operator).json()
        assert operator.get(place).json()["received"] == [{"name": "scan.nii", "bytes": 50}]
        answers = [admin.get(place), put(admin, upload, DATA[50:], offset=50)]
        answers += [admin.post(f"{place}/finish", json={}), admin.post(f"{place}/discard")]
        assert {code_of(answer) for answer in answers} == {(404, "upload.unknown")}


def test_an_upload_becomes_one_job(node: Guarded) -> None:
    with node.program("operator") as operator:
        upload = begin(operator, key="once").json()["id"]
        place = f"/api/v1/uploads/{upload}"
        assert code_of(operator.post(f"{place}/finish", json={})) == (409, "upload.incomplete")
        assert put(operator, upload, DATA).json() == {"bytes": len(DATA)}
        job = operator.post(f"{place}/finish", json={"priority": "high"}).json()
        again = operator.post(f"{place}/finish", json={"priority": "low"}).json()
        assert again == job and job["priority"] == "high"
        assert operator.post(f"{place}/discard").status_code == 200
    content = node.node.folder / "uploads" / upload / "content"
    assert job["source"] == str(content) and (content / "scan.nii").read_bytes() == DATA
    said = [(action, subject) for who, action, subject in node.trail() if "operator.program" in who]
    assert ("received", f"upload {upload}: begun, 1 files, {len(DATA)} bytes") in said
    assert ("changed", f"job {job['id']}: submitted") in said


@pytest.mark.parametrize(
    ("headers", "chunk", "code"),
    [
        ({}, DATA, "upload.digest"),
        ({"content-digest": "sha-256=:nonsense:"}, DATA, "upload.digest"),
        ({"content-digest": "md5=:aaaa:"}, DATA, "upload.digest"),
        (digest_of(b"other"), DATA, "upload.digest"),
        (digest_of(b""), b"", "upload.chunk"),
        (digest_of(bytes(LARGEST_CHUNK + 1)), bytes(LARGEST_CHUNK + 1), "upload.chunk"),
    ],
)
def test_a_chunk_says_what_it_is(node: Guarded, headers: dict[str, str], chunk: bytes, code: str) -> None:
    with node.program("operator") as operator:
        upload = begin(operator, key=code).json()["id"]
        place = f"/api/v1/uploads/{upload}/chunk"
        answer = operator.put(place, params={"name": "a", "offset": 0}, content=chunk, headers=headers)
        assert answer.json()["code"] == code and answer.status_code in (400, 409)
        assert operator.get(f"/api/v1/uploads/{upload}").json()["received"] == []
        wrong = operator.put(place, params={"name": "a", "offset": "x"}, content=chunk, headers=headers)
        assert wrong.status_code == 400


def test_a_page_of_another_site_uploads_nothing(node: Guarded) -> None:
    asked = {"key": "k", "files": 1, "bytes": 1}
    with node.person("operator") as person:
        assert person.post("/api/v1/uploads", json=asked).status_code == 403
        foreign = {"sec-fetch-site": "cross-site"}
        assert person.post("/api/v1/uploads", json=asked, headers=foreign).status_code == 403
        assert person.post("/api/v1/uploads", json=asked, headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_a_node_may_take_none(tmp_path: Path) -> None:
    with serving(opened(tmp_path, "[uploads]\ngb = 0.0\n")) as url, httpx.Client(base_url=url) as client:
        answer = begin(client)
        assert (answer.status_code, answer.json()["code"]) == (413, "upload.off")
        assert "upload-files" not in client.get("/", headers={"accept": "text/html"}).text


def test_what_was_acknowledged_is_there_after_the_node_was_killed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    chunks = [bytes([number]) * 300_000 for number in range(8)]
    size = sum(map(len, chunks))
    sent = 0
    for kill_after in (3, 6, 8):
        with started(tmp_path, settings) as node, httpx.Client(base_url=node.url) as client:
            state = begin(client, size=size).json()
            assert state["received"] == ([{"name": "scan.nii", "bytes": sent * 300_000}] if sent else [])
            for number in range(sent, kill_after):
                assert put(client, state["id"], chunks[number], offset=number * 300_000).status_code == 200
            sent = kill_after
            node.process.kill()
    with started(tmp_path, settings) as node, httpx.Client(base_url=node.url) as client:
        upload = begin(client, size=size).json()["id"]
        job = client.post(f"/api/v1/uploads/{upload}/finish", json={}).json()
        assert (Path(job["source"]) / "scan.nii").read_bytes() == b"".join(chunks)


# What is removed


def finished(client: httpx.Client, key: str) -> tuple[str, int]:
    upload = begin(client, key=key).json()["id"]
    put(client, upload, DATA)
    return upload, int(client.post(f"/api/v1/uploads/{upload}/finish", json={}).json()["id"])


def set_job(node: RunningNode, job: int, **values: object) -> None:
    with node.engine.begin() as connection:
        connection.execute(update(JOB).where(JOB.c.id == job).values(**values))


def left(node: RunningNode) -> set[str]:
    sweep_uploads(node)
    return {path.name for path in (node.folder / "uploads").iterdir()}


def test_files_of_a_job_stay_as_long_as_it_may_need_them(tmp_path: Path) -> None:
    node = opened(tmp_path, "[retention]\nincoming_days = 2.0\n")
    with serving(node) as url, httpx.Client(base_url=url) as client:
        places = {key: finished(client, key) for key in ("waits", "faulted", "healthy", "removed")}
        unfinished = begin(client, key="unfinished").json()["id"]
        ids = {key: upload for key, (upload, _) in places.items()}
        set_job(node, places["faulted"][1], state="stopped", ended="faulted", stopped_at=NOON - timedelta(days=900))
        set_job(node, places["healthy"][1], state="stopped", ended="healthy", stopped_at=node.now())
        assert left(node) == {*ids.values(), unfinished}
        set_job(node, places["healthy"][1], stopped_at=node.now() - timedelta(days=3))
        gone = {"kind": "run", "subject_id": places["removed"][1], "why": "old", "begun_at": NOON}
        with node.engine.begin() as connection:
            connection.execute(insert(REMOVAL), gone)
        assert left(node) == {ids["waits"], ids["faulted"], unfinished}
        save_node(node.settings, tmp_path / "saved", NOON)
        there = {path.name for path in (tmp_path / "saved" / "uploads").iterdir()}
        assert there == {ids["waits"], ids["faulted"]}
    (tmp_path / "other").mkdir()
    other = settings_of(tmp_path / "other")
    restore_node(other, tmp_path / "saved", NOON)
    with node_of(other).engine.connect() as connection:
        source = connection.execute(select(JOB.c.source).where(JOB.c.id == places["waits"][1])).scalar_one()
    place = Path(other.node.folder).resolve() / "uploads" / ids["waits"] / "content"
    assert source == str(place) and (place / "scan.nii").read_bytes() == DATA


# A real browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed; scripts/test does that")
    with sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield one
        one.close()


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
        while httpx.get(f"{one.url}/health/ready").status_code != 200:
            threading.Event().wait(0.1)
        yield one


def job_of(page: Page) -> int:
    said = page.locator("#upload-said")
    expect(said).to_contain_text("Uploaded: it is job", timeout=120_000)
    return int(said.inner_text().partition("job ")[2].partition(".")[0])


def run_to_its_end(page: Page, url: str, job: int) -> dict[str, Any]:
    row = page.get_by_role("row").filter(has=page.locator(f"#job-{job}"))
    expect(row).to_contain_text("healthy", timeout=300_000)
    found: dict[str, Any] = httpx.get(f"{url}/api/v1/jobs/{job}").json()
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
    expect(page.get_by_text("1 file, begun")).to_contain_text("have come")
    page.get_by_label("Files or a zip").set_input_files(files / "study.zip")
    job = job_of(page)
    assert 10 < came < 100
    assert chunks[0].endswith(f"offset={2 * LARGEST_CHUNK}")
    found = run_to_its_end(page, running.url, job)
    assert Path(found["job"]["source"]).name == "content"
    upload = Path(found["job"]["source"])
    assert len(list((upload / "study" / "CT").iterdir())) == 36
    page.close()


def test_a_nifti_file_is_dropped_and_a_folder_is_chosen(browser: Browser, running: Process, files: Path) -> None:
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
    page.reload()
    page.get_by_label("A folder").set_input_files(files / "series")
    chosen = job_of(page)
    run_to_its_end(page, running.url, dropped)
    httpx.post(f"{running.url}/api/v1/jobs/{chosen}/cancel")
    kept = Path(httpx.get(f"{running.url}/api/v1/jobs/{dropped}").json()["job"]["source"]) / "chest.nii.gz"
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
    expect(page.get_by_text("50 % of 0.0 MB have come")).to_be_visible()
    with page.expect_navigation():
        page.get_by_role("button", name="Give up the upload of").press("Enter")
    expect(page.get_by_text("50 % of 0.0 MB have come")).to_have_count(0)
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    page.get_by_label("Files or a zip").set_input_files(tmp_path / "broken.zip")
    expect(page.locator("#upload-said")).to_contain_text("Not uploaded: a file that is called .zip is no zip archive")
    page.close()
