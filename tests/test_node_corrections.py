"""A mask of a node's job corrected over HTTP: the object is entered for sending, and the audit trail says who."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from html import unescape
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import insert, update

from access_nodes import Guarded, guarded
from called import called
from carina.api.result import Run
from carina.corrections.decisions import decide
from carina.corrections.finish import Draft, finish
from carina.corrections.masks import MaskName, network_mask
from carina.corrections.standing import Decision
from carina.corrections.voxel_runs import runs_of_flags
from carina.database import AUDIT, DELIVERY, JOB
from carina.service.viewer.correcting import CorrectingPages
from corrected_nodes import Served, correctable_job
from served_nodes import NOON
from viewer_runs import posed, write_run


@pytest.fixture
def served_job(tmp_path: Path) -> Iterator[Served]:
    with correctable_job(tmp_path) as served:
        yield served


def test_a_correction_is_finished_sent_once_and_noted(served_job: Served) -> None:
    marks = np.zeros(network_mask(served_job.run, MaskName.LESION).labels.shape, np.bool_)
    marks[10:14, 20:30, 6:12] = True
    stroke = {"revision": 0, "id": "one", "reader": "Jane Doe", "tool": "brush", "runs": runs_of_flags(marks)}
    stored = served_job.post("strokes", **stroke)
    assert stored.json()["revision"] == 1
    assert served_job.post("strokes", **stroke).json() == stored.json()
    overtaken = served_job.post("strokes", **{**stroke, "id": "two"})
    assert overtaken.json()["code"] == "corrections.overtaken"
    done = served_job.post("decision", revision=1, reader="Jane Doe", decision="corrected")
    assert done.json() == {"said": "The lesion mask is corrected."}
    assert "Corrected by Jane Doe" in httpx.get(served_job.url).text
    check_sent_once(served_job)
    check_delivery(served_job)
    check_audit(served_job)
    told = httpx.get(f"{served_job.node_url}/agreement/").text
    assert f'href="/jobs/{served_job.job}/view/correct/lesion"' in told
    assert "Jane Doe" in told


def test_where_a_correction_is_sent_or_why_it_is_not_stands_beside_it(served_job: Served) -> None:
    served_job.decided("corrected", served_job.paint(0))
    told = httpx.get(served_job.url).text
    assert 'aria-label="Send correction 1 to share"' in told and "<b>Send</b> takes it to share;" in told
    with served_job.node.engine.begin() as connection:
        connection.execute(update(JOB).values(destinations="[]"))
    told = httpx.get(served_job.url).text
    assert "data-send" not in told and "This job has no destination, so its objects are not sent." in told
    refused = served_job.post("send", number=1)
    assert (refused.status_code, refused.json()["code"]) == (409, "corrections.nowhere")


def test_what_a_reader_rejected_is_not_sent_until_it_is_accepted(served_job: Served) -> None:
    revision = 0

    def decided(decision: str) -> list[bool]:
        nonlocal revision
        revision = served_job.paint(revision) if decision == "corrected" else revision
        served_job.decided(decision, revision)
        told = httpx.get(served_job.url).text
        return ['data-send="1"' in told, "rejected by Jane Doe</strong>" in told]

    shown = [decided(decision) for decision in ("corrected", "rejected", "accepted", "rejected", "corrected")]
    assert shown == [[True, False], [False, True], [True, False], [False, True], [False, True]]
    refused = served_job.post("send", number=1).json()
    assert refused["code"] == "corrections.rejected"
    assert "correction 1 of the lesion mask was rejected by Jane Doe, so it is not sent" in refused["detail"]
    assert served_job.post("send", number=2).status_code == 200
    assert len(served_job.rows(DELIVERY)) == 1


def test_a_correction_that_a_later_one_replaced_is_not_sent(served_job: Served) -> None:
    for number in range(3):
        served_job.decided("corrected", served_job.paint(number))
    told = httpx.get(served_job.url).text
    assert re.findall(r'data-send="(\d)"|replaced by (\d)', told) == [("3", ""), ("", "3"), ("", "2")]
    for number in (1, 2):
        refused = served_job.post("send", number=number)
        assert (refused.status_code, refused.json()["code"]) == (409, "corrections.replaced")
        words = f"correction {number} of the lesion mask was replaced by correction 3: send that one."
        assert refused.json()["detail"] == words
    assert not served_job.rows(DELIVERY)
    assert served_job.post("send", number=3).status_code == 200


def test_what_is_rejected_while_it_waits_is_not_sent_any_more(served_job: Served) -> None:
    decided = partial(served_job.decided, revision=served_job.paint(0))
    decided("corrected")
    assert served_job.post("send", number=1).status_code == 200
    assert decided("rejected") == "The lesion mask is rejected. Correction 1, which waited for share, is not sent."
    assert not served_job.rows(DELIVERY)
    assert "lesion-1 withdrawn from share" in str(served_job.rows(AUDIT))
    decided("accepted")
    assert served_job.post("send", number=1).json() == {"said": "It will be sent to share."}
    with served_job.node.engine.begin() as connection:
        connection.execute(update(DELIVERY).values(attempts=1))
    assert "is not sent" not in decided("rejected"), "the destination may have it"
    assert len(served_job.rows(DELIVERY)) == 1


@pytest.mark.parametrize("is_killed", [False, True], ids=["at once", "killed before it was taken back"])
def test_what_is_replaced_while_it_waits_is_not_sent_any_more(
    served_job: Served, monkeypatch: pytest.MonkeyPatch, *, is_killed: bool
) -> None:
    replaced = "Correction 1, which waited for share, is not sent: correction 2 is in its place"
    served_job.decided("corrected", served_job.paint(0))
    assert served_job.post("send", number=1).json() == {"said": "It will be sent to share."}
    if is_killed:
        with monkeypatch.context() as dying:
            dying.setattr(CorrectingPages, "_withdrawn", lambda *_: "")
            served_job.decided("corrected", served_job.paint(1))
    else:
        assert replaced in served_job.decided("corrected", served_job.paint(1))
        assert not served_job.rows(DELIVERY)
    said = served_job.post("send", number=2).json()["said"]
    assert said.startswith("It will be sent to share.") and (replaced in said) == is_killed
    assert [Path(row.path).parts[3] for row in served_job.rows(DELIVERY)] == ["lesion-2"]
    assert f"job {served_job.job}: lesion-1 withdrawn from share" in [row.subject for row in served_job.rows(AUDIT)]


def test_a_replaced_correction_that_was_begun_to_be_sent_is_not_taken_back(served_job: Served) -> None:
    served_job.decided("corrected", served_job.paint(0))
    served_job.post("send", number=1).raise_for_status()
    with served_job.node.engine.begin() as connection:
        connection.execute(update(DELIVERY).values(attempts=1))
    assert "is not sent" not in served_job.decided("corrected", served_job.paint(1))
    assert len(served_job.rows(DELIVERY)) == 1


def test_a_mask_that_nobody_changed_is_not_finished(served_job: Served) -> None:
    def refused(revision: int) -> str:
        answer = served_job.post("decision", revision=revision, reader="Roe", decision="corrected")
        assert (answer.status_code, answer.json()["code"]) == (409, "corrections.unchanged")
        return str(answer.json()["detail"])

    def finished() -> list[str]:
        return sorted(path.name for path in (served_job.run.folder / "corrections").glob("lesion-*"))

    assert "as the network left it, so there is nothing to finish" in refused(0)
    painted = served_job.paint(0)
    undo = {"id": "back", "reader": "Jane Doe", "tool": "undo"}
    assert served_job.post("strokes", revision=painted, **undo).json()["revision"] == 2
    assert "as the network left it" in refused(2)
    assert finished() == []
    served_job.decided("corrected", painted := served_job.paint(2))
    for decision in ("corrected", "rejected", "accepted"):
        if decision != "corrected":
            served_job.decided(decision, painted)
        assert "as correction 1 of Jane Doe left it" in refused(painted)
    assert finished() == ["lesion-1"]


def check_sent_once(served_job: Served) -> None:
    assert 'data-send="1"' in httpx.get(served_job.url).text
    assert served_job.post("send", number=1).json() == {"said": "It will be sent to share."}
    shown = httpx.get(served_job.url).text
    assert "sent: share: waiting" in shown and "data-send" not in shown
    assert served_job.post("send", number=1).json() == {"said": "It was entered for sending before."}


def check_audit(served_job: Served) -> None:
    subjects = [row.subject for row in served_job.rows(AUDIT) if row.action == "corrected"]
    assert subjects == [
        f"job {served_job.job}: lesion mask {what} (correction 1)" for what in ("corrected", "sent", "sent")
    ]


def check_delivery(served_job: Served) -> None:
    assert [row.reading for row in served_job.rows(JOB)] == ["corrected"]
    (delivery,) = served_job.rows(DELIVERY)
    path = served_job.node.folder / delivery.path
    assert path.parts[-4:] == ("corrections", "lesion-1", "dicom", "lesion-seg.dcm")
    assert dcmread(path).ContentCreatorName == "Doe^Jane"


@pytest.mark.parametrize(
    ("what", "asked", "status", "words"),
    [
        ("strokes", {"tool": "brush"}, 400, "required field"),
        ("strokes", {"revision": 0, "id": "a", "reader": "x", "tool": "pen"}, 400, "Invalid enum value 'pen'"),
        ("strokes", {"revision": 0, "id": "a", "reader": "x", "tool": "brush", "runs": [3]}, 400, "start and length"),
        ("strokes", {"revision": 0, "id": "a", "reader": "x", "tool": "undo"}, 400, "no stroke to undo"),
        ("strokes", {"revision": 0, "id": "a", "reader": " ", "tool": "brush"}, 400, "give your name first"),
        ("decision", {"revision": 3, "reader": "x", "decision": "accepted"}, 409, "changed elsewhere"),
        ("send", {"number": 1}, 409, "no object of this correction"),
    ],
)
def test_what_can_not_be_done_is_said_and_changes_nothing(
    served_job: Served, what: str, asked: dict[str, object], status: int, words: str
) -> None:
    answer = served_job.post(what, **asked)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.json()["detail"]
    assert not list((served_job.run.folder / "corrections").glob("*.strokes"))


def test_a_form_of_another_site_paints_nothing(served_job: Served) -> None:
    body = b'{"revision": 0, "id": "a", "reader": "x", "tool": "brush", "runs": [0, 1]}'
    plain = httpx.post(f"{served_job.url}/strokes", content=body, headers={"Content-Type": "text/plain"})
    assert (plain.status_code, plain.json()["code"]) == (400, "corrections.body")
    foreign = {"Content-Type": "application/json", "Origin": "http://elsewhere.example"}
    assert httpx.post(f"{served_job.url}/strokes", content=body, headers=foreign).status_code == 403
    assert not (served_job.run.folder / "corrections").exists()


@pytest.mark.parametrize("layer", ["heart", "%2e%2e"])
def test_another_mask_than_those_of_a_run_is_not_there(served_job: Served, layer: str) -> None:
    url = f"{served_job.url.removesuffix('lesion')}{layer}/mask.json"
    assert httpx.get(url).status_code == 404


def test_with_a_log_in_nothing_is_recorded_under_another_s_name_than_the_page_s(tmp_path: Path) -> None:
    with guarded(tmp_path) as node:
        folder = node.node.folder / "runs" / str(node.job)
        phantom = posed("plain", (24, 48, 48))
        write_run(replace(phantom, lesion=replace(phantom.lesion, names={1: "COVID-19 lesion"})), folder)
        with node.node.engine.begin() as connection:
            values = {"folder": f"runs/{node.job}", "destinations": '["share"]'}
            connection.execute(update(JOB).where(JOB.c.id == node.job).values(**values))
        url = f"/jobs/{node.job}/view/correct/lesion"
        stroke = {"revision": 0, "id": "a", "reader": "reader.one", "tool": "brush", "runs": [0, 5]}
        same = {"sec-fetch-site": "same-origin", "origin": node.url}
        assert node.person(None, **same).post(f"{url}/strokes", json=stroke).status_code == 401
        assert node.person("reader").post(f"{url}/strokes", json=stroke).status_code == 403
        reader = node.person("reader", **same)
        left_open = {"reader": "Somebody Else"}
        for what, asked in {"strokes": stroke, "decision": {"revision": 0, "decision": "rejected"}}.items():
            refused = reader.post(f"{url}/{what}", json=asked | left_open)
            assert (refused.status_code, refused.json()["code"]) == (409, "corrections.another-reader")
            assert "this page is that of Somebody Else, and reader.one is logged in now" in refused.json()["detail"]
        assert reader.post(f"{url}/strokes", json=stroke).json()["revision"] == 1
        assert reader.post(f"{url}/send", json={"number": 1}).status_code == 403
        (line,) = (folder / "corrections" / "lesion.strokes").read_text().splitlines()[1:]
        assert not (folder / "corrections" / "decisions").exists()
        check_who_is_offered_to_send(node, Run(folder), url)
    assert '"reader":"reader.one"' in line


def check_who_is_offered_to_send(node: Guarded, run: Run, url: str) -> None:
    labels = network_mask(run, MaskName.LESION).labels
    finish(run, Draft(layer=MaskName.LESION, labels=labels, revision=0, reader="Ann", at=NOON), None)
    written = run.folder / "corrections" / "lesion-1" / "correction.json"

    def told() -> list[bool]:
        pages = [unescape(node.person(role).get(url).text) for role in ("reader", "operator")]
        others = ["An operator of the job's project sends it to share." in page for page in pages]
        refused = ["What a reader rejected is not sent until it is accepted." in page for page in pages]
        return [*others, "<b>Send</b> takes it to share;" in pages[1], "data-send" in pages[1], *refused]

    assert told() == [False] * 6  # there is no object
    written.write_text(json.dumps(json.loads(written.read_text()) | {"seg_uid": "1.2.3"}))
    assert told() == [True, False, True, True, False, False]
    decide(run, MaskName.LESION, Decision.REJECTED, "Rob", NOON)
    assert told() == [False, False, False, False, True, True]
    row = {"job_id": node.job, "destination": "share", "sop_class_uid": "1.2", "sop_instance_uid": "1.2.3"}
    row |= {"path": "x/lesion-seg.dcm", "state": "confirmed", "created_at": NOON}
    with node.node.engine.begin() as connection:
        connection.execute(insert(DELIVERY), row)
    assert told() == [False] * 6
    decide(run, MaskName.LESION, Decision.ACCEPTED, "Rob", NOON)
    assert told() == [False] * 6


def test_every_page_of_a_mask_says_that_nobody_looked_at_the_other_one(served_job: Served) -> None:
    def unread() -> list[str]:
        pages = [httpx.get(served_job.url.replace("lesion", layer)).text for layer in ("lesion", "lung")]
        return [re.search('id="unread"[^>]*>([^<]*)<', page)[1] for page in pages]  # type: ignore[index]

    words = "No reader has looked at the {} mask yet.".format
    assert unread() == [words("lung"), words("lesion")]
    served_job.decided("accepted", 0)
    assert unread() == [words("lung"), ""]
    decide(served_job.run, MaskName.LUNG, Decision.REJECTED, "Rob", NOON)
    assert unread() == ["", ""]


FAILED = {"state": "failed", "error_code": "delivery.damaged", "error": "damaged"}


def resent(served_job: Served, **asked: object) -> httpx.Response:
    return httpx.post(f"{served_job.node_url}/api/v1/deliveries/resend", json=asked, timeout=60)


@pytest.mark.parametrize("asked", [{}, {"destination": "share"}, {"job": 1}], ids=["all", "destination", "job"])
@pytest.mark.parametrize("how", ["replaced", "rejected"])
def test_a_failed_delivery_of_a_correction_that_does_not_hold_is_not_sent_again_by_hand(
    served_job: Served, how: str, asked: dict[str, object]
) -> None:
    """By REST, on the page or by command: refused alone, and left where it is beside what can be sent."""
    served_job.decided("corrected", revision := served_job.paint(0))
    served_job.post("send", number=1).raise_for_status()
    with served_job.node.engine.begin() as connection:
        connection.execute(update(DELIVERY).values(**FAILED))
    if how == "replaced":
        served_job.decided("corrected", served_job.paint(revision))
        why = "replaced by correction 2, and is not sent to share: send that one."
    else:
        served_job.decided("rejected", revision)
        why = "rejected by Jane Doe, and is not sent to share: finish one that holds, or accept this one again."
    words = f"correction 1 of the lesion mask of job {served_job.job} was {why}"
    refused = resent(served_job, **asked)
    assert (refused.status_code, refused.json()["detail"]) == (409, words)
    done = called("deliveries", "resend", folder=served_job.node.folder.parent)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1) and words in done.stderr
    with served_job.node.engine.begin() as connection:
        row = {"job_id": served_job.job, "destination": "share", "sop_class_uid": "1.2", "sop_instance_uid": "1.2.9"}
        connection.execute(insert(DELIVERY), row | {"path": "runs/1/object.dcm", "created_at": NOON, **FAILED})
    assert resent(served_job, **asked).json() == {"deliveries": 1, "refused": [words]}
    states = {Path(row.path).name: (row.state, row.ask) for row in served_job.rows(DELIVERY)}
    assert states == {"lesion-seg.dcm": ("failed", 0), "object.dcm": ("waiting", 1)}


def test_a_failed_delivery_of_a_correction_that_holds_or_was_begun_is_sent_again(served_job: Served) -> None:
    served_job.decided("corrected", revision := served_job.paint(0))
    served_job.post("send", number=1).raise_for_status()
    for attempts in (0, 1):
        with served_job.node.engine.begin() as connection:
            connection.execute(update(DELIVERY).values(**FAILED, attempts=attempts))
        assert resent(served_job).json() == {"deliveries": 1, "refused": []}
        revision = served_job.paint(revision)
        if not attempts:
            with served_job.node.engine.begin() as connection:
                connection.execute(update(DELIVERY).values(attempts=1))
            served_job.decided("corrected", revision)
