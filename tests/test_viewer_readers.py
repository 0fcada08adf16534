"""Pages that show a network's masks and figures say what a reader decided about them, and what was measured again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser

from carina.api.cohort_table import COHORT_TABLE
from carina.api.result import Run
from carina.corrections.decisions import decide, readers_state
from carina.corrections.finish import Draft, Finished, finish
from carina.corrections.masks import MaskName, decisions_file, network_mask
from carina.corrections.standing import Decision
from carina.measure.texts import ml_text, percent_text
from carina.report.numbers import compared_ml, difference_text, range_text
from carina.service.viewer.server import run_app
from corrected_runs import CorrectedRun
from test_viewer_browser import opened
from test_viewer_pages import text_of
from viewer_runs import posed, served, write_cohort, write_run

NOW = datetime(2026, 3, 4, 20, 15, 2, tzinfo=UTC)
PAGES = ("/", "/report")
STROKE = {"revision": 0, "id": "one", "reader": "x", "tool": "brush", "runs": [0, 1]}
NETWORK_S = "Masks and figures on this page are as the network left them"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(write_run(posed("plain", (24, 48, 48)), tmp_path / "run"))


def halved(run: Run, at: datetime = NOW) -> Finished:
    """A finished correction that leaves half of the lesions."""
    labels = network_mask(run, MaskName.LESION).labels.copy()
    places = np.flatnonzero(labels)
    labels.reshape(-1)[places[: len(places) // 2]] = 0
    return finish(run, Draft(layer=MaskName.LESION, labels=labels, revision=1, reader="Jane Doe", at=at), None)


@contextmanager
def client(folder: Path, *earlier: Path, source: Path | None = None) -> Iterator[httpx.Client]:
    with served(run_app(folder, earlier, source)) as url, httpx.Client(base_url=url, timeout=120) as found:
        yield found


def shown_at(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


NOT_YET = "A correction can be painted, but not finished yet"


def test_correct_says_what_is_missing_before_somebody_paints(tmp_path: Path) -> None:
    corrected = CorrectedRun("plain", tmp_path)
    run = corrected.run
    with client(run.folder) as asked:
        told = text_of(asked.get("/correct/lesion").content)
        assert f"{NOT_YET}: its DICOM object needs the series" in told and "--source" in told
        assert asked.post("/correct/lesion/strokes", json=STROKE).json()["revision"] == 1
        finishing = {"revision": 1, "reader": "x", "decision": "corrected"}
        refused = asked.post("/correct/lesion/decision", json=finishing).json()
        assert refused["code"] == "corrections.no-source"
    with client(run.folder, source=corrected.series) as asked:
        assert NOT_YET not in asked.get("/correct/lesion").text
        assert asked.post("/correct/lesion/decision", json=finishing).status_code == 200
        told = asked.get("/correct/lesion").text
        assert "data-send" not in told and "carina view sends nothing: download the DICOM SEG" in told


def test_a_stroke_from_a_voxel_that_is_not_there_is_refused(run: Run) -> None:
    shape = run.volume.grid.shape
    ends = (shape[0], 0, 0), (0, shape[1], 0), (0, 0, shape[2]), (999, 124, 212)
    sizes = " \u00d7 ".join(map(str, shape))
    said = f"in this scan of {sizes} voxels (z,y,x, from 0)."
    with client(run.folder) as asked:
        for tool in ("fill", "grow"):
            for at in (*ends, None):
                answer = asked.post("/correct/lesion/strokes", json=STROKE | {"tool": tool, "at": at})
                where = f"there is no voxel {','.join(map(str, at or ()))} {said}"
                words = where if at else f"{tool} needs the voxel from which it starts: give it as at."
                assert (answer.status_code, answer.json()["detail"]) == (400, words)
    assert not list((run.folder / "corrections").glob("*.strokes"))


def test_a_correction_of_a_cohort_is_finished_with_the_folder_of_all_its_studies(tmp_path: Path) -> None:
    corrected = CorrectedRun("plain", tmp_path / "case-0")
    out, archive = tmp_path / "out", tmp_path / "case-0"
    items = write_cohort(out, 1)
    shutil.rmtree(out / "case-0")
    shutil.copytree(corrected.run.folder, out / "case-0")
    assert items[0].folder == out / "case-0"
    with client(out, source=archive) as asked:
        page = "/cases/case-0/correct/lesion"
        assert NOT_YET not in asked.get(page).text
        assert asked.post(f"{page}/strokes", json=STROKE).json()["revision"] == 1
        finishing = {"revision": 1, "reader": "x", "decision": "corrected"}
        assert asked.post(f"{page}/decision", json=finishing).status_code == 200
        assert "lesion-seg.dcm" in asked.get(page).text


def test_nothing_is_said_where_no_reader_looked(run: Run) -> None:
    with client(run.folder) as asked:
        for page in PAGES:
            assert "Readers" not in text_of(asked.get(page).content)
    assert not (run.folder / "corrections").exists()


def test_a_corrected_mask_is_told_linked_and_its_ratio_stands_beside_the_network_s(run: Run) -> None:
    done = halved(run)
    network, reader = done.network_ratio_percent, done.reader_ratio_percent
    assert network and reader and 0 < reader < network
    with client(run.folder) as asked:
        for page in PAGES:
            answer = asked.get(page)
            told = text_of(answer.content)
            assert f"Lesion mask : corrected by Jane Doe, {shown_at(NOW)} (correction 1)." in told
            assert f"{percent_text(network)} % of the lung volume is marked as lesion" in told
            assert f"{percent_text(reader)} % of the lung volume, measured with lesion correction 1 of Jane Doe" in told
            assert f"{NETWORK_S}; the ratio that was measured again stands beside the network's." in told
            assert '<a href="/correct/lesion">Lesion mask</a>' in answer.text
            assert asked.get("/correct/lesion").status_code == 200


def test_a_ratio_names_both_masks_from_which_it_was_measured(run: Run) -> None:
    halved(run)
    one, later = "lesion correction 1 of Jane Doe", NOW + timedelta(hours=1)
    with client(run.folder) as asked:
        for page in (*PAGES, "/correct/lung"):
            assert f"measured with {one} and the network's lung mask;" in text_of(asked.get(page).content)
        lung = network_mask(run, MaskName.LUNG).labels.copy()
        lung[: len(lung) // 2] = 0
        finish(run, Draft(layer=MaskName.LUNG, labels=lung, revision=1, reader="Rita", at=later), None)
        for page in (*PAGES, "/correct/lung", "/correct/lesion"):
            assert f"measured with lung correction 1 of Rita and {one};" in text_of(asked.get(page).content)


def test_a_rejected_mask_is_told_and_leaves_no_ratio_that_holds(run: Run) -> None:
    decide(run, MaskName.LUNG, Decision.REJECTED, "Richard Roe", NOW)
    with client(run.folder) as asked:
        for page in PAGES:
            told = text_of(asked.get(page).content)
            assert f"Lung mask : rejected by Richard Roe, {shown_at(NOW)}." in told
            assert f"{NETWORK_S}; what was rejected is shown and counted all the same." in told
        halved(run, NOW + timedelta(hours=1))
        for page in PAGES:
            told = text_of(asked.get(page).content)
            assert "Lesion mask : corrected by Jane Doe" in told and "measured with lesion correction" not in told
        correct = text_of(asked.get("/correct/lesion").content)
        assert "Corrected by Jane Doe" in correct and "measured with lesion correction" not in correct


def test_a_correction_that_is_rejected_later_is_no_longer_what_holds(run: Run) -> None:
    halved(run)
    decide(run, MaskName.LESION, Decision.REJECTED, "Richard Roe", NOW + timedelta(hours=1))
    with client(run.folder) as asked:
        told = text_of(asked.get("/report").content)
    assert "Lesion mask : rejected by Richard Roe" in told and "(correction 1)" in told
    assert "measured with" not in told and "counted all the same" not in told


def test_an_accepted_mask_is_told_and_differs_in_nothing(run: Run) -> None:
    decide(run, MaskName.LESION, Decision.ACCEPTED, "Jane Doe", NOW)
    with client(run.folder) as asked:
        for page in PAGES:
            told = text_of(asked.get(page).content)
            assert f"Lesion mask : accepted by Jane Doe, {shown_at(NOW)}." in told and NETWORK_S not in told


def test_a_decision_about_a_mask_that_was_made_again_is_void(run: Run, tmp_path: Path) -> None:
    decide(run, MaskName.LESION, Decision.REJECTED, "Jane Doe", NOW)
    assert readers_state(run).is_rejected
    other = write_run(posed("feet first", (24, 48, 48)), tmp_path / "other")
    shutil.rmtree(run.folder / "lesion")
    shutil.copytree(other / "lesion", run.folder / "lesion", copy_function=shutil.copyfile)
    assert readers_state(run).decisions == ()


def test_decisions_that_can_not_be_read_are_told_and_the_page_is_shown(run: Run) -> None:
    decide(run, MaskName.LESION, Decision.REJECTED, "Jane Doe", NOW)
    file = decisions_file(run.folder)
    file.write_bytes(b"torn\n" + file.read_bytes())
    with client(run.folder) as asked:
        for page in PAGES:
            told = text_of(asked.get(page).content)
            assert "What readers decided about this run can't be read:" in told and "from a backup" in told
            assert "is marked as lesion" in told


def test_a_comparison_and_a_cohort_say_it_of_each_scan(run: Run, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    write_cohort(cohort, 3)
    case = Run(cohort / "case-1")
    done = halved(case)
    ratio = percent_text(done.reader_ratio_percent or 0)
    with client(run.folder, case.folder) as asked:
        assert f"lesion corrected; ratio {ratio} %" in text_of(asked.get("/changes").content)
    assert (cohort / COHORT_TABLE).is_file()
    with client(cohort) as asked:
        page = unescape(asked.get("/").text)
    assert page.count("lesion corrected") == 1
    assert f'<a href="/cases/case-1/correct/lesion">lesion corrected; ratio {ratio} %</a>' in page


@pytest.mark.parametrize("width", [390, 1280])
def test_agreement_is_read_by_case_and_mask_and_nothing_of_it_is_cut(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    write_cohort(tmp_path, 4)
    for number in (0, 2):
        decide(Run(tmp_path / f"case-{number}"), MaskName.LUNG, Decision.ACCEPTED, "Jane Doe", NOW)
    decide(Run(tmp_path / "case-3"), MaskName.LESION, Decision.REJECTED, "x" * 64, NOW)
    told = halved(Run(tmp_path / "case-1"))
    damaged = decisions_file(tmp_path / "case-2")
    damaged.write_bytes(b"torn\n" + damaged.read_bytes())
    size = {"width": width, "height": 800}
    with served(run_app(tmp_path)) as url, opened(browser, f"{url}/agreement/", viewport=size) as page:
        assert page.locator("html").evaluate("it => it.scrollWidth") <= width
        edges = "[...document.querySelectorAll('td span, tbody th')].map((one) => one.getBoundingClientRect().right)"
        assert max(page.evaluate(edges)) <= width
        assert page.get_by_role("link", name="Agreement").get_attribute("aria-current") == "page"
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name="case-1, lesion mask"))
        cells = [text.split("\n")[-1] for text in row.get_by_role("cell").all_inner_texts()]
        moment = shown_at(NOW)[:16]
        volumes = [ml_text(told.network_ml), ml_text(told.reader_ml), f"+{told.network_ml - told.reader_ml:.1f}"]
        assert cells == ["Lesion", "Corrected", "Jane Doe", moment, *volumes, f"{told.dice:.3f}"]
        lung = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="Lung", exact=True))
        assert lung.get_by_role("cell").all_inner_texts() == ["1", "0", "0", "1.000", "0", "\u2013"]
        assert "case-2" in page.locator(".refused").inner_text()
        page.get_by_role("link", name="case-1, lesion mask").click()
        assert page.url.endswith("/cases/case-1/correct/lesion")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "\u2013"), (0.0, "0"), (0.01, "0.0"), (-0.04, "0.0"), (19.24, "+19.2"), (-3.0, "\u20133.0")),
        *((-120.4, "\u2013120"), (4320.2, "+4\u00a0320")),
    ],
)
def test_a_difference_has_its_sign_and_the_digits_of_a_volume(value: float | None, text: str) -> None:
    assert difference_text(value) == text


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (166.53, 166.48, ("166.5", "166.5", "0.0")),
        (4527.26, 0.04, ("4\u00a0527.3", "< 0.1", "+4\u00a0527.3")),
        (4.94, 4.96, ("4.9", "5.0", "\u20130.1")),
        (2.0, 2.0, ("2.0", "2.0", "0")),
    ],
)
def test_volumes_side_by_side_have_the_difference_that_is_seen(
    first: float, second: float, shown: tuple[str, str, str]
) -> None:
    assert compared_ml(first, second) == shown


def test_a_range_of_one_value_is_that_value() -> None:
    assert [range_text(0.0, 0.0), range_text(None, None), range_text(-1.0, 2.0)] == ["0", "\u2013", "\u20131.0 to +2.0"]


@pytest.mark.parametrize("width", [390, 1280])
def test_what_readers_decided_fits_the_page(browser: Browser, run: Run, width: int) -> None:
    decide(run, MaskName.LUNG, Decision.ACCEPTED, "x" * 64, NOW)
    halved(run)
    with served(run.folder) as url:
        for page in PAGES:
            with opened(browser, url + page, viewport={"width": width, "height": 800}) as seen:
                assert seen.locator("html").evaluate("it => it.scrollWidth") <= width
