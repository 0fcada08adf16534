"""In which project a program's upload is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from carina.receive import uploads
from carina.receive.upload_share import most_for_one
from project_nodes import Shared, shared_node
from test_uploads_served import DATA, begin, code_of, put


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_node(tmp_path_factory.mktemp("projects")) as served:
        yield served


def finish(client: httpx.Client, **asked: str) -> httpx.Response:
    upload = begin(client, key=f"{asked}").json()["id"]
    put(client, upload, DATA)
    return client.post(f"/api/v1/uploads/{upload}/finish", json=asked)


@pytest.mark.parametrize(("program", "project"), [("operator of alpha", "alpha"), ("operator of bravo", "bravo")])
def test_a_token_of_one_project_runs_in_it(node: Shared, program: str, project: str) -> None:
    with node.program(program) as client:
        jobs = [finish(client).json(), finish(client, project=project).json()]
        assert [job["project"] for job in jobs] == [project, project]
        other = {"alpha": "bravo", "bravo": "alpha"}[project]
        for asked in (other, "default", "nowhere"):
            assert code_of(finish(client, project=asked)) == (404, "project.unknown")


def test_a_token_of_the_whole_node_runs_in_default_or_where_it_says(node: Shared) -> None:
    with node.program("operator") as client:
        assert finish(client, project="bravo").json()["project"] == "bravo"
        assert finish(client).json()["project"] == "default"


def test_an_upload_is_run_in_the_project_that_it_was_announced_for(node: Shared) -> None:
    def announce(client: httpx.Client, **more: str) -> httpx.Response:
        return client.post("/api/v1/uploads", json={"key": "named", "files": 1, "bytes": len(DATA), **more})

    with node.program("operator") as client:
        upload = announce(client, project="alpha").json()["id"]
        for other in ({"project": "bravo"}, {}):
            assert code_of(announce(client, **other)) == (409, "upload.key")
        assert announce(client, project="alpha").json()["id"] == upload
        put(client, upload, DATA)
        at = f"/api/v1/uploads/{upload}/finish"
        assert code_of(client.post(at, json={"project": "bravo"})) == (409, "upload.project")
        job = client.post(at, json={}).json()
        assert job["project"] == "alpha" and client.post(at, json={"project": "alpha"}).json()["id"] == job["id"]


def test_an_upload_that_is_run_in_one_project_is_not_told_as_run_in_another(node: Shared) -> None:
    with node.program("operator") as client:
        upload = begin(client, key="unnamed").json()["id"]
        put(client, upload, DATA)
        at = f"/api/v1/uploads/{upload}/finish"
        job = client.post(at, json={"project": "alpha"}).json()
        refused = client.post(at, json={"project": "bravo"})
        assert code_of(refused) == (409, "upload.project") and f"job {job['id']} in project alpha" in refused.text


def test_no_project_announces_anothers_share_nor_sees_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST_UPLOADS", 30)
    with (
        shared_node(tmp_path) as node,
        node.program("operator of alpha") as alpha,
        node.program("operator of bravo") as bravo,
    ):
        most = most_for_one(node.node.settings.uploads.gb * 1e9, 3)
        assert begin(alpha, key="first", size=10**9).status_code == 200
        said = set()
        for number in range(3):
            for size in (2**50, int(most) - 10**8):
                answer = begin(alpha, key=f"large {number}", size=size)
                assert code_of(answer) == (413, "upload.too-large")
                said.add(answer.json()["detail"])
            begin(bravo, key=f"{number}", size=10**6 * (number + 1))
        never, later = sorted(said)
        assert "are too large" in never and "more than project alpha has left" in later
        for number in range(30):
            begin(alpha, key=f"small {number}", size=1)
        assert code_of(begin(alpha, key="more", size=1)) == (413, "upload.too-many")
        assert begin(bravo, key="more", size=1).status_code == 200
        asked = {"key": "x", "files": 1, "bytes": 1, "project": "bravo"}
        assert code_of(alpha.post("/api/v1/uploads", json=asked)) == (404, "project.unknown")
