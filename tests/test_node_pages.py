"""The node's pages: what stands on them, what their buttons do, and a real browser that watches a job come and end."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from html import unescape
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import insert, update

from carina import RESEARCH_ONLY
from carina.database import DELIVERY, JOB, seeing
from carina.jobs.listing import jobs_under
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord, State, write_manifest
from carina.service.local_time import seconds_words
from carina.service.loops import Part
from carina.service.node import RunningNode
from carina.service.pipelines import offered_pipelines
from carina.service.problems import as_sentence
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from carina.web_settings import DEFAULT_PROJECT
from served_nodes import NOON, add_job, hold, opened, serving

SETTINGS = """
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
[destinations.share]
kind = "folder"
path = "{results}"
"""

WHY = "slices 12 and 13 are 7.5 mm apart, others 2.5 mm: two slices are missing; send the series again."


@dataclass(frozen=True, kw_only=True)
class Pages:
    """A served node with a job of each kind."""

    node: RunningNode
    url: str
    jobs: dict[str, int]
    arrival: int
    client: httpx.Client = field(default_factory=httpx.Client)

    def get(self, path: str) -> str:
        return self.client.get(self.url + path).text

    def press(self, **fields: object) -> httpx.Response:
        return self.client.post(f"{self.url}/act", data={name: str(value) for name, value in fields.items()})

    def change(self, which: str, /, **values: object) -> None:
        with self.node.engine.begin() as connection:
            connection.execute(update(JOB).where(JOB.c.id == self.jobs[which]).values(**values))


def idle(stop: threading.Event) -> None:
    stop.wait()


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Pages]:
    node = opened(tmp_path, SETTINGS.format(results=tmp_path / "results"))
    node.parts.append(Part("jobs", idle, stop=node.stop))
    node.parts[0].start()
    settings = SeriesSettings(description="Chest <script>alert(1)</script>", patient_id="SECRET-7")
    files = write_ct_series(
        chest_phantom(shape=(6, 64, 64), lesions=0, seed=5).volume, tmp_path / "ct", settings=settings
    )
    arrival = hold(node, files)
    ended = {"started_at": NOON, "stopped_at": NOON + timedelta(seconds=75)}
    jobs = {
        "healthy": add_job(node, arrival, **ended),
        "faulted": add_job(node, arrival, ended="faulted", error_code="series.gap", error=WHY, **ended),
        "running": add_job(node, arrival, state="running", ended="", started_at=NOON, stopped_at=None, attempt=1),
        "pending": add_job(node, arrival, state="pending", ended="", stopped_at=None),
    }
    with serving(node) as url:
        yield Pages(node=node, url=url, jobs=jobs, arrival=arrival)


def text_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def write_progress(pages: Pages, *states: State, job: int = 0, seconds: float = 0.0) -> None:
    operators = {f"operator-{number}": OperatorRecord(image="x", state=state) for number, state in enumerate(states)}
    manifest = Manifest(
        fingerprint="", started="", definition=DefinitionRecord(name="d", file="f", sha256=""), operators=operators
    )
    manifest.state, manifest.seconds = State.DONE, seconds
    folder = pages.node.folder / "runs" / str(job or pages.jobs["running"])
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(manifest, folder)


def test_the_worklist_says_of_each_job_what_it_is_and_why(pages: Pages) -> None:
    write_progress(pages, State.DONE, State.SKIPPED, State.WAITING, State.WAITING)
    page = pages.get("/")
    text = text_of(page)
    assert "4 all 1 waiting 1 running 1 done 1 failed 0 canceled" in text
    assert f"{as_sentence(WHY)} series.gap" in text
    assert "2 of 4" in text
    assert "1 min 15 s" in text
    assert "6 instances from SCANNER@127.0.0.1" in text
    assert text.count(RESEARCH_ONLY) == 2


WITHOUT_RESULTS: list[tuple[str, dict[str, object], str]] = [
    ("faulted", {}, f"Job {{}} failed before it had any result: {WHY}"),
    ("faulted", {"ended": "canceled"}, "Job {} was canceled before it had any result."),
    ("running", {}, "Job {} has no results yet: it runs."),
    ("pending", {}, "Job {} has no results yet: it waits."),
    ("healthy", {"attempt": 1}, "Job {} has no results here: its run is not in "),
]


def test_where_a_job_has_no_results_its_view_says_why_and_leads_to_the_job(pages: Pages) -> None:
    for which, change, words in WITHOUT_RESULTS:
        pages.change(which, priority=1, **change)
        job = pages.jobs[which]
        for name in ("", "report", "changes", "correct/lesion"):
            answer = pages.client.get(f"{pages.url}/jobs/{job}/view/{name}")
            assert answer.status_code == 404 and words.format(job) in text_of(answer.text)
            main = answer.text.partition("<main")[2]
            assert re.findall(r'<a href="([^"]+)">([^<]+)', main) == [(f"/jobs/{job}", f"Job {job}")]


def test_a_job_says_how_long_it_took_and_how_long_of_that_it_computed(pages: Pages) -> None:
    healthy = pages.jobs["healthy"]
    write_progress(pages, State.DONE, job=healthy, seconds=61.0)
    said = text_of(pages.get(f"/jobs/{healthy}"))
    assert "after 1 min 15 s ; computing took 1 min 01 s, the rest is the start of the run" in said.replace("s;", "s ;")


@pytest.mark.parametrize("path", ["/", "/projects", "/projects/default", "/jobs/{}"])
def test_no_page_says_a_state_in_a_word_that_reads_as_a_finding(pages: Pages, path: str) -> None:
    for job in pages.jobs.values() if "{}" in path else [0]:
        assert not re.search(r"\b(healthy|faulted|pending)\b", text_of(pages.get(path.format(job))))


def test_a_page_repeats_what_it_was_sent_as_text_and_names_no_patient(pages: Pages) -> None:
    for path in ("/", f"/jobs/{pages.jobs['running']}"):
        page = pages.get(path)
        assert "<script>alert" not in page
        assert "SECRET-7" not in page
        assert " style=" not in page and " onclick=" not in page
    assert "Chest &lt;script&gt;alert(1)&lt;/script&gt;" in pages.get("/")


def test_what_is_wrong_with_the_input_is_said_without_where_the_node_keeps_it(pages: Pages) -> None:
    content = pages.node.folder / "uploads" / ("a" * 32) / "content"
    words = "its only file is neither DICOM nor a volume file; expected a DICOM file."
    job = add_job(
        pages.node, source=str(content), ended="faulted", error_code="series.none", error=f"{content}: {words}"
    )
    for path in ("/", f"/jobs/{job}"):
        told = text_of(pages.get(path))
        assert as_sentence(words) in told
        assert f"{content}:" not in told


def test_filters_and_pages_part_the_jobs_by_key(pages: Pages) -> None:
    for number in range(60):
        add_job(pages.node, pages.arrival, ended="canceled" if number % 2 else "healthy")
    first = pages.get("/?state=canceled")
    assert len(re.findall(r'id="job-\d+"', first)) == 30
    first = pages.get("/")
    older = unescape(re.search(r'href="([^"]+)" rel="next"', first)[1])  # type: ignore[index]
    ids = [int(one) for page in (first, pages.get(older)) for one in re.findall(r'id="job-(\d+)"', page)]
    assert ids == sorted(range(1, 65), reverse=True)


def test_the_worklist_is_sorted_and_filtered_by_its_form(browser: Browser, pages: Pages) -> None:
    other = offered_pipelines(pages.node.settings)[1]
    others = [add_job(pages.node, pages.arrival, pipeline=other if number % 2 else "x") for number in range(60)][1::2]
    page = browser.new_page()
    shown, show = page.locator("th [id^=job-]"), page.get_by_role("button", name="Show", exact=True)
    page.goto(pages.url)
    page.get_by_label("First the").select_option("oldest")
    show.click()
    expect(shown.first).to_have_text("1")
    first = shown.all_inner_texts()
    page.get_by_role("link", name="Newer").click()
    expect(shown.first).to_have_text("51")
    assert [*first, *shown.all_inner_texts()] == [str(number) for number in range(1, 65)]
    page.locator("#filter-pipeline").select_option(other)
    show.click()
    expect(shown.first).to_have_text(str(others[0]))
    assert shown.all_inner_texts() == [str(number) for number in others]
    page.get_by_role("link", name="canceled").click()
    expect(page.get_by_text("No job is like this.")).to_be_visible()
    page.close()


@pytest.mark.parametrize("query", ["state=nope", "before=x", "colour=red", "before=-1"])
def test_a_part_of_the_worklist_that_is_none_is_refused(pages: Pages, query: str) -> None:
    for path in ("/", "/live"):
        assert pages.client.get(f"{pages.url}{path}?{query}").status_code == 400


def test_a_uid_leads_to_the_latest_results_on_it(pages: Pages) -> None:
    with pages.node.engine.begin() as connection:
        connection.execute(update(JOB).values(series_uid="1.2.7", study_uid="1.2.8"))
    again = add_job(pages.node, series_uid="1.2.7", study_uid="1.2.8")  # an upload has no arrival
    write_progress(pages, State.DONE, job=again)
    for path in ("/series/1.2.7?at=lesion-2", "/studies/1.2.8?at=lesion-2"):
        assert pages.client.get(pages.url + path).headers["location"] == f"/jobs/{again}/view/?at=lesion-2"
    with seeing(pages.node.engine, frozenset({DEFAULT_PROJECT})).connect() as connection:
        found = jobs_under(connection, series="1.2.7"), jobs_under(connection, study="1.2.8")
    assert [jobs[0].id for jobs in found] == [again, again]
    add_job(pages.node, series_uid="1.2.9", ended="canceled")
    faulted = add_job(pages.node, series_uid="1.2.9", ended="faulted")
    assert pages.client.get(f"{pages.url}/series/1.2.9").headers["location"] == f"/jobs/{faulted}"
    for path in ("/series/1.2.8", "/studies/1.2.7"):
        assert "no series of this UID was run here" in pages.get(path)


def test_buttons_change_jobs_and_come_back(pages: Pages) -> None:
    token = pages.node.token
    for what, state, choice in (
        ("priority", "pending", "immediate"),
        ("cancel", "pending", ""),
        ("retry", "faulted", ""),
    ):
        answer = pages.press(token=token, what=what, id=pages.jobs[state], choice=choice, back="/?state=pending")
        assert (answer.status_code, answer.headers["location"]) == (303, "/?state=pending")
    assert "1 waiting 1 running 1 done 0 failed 1 canceled" in text_of(pages.get("/"))


def test_a_job_that_is_run_again_has_not_begun(pages: Pages) -> None:
    faulted = pages.jobs["faulted"]
    assert "1 min 15 s" in text_of(pages.get("/?state=faulted"))
    pages.press(token=pages.node.token, what="retry", id=faulted, back="/")
    pages.press(token=pages.node.token, what="cancel", id=faulted, back="/")
    told = text_of(pages.get("/?state=canceled"))
    assert "canceled" in told and " came " in told and " min " not in told and " s none" not in told


@pytest.mark.parametrize("ended", ["healthy", "faulted", "canceled", ""])
def test_an_operator_that_a_job_never_came_to_waits_only_as_long_as_the_job_does(pages: Pages, ended: str) -> None:
    job = add_job(pages.node, ended=ended, state="stopped" if ended else "pending")
    write_progress(pages, State.DONE, State.INTERRUPTED, State.WAITING, job=job)
    rows = re.findall(r"operator-\d</th><td[^>]*>(.*?)</td>", pages.get(f"/jobs/{job}"))
    assert list(map(text_of, rows)) == ["done", "interrupted", "not run" if ended else "waiting"]


def test_a_button_that_does_not_fit_says_why_and_leads_back(pages: Pages) -> None:
    answer = pages.press(token=pages.node.token, what="cancel", id=pages.jobs["healthy"], back="/?state=healthy")
    assert answer.status_code == 409
    assert f"Job {pages.jobs['healthy']} has ended: only what waits or runs is canceled." in text_of(answer.text)
    assert 'href="/?state=healthy"' in answer.text


def test_echo_and_sending_again_say_what_came_of_it(pages: Pages) -> None:
    row = {"job_id": pages.jobs["healthy"], "destination": "share", "sop_class_uid": "1.2", "sop_instance_uid": "1.3"}
    with pages.node.engine.begin() as connection:
        connection.execute(insert(DELIVERY), row | {"path": "x", "state": "failed", "created_at": NOON})
    assert "0 of 1 confirmed, 1 failed" in text_of(pages.get("/")).replace(" ,", ",")
    token = pages.node.token
    assert "Destination share answers." in text_of(pages.press(token=token, what="echo", name="share").text)
    assert "1 object will be sent again" in text_of(pages.press(token=token, what="resend", name="share").text)
    assert "nope" in text_of(pages.press(token=token, what="echo", name="nope").text)


@pytest.mark.parametrize("token", ["", "wrong", "é" * 20])
def test_a_form_without_the_nodes_token_does_nothing(pages: Pages, token: str) -> None:
    answer = pages.press(token=token, what="cancel", id=pages.jobs["pending"])
    assert answer.status_code in (400, 403)
    assert "1 waiting" in text_of(pages.get("/"))


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_a_form_leads_back_to_this_node_only(pages: Pages, back: str) -> None:
    answer = pages.press(token=pages.node.token, what="cancel", id=pages.jobs["pending"], back=back)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


# A real browser


@pytest.fixture
def shown(browser: Browser, pages: Pages) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda one: said.append(one.url) if not one.url.startswith(pages.url) else None)
    page.goto(pages.url)
    yield page
    page.close()
    assert said == []


def test_the_page_follows_a_job_to_its_end(shown: Page, pages: Pages) -> None:
    row = shown.get_by_role("row").filter(has=shown.locator(f"#job-{pages.jobs['running']}"))
    expect(row).to_contain_text("running")
    write_progress(pages, State.DONE, State.DONE, State.WAITING)
    expect(row).to_contain_text("2 of 3")
    pages.change("running", state="stopped", ended="healthy", stopped_at=NOON + timedelta(seconds=5))
    expect(row).to_contain_text("done")
    expect(shown.get_by_role("link", name="2 done")).to_be_visible()


def test_the_keyboard_changes_a_priority_and_cancels(shown: Page, pages: Pages) -> None:
    job = pages.jobs["pending"]
    choice = shown.get_by_label(f"Priority of job {job}")
    choice.focus()
    choice.press("Home")
    shown.keyboard.press("Tab")
    shown.keyboard.press("Enter")
    row = shown.get_by_role("row").filter(has=shown.locator(f"#job-{job}"))
    expect(row).to_contain_text("priority low")
    expect(row.get_by_role("button", name="Set")).to_be_focused()
    shown.get_by_role("button", name=f"Cancel job {job}").press("Enter")
    expect(row).to_contain_text("before it began")
    expect(row.get_by_role("button", name="Run again")).to_be_focused()


def test_without_scripts_the_worklist_is_whole_and_its_buttons_work(browser: Browser, pages: Pages) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages.url)
    page.get_by_role("button", name=f"Run again: job {pages.jobs['faulted']}").click()
    expect(page.get_by_role("link", name="2 waiting")).to_be_visible()
    context.close()


def test_a_node_that_is_gone_is_said(browser: Browser, pages: Pages) -> None:
    page = browser.new_page()
    page.route("**/live**", lambda route: route.abort())
    page.goto(pages.url)
    expect(page.locator("#connection")).to_contain_text("The node does not answer")
    page.close()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0.0 s"), (0.04, "0.0 s"), (0.4, "0.4 s"), (59.4, "59 s"), (75, "1 min 15 s"), (3661, "1 h 01 min")],
)
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    assert seconds_words(seconds) == words
