"""Pages say in short why results are not where they belong, and the report of a run where they went."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path

import httpx
import pytest
from sqlalchemy import insert, update

from carina.api.result import Run
from carina.database import DELIVERY, JOB
from carina.pipeline.manifest import OperatorRecord, State, write_manifest
from carina.service.node import RunningNode
from carina.service.pages.deliveries import LONGEST_REASON, short_reason
from carina.service.viewer.server import run_app
from served_nodes import NOON, add_job, opened, serving
from test_node_pages import text_of
from viewer_runs import posed, served, write_run

SETTINGS = """
[destinations.share]
kind = "folder"
path = "{results}"
[destinations.PACS]
kind = "dicom"
host = "127.0.0.1"
port = 4242
ae_title = "ARCHIVE"
"""

AWAY = "PACS (ARCHIVE@127.0.0.1:4242) can't be reached: nothing answers there. Check address, port and AE titles."
SHORT = "can't be reached: nothing answers there"


@pytest.fixture
def node(tmp_path: Path) -> RunningNode:
    return opened(tmp_path, SETTINGS.format(results=tmp_path / "results"))


@pytest.fixture
def url(node: RunningNode) -> Iterator[str]:
    with serving(node) as address:
        yield address


def deliver(node: RunningNode, job: int, name: str = "PACS", **values: object) -> None:
    with node.engine.begin() as connection:
        number = connection.execute(insert(DELIVERY).returning(DELIVERY.c.id), row_of(job, name)).scalar_one()
        if values:
            connection.execute(update(DELIVERY).where(DELIVERY.c.id == number).values(**values))
            connection.execute(
                update(DELIVERY).where(DELIVERY.c.id == number).values(sop_instance_uid=f"2.25.{number}")
            )
    node.tallies.forget()


def row_of(job: int, name: str) -> dict[str, object]:
    row = {"job_id": job, "destination": name, "sop_class_uid": "1.2", "sop_instance_uid": f"2.25.0.{job}"}
    return row | {"path": f"runs/{job}/x.dcm", "state": "waiting", "created_at": NOON}


def put_off(node: RunningNode, job: int, code: str = "delivery.unreachable", error: str = AWAY) -> None:
    deliver(node, job, error_code=code, error=error, not_before=NOON + timedelta(minutes=1))


def test_all_that_waits_for_a_destination_that_is_away_says_so(node: RunningNode, url: str) -> None:
    tried, behind = add_job(node), add_job(node)
    put_off(node, tried)
    deliver(node, behind)
    deliver(node, behind, "share", state="confirmed")
    page = text_of(httpx.get(url).text)
    said = f"0 of 1 confirmed, 1 waiting {SHORT[0].upper()}{SHORT[1:]}"
    assert page.count(said) == 2, "each of the jobs"
    assert f"0 of 2 confirmed, 2 waiting not reached {SHORT[0].upper()}{SHORT[1:]}" in page, "the destination"
    assert "share: 1 of 1 confirmed share" not in page and "1 of 1 confirmed Can't" not in page
    for job in (tried, behind):
        assert AWAY in text_of(httpx.get(f"{url}/jobs/{job}").text)


def test_what_befell_one_job_is_not_said_of_another(node: RunningNode, url: str) -> None:
    refused, waiting = add_job(node), add_job(node)
    put_off(node, refused, "delivery.refused", "out of resources (A700)")
    deliver(node, waiting)
    page = text_of(httpx.get(url).text)
    assert page.count("Out of resources (A700)") == 1
    assert "Out of resources" not in text_of(httpx.get(f"{url}/jobs/{waiting}").text)


def test_why_something_failed_for_good_is_said(node: RunningNode, url: str) -> None:
    words = "runs/1/x.dcm of the node was damaged or changed after its run: its SHA-256 is 1, expected 2; run it again."
    deliver(node, add_job(node), state="failed", error_code="delivery.damaged", error=words)
    page = text_of(httpx.get(url).text)
    assert "1 failed runs/1/x.dcm of the node was damaged or changed after its run: its" in page


def test_what_failed_for_good_is_said_before_what_waits(node: RunningNode, url: str) -> None:
    job = add_job(node)
    deliver(node, job, state="failed", error_code="delivery.refused", error="0xA900, it does not match")
    put_off(node, job)
    row = httpx.get(url).text.partition('data-name="Deliveries"')[2].partition("</td>")[0]
    assert "0xA900, it does not match" in row and SHORT[1:] not in unescape(row)


@pytest.mark.parametrize(
    ("message", "short"),
    [
        (AWAY, SHORT),
        ("share: folder /srv can't be written (Read-only): make it writable.", None),
        ("said to be stored, not found later: it is sent again", None),
        ("PACS (", "PACS ("),
        ("", ""),
    ],
)
def test_a_reason_is_the_first_sentence_without_the_destination(message: str, short: str | None) -> None:
    assert short_reason(message, "PACS") == (message.removesuffix(".") if short is None else short)


def test_a_long_reason_is_cut_between_words() -> None:
    short = short_reason("word " * 40, "PACS")
    assert len(short) <= LONGEST_REASON and short.endswith("word ...")


def test_the_report_of_a_job_says_where_its_results_went(node: RunningNode, url: str) -> None:
    job = add_job(node)
    write_run(posed("plain", (24, 48, 48)), node.folder / "runs" / str(job))
    assert sent_line(f"{url}/jobs/{job}/view/report") == "nothing: this job has no destination"
    with node.engine.begin() as connection:
        connection.execute(update(JOB).values(destinations='["share", "PACS"]'))
    deliver(node, job, "share", state="confirmed")
    assert sent_line(f"{url}/jobs/{job}/view/report") == "share: 1 of 1 confirmed PACS: nothing yet"
    put_off(node, job)
    said = f"PACS: 0 of 1 confirmed, 1 waiting: {SHORT} share: 1 of 1 confirmed"
    assert sent_line(f"{url}/jobs/{job}/view/report") == said


def test_the_page_of_a_job_says_the_same_of_its_results_as_the_report(node: RunningNode, url: str) -> None:
    job = add_job(node)
    run = Run(write_run(posed("plain", (24, 48, 48)), node.folder / "runs" / str(job)))
    manifest = run.manifest
    manifest.operators["send-lung-seg"] = OperatorRecord(image="send", state=State.DONE, facts={"deliveries": []})
    write_manifest(manifest, run.folder)
    for destinations in ("[]", '["share", "PACS"]'):
        with node.engine.begin() as connection:
            connection.execute(update(JOB).values(destinations=destinations))
        report, page = f"{url}/jobs/{job}/view/report", f"{url}/jobs/{job}"
        assert sent_line(page) == sent_line(report) != ""
        for address in (report, page):
            row = httpx.get(address).text.partition('<th scope="row">send-lung-seg</th>')[2].partition("</tr>")[0]
            assert "handed to delivery" in row and "done" not in row


def test_the_report_of_a_folder_says_what_the_run_itself_sent(tmp_path: Path) -> None:
    run = Run(write_run(posed("plain", (24, 48, 48)), tmp_path / "run"))
    with served(run_app(run.folder)) as address:
        assert sent_line(f"{address}/report") == "nothing by the run itself"
    manifest = run.manifest
    manifest.settings["destinations"] = ["PACS", "share"]
    write_manifest(manifest, run.folder)
    with served(run_app(run.folder)) as address:
        assert sent_line(f"{address}/report") == "by the run itself, to PACS, share"


def sent_line(address: str) -> str:
    page = httpx.get(address).text
    assert "<dt>Destinations" not in page
    return text_of(unescape(page).partition("<dt>Sent</dt>")[2].partition("</dd>")[0])
