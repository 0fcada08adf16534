"""Whoever uploads what was run here before is told of it, whichever way it came."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from served_nodes import add_job, opened, serving
from test_uploads_served import begin, put, set_job

UID, OTHER = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """Two series of the same study, the files of each by name, and one of them as a zip."""
    chest = chest_phantom(shape=(3, 16, 16), lesions=0).volume
    made: dict[str, Files] = {}
    for uid in (UID, OTHER):
        files = write_ct_series(replace(chest, uid=uid), tmp_path_factory.mktemp("series"))
        made[uid] = {file.name: file.read_bytes() for file in files}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in made[UID].items():
            archive.writestr(f"CT/{name}", data)
    return {**made, "zip": {"study.zip": packed.getvalue()}}


def sent(client: httpx.Client, files: Files) -> dict[str, int | None]:
    sizes = [len(data) for data in files.values()]
    upload = begin(client, key=f"{len(sizes)} {sum(sizes)}", size=sum(sizes), files=len(files)).json()["id"]
    for name, data in files.items():
        put(client, upload, data, name=name).raise_for_status()
    found: dict[str, int | None] = client.post(f"/api/v1/uploads/{upload}/finish", json={}).json()
    return found


def test_what_was_run_before_is_said_and_nothing_else(tmp_path: Path, series: dict[str, Files]) -> None:
    with serving(opened(tmp_path)) as url, httpx.Client(base_url=url) as client:
        first = sent(client, series[UID])
        assert first["run_before"] is None
        assert sent(client, series[OTHER])["run_before"] is None
        again = sent(client, series["zip"])
        assert again["run_before"] == first["id"]
        page = client.get(f"/jobs/{again['id']}", headers={"accept": "text/html"}).text
        assert f'as <a href="/jobs/{first["id"]}">job {first["id"]}</a>' in page
        assert "Run before" not in client.get(f"/jobs/{first['id']}", headers={"accept": "text/html"}).text
        scan = {"scan.nii": b"some scan"}
        volume = sent(client, scan)
        assert volume["run_before"] is None
        assert sent(client, {"scan.nii": b"other one"})["run_before"] is None
        assert sent(client, scan)["run_before"] == volume["id"]


ROWS: list[tuple[dict[str, Any], bool]] = [
    ({"series_uid": UID}, True),
    ({"series_uid": UID, "state": "running", "ended": ""}, True),
    ({"series_uid": UID, "described": "2026-03-04, Lung"}, True),
    ({"series_uid": UID, "ended": "faulted"}, False),
    ({"series_uid": UID, "ended": "canceled"}, False),
    ({"series_uid": UID, "pipeline": "default-overlay"}, False),
    ({"series_uid": OTHER}, False),
    ({"series_uid": "", "source": "uploads/gone/content"}, False),
]


def test_a_job_counts_that_ran_or_will(tmp_path: Path, series: dict[str, Files]) -> None:
    node = opened(tmp_path)
    with serving(node) as url, httpx.Client(base_url=url) as client:
        for row, counts in ROWS:
            job = add_job(node, **row)
            said = sent(client, series[UID])
            assert said["run_before"] == (job if counts else None), row
            for number in (job, said["id"] or 0):
                set_job(node, number, ended="canceled", state="stopped")


def test_one_that_ended_well_is_named_before_a_later_one_that_may_yet_fail(
    tmp_path: Path, series: dict[str, Files]
) -> None:
    node = opened(tmp_path)
    jobs = [add_job(node, series_uid=UID) for _ in range(2)]
    add_job(node, series_uid=UID, state="running", ended="")
    with serving(node) as url, httpx.Client(base_url=url) as client:
        assert sent(client, series[UID])["run_before"] == jobs[1]


def test_a_job_names_the_one_that_its_upload_named_whatever_ended_since(
    tmp_path: Path, series: dict[str, Files]
) -> None:
    node = opened(tmp_path)
    ended = add_job(node, series_uid=UID)
    running = add_job(node, series_uid=UID, state="running", ended="", stopped_at=None)
    with serving(node) as url, httpx.Client(base_url=url) as client:
        said = sent(client, series[UID])
        assert said["run_before"] == ended
        set_job(node, running, ended="healthy", state="stopped", stopped_at=datetime.now(UTC))
        page = client.get(f"/jobs/{said['id']}", headers={"accept": "text/html"}).text
        assert re.findall(r'as <a href="/jobs/(\d+)">', page) == [str(ended)]


@pytest.mark.parametrize("later", [UID, OTHER])
def test_of_two_series_the_job_on_the_one_that_is_run_is_named_before_it_is_chosen_and_after(
    tmp_path: Path, later: str
) -> None:
    chest = chest_phantom(shape=(12, 64, 64), spacing_mm=(5.0, 2.0, 2.0), lesions=0).volume
    files: Files = {}
    for uid, description in {UID: "Chest", OTHER: "Abdomen"}.items():
        made = write_ct_series(
            replace(chest, uid=uid), tmp_path / uid, settings=SeriesSettings(description=description)
        )
        files |= {f"{uid}-{file.name}": file.read_bytes() for file in made}
    node = opened(tmp_path)
    ran = {uid: add_job(node, series_uid=uid) for uid in sorted([UID, OTHER], key=lambda uid: uid == later)}
    with serving(node) as url, httpx.Client(base_url=url) as client:
        said = sent(client, files)
        assert said["run_before"] == ran[UID]
        again = sent(client, files)
        for state, ended, uid in (("pending", "", ""), ("stopped", "healthy", UID)):
            set_job(node, said["id"] or 0, state=state, ended=ended, series_uid=uid)
            page = client.get(f"/jobs/{said['id']}", headers={"accept": "text/html"}).text
            assert re.findall(r'as <a href="/jobs/(\d+)">', page) == [str(ran[UID])]
        assert again["run_before"] == ran[UID]
