"""Rows of the worklist: true at once whatever changes, nobody's text is HTML, and each may press what is theirs."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import Table, delete, insert, update

from carina.config import Priority
from carina.corrections.standing import Decision
from carina.database import ARRIVAL, DELIVERY, INSTANCE, JOB, REMOVAL
from carina.deliver.ledger import DeliveryState
from carina.jobs.listing import Job
from carina.jobs.queue import JobEnd, JobState
from carina.jobs.reading import Decided, Reading
from carina.receive.store import ArrivalState
from carina.service.arrivals import Arrival
from carina.service.node import RunningNode
from carina.service.pages.deliveries import Sending
from carina.service.pages.job_rows import JobRow, RunProgress
from carina.service.pages.state_words import READING_WORDS, STATE_WORDS
from carina.service.rest.job_pages import ShownState
from project_nodes import Shared, shared_node
from served_nodes import NOON, add_job, opened, serving

LATER = NOON + timedelta(days=1)
SAID = '"decision": "rejected", "reader": "Ann", "at": "2026-05-04T12:00:00Z", "reason": "leaks"'
DECISION = f'[{{"layer": "lung", {SAID}}}]'
FAULTED = {"ended": "faulted", "error": "broken", "error_code": "x.y"}
PENDING = {"state": "pending", "ended": "", "started_at": None, "stopped_at": None}

SHOWN: Mapping[str, tuple[Mapping[str, Any], object, str]] = {
    "state": (PENDING | {"state": "running"}, "pending", 'state waiting"'),
    "ended": ({}, "canceled", "canceled"),
    "priority": (PENDING, 0, "priority immediate"),
    "project": ({}, "other", 'project <a href="/projects/other">other</a>'),
    "pipeline": ({}, "another", "pipeline another"),
    "source": ({"described": None, "arrival_id": None}, "/in/named", "named"),
    "series_uid": ({}, "2.25.123456789012345", "series &hellip;456789012345"),
    "supersedes": ({}, 1, "supersedes job 1"),
    "arrival_id": ({}, None, "by path"),
    "created_at": (PENDING, LATER, "came 2026-03-05"),
    "started_at": ({}, NOON - timedelta(minutes=7), "7 min 00 s"),
    "stopped_at": ({}, LATER, "24 h 00 min"),
    "not_before": (PENDING, LATER, "tried again at 2026-03-05"),
    "error_code": (FAULTED, "other.code", "other.code"),
    "error": (FAULTED, "slice 7 is missing.", "Slice 7 is missing."),
    "reading": ({}, "unread", 'state unread">to read'),
    "decisions": ({"reading": "rejected"}, DECISION, "lung rejected by Ann, 2026-05-04 12:00: leaks"),
    "described": ({}, "2026-05-04, Thorax 2.0", "Thorax 2.0"),
    "warnings": ({}, 3, "3 warnings"),
    "first_warning": ({"warnings": 1}, "thick slices", 'title="thick slices"'),
    "ratio_percent": ({}, 12.5, "12.5 % of the lungs marked"),
    "reader_ratio_percent": ({}, 7.25, "<b>7.25 %</b> of the lungs marked, corrected by a reader"),
    "is_classified": ({}, 0, "not classified"),
}
"""By the field of a job: what of its columns is as it is before, to what it changes, and what its row says then."""

NOT_SHOWN = {"id", "folder", "destinations", "attempt", "crashes", "retries", "worker", "memory_mb", "cores"} | {
    "received_by",  # the sender is
    "study_uid",
    "study_date",  # what the job is called says it
    "study_description",
    "series_description",
    "modality",
}

BESIDE: Mapping[str, tuple[Table, Mapping[str, Any], str]] = {
    "sender": (ARRIVAL, {"sender": "CT7"}, "from CT7"),
    "sent": (DELIVERY, {"state": "sent"}, "0 of 1 confirmed, 1 sent"),
    "confirmed": (DELIVERY, {"state": "confirmed"}, "1 of 1 confirmed"),
    "failed": (DELIVERY, {"state": "failed", "error": "PACS (a:1) has no room. Ask."}, "Has no room"),
    "put off": (
        DELIVERY,
        {"not_before": LATER, "error_code": "delivery.unreachable", "error": "PACS (a:1) is away. Ask."},
        "Is away",
    ),
    "destination": (DELIVERY, {"destination": "archive"}, "archive: "),
}
"""What a row says of other tables: what is changed there, and what it says then."""


@dataclasses.dataclass(kw_only=True)
class Watched:
    """A served node with a job, and the row of it as the page that everybody is shown says it."""

    node: RunningNode
    client: httpx.Client
    job: int

    @property
    def row(self) -> str:
        text = self.client.get("/").raise_for_status().text
        found = re.search(rf'<tr id="row-of-job-{self.job}">(.*?)</tr>', text, re.DOTALL)
        assert found
        return found[1]

    def change(self, table: Table, values: Mapping[str, Any]) -> None:
        of_job = {JOB: JOB.c.id == self.job, DELIVERY: DELIVERY.c.job_id == self.job, ARRIVAL: ARRIVAL.c.id == 1}
        with self.node.engine.begin() as connection:
            connection.execute(update(table).where(of_job[table]).values(**values))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    node = opened(tmp_path)
    came = {"id": 1, "series_uid": "2.25.4", "study_uid": "2.25.3", "source": "scanner", "sender": "CT1"}
    with node.engine.begin() as connection:
        connection.execute(insert(ARRIVAL), came | {"state": "queued", "first_at": NOON, "last_at": NOON})
    add_job(node)
    job = add_job(node, arrival_id=1, started_at=NOON, described="Thorax")
    sent = {"job_id": job, "destination": "PACS", "sop_class_uid": "1.2", "sop_instance_uid": "1.3", "path": "x"}
    with node.engine.begin() as connection:
        connection.execute(insert(DELIVERY), sent | {"state": "waiting", "created_at": NOON})
        connection.exec_driver_sql("insert into project (name, created_at) values ('other', '2026-01-01 00:00:00')")
    with serving(node) as url, httpx.Client(base_url=url) as client:
        client.get("/")  # which is written to the audit trail
        yield Watched(node=node, client=client, job=job)


def test_each_field_of_a_job_is_known_to_be_in_its_row_or_not() -> None:
    assert SHOWN.keys() | NOT_SHOWN == set(Job.__struct_fields__)
    assert not SHOWN.keys() & NOT_SHOWN


@pytest.mark.parametrize("field", SHOWN)
def test_a_row_says_at_once_what_of_its_job_has_changed(watched: Watched, field: str) -> None:
    first, changed, words = SHOWN[field]
    watched.change(JOB, {"described": "Thorax", **first})
    assert words not in watched.row
    watched.change(JOB, {field: changed})
    assert words in watched.row


@pytest.mark.parametrize("what", BESIDE)
def test_a_row_says_at_once_what_has_changed_of_its_series_and_its_deliveries(watched: Watched, what: str) -> None:
    table, values, words = BESIDE[what]
    before = watched.row
    assert words not in before
    watched.change(table, values)
    assert words in watched.row


def test_a_row_says_at_once_that_more_instances_came_and_that_the_results_were_removed(watched: Watched) -> None:
    assert "0 instances from CT1" in watched.row
    one = {"arrival_id": 1, "source": "scanner", "sop_instance_uid": "1.2.3", "sop_class_uid": "1.2", "bytes": 1}
    with watched.node.engine.begin() as connection:
        one |= {"transfer_syntax_uid": "1.2", "sha256": "0", "path": "incoming/1/1.dcm", "accepted_at": NOON}
        connection.execute(insert(INSTANCE), one)
    assert "1 instance from CT1" in watched.row
    assert f'href="/jobs/{watched.job}/view/"' in watched.row
    with watched.node.engine.begin() as connection:
        gone = {"kind": "run", "subject_id": watched.job, "why": "older than 90 days", "begun_at": NOON}
        connection.execute(insert(REMOVAL), gone)
    assert "results removed" in watched.row
    assert f'href="/jobs/{watched.job}/view/"' not in watched.row
    with watched.node.engine.begin() as connection:
        connection.execute(delete(REMOVAL))
    assert "results removed" not in watched.row


HOSTILE = "<img src=x onerror=\"alert('&')\">"


def hostile(kind: Any, **given: Any) -> Any:
    """A struct each text of which is HTML that must not be: whatever is given, and of all else what is no text."""
    texts = {field.name: HOSTILE for field in msgspec.structs.fields(kind) if field.type is str}
    nothing = {field.name: None for field in msgspec.structs.fields(kind) if field.name not in texts}
    return kind(**nothing | texts | given)


@pytest.mark.parametrize("shown", STATE_WORDS)
@pytest.mark.parametrize("reading", ["", *Reading])
@pytest.mark.parametrize("percent", [None, 0.001])
def test_no_text_of_anybody_is_html_in_a_row(shown: str, reading: str, percent: float | None) -> None:
    decided = [hostile(Decided, decision=one, correction=0, at=NOON, painters=(HOSTILE,)) for one in Decision]
    is_over = shown in set(JobEnd)
    times = {"created_at": NOON, "started_at": NOON, "stopped_at": NOON}
    state = {"state": JobState.STOPPED if is_over else JobState(shown), "ended": shown if is_over else ""}
    numbers = {"id": 7, "attempt": 1, "crashes": 0, "retries": 0, "memory_mb": 1.0, "cores": 1.0, "warnings": 2}
    read = {"reading": reading, "decisions": tuple(decided), "ratio_percent": 0.001, "reader_ratio_percent": percent}
    job = hostile(
        Job,
        **numbers,
        **state,
        **times,
        **read,
        priority=Priority.NORMAL,
        destinations=(HOSTILE,),
        described=HOSTILE,
        is_classified=True,
        supersedes=3,
    )
    arrival = hostile(Arrival, id=1, state=ArrivalState.QUEUED, instances=2, first_at=NOON, last_at=NOON)
    row = JobRow(
        job=job,
        series=HOSTILE,
        series_end=HOSTILE,
        is_uploaded=False,
        arrival=arrival,
        progress=RunProgress(done=1, operators=2, busy=HOSTILE),
        deliveries={HOSTILE: Sending(states=dict.fromkeys(DeliveryState, 1), why=HOSTILE)},
    )
    told = row.cells(is_project_named=True)
    assert "<img" not in told and 'onerror="' not in told
    assert told.count("&lt;img") >= 8
    tags = set(re.findall(r"<(/?\w*)", told))
    assert tags <= {f"{end}{tag}" for end in ("", "/") for tag in ("td", "span", "a", "b", "p", "br", "progress")}


def test_every_state_and_reading_has_its_word_in_rows() -> None:
    assert (set(STATE_WORDS), set(READING_WORDS)) == (set(ShownState), set(Reading))


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_node(tmp_path_factory.mktemp("rows")) as node:
        yield node


EVERYWHERE = {"member": False, "reader": True, "operator": True, "admin": True}
"""Who sees the rows of every project."""


def test_rows_have_the_buttons_and_ticks_of_whoever_looks_and_are_of_their_projects(apart: Shared) -> None:
    """Asked for in turn, and once more in the other order: what was made for one is not shown to another."""
    for person in [*apart.cookies, *reversed(apart.cookies)]:
        role, _, project = person.partition(" of ")
        sees = {project} if project else set(apart.held) if EVERYWHERE[role] else set()
        rows = pending_rows(apart, person)
        assert rows.keys() == sees, person
        for name, row in rows.items():
            may_press = role in ("operator", "admin")
            shown = {what: what in row for what in ('id="priority-', 'id="cancel-', "tick-job", "/projects/")}
            told = {'id="priority-': may_press, 'id="cancel-': may_press}
            told |= {"tick-job": may_press and not project, "/projects/": not project}
            assert shown == told, (person, name)


def pending_rows(apart: Shared, person: str) -> dict[str, str]:
    """The rows of the jobs that wait, as somebody is shown them, by project."""
    with apart.person(person) as client:
        text = client.get("/").raise_for_status().text
    found = {
        name: re.search(rf'<tr id="row-of-job-{held.pending}">(.*?)</tr>', text, re.DOTALL)
        for name, held in apart.held.items()
    }
    return {name: row[1] for name, row in found.items() if row}


BY_READER = "of the lungs marked, corrected by a reader"
BY_BOTH = f"{BY_READER} (lesion correction 1 and lung correction 2"


def decided_json(**numbers: tuple[int, ...]) -> str:
    """What is stored of readers' last words about masks, the newest first, of corrections of these numbers."""
    words = {"decision": "accepted", "reader": "Ann", "at": "2026-05-04T12:00:00Z"}
    return json.dumps([words | {"layer": layer, "correction": one} for layer in numbers for one in numbers[layer]])


RATIOS: list[tuple[dict[str, Any], str]] = [
    ({"reading": "unread", "ratio_percent": 4.153}, "4.15 % of the lungs marked"),
    ({"reading": "rejected", "ratio_percent": 4.153}, "4.15 % of the lungs marked by the network"),
    ({"reading": "corrected", "ratio_percent": 4.153}, "4.15 % of the lungs marked by the network"),
    *(
        ({"reading": reading, "ratio_percent": 4.153, "reader_ratio_percent": 3.1}, words)
        for reading in ("corrected", "accepted")
        for words in ("<b>3.10 %</b> of the lungs marked, corrected by a reader (4.15 % by the network)",)
    ),
    ({"reading": "corrected", "reader_ratio_percent": 0.0}, "<b>0 %</b> of the lungs marked, corrected by a reader"),
    *(
        (
            {"reading": "corrected", "reader_ratio_percent": 3.1, "decisions": decisions} | beside,
            f"<b>3.10 %</b> {words}",
        )
        for decisions, beside, words in (
            (decided_json(lung=(2, 1), lesion=(0, 1)), {"ratio_percent": 4.153}, f"{BY_BOTH}; 4.15 % by the network)"),
            (decided_json(lung=(2,), lesion=(1,)), {}, f"{BY_BOTH})"),
            (decided_json(lung=(1,), lesion=(0,)), {}, f"{BY_READER} (lung correction 1)"),
        )
    ),
    ({"reading": "unread"}, ""),
]


def test_a_row_gives_the_ratio_that_holds_and_says_whose_it_is(tmp_path: Path) -> None:
    node = opened(tmp_path)
    words = {add_job(node, is_classified=0, **values): said for values, said in RATIOS}
    with serving(node) as url:
        rows = " ".join(httpx.get(url).text.split()).split('id="row-of-job-')[1:]
    found = {int(row.partition('"')[0]): row for row in rows}
    for number, said in words.items():
        assert f'<span class="line fine">{said}{", " if said else ""}not classified</span>' in found[number]
