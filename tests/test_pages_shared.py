"""Parts of pages that are made once for all: made again only for a change, and nobody is shown another's."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from sqlalchemy import event

from carina.database import ARRIVAL, JOB
from carina.database.version import LOOK_AT_SQLITE
from carina.jobs.queue import JobState
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord, State, write_manifest
from carina.service.access.caller import Caller
from carina.service.access.credentials import form_token_of
from carina.service.access.roles import Role
from carina.service.node import RunningNode
from carina.service.pages.rendering import TEMPLATES
from carina.service.pages.shared_parts import MOST_PAGE_PARTS, PagePart, SharedParts, _Place, nameless
from project_nodes import Shared, shared_node
from served_nodes import NOON, add_job, opened, serving
from waiting import wait_until

PAGES = ("/", "/?state=faulted", "/?reading=unread", "/?before=2", "/?order=oldest", "/projects/default", "/jobs/1")
FORM_TOKENS = re.compile(r'name="token" value="([^"]+)"')
PARTS = {"jobs.html", "operators.html"}


class Work:
    """What a node has done: the statements it sent, and the parts that it made."""

    def __init__(self, node: RunningNode) -> None:
        self.statements: list[str] = []
        self.parts: list[str] = []
        event.listen(node.engine, "before_cursor_execute", self._note)

    def _note(self, *given: Any) -> None:
        self.statements.append(given[2])

    def __enter__(self) -> Work:
        get = TEMPLATES.get_template

        def counted(name: str, *given: Any) -> Any:
            self.parts += [name] if name in PARTS else []
            return get(name, *given)

        self._patched = patch.object(TEMPLATES, "get_template", counted)
        self._patched.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patched.stop()

    def take(self) -> tuple[list[str], list[str]]:
        """What was done since this was last asked, without looks at whether anything has changed."""
        done = [one for one in self.statements if one not in ("begin", LOOK_AT_SQLITE)], [*self.parts]
        self.statements.clear()
        self.parts.clear()
        return done


def _noted(node: RunningNode, client: httpx.Client, *paths: str) -> None:
    """Look at pages once, which writes to the audit trail, and let what was counted before be counted again."""
    for path in paths:
        assert client.get(path).status_code == 200
    node.tallies.forget()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_that_is_shown_again_is_made_again_only_if_something_has_changed(tmp_path: Path, path: str) -> None:
    node = opened(tmp_path)
    add_job(node)
    add_job(node, ended="faulted")
    with serving(node) as url, httpx.Client(base_url=url) as client, Work(node) as work:
        _noted(node, client, path)
        work.take()
        first = client.get(path)
        assert len(work.take()[1]) == 1
        assert client.get(path).text == first.text
        statements, parts = work.take()
        assert parts == []
        assert len(statements) <= (2 if path.startswith("/projects") else 0)  # a project is there, and its people
        add_job(node, ended="faulted", reading="unread", decisions="[]")
        client.get(path)
        assert len(work.take()[1]) == 1


@pytest.mark.parametrize("path", ["/live", "/live?state=faulted", "/projects/default/live", "/jobs/1/live"])
def test_a_page_that_stays_open_does_nothing_while_nothing_changes(tmp_path: Path, path: str) -> None:
    node = opened(tmp_path)
    add_job(node)
    with serving(node) as url, Work(node) as work, httpx.stream("GET", f"{url}{path}", timeout=60) as live:
        parts = live.iter_text()
        next(parts)
        node.tallies.forget()
        _looked(node)
        work.take()
        _looked(node)
        assert work.take() == ([], [])
        with node.engine.begin() as connection:
            connection.execute(JOB.update().values(ended="faulted", error="broken"))
        assert "broken" in next(parts)
        node.stop.set()


def _looked(node: RunningNode, times: int = 3) -> None:
    """Wait until every open page has looked so often whether anything has changed."""
    looks, enough = 0, threading.Event()

    def look(*given: Any) -> None:
        nonlocal looks
        looks += given[2] == LOOK_AT_SQLITE
        if looks >= times:
            enough.set()

    event.listen(node.engine, "before_cursor_execute", look)
    wait_until(enough.is_set)
    event.remove(node.engine, "before_cursor_execute", look)


def test_how_far_a_run_is_shows_though_the_database_does_not_change(tmp_path: Path) -> None:
    node = opened(tmp_path)
    job = add_job(node, state=JobState.RUNNING, ended="", stopped_at=None)
    run = node.folder / "runs" / str(job)
    run.mkdir(parents=True)
    made_by = DefinitionRecord(name="default", file="default.toml", sha256="0")
    operators = {name: OperatorRecord(image="lung") for name in ("first", "second")}
    manifest = Manifest(fingerprint="", started="", definition=made_by, operators=operators)
    write_manifest(manifest, run)
    with serving(node) as url, httpx.Client(base_url=url) as client, Work(node) as work:
        _noted(node, client, "/", f"/jobs/{job}")
        for done in range(3):
            assert f"{done} of 2" in client.get("/").text
            assert client.get(f"/jobs/{job}").text.count("state done") == done
            work.take()
            client.get("/")
            client.get(f"/jobs/{job}")
            assert work.take() == ([], [])
            if done < 2:
                operators[("first", "second")[done]].state = State.DONE
                write_manifest(manifest, run)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_node(tmp_path_factory.mktemp("apart")) as node:
        yield node


def test_nobody_is_shown_what_was_made_for_another(apart: Shared) -> None:
    """Whoever came before, everybody is shown what they would be shown if they had come first."""
    pages_of_all(apart)
    warm = pages_of_all(apart)
    with patch.object(SharedParts, "_place", lambda *_: _Place()):
        assert warm == pages_of_all(apart)
    for (person, _), (_, text) in warm.items():
        assert set(FORM_TOKENS.findall(text)) <= {form_token_of(apart.cookies[person])}
    shown = {text for status, text in warm.values() if status == 200}
    assert len(shown) > 2 * len(apart.cookies)  # pages differ by person: their names stand on them


def pages_of_all(apart: Shared) -> dict[tuple[str, str], tuple[int, str]]:
    """What everybody is answered, by who asks and for what."""
    paths = ["/", "/?state=faulted"]
    for name, held in apart.held.items():
        paths += [f"/projects/{name}", f"/jobs/{held.job}"]
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for person in apart.cookies:
        with apart.person(person) as client:
            answers = {path: client.get(path) for path in paths}
        found |= {(person, path): (answer.status_code, answer.text) for path, answer in answers.items()}
    return found


def test_a_part_is_made_for_somebody_of_whom_only_the_rights_are_known() -> None:
    whole = Caller(name="ann", role=Role.READER, form_token="a", session="s", roles={"alpha": Role.OPERATOR})
    known = {name for name, value in dataclasses.asdict(nameless(whole)).items() if value == getattr(whole, name)}
    assert known == {"role", "roles"}
    assert PagePart(html=f"<{nameless(whole).form_token}>").of(whole) == "<a>"


def test_parts_that_were_not_shown_for_long_are_forgotten(tmp_path: Path) -> None:
    made: list[int] = []
    parts = SharedParts(opened(tmp_path).version)

    def show(number: int) -> None:
        def make(_: object) -> PagePart:
            made.append(number)
            return PagePart(html="")

        parts.part(number, make)

    for number in [*range(MOST_PAGE_PARTS), 0, MOST_PAGE_PARTS, 0, 1]:
        show(number)
    assert made == [*range(MOST_PAGE_PARTS), MOST_PAGE_PARTS, 1]


def test_many_who_are_shown_the_same_wait_for_one_who_makes_it(tmp_path: Path) -> None:
    parts, gate, made = SharedParts(opened(tmp_path).version), threading.Barrier(8), list[int]()

    def make(_: object) -> PagePart:
        made.append(1)
        return PagePart(html="")

    def show() -> None:
        gate.wait()
        parts.part("one", make)

    threads = [threading.Thread(target=show) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_series_that_wait_are_read_once_whatever_jobs_are_asked_for(tmp_path: Path) -> None:
    node = opened(tmp_path)
    add_job(node)
    with serving(node) as url, httpx.Client(base_url=url) as client, Work(node) as work:
        _noted(node, client, "/")
        client.get("/")
        work.take()
        assert client.get("/?state=faulted").status_code == 200
        statements, parts = work.take()
        assert len(parts) == 1
        assert [one for one in statements if "FROM arrival" in one] == []
        with node.engine.begin() as connection:
            row = {"series_uid": "2.25.77", "study_uid": "2.25.7", "source": "scanner", "sender": "CT1"}
            connection.execute(ARRIVAL.insert(), row | {"state": "arriving", "first_at": NOON, "last_at": NOON})
        assert "2.25.77" in client.get("/?state=faulted").text
