"""Whoever only reads is told no folder: neither the node's, nor that of a pipeline that is a file, by any route."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from filelock import FileLock
from sqlalchemy import select, update

from carina.corrections.masks import CORRECTIONS
from carina.database import JOB
from carina.operators.catalogue import find_definition
from carina.service.access.rules import ROUTE_RULES, Rule
from carina.service.pages import runs_of_jobs
from carina.service.peer_names import message_without_addresses
from carina.service.pipelines import pipeline_name
from project_nodes import Shared, shared_node
from test_projects_apart import asked, bodies, path_of

FOLDER = "ward seven"
GONE = "/srv/of old/none-any-more.yaml"
"""A pipeline that the settings no longer name, and a job was run by."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A node whose sources name a pipeline by its path, and which ran it."""
    base = tmp_path_factory.mktemp("paths")
    mine = base / FOLDER / "cheap.yaml"
    mine.parent.mkdir()
    (base / "node").mkdir()
    shutil.copy(find_definition("default"), mine)
    with shared_node(base / "node", more=f'pipelines = ["default", "{mine}"]\n') as made:
        with made.node.engine.begin() as connection:
            connection.execute(update(JOB).values(pipeline=str(mine)))
            gone = JOB.c.id == made.held["alpha"].pending
            why = f"runs/2 of {made.node.folder}/runs/2/manifest.json: can't be read, by {mine}."
            connection.execute(update(JOB).where(gone).values(pipeline=GONE, error=why, ended="faulted"))
        yield made


def told(node: Shared, said: str, path: str = "") -> list[str]:
    """The folders that an answer names."""
    folders = (FOLDER, str(node.folder), str(node.node.folder.absolute()), "/srv/of old", "ward%20seven")
    return [one for one in folders if one in said.replace(path, "")]


def clients(node: Shared) -> list[httpx.Client]:
    return [node.person("reader of alpha"), node.program("reader")]


SILENT = "/jobs/{job:int}/superseded"
"""Says nothing before another job comes in place of this one, and then its number."""

GETS = [one for one in ROUTE_RULES if one.method == "GET" and one.path != SILENT]


@pytest.mark.parametrize("rule", GETS, ids=lambda rule: rule.path)
def test_no_answer_to_who_only_reads_has_a_folder(node: Shared, rule: Rule) -> None:
    path = path_of(rule, node.held["alpha"])
    for client in clients(node):
        for query in ("", "?pipeline=zzz"):
            status, said = asked(client, rule, path + query)
            assert status != 500, said
            assert told(node, said) == [], path + query


@pytest.mark.parametrize("rule", [one for one in ROUTE_RULES if one.method != "GET"], ids=lambda rule: rule.path)
def test_no_refusal_to_who_only_reads_has_a_folder(node: Shared, rule: Rule) -> None:
    if rule.need == "nothing":
        return
    held = node.held["alpha"]
    for client in clients(node):
        for sent in bodies(rule, held, "x"):
            assert told(node, asked(client, rule, path_of(rule, held), **sent)[1]) == []


SHOWN = ("/api/v1/jobs/{job}", "/jobs/{job}", "/api/v1/jobs", "/metrics", "/", "/api/v1/jobs?pipeline=cheap")


@pytest.mark.parametrize("path", SHOWN)
def test_a_pipeline_by_path_is_called_by_its_file(node: Shared, path: str) -> None:
    path = path.format(job=node.held["alpha"].job)
    said = node.person("reader of alpha").get(path).text
    assert "cheap" in said and "cheap.yaml" not in said
    said = node.person("operator").get(path).text
    assert (FOLDER in said) == (path != "/metrics")


def test_what_is_shown_can_be_asked_for(node: Shared) -> None:
    held = node.held["alpha"]
    reader, operator = node.program("reader of alpha"), node.program("operator")
    for name, found in (("cheap", [held.uploaded, held.job]), ("none-any-more", [held.pending])):
        jobs = reader.get("/api/v1/jobs", params={"pipeline": name}).json()["jobs"]
        assert [(job["id"], job["pipeline"]) for job in jobs] == [(number, name) for number in found]
        page = node.person("reader of alpha").get("/", params={"pipeline": name}).text
        assert f'href="/jobs/{found[0]}"' in page and f"{len(found)} job" in page
    assert len(operator.get("/api/v1/jobs", params={"pipeline": GONE}).json()["jobs"]) == 1
    unknown = reader.get("/api/v1/jobs", params={"pipeline": "zzz"}).json()["detail"]
    assert "no pipeline is or was called 'zzz'; known: default, cheap, " in unknown


def test_two_who_finish_at_once_are_told_of_a_conflict_and_of_no_folder(
    node: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_of_jobs, "source_of_run", lambda *_: None)
    held = node.held["alpha"]
    with FileLock(node.node.folder / "runs" / str(held.job) / CORRECTIONS / ".finish.lock"):
        reader = node.person("reader of alpha", **{"sec-fetch-site": "same-origin"})
        at = f"/jobs/{held.job}/view/correct/lung"
        stroke = {"revision": 0, "id": "s", "reader": "reader.of.alpha", "tool": "brush", "runs": [0, 1]}
        painted = reader.post(f"{at}/strokes", json=stroke)
        assert painted.status_code == 200, painted.text
        decision = {"revision": painted.json()["revision"], "reader": "reader.of.alpha", "decision": "corrected"}
        answer = reader.post(f"{at}/decision", json=decision)
    assert (answer.status_code, answer.json()["code"]) == (409, "corrections.busy")
    assert answer.json()["detail"].startswith("another correction of this run is being finished")


@pytest.mark.parametrize("source", ["incoming/4711", "/srv/of old/chest", "{base}/../ward seven"])
def test_correct_names_no_folder_where_the_series_is_gone_or_can_not_be_read(node: Shared, source: str) -> None:
    held = node.held["alpha"]
    with node.node.engine.begin() as connection:
        mine = JOB.c.id == held.job
        before = connection.execute(select(JOB.c.source).where(mine)).scalar_one()
        connection.execute(update(JOB).where(mine).values(source=source.format(base=node.folder)))
    try:
        reader = node.person("reader of alpha", **{"sec-fetch-site": "same-origin"})
        at = f"/jobs/{held.job}/view/correct/lesion"
        revision = reader.get(f"{at}/mask.json").json()["revision"]
        asked = {"revision": revision, "reader": "reader.of.alpha"}
        stroke = {"id": source, "tool": "brush", "runs": [0, 1 + revision]}
        answers = [reader.get(at), reader.post(f"{at}/strokes", json=asked | stroke)]
        asked["revision"] = reader.get(f"{at}/mask.json").json()["revision"]
        for decision in ("corrected", "accepted"):
            answers.append(reader.post(f"{at}/decision", json=asked | {"decision": decision}))
        assert [told(node, answer.text) for answer in answers] == [[]] * 4
        assert ("series of this run" in answers[0].text) == (FOLDER not in source)
        code = {"incoming/4711": "unchanged", "/srv/of old/chest": "series-away"}.get(source, "")
        assert code in answers[2].json()["code"] and answers[2].status_code in (409, 422)
    finally:
        with node.node.engine.begin() as connection:
            connection.execute(update(JOB).where(mine).values(source=before))


NAMES = {"default": "default", "lung-only": "lung-only", "/a b/c.yaml": "c", "c.yml": "c", "x/y": "y", "v1.2": "v1.2"}


@pytest.mark.parametrize("pipeline", NAMES)
def test_what_a_pipeline_is_called(pipeline: str) -> None:
    assert pipeline_name(pipeline) == NAMES[pipeline]


def test_what_the_node_keeps_is_called_by_its_last_name(node: Shared) -> None:
    settings = node.node.every_setting
    folder = Path(settings.node.folder)
    cases = {
        f"{folder}/runs/2: is damaged.": "run 2: is damaged.",
        f"{folder}/runs/2/manifest.json: can't be read.": "manifest.json: can't be read.",
        f"series in {folder}: none.": "series in the node's folder: none.",
        f"default, {GONE.replace(' ', '-')}, x": "default, none-any-more, x",
        (words := "this node takes nothing; see /jobs/1/view/ and runs/1"): words,
    }
    for said, left in cases.items():
        assert message_without_addresses(said, settings) == left
