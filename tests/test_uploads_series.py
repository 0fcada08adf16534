"""An upload of several series: each is listed with its verdict, another one is run, and the files stay for both."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Error, Page, expect

from access_nodes import Guarded, guarded
from carina.pipeline.manifest import read_manifest
from carina.service.access.rules import ROUTE_RULES
from carina.service.node import RunningNode
from carina.service.problems import Conflict
from carina.service.upload_series import run_series
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from carina.volume.files import write_volume
from served_nodes import NOON, opened, serving
from test_access_browser import look_over
from test_serve import Process
from test_uploads_browser import job_of, running, seen_to_its_end
from test_uploads_served import begin, code_of, finished, left, put, set_job

__all__ = ["running"]

BEST, OTHER, SCOUT = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2", "1.2.826.0.1.3680043.8.498.3"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of a study: a chest, the same with every second slice, and three MR images."""
    folder = tmp_path_factory.mktemp("study")
    chest = chest_phantom(shape=(50, 160, 160), spacing_mm=(5.0, 2.0, 2.0), lesions=1).volume
    thick = replace(chest.grid, shape=(25, 160, 160), spacing_mm=(10.0, 2.0, 2.0))
    few = replace(chest, hu=chest.hu[:3], grid=replace(chest.grid, shape=(3, 160, 160)), uid=SCOUT)
    volumes = {
        BEST: (replace(chest, uid=BEST), SeriesSettings(description="Lung 5.0", series_number=2)),
        OTHER: (
            replace(chest, hu=chest.hu[::2], grid=thick, uid=OTHER),
            SeriesSettings(description="Thick 10.0", series_number=3),
        ),
        SCOUT: (few, SeriesSettings(modality="MR", description="Scout", series_number=1)),
    }
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for uid, (volume, settings) in volumes.items():
            for file in write_ct_series(volume, folder / uid, settings=settings):
                made.write(file, f"{uid}/{file.name}")
    return folder / "study.zip"


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A served node, and the job of an upload of the archive."""

    served: Guarded
    job: int

    @property
    def place(self) -> str:
        return f"/api/v1/jobs/{self.job}/series"


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[Sent]:
    with guarded(tmp_path_factory.mktemp("node")) as served, served.program("operator") as operator:
        data = archive.read_bytes()
        upload = begin(operator, key="study", size=len(data)).json()["id"]
        assert put(operator, upload, data, name="study.zip").status_code == 200
        job = operator.post(f"/api/v1/uploads/{upload}/finish", json={"destinations": ["share"]}).json()
        yield Sent(served=served, job=job["id"])


def series_of(client: httpx.Client, place: str) -> dict[str, dict[str, Any]]:
    return {one["uid"]: one for one in client.get(place).json()["series"]}


def test_every_series_is_listed_with_why_it_is_run_or_not(sent: Sent) -> None:
    with sent.served.program("reader") as reader:
        found = series_of(reader, sent.place)
        assert list(found) == [BEST, OTHER, SCOUT]
        told = ("description", "modality", "slices", "slice_spacing_mm", "taken", "jobs")
        assert [tuple(one[name] for name in told) for one in found.values()] == [
            ("Lung 5.0", "CT", 50, 5.0, True, [sent.job]),
            ("Thick 10.0", "CT", 25, 10.0, False, []),
            ("Scout", "MR", 3, None, False, []),
        ]
        for uid, words in ((BEST, "fits the rules"), (OTHER, "is taken instead"), (SCOUT, "MR")):
            assert words in found[uid]["reason"]
        assert found[OTHER]["runnable"]
        assert code_of(reader.post(sent.place, json={"uid": OTHER})) == (403, "access.role")
    with sent.served.person("reader") as person:
        page = person.get(f"/jobs/{sent.job}/series").text
        assert all(one["description"] in page for one in found.values())
        assert "run-series" not in page


def test_who_looks_at_the_series_is_in_the_trail(sent: Sent) -> None:
    looked = {"/jobs/{job:int}/series": f"/jobs/{sent.job}/series", "/api/v1/jobs/{id}/series": sent.place}
    rules = {rule.path: rule for rule in ROUTE_RULES if rule.view}
    with sent.served.person("reader") as reader:
        for rule, path in looked.items():
            assert reader.get(path).status_code == 200
            assert ("reader.one", "looked", rules[rule].subject(path)) in sent.served.trail()


def test_another_series_is_run_once_on_the_same_terms_and_what_can_not_be_is_said(sent: Sent) -> None:
    with sent.served.program("operator") as operator:
        first = operator.get(f"/api/v1/jobs/{sent.job}").json()["job"]
        job = operator.post(sent.place, json={"uid": OTHER}).json()
        assert job["series_uid"] == OTHER and job["id"] != sent.job
        same = ("source", "pipeline", "priority", "destinations", "project", "memory_mb")
        assert [job[name] for name in same] == [first[name] for name in same]
        assert series_of(operator, sent.place)[OTHER]["jobs"] == [job["id"]]
        assert series_of(operator, f"/api/v1/jobs/{job['id']}/series") == series_of(operator, sent.place)
        check_refused(sent, operator)
        set_job(sent.served.node, job["id"], state="stopped", ended="faulted", stopped_at=NOON)
        again = operator.post(sent.place, json={"uid": OTHER}).json()
        assert again["id"] > job["id"]
    said = [subject for _, action, subject in sent.served.trail() if action == "changed"]
    assert f"job {job['id']}: submitted" in said


def check_refused(sent: Sent, operator: httpx.Client) -> None:
    for uid, status, code in (
        (OTHER, 409, "upload.run-already"),
        (BEST, 409, "upload.run-already"),
        ("1.2.3", 404, "series.no-such-uid"),
        ("", 400, "web.asked"),
    ):
        assert code_of(operator.post(sent.place, json={"uid": uid})) == (status, code), uid
    assert code_of(operator.get(f"/api/v1/jobs/{sent.served.job}/series")) == (409, "upload.none")
    assert code_of(operator.get("/api/v1/jobs/999/series")) == (404, "job.unknown")


def two_scans(node: RunningNode, client: httpx.Client) -> tuple[str, int, str]:
    """An upload of two volume files: its id, the job on the one, the UID of the other."""
    file = node.folder.parent / "scan.nii"
    write_volume(chest_phantom(shape=(16, 40, 40), lesions=0).volume, file)
    data = file.read_bytes()
    upload = begin(client, size=2 * len(data), files=2).json()["id"]
    for name in ("scan.nii", "second.nii"):
        put(client, upload, data, name=name)
    first = client.post(f"/api/v1/uploads/{upload}/finish", json={}).json()["id"]
    other = next(uid for uid, one in series_of(client, f"/api/v1/jobs/{first}/series").items() if not one["jobs"])
    return upload, first, other


def test_files_stay_until_every_job_on_them_is_over(tmp_path: Path) -> None:
    node = opened(tmp_path, "[retention]\nincoming_days = 2.0\n")
    long_ago = node.now() - timedelta(days=3)
    with serving(node) as url, httpx.Client(base_url=url) as client:
        upload, first, other = two_scans(node, client)
        place = f"/api/v1/jobs/{first}/series"
        second = client.post(place, json={"uid": other}).json()["id"]
        set_job(node, first, state="stopped", ended="healthy", stopped_at=long_ago)
        assert left(node) == {upload}
        set_job(node, second, state="stopped", ended="healthy", stopped_at=long_ago)
        assert left(node) == set()
        assert code_of(client.get(place)) == (404, "upload.gone")
        assert code_of(client.post(place, json={"uid": other})) == (404, "upload.gone")


def test_two_jobs_are_on_the_same_files_behind_a_link(tmp_path: Path) -> None:
    node = opened(tmp_path, "[retention]\nincoming_days = 2.0\n")
    node.folder.rename(tmp_path / "disk")
    node.folder.symlink_to(tmp_path / "disk")
    with serving(node) as url, httpx.Client(base_url=url) as client:
        upload, first, other = two_scans(node, client)
        long_ago = node.now() - timedelta(days=3)
        set_job(node, first, state="stopped", ended="healthy", stopped_at=long_ago)
        set_job(node, first, series_uid=next(uid for uid in ("scan", "second") if uid != other))
        second = client.post(f"/api/v1/jobs/{first}/series", json={"uid": other}).json()
        assert second["source"] == f"uploads/{upload}/content"
        for job in (first, second["id"]):
            place = f"/api/v1/jobs/{job}/series"
            assert sorted(one["jobs"] for one in series_of(client, place).values()) == [[first], [second["id"]]]
            assert code_of(client.post(place, json={"uid": other})) == (409, "upload.run-already")
        assert left(node) == {upload}
        set_job(node, second["id"], state="stopped", ended="healthy", stopped_at=long_ago)
        assert left(node) == set()


def test_of_several_who_ask_at_once_one_runs_the_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, together = opened(tmp_path), Barrier(4)
    with serving(node) as url, httpx.Client(base_url=url) as client:
        _, first, other = two_scans(node, client)
    submit_again = node.uploads.submit_again

    def once_all_have_looked(upload_id: str, submit: Callable[[Path], int]) -> int:
        together.wait(timeout=60)
        return submit_again(upload_id, submit)

    def code(_: int) -> str:
        try:
            return "" if run_series(node, first, other).series_uid == other else "another"
        except Conflict as error:
            return error.code

    monkeypatch.setattr(node.uploads, "submit_again", once_all_have_looked)
    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(code, range(4))) == ["", *["upload.run-already"] * 3]


def test_of_two_files_of_one_name_one_is_run_and_why_is_said(tmp_path: Path) -> None:
    node = opened(tmp_path)
    write_volume(chest_phantom(shape=(16, 40, 40), lesions=0).volume, tmp_path / "scan.nii")
    data = (tmp_path / "scan.nii").read_bytes()
    with serving(node) as url, httpx.Client(base_url=url) as client:
        upload = begin(client, size=2 * len(data), files=2).json()["id"]
        for name in ("a/scan.nii", "b/scan.nii"):
            put(client, upload, data, name=name)
        job = client.post(f"/api/v1/uploads/{upload}/finish", json={}).json()["id"]
        first, second = client.get(f"/api/v1/jobs/{job}/series").json()["series"]
    assert [one["uid"] for one in (first, second)] == ["scan", "scan"]
    assert first["runnable"] and "same name" not in first["reason"]
    assert not second["runnable"]
    assert second["reason"] == "another volume file of this upload has the same name: send this one alone"


def test_what_is_no_scan_is_said_in_a_sentence(tmp_path: Path) -> None:
    with serving(opened(tmp_path)) as url, httpx.Client(base_url=url) as client:
        _, job = finished(client, "no scan")
        answer = client.get(f"/api/v1/jobs/{job}/series")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        (one,) = answer.json()["series"]
        assert (one["runnable"], one["taken"]) == (False, False)
        refused = client.post(f"/api/v1/jobs/{job}/series", json={"uid": one["uid"]})
        assert code_of(refused) == (409, "upload.unreadable")


def test_a_reader_runs_the_other_series_by_keyboard_and_it_is_the_one_that_is_run(
    browser: Browser, running: Process, archive: Path
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(running.url)
    page.get_by_label("Files or a zip").set_input_files(archive)
    job = job_of(page)
    seen_to_its_end(page, running, job)
    page.goto(f"{running.url}/jobs/{job}")
    heading = page.get_by_role("heading", name="Series of this upload")
    while not heading.is_visible():  # a key that is pressed while a part is made anew is lost
        with suppress(Error):
            page.get_by_role("link", name="Series of this upload").press("Enter", timeout=3_000)
    look_over_both(page)
    page.get_by_role("button", name="Run it: Thick 10.0").press("Enter")
    expect(page.get_by_text("It is run as job")).to_be_visible()
    page.get_by_role("link", name="Back").press("Enter")
    row = page.get_by_role("row").filter(has_text="Thick 10.0")
    other = int(row.get_by_role("link").inner_text())
    expect(row.get_by_role("button")).to_have_count(0)
    page.goto(running.url)
    seen_to_its_end(page, running, other)
    expect(page.get_by_role("row").filter(has_text="Thick 10.0")).to_be_visible()
    manifests = [read_manifest(running.folder / "runs" / str(number)) for number in (other, job)]
    assert [one.inputs["series_uid"] for one in manifests if one] == [OTHER, BEST]
    page.close()


def look_over_both(page: Page) -> None:
    for scheme in ("dark", "light"):
        for width in (1280, 390):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            page.reload()
            look_over(page, width)
