"""Uploads over the web: who may, what becomes a job, and what is removed."""

from __future__ import annotations

import base64
import errno
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from sqlalchemy import insert, select, update

from access_nodes import Guarded, guarded
from carina.api.result import Run
from carina.corrections.masks import MaskName, network_mask, strokes_file
from carina.corrections.painting import Author, Painting
from carina.database import JOB, REMOVAL
from carina.keeping.backup import save_node
from carina.keeping.restore import restore_node
from carina.receive.uploads import LARGEST_CHUNK
from carina.service.node import RunningNode
from carina.service.serve import node_of
from carina.service.uploads import sweep_uploads
from served_nodes import NOON, opened, serving, settings_of
from test_serve import started
from viewer_runs import posed, write_run

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
    assert job["source"] == f"uploads/{upload}/content" and (content / "scan.nii").read_bytes() == DATA
    said = [(action, subject) for who, action, subject in node.trail() if "operator.program" in who]
    assert ("received", f"upload {upload}: begun, 1 file, {len(DATA)} bytes") in said
    assert ("changed", f"job {job['id']}: submitted") in said


def test_a_pipeline_that_is_not_offered_costs_nothing_of_an_upload(node: Guarded, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("root:hash")
    with node.program("operator") as operator:
        upload = begin(operator, key="wrong pipeline").json()["id"]
        put(operator, upload, DATA)
        for path in ("/etc/passwd", str(tmp_path / "mine.yaml"), "nothing"):
            answer = operator.post(f"/api/v1/uploads/{upload}/finish", json={"pipeline": path})
            assert code_of(answer) == (400, "definition.unknown") and "root:" not in answer.text
        assert operator.get(f"/api/v1/uploads/{upload}").json()["whole"] is False
        wrong = operator.post(f"/api/v1/uploads/{upload}/finish", json={"destinations": ["nope"]})
        assert code_of(wrong) == (404, "delivery.unknown")
        again = begin(operator, key="wrong pipeline").json()
        assert (again["id"], again["whole"], again["received"]) == (upload, True, [])
        job = operator.post(f"/api/v1/uploads/{upload}/finish", json={}).json()
        assert begin(operator, key="wrong pipeline").json()["id"] != upload
        assert operator.post(f"/api/v1/uploads/{upload}/discard").status_code == 200
    assert (node.node.folder / job["source"] / "scan.nii").read_bytes() == DATA


def test_a_disk_that_fails_is_a_sentence_and_no_traceback(
    node: Guarded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with node.program("operator") as operator:
        upload = begin(operator, key="DOE").json()["id"]

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error", "DOE^JANE")

        with monkeypatch.context() as broken:
            broken.setattr("carina.receive.upload_parts._append", fail)
            answer = put(operator, upload, DATA, name="DOE^JANE")
        assert code_of(answer) == (507, "upload.disk")
        assert answer.json()["detail"] == "the node's disk does not take the upload (Input/output error)."
        assert "DOE" not in caplog.text
        assert put(operator, upload, DATA, name="DOE^JANE").json() == {"bytes": len(DATA)}


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
        assert (node.folder / job["source"] / "scan.nii").read_bytes() == b"".join(chunks)


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
    assert source == f"uploads/{ids['waits']}/content"
    assert (Path(other.node.folder, source) / "scan.nii").read_bytes() == DATA


@pytest.mark.parametrize(
    ("more", "is_left"),
    [("", True), ("abandoned_days = 5.0\n", True), ("abandoned_days = 3.0\n", False)],
    ids=["not given up", "not given up yet", "given up"],
)
def test_files_stay_for_the_strokes_of_a_reader_until_they_are_given_up(
    tmp_path: Path, more: str, *, is_left: bool
) -> None:
    node = opened(tmp_path, f"[retention]\nincoming_days = 2.0\n{more}")
    with serving(node) as url, httpx.Client(base_url=url) as client:
        upload, job = finished(client, "painted")
    ago = node.now() - timedelta(days=4)
    set_job(node, job, state="stopped", ended="healthy", stopped_at=ago)
    run = Run(write_run(posed("plain", (12, 24, 24)), node.folder / "runs" / str(job)))
    painting = Painting(network_mask(run, MaskName.LESION), strokes_file(run.folder, MaskName.LESION))
    first = int(np.flatnonzero(painting.marks == 0)[0])
    painting.paint([first, 1], 1, "brush", Author(reader="Roe", at=ago, id="one"), 0)
    assert left(node) == ({upload} if is_left else set())


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (DATA, f"all of {len(DATA)} B has come, but no job was made of them: choose the same files again"),
        (DATA[: len(DATA) // 2], f"50 % of {len(DATA)} B has come; choose the same files again and the rest is sent."),
    ],
)
def test_the_page_says_what_an_upload_still_needs(tmp_path: Path, sent: bytes, words: str) -> None:
    with serving(opened(tmp_path)) as url, httpx.Client(base_url=url) as client:
        put(client, begin(client).json()["id"], sent)
        page = client.get("/").text
    assert words in " ".join(page.split())
