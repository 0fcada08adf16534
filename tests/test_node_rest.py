"""REST: lists by key, changes that fit the state, refusals that say why, and a document that says what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import insert, select

from carina.config import Priority
from carina.database import AUDIT, DELIVERY, JOB
from carina.errors import BadConfig
from carina.jobs.queue import RANKS, JobEnd, JobState
from carina.operators.catalogue import known_definitions
from carina.service.node import RunningNode
from carina.service.pipelines import check_offered, offered_pipelines
from carina.service.rest.job_pages import ShownState
from carina.service.rest.routes import EVERY_OPERATION, node_document
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.ports import free_port
from served_nodes import NOON, add_job, hold, opened, serving

SETTINGS = f"""
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
[destinations.share]
kind = "folder"
path = "results"
[destinations.away]
kind = "dicom"
host = "127.0.0.1"
port = {free_port()}
ae_title = "AWAY"
"""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A served node, and what stands in it."""

    node: RunningNode
    url: str
    jobs: dict[str, int]

    def __call__(self, method: str, where: str, /, **body: object) -> httpx.Response:
        return httpx.request(method, f"{self.url}/api/v1{where}", json=body if method != "GET" else None)

    def audited(self) -> list[str]:
        with self.node.engine.connect() as connection:
            return list(connection.execute(select(AUDIT.c.subject).order_by(AUDIT.c.id)).scalars())


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    node = opened(tmp_path, SETTINGS)
    states = {"pending": ("pending", ""), "running": ("running", ""), "healthy": ("stopped", "healthy")}
    states |= {"faulted": ("stopped", "faulted"), "canceled": ("stopped", "canceled")}
    jobs = {name: add_job(node, state=state, ended=ended) for name, (state, ended) in states.items()}
    with serving(node) as url:
        yield Asked(node=node, url=url, jobs=jobs)


def deliver(node: RunningNode, job_id: int, destination: str, **states: int) -> None:
    with node.engine.begin() as connection:
        for state, count in states.items():
            for number in range(count):
                uid = f"2.25.{job_id}.{len(state)}.{number}"
                row = {"job_id": job_id, "destination": destination, "sop_class_uid": "1.2", "sop_instance_uid": uid}
                row |= {"path": "x", "state": state, "created_at": NOON}
                connection.execute(insert(DELIVERY), row)


def test_jobs_are_listed_by_key_the_latest_first(asked: Asked) -> None:
    first = asked("GET", "/jobs?limit=2").json()
    assert [job["id"] for job in first["jobs"]] == [5, 4]
    second = asked("GET", f"/jobs?limit=2&before={first['next']}").json()
    third = asked("GET", f"/jobs?limit=2&before={second['next']}").json()
    assert [job["id"] for job in second["jobs"] + third["jobs"]] == [3, 2, 1]
    assert third["next"] is None


def test_jobs_are_listed_by_key_the_oldest_first(asked: Asked) -> None:
    first = asked("GET", "/jobs?limit=3&order=oldest").json()
    second = asked("GET", f"/jobs?limit=3&order=oldest&before={first['next']}").json()
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == [1, 2, 3, 4, 5]
    assert second["next"] is None


@pytest.mark.parametrize("state", ShownState)
def test_jobs_are_filtered_by_what_they_are_shown_as(asked: Asked, state: ShownState) -> None:
    assert [job["id"] for job in asked("GET", f"/jobs?state={state}").json()["jobs"]] == [asked.jobs[state]]
    assert asked("GET", f"/jobs?state={state}&pipeline=default-overlay").json()["jobs"] == []


def test_what_jobs_are_shown_as_is_what_they_can_be() -> None:
    assert set(ShownState) == {JobState.PENDING, JobState.RUNNING, *JobEnd}


STANDS = {"pending": "waits", "running": "runs", "healthy": "has ended", "faulted": "has ended"}
"""How a refusal says where a job stands, on pages as well."""


@pytest.mark.parametrize(
    ("verb", "state", "status"),
    [
        ("cancel", "pending", 200),
        ("cancel", "running", 200),
        ("cancel", "healthy", 409),
        ("cancel", "faulted", 409),
        ("retry", "faulted", 200),
        ("retry", "canceled", 200),
        ("retry", "healthy", 409),
        ("retry", "running", 409),
        ("retry", "pending", 409),
    ],
)
def test_a_job_is_changed_where_its_state_allows_it(asked: Asked, verb: str, state: str, status: int) -> None:
    job = asked.jobs[state]
    answer = asked("POST", f"/jobs/{job}/{verb}")
    assert answer.status_code == status
    if status == 409:
        assert answer.json()["detail"].startswith(f"job {job} {STANDS[state]}: only what")
        assert asked.audited() == []
    else:
        assert asked.audited() == [f"job {job}: {verb}"]
        expected = {"pending": "canceled", "running": "running"}.get(state, "pending")
        assert (answer.json()["ended"] or answer.json()["state"]) == expected


def test_a_running_job_is_asked_to_stop(asked: Asked) -> None:
    asked("POST", f"/jobs/{asked.jobs['running']}/cancel")
    with asked.node.engine.connect() as connection:
        assert connection.execute(select(JOB.c.cancel).where(JOB.c.id == asked.jobs["running"])).scalar() == 1


@pytest.mark.parametrize("priority", Priority)
def test_a_waiting_job_changes_its_place(asked: Asked, priority: Priority) -> None:
    answer = asked("PUT", f"/jobs/{asked.jobs['pending']}/priority", priority=priority)
    assert answer.json()["priority"] == priority
    with asked.node.engine.connect() as connection:
        rank = connection.execute(select(JOB.c.priority).where(JOB.c.id == asked.jobs["pending"])).scalar()
    assert rank == RANKS[priority]
    assert asked("PUT", f"/jobs/{asked.jobs['running']}/priority", priority=priority).status_code == 409


def test_a_path_is_submitted(asked: Asked, tmp_path: Path) -> None:
    write_ct_series(chest_phantom(shape=(6, 64, 64), lesions=0, seed=5).volume, tmp_path / "ct")
    answer = asked("POST", "/jobs", path=str(tmp_path / "ct"), priority="high", destinations=["share"])
    job = answer.json()
    assert (answer.status_code, job["state"], job["priority"]) == (200, "pending", "high")
    assert (job["source"], job["destinations"], job["arrival_id"]) == (str(tmp_path / "ct"), ["share"], None)
    assert job["memory_mb"] > 1000


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"path": "nowhere/at/all"}, 422, "nowhere/at/all: is not there"),
        ({"path": "a\0b"}, 403, "lies below no folder that node.submit_below allows"),
        ({"path": "/"}, 403, "/: lies below no folder that node.submit_below allows ("),
        ({"path": ".."}, 403, "lies below no folder"),
        ({"path": "/etc/passwd"}, 403, "lies below no folder"),
        ({"path": "leads-out/passwd"}, 403, "lies below no folder"),
        ({"path": ".", "pipeline": "nope"}, 400, "no definition is called 'nope'"),
        ({"path": ".", "destinations": ["nope"]}, 404, "no destination is called 'nope'"),
        ({}, 400, "the key path is missing"),
        ({"path": 7}, 400, "path: expected `str`"),
        ({"path": ".", "priority": "now"}, 400, "priority: invalid enum value 'now'"),
        ({"path": ".", "colour": "red"}, 400, "colour: unknown key"),
    ],
)
def test_what_can_not_be_submitted_is_refused(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: dict[str, object], status: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leads-out").symlink_to("/etc")
    answer = asked("POST", "/jobs", **body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert any(word in answer.json()["detail"] for word in words.split("|"))


SECRET = "api-version: 0.4.0\nname: root:$6$hash\n"


@pytest.mark.parametrize(
    "pipeline", ["/etc/passwd", "{0}/mine.yaml", "mine.yaml", "./default", "mine", "../x", "{0}/no", "", "a\0b"]
)
def test_over_the_web_a_pipeline_is_no_path(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pipeline: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_ct_series(chest_phantom(shape=(6, 64, 64), lesions=0, seed=5).volume, tmp_path / "ct")
    for name in ("mine", "mine.yaml", "default"):
        (tmp_path / name).write_text(SECRET)
    answer = asked("POST", "/jobs", path=str(tmp_path / "ct"), pipeline=pipeline.format(tmp_path))
    detail = answer.json()["detail"]
    assert answer.status_code == 400 and "\n" not in detail
    assert detail.startswith("no definition is called") or pipeline == ""
    assert not any(word in detail for word in ("root:", "hash", "0.4.0", "can't be re"))


def test_a_pipeline_that_a_source_names_is_offered_to_those_who_see_the_source(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_bytes(known_definitions()["default"].read_bytes())
    source = f'[sources.scanner]\nkind = "dicom"\nae_title = "A"\nproject = "lungs"\npipelines = ["{mine}"]\n'
    node = opened(tmp_path, source)
    assert offered_pipelines(node.settings) == ("default", *sorted({str(mine), *known_definitions()} - {"default"}))
    check_offered(node.settings, str(mine))
    check_offered(node.seen_in(frozenset({"lungs"})).settings, str(mine))
    with pytest.raises(BadConfig, match=r"no definition is called .* carina submit on the node's machine"):
        check_offered(node.seen_in(frozenset({"other"})).settings, str(mine))


@pytest.mark.parametrize("body", [b"{", b"[]", b"3", b"\xff", b"{" * 100_000, b'{"path": "' + b"x" * 70_000 + b'"}'])
def test_a_body_that_is_none_is_refused(asked: Asked, body: bytes) -> None:
    answer = httpx.post(f"{asked.url}/api/v1/jobs", content=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "web.body"


def test_a_series_is_let_out_of_quarantine_once(asked: Asked, tmp_path: Path) -> None:
    files = write_ct_series(chest_phantom(shape=(6, 64, 64), lesions=0, seed=5).volume, tmp_path / "ct")
    arrival = hold(asked.node, files, state="quarantined", source="")
    assert [one["id"] for one in asked("GET", "/arrivals?state=quarantined").json()["arrivals"]] == [arrival]
    unnamed = asked("POST", f"/arrivals/{arrival}/release")
    assert (unnamed.status_code, unnamed.json()["code"]) == (404, "arrival.source")
    assert "release it as one of: scanner" in unnamed.json()["detail"]
    released = asked("POST", f"/arrivals/{arrival}/release", source="scanner").json()
    assert (released["state"], released["source"], released["reason"], released["instances"]) == (
        "complete",
        "scanner",
        "",
        6,
    )
    assert (released["project_before"], released["project"]) == ("default", "default")
    again = asked("POST", f"/arrivals/{arrival}/release", source="scanner")
    assert (again.status_code, again.json()["code"]) == (409, "arrival.state")
    assert asked("POST", "/arrivals/99/release", source="scanner").status_code == 404


def test_deliveries_are_listed_and_sent_again(asked: Asked) -> None:
    deliver(asked.node, asked.jobs["healthy"], "share", confirmed=3, failed=2)
    deliver(asked.node, asked.jobs["healthy"], "away", waiting=1, failed=1)
    rows = asked("GET", f"/deliveries?job={asked.jobs['healthy']}&state=failed").json()["deliveries"]
    assert sorted(row["destination"] for row in rows) == ["away", "share", "share"]
    page = asked("GET", "/deliveries?limit=4").json()
    rest = asked("GET", f"/deliveries?limit=4&before={page['next']}").json()
    assert len({row["id"] for row in page["deliveries"] + rest["deliveries"]}) == 7
    assert asked("POST", "/deliveries/resend", destination="share").json() == {"deliveries": 2, "refused": []}
    assert asked("POST", "/deliveries/resend", destination="nope").status_code == 404
    states = {one["name"]: one["deliveries"] for one in asked("GET", "/destinations").json()["destinations"]}
    assert states["share"] == {"waiting": 2, "sent": 0, "confirmed": 3, "failed": 0}
    progress = asked("GET", f"/jobs/{asked.jobs['healthy']}").json()
    assert progress["deliveries"]["away"]["failed"] == 1


def test_a_destination_answers_or_says_why_not(asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert asked("POST", "/destinations/share/echo").json() == {"name": "share", "answers": True}
    away = asked("POST", "/destinations/away/echo")
    assert away.status_code == 502
    assert "nothing answers there" in away.json()["detail"]
    assert asked("POST", "/destinations/nope/echo").status_code == 404


@pytest.mark.parametrize("path", ["/jobs/99", "/jobs/99/cancel", "/jobs/99/retry"])
def test_a_job_that_is_none_is_not_there(asked: Asked, path: str) -> None:
    answer = asked("GET" if path == "/jobs/99" else "POST", path)
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no job 99.")


@pytest.mark.parametrize("number", ["x", "0", "-1", "1e3", str(2**63), "9" * 400])
def test_an_id_that_is_none_is_refused(asked: Asked, number: str) -> None:
    assert asked("GET", f"/jobs/{number}").status_code in (400, 404)


def test_the_document_is_complete_and_its_references_lead_somewhere(asked: Asked) -> None:
    document = asked("GET", "/openapi.json").json()
    assert document == json.loads(json.dumps(node_document()))
    text = json.dumps(document)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= set(document["components"]["schemas"])
    for operation in EVERY_OPERATION:
        shown = document["paths"][f"/api/v1{operation.path}"][operation.method.lower()]
        assert shown["operationId"] == operation.name
        in_path = {one["name"] for one in shown["parameters"] if one["in"] == "path"}
        assert in_path == {part[1:-1] for part in operation.path.split("/") if part.startswith("{")}


def test_every_operation_stands_on_the_page(asked: Asked) -> None:
    page = httpx.get(f"{asked.url}/api").text
    for operation in EVERY_OPERATION:
        assert operation.summary.replace("'", "&#39;") in page


def test_every_answer_is_of_the_kind_that_the_document_says(asked: Asked) -> None:
    for operation in EVERY_OPERATION:
        if operation.method == "GET" and operation.tag != "Uploads":  # of one that is begun: tests/test_uploads_served
            path = operation.path.replace("{id}", "1")
            msgspec.json.decode(asked("GET", path).content, type=operation.answer)
