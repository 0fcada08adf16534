"""In which project a program's upload is run."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

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
