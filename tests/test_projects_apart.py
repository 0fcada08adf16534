"""What somebody of one project gets to see of another on a real node: nothing, by whichever route they ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select, update

from carina.database import ARRIVAL, DELIVERY, JOB, MEMBER, PROJECT
from carina.jobs.earlier import earlier_scans
from carina.service.access.rules import ROUTE_RULES, Rule
from carina.service.pages import runs_of_jobs
from project_nodes import FIRST_IDS, Held, Shared, shared_node
from served_nodes import add_job

WHO = ["reader of alpha", "operator of alpha", "admin of alpha", "member"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_node(tmp_path_factory.mktemp("projects")) as served:
        yield served


def path_of(rule: Rule, held: Held) -> str:
    """The address of something of a project."""
    names = {
        "/volume/": "ct",
        "/pdf/": "volume-ratio",
        "/files/": "manifest.json",
        "/destinations/": f"{held.name}-share",
    }
    values = {
        "job": held.job,
        "number": held.job,
        "id": held.quarantined if "/arrivals/" in rule.path else held.job,
        "study": held.study,
        "series": held.series,
        "instance": held.instance,
        "frames": 1,
        "tag": "7FE00010",
        "plane": "axial",
        "index": 3,
        "z": 3,
        "y": 4,
        "x": 5,
        "size": "quarter",
        "layer": "lung",
        "project": held.name,
        "name": next((name for part, name in names.items() if part in rule.path), "x"),
        "path": "x",
    }
    if re.fullmatch(r".*/jobs/[^/]+/series", rule.path):
        values["id"] = values["job"] = held.uploaded
    if "/uploads/" in rule.path:
        values["id"] = f"{FIRST_IDS[held.name]:032}"
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: str(values[found[1]]), rule.path)


def bodies(rule: Rule, held: Held, token: str) -> list[dict[str, Any]]:
    """What may be sent to a route that changes something: each names something of a project."""
    if rule.path == "/act":
        kinds = [
            ("cancel", held.pending),
            ("retry", held.job),
            ("priority", held.pending),
            ("release", held.quarantined),
        ]
        acts = [{"what": what, "id": number, "choice": "high"} for what, number in kinds]
        acts += [{"what": "resend", "name": f"{held.name}-share"}, {"what": "resend", "id": held.job}]
        acts += [{"what": "echo", "name": f"{held.name}-share"}]
        acts += [{"what": "run-series", "id": held.uploaded, "name": held.series}]
        acts += [{**one, "sure": "yes"} for one in acts]
        return [{"data": {"token": token, **one}} for one in acts]
    if rule.path in ("/move", "/projects/{project}/people"):
        moved = {"job": held.pending, "arrival": held.quarantined, "to": held.name, "project": held.name}
        people = {"what": "set", "name": "operator", "choice": "admin"}
        return [{"data": {"token": token, **(moved if rule.path == "/move" else people)}}]
    if rule.path.endswith("/series"):
        return [{"json": {"uid": held.series}}]
    if rule.path.startswith("/api/"):
        return [{"json": {"priority": "high"} if rule.method == "PUT" else {}}, {"json": {"job": held.job}}]
    stroke = {"revision": 0, "id": "one", "reader": "x", "tool": "brush", "runs": [0, 1]}
    return [{"json": stroke}, {"json": {"revision": 0, "reader": "x", "decision": "accepted"}}, {"json": {"number": 1}}]


def asked(client: httpx.Client, rule: Rule, path: str, **sent: Any) -> tuple[int, str]:
    """Status, and everything that came back: address, headers, body; of a stream, what it says within a moment."""
    headers = {"sec-fetch-site": "same-origin", "accept": "text/event-stream" if rule.is_quiet else "*/*"}
    with client.stream(rule.method, path, headers=headers, **sent) as answer:
        said = "".join(f"{name}: {value}\n" for name, value in answer.headers.multi_items())
        if "event-stream" in answer.headers.get("content-type", ""):
            return answer.status_code, said + next(answer.iter_text())
        return answer.status_code, said + answer.read().decode("latin-1")


def leaks(said: str, held: Held, path: str) -> list[str]:
    """What an answer tells of a project beside what was asked: one may be told again what one said.

    An id counts as a number of its own: its digits also stand in UIDs and in counts of bytes and seconds.
    """
    rest = said.replace(path, "")
    return [secret for secret in held.secrets if secret not in path and is_told(secret, rest)]


def is_told(secret: str, text: str) -> bool:
    if not secret.isdecimal():
        return secret in text
    return re.search(rf"(?<![0-9.]){secret}(?![0-9]|\.[0-9])", text) is not None


def test_an_id_is_told_where_it_stands_alone() -> None:
    told = ("job 70003.", '"id":70003,', "/jobs/70003/view", 'job="70003"', "70003")
    assert all(is_told("70003", text) for text in told)
    assert not any(is_told("70003", text) for text in ("1.2.70003.4", "170003", "700031", "0.70003", "70003.25"))


GETS = [rule for rule in ROUTE_RULES if rule.method == "GET"]


@pytest.mark.parametrize("rule", GETS, ids=lambda rule: rule.path)
def test_asking_for_ones_own_tells_nothing_of_the_other(node: Shared, rule: Rule) -> None:
    path = path_of(rule, node.held["alpha"])
    for client in [*map(node.person, WHO), node.program("reader of alpha"), node.program("operator of alpha")]:
        status, said = asked(client, rule, path)
        assert status != 500, said
        assert leaks(said, node.held["bravo"], path) == []


def expected(rule: Rule) -> tuple[int, ...]:
    """A search finds nothing; who may not use a route anywhere is told so, whatever is asked of it."""
    return (200, 404) if rule.path.startswith("/dicom-web") else (404, *([403] if rule.need == "operate" else []))


@pytest.mark.parametrize("rule", [rule for rule in GETS if "{" in rule.path], ids=lambda rule: rule.path)
def test_what_is_of_the_other_is_not_there(node: Shared, rule: Rule) -> None:
    path = path_of(rule, node.held["bravo"])
    for client in [*map(node.person, WHO), node.program("reader of alpha"), node.program("operator of alpha")]:
        status, said = asked(client, rule, path)
        if "/static/" not in rule.path:
            assert status in expected(rule), said
            assert status != 200 or said.rstrip().endswith("[]")
        assert leaks(said, node.held["bravo"], path) == []
    if rule.path not in NOT_THERE and "/earlier/" not in rule.path:
        assert asked(node.person("operator of bravo"), rule, path)[0] in (200, 303, 307), "there, for who may see it"


NOT_THERE = {
    "/static/{path:path}",
    "/agreement/static/{path:path}",
    "/jobs/{job:int}/view/static/{path:path}",
    "/jobs/{job:int}/view/changes",
    "/dicom-web/studies/{study}/series/{series}/instances/{instance}/bulkdata/{tag}",
}
"""Files that aren't, an earlier scan of the earliest one, and bulk data that a CT slice doesn't have."""


EARLIER = [rule for rule in GETS if "/earlier/" in rule.path]


@pytest.mark.parametrize("rule", EARLIER, ids=lambda rule: rule.path)
def test_an_earlier_scan_of_ones_patient_in_the_other_project_is_not_there(node: Shared, rule: Rule) -> None:
    alpha, bravo = node.held["alpha"], node.held["bravo"]
    path = path_of(rule, alpha).replace(f"/earlier/{alpha.job}", f"/earlier/{bravo.job}")
    for name in ("reader of alpha", "reader"):  # what is said of it would be a report in the other project
        status, said = asked(node.person(name), rule, path)
        assert status == 404 or "/static/" in path
    assert leaks(said, bravo, path) == []


def test_an_earlier_scan_of_the_same_project_is_there(node: Shared) -> None:
    alpha, bravo = node.held["alpha"], node.held["bravo"]
    with node.node.engine.begin() as connection:
        assert earlier_scans(connection, alpha.job) == ()
        connection.execute(update(JOB).where(JOB.c.id == bravo.job).values(project="alpha"))
        assert [one.job_id for one in earlier_scans(connection, alpha.job)] == [bravo.job]
        connection.rollback()


def test_the_comparison_with_earlier_scans_names_ones_own_alone(node: Shared) -> None:
    path = f"/jobs/{node.held['alpha'].job}/view/changes"
    assert str(node.held["bravo"].job) not in node.person("reader of alpha").get(path).text


def state_of(node: Shared, held: Held) -> list[Any]:
    """Every row of a project, and who is in it."""
    with node.node.engine.connect() as connection:
        tables = [
            select(ARRIVAL).where(ARRIVAL.c.project == held.name),
            select(JOB).where(JOB.c.project == held.name),
            select(DELIVERY).where(DELIVERY.c.job_id == held.job),
            select(MEMBER).where(MEMBER.c.project == held.name),
            select(PROJECT),
        ]
        return [connection.execute(one).all() for one in tables]


CHANGES = [rule for rule in ROUTE_RULES if rule.method != "GET" and rule.need not in ("nothing", "store")]


@pytest.mark.parametrize("rule", CHANGES, ids=lambda rule: rule.path)
def test_nothing_of_the_other_is_changed(node: Shared, rule: Rule) -> None:
    bravo = node.held["bravo"]
    path, before = path_of(rule, bravo), state_of(node, bravo)
    for name in WHO:
        client = node.person(name)
        token = re.search(r'name="token" value="([^"]+)"', client.get("/").text)
        assert token is not None
        for sent in bodies(rule, bravo, token[1]):
            status, said = asked(client, rule, path, **sent)
            assert status in (403, 404) or is_harmless(rule, status, said), said
            assert leaks(said.replace(json.dumps(sent), ""), bravo, f"{path} {sent}") == []
    assert state_of(node, bravo) == before


def is_harmless(rule: Rule, status: int, said: str) -> bool:
    """Resending all that has failed is done, for one's own; what is no question is refused before it is looked at."""
    if rule.path == "/api/v1/deliveries/resend":
        return status == 200 and '{"deliveries":' in said
    if rule.path == "/act":
        return "objects will be sent again" in said
    return status in (400, 422)


def test_events_tell_of_ones_own_alone(node: Shared) -> None:
    client = node.person("reader of alpha", accept="text/event-stream")
    with client.stream("GET", "/live") as live:
        parts = live.iter_text()
        assert "<b>3</b> all" in next(parts)
        add_job(node.node, id=FIRST_IDS["bravo"] + 10, project="bravo", pipeline="bravo-more")
        add_job(node.node, id=FIRST_IDS["alpha"] + 10, project="alpha", pipeline="alpha-more")
        seen = next(parts)
        while not ("alpha-more" in seen and "<b>4</b> all" in seen):  # a part may have been made before both were there
            seen += next(parts)
    with node.node.engine.begin() as connection:
        connection.execute(JOB.delete().where(JOB.c.pipeline.in_(["alpha-more", "bravo-more"])))
    assert leaks(seen, node.held["bravo"], "") == []


def test_a_role_that_is_taken_away_ends_what_is_sent_for_long(node: Shared) -> None:
    client = node.person("admin of alpha", accept="text/event-stream")
    with client.stream("GET", "/live") as live:
        parts = live.iter_text()
        assert "alpha chest" in next(parts)
        with node.node.engine.begin() as connection:
            row = connection.execute(select(MEMBER).where(MEMBER.c.role == "admin", MEMBER.c.project == "alpha")).one()
            connection.execute(MEMBER.delete().where(MEMBER.c.id == row.id))
        assert [part for part in parts if "alpha" in part] == []
    assert client.get(f"/jobs/{node.held['alpha'].job}").status_code == 404
    with node.node.engine.begin() as connection:
        connection.execute(insert(MEMBER), row._asdict())


LISTS = [
    "/",
    "/agreement/",
    "/api/v1/state",
    "/api/v1/jobs",
    "/api/v1/arrivals",
    "/api/v1/deliveries",
    "/api/v1/destinations",
    "/dicom-web/studies",
    "/dicom-web/series",
    "/dicom-web/instances?limit=1000",
    "/health/ready",
    "/metrics",
]


def test_it_is_as_if_the_other_project_were_not_there(node: Shared, tmp_path_factory: pytest.TempPathFactory) -> None:
    with shared_node(tmp_path_factory.mktemp("alone"), ("alpha",)) as alone:
        for one in (node, alone):
            with one.node.engine.begin() as connection:  # whatever the tests before have done
                connection.execute(update(DELIVERY).values(state="failed", ask=0))
            one.node.count_anew()
        for path in LISTS:
            assert seen_at(node, path) == seen_at(alone, path), path
            assert len(seen_at(node, path)) > 20


def test_only_the_latest_runs_of_the_projects_that_one_sees_count(
    node: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_of_jobs, "MOST_LOOKED_AT", 1)
    assert "The latest 1 runs" in node.person("reader").get("/agreement/").text
    assert "The latest" not in node.person("reader of alpha").get("/agreement/").text


def seen_at(node: Shared, path: str) -> str:
    """What a reader of alpha gets, without what is of the machine, the moment or the log-in."""
    said = node.person("reader of alpha").get(path).text.replace(node.url, "").replace(str(node.folder), "")
    said = re.sub(
        r"(token\" value=\")[^\"]+|[0-9.]+ GB|127\.0\.0\.1:\d+|20\d\d-\d\d-\d\d[T ][0-9:.]+(Z|\+00:00)?", "", said
    )
    return "\n".join(line for line in said.splitlines() if not line.startswith(("process_", "carina_disk_free")))


def test_who_is_of_the_whole_node_sees_both(node: Shared) -> None:
    for name in ("reader", "operator", "admin"):
        page = node.person(name).get("/").text
        assert "alpha chest" in page and "bravo chest" in page
    assert "no job" in node.person("member").get("/").text.lower()


def test_a_program_of_one_project_stores_nowhere_else(node: Shared) -> None:
    answer = node.program("operator of alpha").post("/dicom-web/studies", content=b"")
    assert answer.status_code == 404
    assert "project alpha takes nothing by STOW-RS: it has no source" in answer.text


def test_a_view_of_a_view_is_never_wider(node: Shared) -> None:
    seen = node.node.seen_in(frozenset({"alpha"}))
    assert seen.seen_in(frozenset({"bravo"})).projects == frozenset()
    assert seen.seen_in(None) is seen
    assert seen.store is node.node.store
    assert node.node.seen_in(frozenset({"alpha"})) is seen
    assert set(seen.settings.sources) == {"alpha-scanner", "alpha-inbox"}
    assert set(seen.settings.destinations) == {"alpha-share"}


def test_the_address_of_a_sender_is_for_those_who_operate_in_its_project(node: Shared) -> None:
    held = node.held["alpha"]
    pages = ("/", "/projects/alpha", f"/jobs/{held.job}", f"/jobs/{held.job}/live", "/api/v1/arrivals")
    for person in ("reader of alpha", "reader", "operator of alpha", "operator"):
        for page in pages:
            with node.person(person).stream("GET", page) as answer:
                said = next(answer.iter_text())
            assert ("ALPHA@127.0.0.1" in said) == person.startswith("operator"), (person, page)
            assert "ALPHA" in said, (person, page)
