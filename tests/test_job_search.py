"""Jobs are searched for as a PACS user expects: by date, description, UID, source, warnings; page by page, all once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextvars import copy_context
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, expect
from sqlalchemy import Engine, insert, update

from carina.cli.jobs import jobs
from carina.database import JOB, open_database, seeing, upgrade_schema
from carina.errors import BadConfig
from carina.jobs.filtering import JobFilter
from carina.jobs.listing import Job, JobOrder, count_jobs, list_jobs
from carina.jobs.scan import KnownScan, scan_columns
from carina.service.node import RunningNode
from carina.service.pages.counted import found_jobs
from carina.service.pages.worklist import SEARCH_FIELDS
from databases import new_database
from project_nodes import Shared, shared_node
from served_nodes import NOON, add_job, opened, serving

FIRST = date(2026, 3, 1)
STATES = ("pending", "running", "healthy", "faulted")
TEXTS = ("Thorax nativ", "THORAX 1.0 B60f", "Größe 100%", "", "head_neck")
PROJECTS = ("a", "b")


def row(number: int) -> dict[str, Any]:
    """A job of a table in which every filter finds some and leaves some out."""
    shown = STATES[number % 4]
    scan = KnownScan(
        study_uid=f"1.2.{number % 5}",
        study_date=(FIRST + timedelta(days=number * 7 % 11)).isoformat() if number % 6 else "",
        study_description=TEXTS[number % 5],
        series_description=TEXTS[number * 3 % 4],
    )
    is_over = shown in ("healthy", "faulted")
    return {
        "project": PROJECTS[number % 3 == 0],
        "source": f"/in/{number}",
        "pipeline": "default" if number % 7 else "other",
        "folder": f"runs/{number}",
        "state": "stopped" if is_over else shown,
        "ended": shown if is_over else "",
        "reading": "unread" if shown == "healthy" else "",
        "series_uid": f"1.2.{number % 5}.{number % 3}",
        "received_by": f"s{number % 2}",
        "warnings": number % 3 if shown == "healthy" else 0,
        "priority": 1,
        "memory_mb": 1.0,
        "cores": 1.0,
        "created_at": NOON,
        **scan_columns(scan, scan.words),
    }


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = open_database(f"sqlite:///{tmp_path_factory.mktemp('search') / 'node.sqlite'}")
    else:
        made = open_database(new_database(request.getfixturevalue("postgresql"), "search"))
    upgrade_schema(made)
    with made.begin() as connection:
        connection.execute(insert(JOB), [row(number) for number in range(60)])
    yield made
    made.dispose()


def is_wanted(job: Job, filtered: JobFilter) -> bool:
    texts = (job.described or "", job.study_description, job.series_description)
    return all(
        (
            not filtered.states or job.shown_state in filtered.states,
            filtered.reading in ("", job.reading),
            filtered.pipeline in ("", job.pipeline),
            filtered.received_by in ("", job.received_by),
            filtered.uid in ("", job.study_uid, job.series_uid),
            is_within(job.study_date, filtered.studied_from, filtered.studied_to),
            any(filtered.description.casefold() in text.casefold() for text in texts),
            not filtered.is_warned or job.warnings > 0,
        )
    )


def is_within(day: str, first: date | None, last: date | None) -> bool:
    if first is None and last is None:
        return True
    return bool(day) and (first or date.min) <= date.fromisoformat(day) <= (last or date.max)


DAYS = st.none() | st.integers(-2, 12).map(lambda days: FIRST + timedelta(days=days))


def in_order(first: date | None, last: date | None, **more: Any) -> JobFilter:
    """A filter by dates, which must not be swapped."""
    first, last = (first, last) if first is None or last is None else (min(first, last), max(first, last))
    return JobFilter(studied_from=first, studied_to=last, **more)


FILTERS = st.builds(
    in_order,
    states=st.lists(st.sampled_from(STATES), max_size=2, unique=True),
    reading=st.sampled_from(["", "", "unread"]),
    pipeline=st.sampled_from(["", "default", "other"]),
    received_by=st.sampled_from(["", "s0", "s1", "gone"]),
    uid=st.sampled_from(["", "", "1.2.3", "1.2.3.1", "1.2"]),
    first=DAYS,
    last=DAYS,
    description=st.sampled_from(["", "thorax", "GRÖSSE", "0%", "d_n", "2026-03-0", "x"]),
    is_warned=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(filtered=FILTERS, order=st.sampled_from(JobOrder), seen=st.sampled_from([None, "a", "ab"]), data=st.data())
def test_page_by_page_every_job_that_is_wanted_is_found_once(
    engine: Engine, filtered: JobFilter, order: JobOrder, seen: str | None, data: st.DataObject
) -> None:
    looked_at, at_most = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    narrow = engine if seen is None else seeing(engine, frozenset(seen))
    with narrow.connect() as connection, pytest.MonkeyPatch.context() as patch:
        every = list_jobs(connection, at_most=1000, order=order).jobs
        patch.setattr("carina.jobs.listing.ROWS_LOOKED_AT", looked_at)
        found: list[int] = []
        before, pages = None, 0
        while pages == 0 or before is not None:
            page = list_jobs(connection, filtered, before=before, at_most=at_most, order=order)
            found += [job.id for job in page.jobs]
            before, pages = page.next, pages + 1
            assert pages <= 2 * len(every) + 2
    assert found == [job.id for job in every if is_wanted(job, filtered)]


@settings(max_examples=40, deadline=None)
@given(filtered=FILTERS, seen=st.sampled_from(["a", "ab"]))
def test_as_many_are_counted_as_are_found(engine: Engine, filtered: JobFilter, seen: str) -> None:
    with seeing(engine, frozenset(seen)).connect() as connection:
        counted = count_jobs(connection, filtered)
        found = list_jobs(connection, filtered, at_most=1000).jobs
    assert counted is not None and +Counter(counted) == Counter(job.shown_state for job in found)


def test_a_text_is_looked_for_in_some_rows_at_a_time_and_what_is_left_is_said(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carina.jobs.listing.ROWS_LOOKED_AT", 20)
    with engine.connect() as connection:
        page = list_jobs(connection, JobFilter(description="nowhere"))
        assert (page.jobs, page.next) == ((), 41)
        assert list_jobs(connection, JobFilter(description="nowhere"), before=21).next == 1
        assert list_jobs(connection, JobFilter(description="nowhere"), before=1).next is None


# A node


@pytest.fixture
def node(tmp_path: Path) -> RunningNode:
    node = opened(tmp_path, '[sources.ward]\nkind = "dicom"\nae_title = "WARD"\n')
    for number, words in enumerate(("Thorax 1.0", "Abdomen")):
        scan = KnownScan(study_uid=f"1.2.{number}", study_date=f"2026-03-0{number + 1}", series_description=words)
        more: dict[str, Any] = {"ratio_percent": 4.153, "is_classified": 0} if number else {}
        more |= {"warnings": 2, "first_warning": "Two slices <b>missing</b>."} if number else {}
        add_job(node, received_by="ward" if number else "", **scan_columns(scan, scan.words), **more)
    return node


QUERIES = [
    ("studied_from=2026-03-02", [2]),
    ("studied_to=2026-03-01", [1]),
    ("studied_from=2026-03-01&studied_to=2026-03-02", [2, 1]),
    ("description=thorax", [1]),
    ("uid=1.2.1", [2]),
    ("received_by=ward", [2]),
    ("is_warned=true", [2]),
    ("state=healthy&uid=1.2.0&description=ABDOMEN", []),
]


@pytest.mark.parametrize(("query", "found"), QUERIES)
def test_page_and_interface_find_the_same(node: RunningNode, query: str, found: list[int]) -> None:
    with serving(node) as url:
        page = httpx.get(f"{url}/?{query}").text
        told = httpx.get(f"{url}/api/v1/jobs?{query}").json()
        assert [one for one in (2, 1) if f'id="job-{one}"' in page] == [one["id"] for one in told["jobs"]] == found


TALLIES = [
    ("description=thorax", [1, 0, 0, 1, 0, 0], "1 job found."),
    ("description=thorax&state=faulted", [1, 0, 0, 1, 0, 0], ""),
    ("studied_from=2026-03-01&state=healthy&reading=unread", [2, 0, 0, 2, 0, 0], "1 job found."),
    ("state=healthy", [2, 0, 0, 2, 0, 0], "2 jobs found."),
    ("", [2, 0, 0, 2, 0, 0], ""),
]


@pytest.mark.parametrize(("query", "numbers", "words"), TALLIES)
def test_numbers_beside_a_search_are_of_the_search(
    node: RunningNode, query: str, numbers: list[int], words: str
) -> None:
    with node.engine.begin() as connection:
        connection.execute(update(JOB).where(JOB.c.id == 2).values(reading="unread"))
    with serving(node) as url:
        page = httpx.get(f"{url}/?{query}").text
    tally = page.split('aria-label="Jobs by state"')[1].split("</ul>")[0]
    assert [int(one) for one in re.findall(r"<b>(\d+)</b>", tally)] == numbers
    assert re.findall(r"[\w ,]* jobs? found\.", page) == [words] * bool(words)


@pytest.mark.parametrize(
    ("wanted", "by_state", "words"),
    [
        (JobFilter(received_by="s0"), 0, "More than 20 jobs found."),
        (JobFilter(received_by="s0", states=("healthy",)), 0, "15 jobs found."),
        (JobFilter(pipeline="other", reading="unread"), 9, "2 jobs found."),
        (JobFilter(reading="unread"), 7, "15 jobs found."),
        (JobFilter(description="thorax"), 0, ""),
    ],
)
def test_of_many_jobs_it_is_only_said_that_they_are_many(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, wanted: JobFilter, by_state: int, words: str
) -> None:
    monkeypatch.setattr("carina.jobs.listing.ROWS_LOOKED_AT", 40)
    for place in ("carina.jobs.listing", "carina.service.pages.counted"):
        monkeypatch.setattr(f"{place}.MOST_COUNTED", 20)
    with engine.connect() as connection:
        found = found_jobs(connection, wanted, {"healthy": 7})
    assert (sum(found.by_state.values()), found.words) == (by_state, words)


WRONG = [
    (
        "studied_from=1.3.2026",
        "studied_from",
        "\u201c1.3.2026\u201d is no date: choose one, or write it as 2026-03-04.",
    ),
    (
        "studied_to=2026-02-30",
        "studied_to",
        "\u201c2026-02-30\u201d is no date: choose one, or write it as 2026-03-04.",
    ),
    (
        "studied_from=2026-03-02&studied_to=2026-03-01",
        "studied_to",
        "This day is before the first one: swap the two dates.",
    ),
    ("uid=" + "1" * 65, "uid", "A UID has 64 characters at most, and this is longer: copy the whole UID of one study"),
    ("state=%3Cb%3E", "state", "There is no choice \u201c&lt;b&gt;\u201d here: choose another."),
    (
        "description=" + "x" * 201,
        "description",
        "This is longer than 200 characters: a part of a description is enough.",
    ),
    ("order=best", "order", "There is no choice \u201cbest\u201d here: choose another."),
    ("received_by=" + "x" * 65, "received_by", "The name of a source has 64 characters at most"),
    ("is_warned=perhaps", "", "There is no choice \u201cperhaps\u201d here: choose another."),
    ("reading=read", "", "There is no choice \u201cread\u201d here: choose another."),
    ("before=x", "", "\u201cx\u201d is no job from which on to list: begin with the first page."),
]


def told_beside(page: str, field: str, words: str) -> bool:
    """Whether a page says it beside a field, and of no other; or above the list, which is not there."""
    said = f'<span class="bad" id="wrong-{field}">{words}' if field else f"<p>{words}</p>"
    marks = [page.count("aria-invalid"), page.count(f'aria-describedby="wrong-{field}"')]
    is_there = said in page and 'id="live"' not in page and marks == [int(bool(field))] * 2
    return is_there and ("see beside the field" in page) is bool(field)


def test_what_is_wrong_with_a_search_stands_beside_the_field(node: RunningNode) -> None:
    with serving(node) as url:
        for query, field, words in WRONG:
            for place in ("/", "/projects/default"):
                answer = httpx.get(f"{url}{place}?{query}")
                assert answer.status_code == 400
                assert told_beside(answer.text, field, words), query
            for path in ("/live", "/projects/default/live", "/api/v1/jobs"):
                assert httpx.get(f"{url}{path}?{query}").status_code == 400
        both = httpx.get(f"{url}/?{WRONG[2][0]}&{WRONG[3][0]}").text
        assert 'id="wrong-studied_to"' in both and 'id="wrong-uid"' in both
        assert "swap the two dates" in httpx.get(f"{url}/api/v1/jobs?{WRONG[2][0]}").json()["detail"]
        assert httpx.get(f"{url}/?patient_id=1").status_code == 400


def test_every_value_of_a_search_has_its_place(node: RunningNode) -> None:
    """What is wrong with a field of the form is said beside it, with all others above the list."""
    with serving(node) as url:
        page = httpx.get(url).text
    shown = set(re.findall(r'<(?:input|select)(?! type="(?:hidden|checkbox)")[^>]* name="(\w+)" id="filter-', page))
    assert shown - {"project"} == SEARCH_FIELDS


def test_a_row_says_its_warnings_and_its_ratio(node: RunningNode) -> None:
    with serving(node) as url:
        page = " ".join(httpx.get(url).text.split())
    assert '<span class="late" title="Two slices &lt;b&gt;missing&lt;/b&gt;.">2 warnings</span>' in page
    assert "4.15 % of the lungs marked, not classified" in page
    assert page.count("of the lungs marked") == 1 == page.count(" warnings</span>")


def test_the_command_line_finds_the_same(node: RunningNode, tmp_path: Path) -> None:
    for words, found in (
        (["--from", "2026-03-02"], "2"),
        (["--to", "2026-03-01"], "1"),
        (["--description", "THORAX"], "1"),
        (["--uid", "1.2.1", "--source", "ward", "--warnings"], "2"),
    ):
        command = ["list", "--config", str(tmp_path / "carina.toml"), *words]
        done = copy_context().run(CliRunner().invoke, jobs, command)
        assert done.exit_code == 0, done.output
        assert [line.split()[0] for line in done.output.splitlines()[1:]] == [found]
    swapped = ["list", "--config", str(tmp_path / "carina.toml"), "--from", "2026-03-02", "--to", "2026-03-01"]
    with pytest.raises(BadConfig, match=r"from 2026-03-02 to 2026-03-01 .*: swap the two dates"):
        copy_context().run(CliRunner().invoke, jobs, swapped, catch_exceptions=False)
    assert "4.15" in done.output and "2026-03-02, Abdomen" in done.output


def test_without_scripts_the_form_searches_and_its_address_can_be_shared(browser: Browser, node: RunningNode) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 800})
    with serving(node) as url:
        page = context.new_page()
        page.goto(url)
        page.get_by_label("Study date from").fill("2026-03-02")
        page.get_by_label("Description").fill("  abdomen ")
        page.get_by_text("More", exact=True).click()
        page.get_by_label("Study or series UID").fill("1.2.1")
        page.locator("#filter-source").select_option("ward")
        page.get_by_label("with warnings only").check()
        page.get_by_role("button", name="Show", exact=True).click()
        shown = page.locator("th [id^=job-]")
        expect(shown).to_have_text(["2"])
        again = context.new_page()
        again.goto(page.url)
        expect(again.get_by_label("Study or series UID")).to_have_value("1.2.1")
        expect(again.get_by_label("with warnings only")).to_be_checked()
        again.locator("#filter-state").select_option("failed")
        again.get_by_role("button", name="Show", exact=True).click()
        expect(again.get_by_text("No job is like this.")).to_be_visible()
        again.get_by_role("link", name="Show all.").click()
        expect(again.locator("th [id^=job-]")).to_have_text(["2", "1"])
    context.close()


def test_who_sees_one_project_finds_nothing_of_another_by_any_word(tmp_path: Path) -> None:
    with shared_node(tmp_path) as shared:
        secret = KnownScan(study_uid="2.25.9", study_date="2026-03-04", series_description="bravo's own")
        values = {**scan_columns(secret, "hidden"), "received_by": "bravo-scanner", "warnings": 3}
        with shared.node.engine.begin() as connection:
            connection.execute(update(JOB).where(JOB.c.project == "bravo").values(values))
        theirs = _found(shared, "reader of bravo")
        assert all(theirs.values()), theirs
        assert not any(_found(shared, "reader of alpha").values())
        assert not any(_found(shared, "member").values())


def _found(shared: Shared, person: str) -> dict[str, int]:
    """How many rows each search for something of bravo's finds."""
    asked = ("uid=2.25.9", "description=own", "description=hidden", "received_by=bravo-scanner", "is_warned=1")
    queries = [*asked, "studied_from=2026-03-04&studied_to=2026-03-04", "uid=2.25.9&project=bravo"]
    client = shared.person(person)
    return {one: client.get(f"/?{one}", follow_redirects=True).text.count('id="job-') for one in queries}
