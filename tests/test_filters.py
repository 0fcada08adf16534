"""A filter's value that nothing can have is one clear line, on the command line and by REST; no empty list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import update

from called import called
from carina.database import JOB
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from served_nodes import add_job, hold, opened, serving

SOURCE = '[sources.scanner]\nkind = "folder"\npath = "{folder}/in"\npipelines = ["default"]\n'
SOURCE += '[destinations.out]\nkind = "folder"\npath = "{folder}/out"\n'


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """A node with one job, of a source, a pipeline and a series that no setting names any more."""

    folder: Path
    url: str

    def command(self, *words: str) -> CompletedProcess[str]:
        return called(*words, folder=self.folder)

    def get(self, path: str, **asked: str) -> httpx.Response:
        return httpx.get(f"{self.url}/api/v1{path}?{urlencode(asked)}")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filtered]:
    folder = tmp_path_factory.mktemp("filters")
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    made = opened(folder, SOURCE.format(folder=folder))
    files = write_ct_series(chest_phantom(shape=(3, 32, 32), lesions=0).volume, folder / "ct")
    job = add_job(made, hold(made, files))
    with made.engine.begin() as connection:
        earlier = {"received_by": "earlier", "pipeline": "/gone/earlier.yaml", "series_uid": "lung.nii"}
        connection.execute(update(JOB).where(JOB.c.id == job).values(**earlier))
    with serving(made) as url:
        yield Filtered(folder=folder, url=url)


BAD_CONFIG = 4
NO_UID = r"is no UID of a study or series: expected a whole one, digits and dots, without wild cards"
JOBS = [
    ("source", "received_by", "nope", r"no source is or was called 'nope'; known: scanner\."),
    ("pipeline", "pipeline", "nope", r"no pipeline is or was called 'nope'; known: default, "),
    ("uid", "uid", "1.2.*", NO_UID),
    ("uid", "uid", "nope", NO_UID),
    ("uid", "uid", "1..2", NO_UID),
    ("project", "project", "nope", "project"),
]
FINE = [
    ("source", "received_by", "scanner", 0),
    ("source", "received_by", "earlier", 1),
    ("pipeline", "pipeline", "default", 0),
    ("pipeline", "pipeline", "/gone/earlier.yaml", 1),
    ("uid", "uid", "1.2.3", 0),
    ("uid", "uid", "lung.nii", 1),
]
DELIVERIES = [
    ("destination", "nope", "no destination is or was called so; known: out"),
    ("job", "4711", "job 4711: there is none"),
]


def assert_refused(done: CompletedProcess[str], words: str) -> None:
    assert done.returncode == BAD_CONFIG
    assert len(done.stderr.splitlines()) == 1
    assert re.search(words, done.stderr), done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("option", "key", "value", "words"), JOBS)
def test_jobs_that_can_not_be(node: Filtered, option: str, key: str, value: str, words: str) -> None:
    assert_refused(node.command("jobs", "list", f"--{option}", value), words)
    answer = node.get("/jobs", **{key: value})
    assert answer.status_code in (400, 404)
    assert re.search(words, answer.json()["detail"])


@pytest.mark.parametrize(("option", "key", "value", "count"), FINE)
def test_jobs_that_can_be(node: Filtered, option: str, key: str, value: str, count: int) -> None:
    done = node.command("jobs", "list", f"--{option}", value, "--json")
    assert (done.returncode, done.stdout.count('"series_uid"')) == (0, count)
    assert len(node.get("/jobs", **{key: value}).json()["jobs"]) == count


def test_a_table_of_jobs_that_can_not_be(node: Filtered) -> None:
    file = node.folder / "table.csv"
    assert_refused(node.command("jobs", "table", str(file), "--pipeline", "nope"), "no pipeline is or was called")
    assert not file.exists()


@pytest.mark.parametrize("command", ["list", "resend"])
@pytest.mark.parametrize(("key", "value", "words"), DELIVERIES)
def test_deliveries_that_can_not_be(node: Filtered, command: str, key: str, value: str, words: str) -> None:
    assert_refused(node.command("deliveries", command, f"--{key}", value), words)
    if command == "list":
        answer = node.get("/deliveries", **{key: value})
    else:
        body = {key: int(value) if value.isdigit() else value}
        answer = httpx.post(f"{node.url}/api/v1/deliveries/resend", json=body)
    assert answer.status_code in (400, 404)
    assert value in answer.json()["detail"]


def test_deliveries_that_can_be(node: Filtered) -> None:
    assert node.command("deliveries", "list", "--destination", "out", "--job", "1").returncode == 0
    assert node.get("/deliveries", destination="out", job="1").json()["deliveries"] == []


@pytest.mark.parametrize("uid", ["1.2.*", "1.2,1.3", "1.2?"])
def test_on_the_worklist_a_uid_with_wild_cards_is_said_beside_its_field(node: Filtered, uid: str) -> None:
    answer = httpx.get(f"{node.url}/?{urlencode({'uid': uid})}")
    assert answer.status_code == 400
    assert "A UID is looked for whole, without wild cards" in answer.text
