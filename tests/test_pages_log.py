"""The log of a job, as a page and as text, for those who run jobs."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape

import pytest

from access_nodes import Guarded, guarded
from carina import RESEARCH_ONLY
from served_nodes import add_job

SAID = "attempt 1 begins <b>\n\tat once\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("logs")) as served:
        yield served


@pytest.fixture
def job(node: Guarded) -> int:
    """One whose second attempt has said nothing yet."""
    made = add_job(node.node, node.arrival, attempt=2)
    write_log(node, made, SAID)
    return made


def write_log(node: Guarded, job: int, text: str) -> None:
    log = node.node.folder / "logs" / f"job-{job}-1.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text(text)


def test_a_log_is_a_page_like_others_that_leads_back(node: Guarded, job: int) -> None:
    with node.person("operator") as client:
        page = client.get(f"/jobs/{job}/log").text
    assert f"<title>Log of job {job} - Carina</title>" in page
    assert page.count(RESEARCH_ONLY) == 2
    assert f'<a href="/jobs/{job}">Job {job}</a>' in page
    assert "only the end is shown" not in page
    assert unescape(page.partition('<pre class="log">')[2].partition("</pre>")[0]) == "\n" + SAID
    assert ("operator.one", "looked", f"log of job {job}") in node.trail()


def test_scripts_get_the_text_alone(node: Guarded, job: int) -> None:
    answer = node.program("operator").get(f"/jobs/{job}/log.txt")
    assert (answer.text, answer.headers["content-type"]) == (SAID, "text/plain; charset=utf-8")
    assert ("token operator.program", "looked", f"log of job {job}") in node.trail()


def test_of_a_long_log_the_end_is_shown_and_that_is_said(node: Guarded, job: int) -> None:
    write_log(node, job, "first" + "x" * 200_000 + "last")
    with node.person("operator") as client:
        page, text = client.get(f"/jobs/{job}/log").text, client.get(f"/jobs/{job}/log.txt").text
    assert "only the end is shown" in page
    assert len(text) == 200_000 and text.endswith("last") and "first" not in text


@pytest.mark.parametrize("name", ["log", "log.txt"])
def test_a_log_is_for_those_who_run_jobs(node: Guarded, job: int, name: str) -> None:
    for role, status in {"reader": 403, "operator": 200, "admin": 200}.items():
        with node.person(role) as client:
            assert client.get(f"/jobs/{job}/{name}").status_code == status


@pytest.mark.parametrize("name", ["log", "log.txt"])
def test_a_job_without_a_log_says_so(node: Guarded, name: str) -> None:
    with node.person("operator") as client:
        answer = client.get(f"/jobs/{node.job}/{name}")
    assert answer.status_code == 404
    assert f"ob {node.job} has no log: it has not begun: no worker has taken it." in answer.text
