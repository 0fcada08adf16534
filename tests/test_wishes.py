"""When a wish for earlier scans is settled, and the report on what changed: made once, whatever is killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from sqlalchemy import insert, select, update

from carina.config import Settings
from carina.database import ARRIVAL, DELIVERY, JOB, PRIOR, PRIOR_SERIES, PriorState, database_now
from carina.errors import CarinaError
from carina.jobs.compare import compare_job
from carina.jobs.comparison import Comparison, comparison_of
from carina.jobs.earlier import is_fetched_as_prior, wanted_for
from carina.jobs.listing import find_job
from carina.jobs.wishes import LONGEST_WAIT, ON_ITS_WAY, Wishes, make_report
from carina.service.node import RunningNode
from carina.synth.phantom import PhantomLesion, chest_phantom
from carina.testing.dicom import write_ct_series
from served_nodes import NOON, add_job, hold, opened, serving
from test_changes import dated
from viewer_runs import posed, write_run

WHOSE = "a" * 64
STATED = {"pending": ("pending", ""), "running": ("running", "")}
NUMBERS = count(1)

SHARE = """
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
[destinations.share]
kind = "folder"
path = "{share}"
"""


def node_in(folder: Path) -> RunningNode:
    return opened(folder, SHARE.format(share=folder / "share"))


def arrival(node: RunningNode, series: str, studied: str, **more: Any) -> int:
    row: dict[str, Any] = {
        "series_uid": series,
        "study_uid": f"{series}.0",
        "source": "scanner",
        "sender": "CT",
        "state": "queued",
    }
    row |= {"first_at": NOON, "last_at": NOON, "whose_sha256": WHOSE, "studied": studied, "reason": ""} | more
    with node.engine.begin() as connection:
        return int(connection.execute(insert(ARRIVAL).returning(ARRIVAL.c.id), row).scalar_one())


def job(node: RunningNode, arrival_id: int, state: str = "healthy", **more: Any) -> int:
    stated, ended = STATED.get(state, ("stopped", state))
    return add_job(node, arrival_id, state=stated, ended=ended, series_uid=f"1.{arrival_id}", **more)


def wish(node: RunningNode, job_id: int, *series: str, ago: timedelta = timedelta()) -> None:
    with node.engine.begin() as connection:
        row = {"job_id": job_id, "peer": "pacs", "state": PriorState.FETCHED, "said": "Asked."}
        row["created_at"] = database_now(connection) - ago
        made = connection.execute(insert(PRIOR).returning(PRIOR.c.id), row).scalar_one()
        for uid in series:
            connection.execute(insert(PRIOR_SERIES), {"prior_id": made, "series_uid": uid})


def said(node: RunningNode) -> list[tuple[str, str]]:
    with node.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(PRIOR.c.state, PRIOR.c.said).order_by(PRIOR.c.id))]


class Made:
    """Stands in for the process that makes a report."""

    def __init__(self, failed: str = "") -> None:
        self.failed, self.jobs = failed, list[int]()

    def __call__(self, _: Settings, job_id: int) -> str:
        self.jobs.append(job_id)
        return self.failed


WAITING = [
    ("its own job waits", "pending", "queued", "healthy"),
    ("its own job runs", "running", "queued", "healthy"),
    ("the earlier one comes", "healthy", "arriving", None),
    ("the earlier one has come", "healthy", "complete", None),
    ("the earlier one waits", "healthy", "queued", "pending"),
    ("the earlier one runs", "healthy", "queued", "running"),
    ("nothing has come", "healthy", None, None),
]


@pytest.mark.parametrize(("why", "own", "came", "run"), WAITING)
def test_a_wish_waits_for_what_is_under_way_and_not_for_ever(
    tmp_path: Path, why: str, own: str, came: str | None, run: str | None
) -> None:
    node, made = node_in(tmp_path), Made()
    wish(node, job(node, arrival(node, "1.1", "20260401"), own), "1.2")
    before = arrival(node, "1.2", "20260301", state=came) if came else 0
    if run:
        job(node, before, run, is_prior=1)
    wishes = Wishes(node.settings, node.engine, made)
    assert wishes.round() == 0, why
    with node.engine.begin() as connection:
        connection.execute(update(PRIOR).values(created_at=database_now(connection) - LONGEST_WAIT - ON_ITS_WAY))
    is_own = own != "healthy"
    assert wishes.round() == (0 if is_own else 1)
    assert made.jobs == []
    assert said(node)[0][0] == ("fetched" if is_own else "ended")


def test_what_was_run_is_compared_and_a_failure_is_said(tmp_path: Path) -> None:
    node, made, failing = node_in(tmp_path), Made(), Made("the disk is full.")
    new = job(node, arrival(node, "1.1", "20260401"))
    wish(node, new, "1.2")
    job(node, arrival(node, "1.2", "20260301"), is_prior=1)
    assert Wishes(node.settings, node.engine, made).round() == 1
    assert (made.jobs, said(node)) == ([new], [("fetched", "Asked.")])  # the process itself ends the wish
    assert Wishes(node.settings, node.engine, failing).round() == 1
    assert said(node) == [("ended", "Asked. The report on what changed could not be made: the disk is full.")]


NOTHING = {
    "quarantined": ({"state": "quarantined", "reason": "no chest."}, None, "Nothing could be compared: no chest."),
    "faulted": ({}, "faulted", "Nothing could be compared: slices are missing."),
    "of another": (
        {"whose_sha256": "b" * 64},
        "healthy",
        "Nothing could be compared: no earlier scan of the same patient",
    ),
}


@pytest.mark.parametrize("name", NOTHING)
def test_why_nothing_is_compared_is_said(tmp_path: Path, name: str) -> None:
    values, state, words = NOTHING[name]
    node, made = node_in(tmp_path), Made()
    wish(node, job(node, arrival(node, "1.1", "20260401")), "1.2")
    before = arrival(node, "1.2", "20260301", **values)
    if state:
        job(node, before, state, is_prior=1, error="slices are missing." if state == "faulted" else "")
    assert Wishes(node.settings, node.engine, made).round() == 1
    ((ended, told),) = said(node)
    assert (ended, made.jobs) == ("ended", [])
    assert told.startswith(f"Asked. {words}")


def test_a_scan_whose_own_run_failed_is_not_compared(tmp_path: Path) -> None:
    node = node_in(tmp_path)
    wish(node, job(node, arrival(node, "1.1", "20260401"), "faulted"), "1.2")
    job(node, arrival(node, "1.2", "20260301"), is_prior=1)
    Wishes(node.settings, node.engine, Made()).round()
    assert said(node) == [("ended", "Asked. This scan's own run is not healthy, so nothing is compared.")]


def test_an_earlier_scan_that_was_here_counts_where_nothing_was_fetched(tmp_path: Path) -> None:
    node, made = node_in(tmp_path), Made()
    new = job(node, arrival(node, "1.1", "20260401"))
    wish(node, new)
    job(node, arrival(node, "1.2", "20260301"))
    Wishes(node.settings, node.engine, made).round()
    assert made.jobs == [new]


def test_many_wishes_are_looked_at_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carina.jobs.wishes.LOOKED_AT", 2)
    node = node_in(tmp_path)
    for number in range(5):
        wish(node, job(node, arrival(node, f"1.{number}", "20260401"), "running"))
    wishes = Wishes(node.settings, node.engine, Made())
    with node.engine.begin() as connection:
        connection.execute(update(JOB).where(JOB.c.id == 5).values(state="stopped", ended="healthy"))
    assert [wishes.round() for _ in range(3)] == [0, 0, 1]


def test_a_series_that_came_by_itself_is_run_as_what_it_is_also_when_it_is_wanted_later(tmp_path: Path) -> None:
    node = node_in(tmp_path)
    alone, fetched = arrival(node, "1.2", "20260301"), arrival(node, "1.3", "20260201", is_prior=1)
    job(node, alone)
    new = job(node, arrival(node, "1.1", "20260401"))
    wish(node, new, "1.2", "1.3")
    prior = add_job(node, fetched, series_uid="1.3", is_prior=1)
    with node.engine.connect() as connection:
        rows = connection.execute(select(ARRIVAL).order_by(ARRIVAL.c.id)).all()
        assert [is_fetched_as_prior(connection, row) for row in rows] == [False, True, False]
        assert (wanted_for(connection, prior), wanted_for(connection, new)) == ([new], [])


@pytest.fixture
def two(tmp_path: Path) -> tuple[RunningNode, int]:
    """A node with a new scan as a series of files, an earlier one, and the runs of both; and the new one's job."""
    node = node_in(tmp_path)
    phantom = posed("plain")
    files = write_ct_series(phantom.volume, tmp_path / "ct")
    for file in files:
        dataset = dcmread(file)
        dataset.StudyDate = "20260401"
        dataset.save_as(file)
    series = str(dcmread(files[0]).SeriesInstanceUID)
    new = add_job(node, hold(node, files), series_uid=series, destinations=json.dumps(["share"]))
    with node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(whose_sha256=WHOSE, studied="20260401"))
        source = str(node.folder / "incoming" / "1")
        connection.execute(update(JOB).values(source=source))
    larger = [PhantomLesion(centre_mm=(80.0, 30.0, -55.0), radii_mm=(26.0, 26.0, 26.0))]
    before = add_job(node, arrival(node, "1.2", "20260301"), series_uid="1.2", is_prior=1)
    dated(
        write_run(chest_phantom(shape=(40, 96, 96), lesions=larger, seed=4), node.folder / f"runs/{before}"), "20260301"
    )
    dated(write_run(phantom, node.folder / f"runs/{new}"), "20260401")
    wish(node, new, "1.2")
    return node, new


def test_the_report_is_an_object_of_the_study_and_goes_out_once(two: tuple[RunningNode, int]) -> None:
    node, new = two
    file = node.folder / f"runs/{new}/dicom/change.dcm"
    assert make_report(node.settings, new) == ""
    first = dcmread(file)
    compare_job(node.settings, node.engine, new)  # as after a kill
    again = dcmread(file)
    assert (first.SOPInstanceUID, first.SeriesInstanceUID) == (again.SOPInstanceUID, again.SeriesInstanceUID)
    assert first.StudyInstanceUID == dcmread(next((node.folder / "incoming/1").iterdir())).StudyInstanceUID
    assert (first.Modality, first.SeriesNumber, first.DocumentTitle) == ("DOC", 9204, "Change since earlier scans")
    with node.engine.connect() as connection:
        rows = connection.execute(select(DELIVERY.c.sop_instance_uid, DELIVERY.c.destination)).all()
    assert rows == [(first.SOPInstanceUID, "share")]
    ((state, told),) = said(node)
    assert (state, "Compared with job 2 of 2026-03-01." in told) == ("ended", True)


def test_a_job_tells_what_it_was_compared_with(two: tuple[RunningNode, int]) -> None:
    node, new = two

    def compared() -> Comparison:
        with node.engine.connect() as connection:
            job = find_job(connection, new)
            assert job is not None
            return comparison_of(connection, node.folder, job)

    assert compared().lines == ["earlier scans: job 2 of 2026-03-01", "comparison: Asked."]
    compare_job(node.settings, node.engine, new)
    assert compared().lines == [
        "earlier scans: job 2 of 2026-03-01",
        "comparison: Asked. Compared with job 2 of 2026-03-01.",
        f"report on what changed: runs/{new}/dicom/change.dcm",
    ]


def test_a_comparison_with_another_scan_is_another_object(two: tuple[RunningNode, int]) -> None:
    node, new = two
    uids = []
    for series in ("1.2", "1.3"):
        with node.engine.begin() as connection:
            connection.execute(update(JOB).where(JOB.c.is_prior == 1).values(series_uid=series))
        compare_job(node.settings, node.engine, new)
        uids.append(dcmread(node.folder / f"runs/{new}/dicom/change.dcm").SOPInstanceUID)
    assert uids[0] != uids[1]


def test_what_a_report_fails_of_is_one_line(two: tuple[RunningNode, int]) -> None:
    node, new = two
    (node.folder / "runs/2/manifest.json").unlink()
    failed = make_report(node.settings, new)
    assert failed.endswith(f"job {new}: every run that it is to be compared with is damaged or measured nothing.")
    assert not list((node.folder / f"runs/{new}/dicom").glob("change*"))


def measured_nothing(run: Path) -> None:
    """As the run of a pipeline without volume-ratio."""
    manifest = json.loads((run / "manifest.json").read_text())
    for operator in manifest["operators"].values():
        for port, files in operator["outputs"].items():
            operator["outputs"][port] = [one for one in files if not one.endswith("volume-ratio.json")]
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_what_was_not_measured_is_not_compared(two: tuple[RunningNode, int]) -> None:
    node, new = two
    measured_nothing(node.folder / f"runs/{new}")
    with pytest.raises(CarinaError, match="measured no lesion to lung ratio, so that nothing of it can be compared"):
        compare_job(node.settings, node.engine, new)
    assert not list((node.folder / f"runs/{new}/dicom").glob("change*"))
    with serving(node) as url:
        page = httpx.get(f"{url}/jobs/{new}/view/report")
        assert (page.status_code, "Change since" in page.text) == (200, False)
        assert httpx.get(f"{url}/jobs/{new}/view/changes").status_code == 404


def test_a_report_names_the_networks_that_made_the_masks(two: tuple[RunningNode, int]) -> None:
    node, new = two
    file = ratio_file(node.folder / f"runs/{new}")
    own = {"lung_made_by": "lungs-of-others 2.0 ab12", "lesion_made_by": ""}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    compare_job(node.settings, node.engine, new)
    made = dcmread(node.folder / f"runs/{new}/dicom/change.dcm")
    assert ("lungs-of-others" in str(made), "segresnet" in str(made)) == (True, False)


DAMAGED: dict[str, Callable[[Path], Any]] = {
    "no manifest": lambda run: (run / "manifest.json").unlink(),
    "half a manifest": lambda run: (run / "manifest.json").write_bytes(b"{"),
    "no findings": lambda run: ratio_file(run).unlink(),
    "half of its findings": lambda run: ratio_file(run).write_bytes(b'{"regions": ['),
    "other findings": lambda run: ratio_file(run).write_bytes(b'{"regions": [{"region": "lungs"}]}'),
    "no measurement": measured_nothing,
    "gone": shutil.rmtree,
}


def ratio_file(run: Path) -> Path:
    return next(run.rglob("volume-ratio.json"))


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_run_among_earlier_ones_is_passed_over_everywhere(two: tuple[RunningNode, int], damage: str) -> None:
    node, new = two
    damaged = job(node, arrival(node, "1.7", "20260315"))
    shutil.copytree(node.folder / "runs/2", node.folder / f"runs/{damaged}")
    with serving(node) as url:
        compared = f"{url}/jobs/{new}/view/changes"
        assert f"/earlier/{damaged}/" in httpx.get(compared).text
        DAMAGED[damage](node.folder / f"runs/{damaged}")
        for page in (httpx.get(compared), httpx.get(f"{url}/jobs/{new}/view/report")):
            assert (page.status_code, "the volume marked as lesion" in page.text) == (200, True)
            assert f"/earlier/{damaged}/" not in page.text
        assert httpx.get(compared, params={"earlier": damaged}).status_code in (400, 404, 422)
    compare_job(node.settings, node.engine, new)
    assert "Compared with job 2 of 2026-03-01." in said(node)[0][1]


def test_a_damaged_earlier_run_takes_no_report_page_with_it(two: tuple[RunningNode, int]) -> None:
    node, new = two
    with serving(node) as url:
        assert "Change since an earlier scan" in httpx.get(f"{url}/jobs/{new}/view/report").text
        assert "to compare with; nothing is sent of it" in httpx.get(f"{url}/jobs/2").text
        (node.folder / "runs/2/manifest.json").write_bytes(b"{")
        page = httpx.get(f"{url}/jobs/{new}/view/report")
    assert (page.status_code, "Change since" in page.text, "Provenance" in page.text) == (200, False, True)
