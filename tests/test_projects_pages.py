"""Projects as people work with them: made, filled from the worklist, given people; passwords of one's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from sqlalchemy import delete, select, update

from access_nodes import PASSWORD, Guarded, account, form_token, guarded
from carina.database import ARRIVAL, AUDIT, JOB, PROJECT
from carina.jobs.places import open_node
from carina.service.access.members import set_member
from carina.service.access.roles import Role
from carina.service.access.sessions import begin_session
from carina.service.node import RunningNode
from carina.service.problems import as_sentence
from served_nodes import add_job, hold, opened, serving

NEW = "another sentence that is long"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path) as served:
        yield served


def post(client: httpx.Client, path: str, **fields: object) -> httpx.Response:
    token = form_token(client.get("/").text)
    return client.post(path, data={"token": token, **{name: str(value) for name, value in fields.items()}})


def member(node: Guarded, name: str, **roles: str) -> httpx.Client:
    """Somebody with these roles in projects, logged in."""
    account_id = account(node.node, name, Role.MEMBER)
    with node.node.engine.begin() as connection:
        for project, role in roles.items():
            set_member(connection, project, name, Role(role))
        node.cookies[name] = begin_session(connection, account_id, node.node.settings.web, node.clock.at)
    return node.person(name)


def test_a_project_is_made_and_filled_from_the_worklist(node: Guarded) -> None:
    admin, reader = node.person("admin"), member(node, "jane")
    for place in ("/", "/projects"):
        whom = "ask an administrator of this node (admin.one), or of a project, to add you to one."
        assert f"You are in no project yet, so there is nothing to see: {whom}" in reader.get(place).text
    assert reader.get(f"/jobs/{node.job}").status_code == 404
    made = post(admin, "/projects", name="trial")
    assert (made.status_code, made.headers["location"]) == (303, "/projects/trial")
    assert post(admin, "/move", job=node.job, to="trial", back="/projects/trial").status_code == 303
    page = admin.get("/projects/trial").text
    assert "0 waiting, 0 running, 1 done, 0 failed, 0 canceled" in page
    assert f'id="job-{node.job}"' in page


def test_people_come_into_a_project_and_go(node: Guarded) -> None:
    admin, reader = node.person("admin"), member(node, "jane")
    post(admin, "/projects", name="trial")
    post(admin, "/move", job=node.job, to="trial")
    assert post(admin, "/projects/trial/people", what="set", name="jane", choice="reader").status_code == 303
    assert reader.get(f"/jobs/{node.job}").status_code == 200
    page = reader.get("/projects/trial").text
    assert "jane" in page and "Remove jane" not in page
    assert "Remove jane" in admin.get("/projects/trial").text
    post(admin, "/projects/trial/people", what="remove", name="jane")
    assert reader.get("/projects/trial").status_code == 404
    said = [subject for _, action, subject in node.trail() if action == "changed"]
    assert said[1].endswith("of source scanner: moved to project trial")
    assert said[2:] == ["project trial: jane is reader", "project trial: jane is in it no longer"]


def test_a_series_goes_with_all_that_came_of_it_and_several_at_once(node: Guarded) -> None:
    files = sorted((node.node.folder.parent / "ct").glob("*.dcm"))
    later = hold(node.node, files[:1], state="quarantined", source="late")
    elsewhere = hold(node.node, files[:1], source="web")
    with node.node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == later).values(source="scanner"))
    second, by_path = add_job(node.node, later), add_job(node.node)
    admin = node.person("admin")
    post(admin, "/projects", name="trial")
    token = form_token(admin.get("/").text)
    chosen = {"token": token, "to": "trial", "job": [str(second), str(by_path)], "arrival": [str(later)]}
    assert admin.post("/move", data=chosen).status_code == 303
    with node.node.engine.connect() as connection:
        arrivals = dict(connection.execute(select(ARRIVAL.c.id, ARRIVAL.c.project)).tuples().all())
        jobs = dict(connection.execute(select(JOB.c.id, JOB.c.project)).tuples().all())
    assert arrivals == {node.arrival: "trial", later: "trial", elsewhere: "default"}
    assert jobs == {node.job: "trial", second: "trial", by_path: "trial"}


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"job": 1, "to": "nowhere"}, 404, "there is no project &#39;nowhere&#39;"),
        ({"job": 99, "to": "default"}, 404, "there is no job 99"),
        ({"arrival": 99, "to": "default"}, 404, "there is no arrival 99"),
        ({"to": "default"}, 400, "nothing was chosen"),
        ({"job": "x", "to": "default"}, 400, "job"),
    ],
)
def test_what_can_not_be_moved_is_said(node: Guarded, sent: dict[str, object], status: int, words: str) -> None:
    answer = post(node.person("operator"), "/move", **sent)
    assert answer.status_code == status
    assert as_sentence(words) in answer.text


def test_who_operates_two_projects_moves_between_them_and_nowhere_else(node: Guarded) -> None:
    admin = node.person("admin")
    for name in ("one", "two", "three"):
        post(admin, "/projects", name=name)
    both = member(node, "both", default="operator", one="operator", two="reader")
    move_form = both.get("/").text.partition('id="move"')[2]
    assert ">two</option>" not in move_form and ">one</option>" in move_form
    for hidden in ("two", "three"):
        assert post(both, "/move", job=node.job, to=hidden).status_code == 404
    assert post(both, "/move", job=node.job, to="one").status_code == 303
    assert post(member(node, "other", default="operator"), "/move", job=node.job, to="default").status_code == 404


def test_an_admin_of_a_project_decides_of_it_alone(node: Guarded) -> None:
    admin = node.person("admin")
    post(admin, "/projects", name="trial")
    chief = member(node, "chief", trial="admin", default="reader")
    account(node.node, "jane", Role.MEMBER)
    assert post(chief, "/projects/trial/people", what="set", name="jane", choice="operator").status_code == 303
    assert "jane" in chief.get("/projects/trial").text
    refused = post(chief, "/projects/default/people", what="set", name="chief", choice="admin")
    assert refused.status_code == 403
    words = "This needs the role admin in project default; chief has the role reader in project default."
    assert words in unescape(refused.text)
    for sent, words in (({"name": "ghost", "choice": "reader"}, "no account"), ({"name": "jane"}, "expected reader")):
        assert words in post(chief, "/projects/trial/people", what="set", **sent).text


def test_an_admin_of_a_project_is_none_of_the_node(node: Guarded) -> None:
    chief = member(node, "chief", default="admin")
    for path in ("/users", "/users/act", "/projects"):
        answer = chief.get(path) if path == "/users" else post(chief, path, name="mine", what="add")
        assert answer.status_code == 403
        assert "This needs the role admin on the whole node; chief has the role admin in project default" in answer.text
    assert chief.post("/api/v1/jobs", json={"path": "/"}, headers={"sec-fetch-site": "same-origin"}).status_code == 403


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "x" * 65, "ä", ".x"])
def test_what_is_no_name_of_a_project_is_refused(node: Guarded, name: str) -> None:
    answer = post(node.person("admin"), "/projects", name=name)
    assert answer.status_code == 400
    assert "is no name of a project" in answer.text
    assert "already" in post(node.person("admin"), "/projects", name="default").text


def test_a_token_of_one_project_is_made_on_the_page_of_users(node: Guarded) -> None:
    admin = node.person("admin")
    post(admin, "/projects", name="trial")
    made = post(admin, "/users/act", what="token", name="robot", choice="reader", project="trial").text
    found = re.search(r'id="shown" class="uid">([^<]+)<', made)
    assert found is not None and "reader in trial" in made
    robot = httpx.Client(base_url=node.url, headers={"authorization": f"Bearer {found[1]}"})
    assert robot.get("/api/v1/jobs").json()["jobs"] == []
    post(admin, "/move", job=node.job, to="trial")
    assert [job["project"] for job in robot.get("/api/v1/jobs").json()["jobs"]] == ["trial"]
    assert post(admin, "/users/act", what="token", name="x", choice="reader", project="none").status_code == 404


def test_one_changes_ones_own_password_and_other_sessions_end(node: Guarded) -> None:
    reader = node.person("reader")
    with node.node.engine.begin() as connection:
        elsewhere = begin_session(connection, 2, node.node.settings.web, node.clock.at)
    other = httpx.Client(base_url=node.url, cookies={"carina": elsewhere}, headers={"accept": "text/html"})
    assert other.get("/account").status_code == 200
    for sent, words in (
        ({"current": "wrong", "password": NEW, "again": NEW}, "The current password is not right"),
        ({"current": PASSWORD, "password": NEW, "again": "x"}, "are not the same"),
        ({"current": PASSWORD, "password": "short", "again": "short"}, "it has 5 characters; expected at least 12"),
    ):
        assert words in post(reader, "/account", **sent).text
        assert other.get("/").status_code == 200
    done = post(reader, "/account", current=PASSWORD, password=NEW, again=NEW)
    assert "you were logged out in one other place" in done.text
    assert reader.get("/").status_code == 200 and other.get("/").status_code == 303
    token = form_token(other.get("/login").text)
    tried = [
        other.post("/login", data={"token": token, "name": "reader.one", "password": one}).status_code
        for one in (PASSWORD, NEW)
    ]
    assert tried == [403, 303]
    assert any(subject.endswith("password changed by its owner") for _, _, subject in node.trail())


def test_a_password_is_not_guessed_by_changing_it(node: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carina.service.access.password.is_password", lambda given, kept: given == PASSWORD)
    reader = node.person("reader")
    for _ in range(5):
        assert "current password is not right" in post(reader, "/account", current="x", password=NEW, again=NEW).text
    assert "Too many tries" in post(reader, "/account", current=PASSWORD, password=NEW, again=NEW).text


def test_a_program_and_who_logs_in_elsewhere_have_no_password_here(node: Guarded) -> None:
    assert node.program("reader").get("/account").status_code == 404
    account_id = account(node.node, "from.elsewhere", Role.READER)
    with node.node.engine.begin() as connection:
        node.cookies["elsewhere"] = begin_session(connection, account_id, node.node.settings.web, node.clock.at)
    client = node.person("elsewhere")
    assert "your password is changed there" in client.get("/account").text
    assert "The current password is not right" in post(client, "/account", current="", password=NEW, again=NEW).text


@pytest.fixture
def unguarded(tmp_path: Path) -> Iterator[tuple[RunningNode, httpx.Client]]:
    node = opened(tmp_path, '[sources.scanner]\nkind = "dicom"\nae_title = "CARINA"\nproject = "trial"\n')
    with serving(node) as url, httpx.Client(base_url=url, headers={"accept": "text/html"}) as client:
        yield node, client


def test_without_a_log_in_projects_are_ways_to_filter(unguarded: tuple[RunningNode, httpx.Client]) -> None:
    node, client = unguarded
    first, second = add_job(node, project="trial"), add_job(node)
    assert client.get("/?project=trial").headers["location"] == "/projects/trial"
    page = client.get("/projects/trial?state=healthy").text
    assert f'id="job-{first}"' in page and f'id="job-{second}"' not in page
    assert 'href="/projects/trial?state=faulted"' in page and "People" not in page
    assert [job["id"] for job in client.get("/api/v1/jobs?project=trial").json()["jobs"]] == [first]
    assert client.get("/api/v1/arrivals?project=trial").json()["arrivals"] == []
    assert client.get("/api/v1/jobs?project=nowhere").status_code == 404
    assert client.get("/projects/nowhere").status_code == 404
    token = form_token(client.get("/projects").text)
    assert client.post("/move", data={"token": token, "job": second, "to": "trial"}).status_code == 303
    assert f'id="job-{second}"' in client.get("/projects/trial").text


def test_without_a_log_in_users_offer_nothing_that_leads_nowhere(unguarded: tuple[RunningNode, httpx.Client]) -> None:
    _, client = unguarded
    page = client.get("/users").text
    main = page[page.index("<main") :]
    assert "Log-in is off" in main and "<form" not in main and "href" not in main
    token = form_token(client.get("/projects").text)
    answer = client.post("/users/act", data={"token": token, "what": "add", "name": "x", "choice": "reader"})
    assert (answer.status_code, "Log-in is off" in answer.text) == (409, True)
    assert client.get("/account").status_code == 404


def test_projects_that_settings_name_are_there_and_others_stay(tmp_path: Path) -> None:
    node = opened(tmp_path, '[sources.one]\nkind = "dicom"\nae_title = "ONE"\nproject = "named"\n')
    for _ in range(2):
        engine = open_node(node.settings)
        with engine.connect() as connection:
            assert sorted(connection.execute(select(PROJECT.c.name)).scalars()) == ["default", "named"]
            assert connection.execute(select(AUDIT)).all() == []


def test_an_empty_worklist_advises_what_whoever_reads_it_can_do(node: Guarded) -> None:
    with node.node.engine.begin() as connection:
        connection.execute(delete(JOB))
    post(node.person("admin"), "/projects", name="trial")
    upload, path = '<a href="/#upload">run on files of your own</a>', "submit a folder of the node's machine"
    told = {"operator": (upload, path), "reader": (), "jane": (upload,), "rita": ()}
    people = {"jane": member(node, "jane", trial="operator"), "rita": member(node, "rita", trial="reader")}
    for name, words in told.items():
        who = people.get(name) or node.person(name)
        page = unescape(who.get("/").text)
        assert "No job yet: a series becomes one" in page, name
        assert [one for one in (upload, path) if one in page] == list(words), name
        assert ('id="upload"' in page) == (upload in words), name
