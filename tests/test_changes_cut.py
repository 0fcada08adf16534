"""Two scans of which one or both end inside the lungs: what is said of their figures, and which slices are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from html import unescape
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, expect

from carina.api.compared import scan_findings
from carina.api.result import Run
from carina.measure.change import LesionChange, LungHeight, ScanFindings, is_told_cut
from carina.measure.chest import ENDS_IN_THE_MIDDLE, ENDS_INSIDE
from carina.measure.findings import RegionFindings
from carina.measure.ratio import lesion_ratio
from carina.measure.thirds import THIRDS_NOT_TOLD
from carina.report.change import CUT_MARK, change_sentences
from carina.report.change_pages import change_pdf
from carina.report.facts import ReportFacts
from carina.service.viewer.server import run_app
from carina.synth.phantom import Phantom
from test_changes import dated
from test_report import text_of
from test_viewer_browser import opened
from viewer_runs import posed, served, write_run

SHAPE = (40, 48, 48)
LOST = 18
"""Slices that a scan lacks at its lower or upper end: one of the two lesions is among them."""

BREATH = "another breath"
COMPARED = "volumes and ratio can't be compared as they are"
MARCH, APRIL = date(2020, 3, 1), date(2020, 4, 4)


def lacking(end: str, pose: str = "plain", lost: int = LOST) -> Phantom:
    """A chest whose scan lacks slices at the ``base`` or the ``apex`` of the lungs, or none (``""``)."""
    whole = posed(pose, SHAPE)
    if not end:
        return whole
    is_low = (end == "base") == (whole.volume.grid.axes[0][2] > 0)
    kept = slice(lost, None) if is_low else slice(0, SHAPE[0] - lost)
    origin = whole.volume.grid.points_mm((kept.start or 0, 0, 0))
    grid = replace(whole.volume.grid, shape=(SHAPE[0] - lost, *SHAPE[1:]), origin_mm=(origin[0], origin[1], origin[2]))
    return replace(
        whole,
        volume=replace(whole.volume, hu=whole.volume.hu[kept], grid=grid),
        lung=replace(whole.lung, labels=whole.lung.labels[kept], grid=grid),
        lesion=replace(whole.lesion, labels=whole.lesion.labels[kept], grid=grid),
    )


RUNS = {
    "whole": ("", "plain"),
    "turned": ("", "feet first"),
    "no base": ("base", "plain"),
    "no base turned": ("base", "feet first"),
    "no apex": ("apex", "plain"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Phantom, Path]]:
    """Each run as an earlier scan; ``later`` finds them again a month later."""
    folder = tmp_path_factory.mktemp("cut")
    made = {name: lacking(end, pose) for name, (end, pose) in RUNS.items()}
    return {name: (one, dated(write_run(one, folder / name), "20200301")) for name, one in made.items()}


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("later")
    return {name: dated(write_run(lacking(end, pose), folder / name), "20200404") for name, (end, pose) in RUNS.items()}


def scan(on: date | None, lung_ml: float, lesion_ml: float, *, is_cut: bool) -> ScanFindings:
    lungs = RegionFindings(
        region="lungs", lung_ml=lung_ml, lesion_ml=lesion_ml, ratio_percent=100 * lesion_ml / lung_ml
    )
    return ScanFindings(on=on, lungs=lungs, is_cut=is_cut)


@pytest.mark.parametrize(
    ("cut", "on", "said"),
    [
        ((True, False), MARCH, "The earlier scan ends inside the lungs: what lies beyond it"),
        ((True, False), None, "The earlier scan ends inside the lungs: what lies beyond it"),
        ((True, False), date(2020, 5, 1), "The scan to compare with ends inside the lungs: what lies beyond it"),
        ((False, True), MARCH, "This scan ends inside the lungs: what lies beyond it"),
        ((True, True), MARCH, "Both scans end inside the lungs: what lies beyond them"),
    ],
)
@pytest.mark.parametrize("lung_ml", [2000, 4000, 4100, 6000])
def test_a_cut_scan_is_the_reason_that_is_told_and_not_another_breath(
    cut: tuple[bool, bool], on: date | None, said: str, lung_ml: float
) -> None:
    earlier, now = scan(on, lung_ml, 100, is_cut=cut[0]), scan(APRIL, 4000, 200, is_cut=cut[1])
    told = change_sentences(LesionChange(earlier=earlier, later=now))
    assert len(told) == 2 and told[1].startswith(said) and COMPARED in told[1]
    assert BREATH not in " ".join(told)
    assert "as far as the scans show them" in told[0] and "(" not in told[0]


def test_of_whole_scans_another_breath_is_told_and_nothing_of_an_end() -> None:
    earlier, now = scan(MARCH, 3000, 100, is_cut=False), scan(APRIL, 4000, 200, is_cut=False)
    told = " ".join(change_sentences(LesionChange(earlier=earlier, later=now)))
    assert BREATH in told and "(+100 %)" in told
    assert "ends inside" not in told and "as far as" not in told


@pytest.mark.parametrize("said", [ENDS_INSIDE, ENDS_IN_THE_MIDDLE, THIRDS_NOT_TOLD])
def test_each_warning_of_a_scan_that_ends_inside_the_lungs_tells_of_it(said: str) -> None:
    assert is_told_cut(["Two slices were missing.", said])
    assert not is_told_cut(["Two slices were missing."])


@pytest.mark.parametrize(("end", "lost"), [("", 0), ("base", 8), ("apex", LOST), ("base", 30)])
def test_the_ratio_says_of_any_mask_that_the_scan_ends_inside_the_lungs(end: str, lost: int) -> None:
    phantom = lacking(end, lost=lost)
    told = lesion_ratio(phantom.lesion, phantom.lung).warnings
    assert is_told_cut(told) == bool(end) and len(told) <= 1
    checked = replace(phantom.lung, warnings=(ENDS_INSIDE,) if end else ())
    assert lesion_ratio(phantom.lesion, checked).warnings.count(ENDS_INSIDE) == bool(end)


KINDS = {
    ("whole", "turned"): "",
    ("no base", "whole"): "The earlier scan ends inside",
    ("no apex", "turned"): "The earlier scan ends inside",
    ("whole", "no base turned"): "This scan ends inside",
    ("no base", "no apex"): "Both scans end inside",
}


def assert_told(sentences: tuple[str, ...], marked: list[str], text: str) -> None:
    """A text has every sentence, and marks the days of those scans alone that are cut."""
    plain = " ".join(text.split())
    assert [one for one in sentences if " ".join(one.split()) not in plain] == []
    assert (f"{CUT_MARK} The scan ends inside the lungs" in plain) == bool(marked)
    assert sorted(set(re.findall(r"(\d{4}-\d\d-\d\d) \*", plain))) == marked


@pytest.mark.parametrize(("names", "said"), KINDS.items())
def test_page_report_and_pdf_say_the_same_and_mark_the_same_figures(
    runs: dict[str, tuple[Phantom, Path]], later: dict[str, Path], names: tuple[str, str], said: str, tmp_path: Path
) -> None:
    before, now = runs[names[0]][1], later[names[1]]
    found = [scan_findings(Run(folder)) for folder in (before, now)]
    told = change_sentences(LesionChange(earlier=found[0], later=found[1]))
    assert bool(said) == any(COMPARED in one and one.startswith(said) for one in told)
    with served(run_app(now, [before])) as url:
        pages = [unescape(httpx.get(f"{url}/{page}", timeout=60).text) for page in ("changes", "report")]
    facts = ReportFacts(made_at=datetime(2026, 1, 2, 3, 4), software_version="0.1.0")
    pdf = " ".join(text_of(change_pdf(found[1], found[:1], facts), tmp_path))
    marked = [str(one.on) for one in found if one.is_cut]
    assert bool(marked) == bool(said)
    for text in (*pages, pdf):
        assert_told(told, marked, text)
    assert [page.count('<circle class="cut"') for page in pages] == [2 * len(marked)] * 2


@given(st.integers(0, 60), st.integers(1, 60), st.booleans(), st.floats(-3, 3), st.integers(1, 80))
def test_a_height_lies_beyond_a_scan_just_where_it_has_no_such_slice(
    low: int,
    span: int,
    turned: bool,  # noqa: FBT001
    share: float,
    count: int,
) -> None:
    height = LungHeight(base=low + span * turned, apex=low + span * (not turned), slice_mm=2.0)
    index, beyond_mm = height.index(share), height.beyond_mm(share, count)
    assert (beyond_mm == 0) == (0 <= index < count)
    if beyond_mm:
        assert abs(beyond_mm) == pytest.approx(2.0 * (index - count + 1 if index >= count else -index), abs=1.01)
        assert (beyond_mm > 0) == ((index >= count) != turned)


def height_mm(phantom: Phantom, index: int) -> float:
    return float(phantom.volume.grid.points_mm((index, 0, 0))[2])


BEYOND = re.compile(r'<p class="beyond">The earlier scan does not reach here: it ends (\d+) mm (above|below)\.</p>')


@pytest.fixture(scope="module", params=[("no base", "whole"), ("no base", "turned"), ("no apex", "turned")], ids=str)
def beside(
    request: pytest.FixtureRequest, runs: dict[str, tuple[Phantom, Path]], later: dict[str, Path]
) -> Iterator[tuple[Phantom, Phantom, str]]:
    """An earlier scan that is cut, a whole one, and the address of their comparison."""
    before, now = request.param
    with served(run_app(later[now], [runs[before][1]])) as url:
        yield runs[before][0], runs[now][0], f"{url}/changes"


def pictures(page: str) -> list[int]:
    return [int(one) for one in re.findall(r'src="[^"]*/axial/(\d+)\.png', page)]


def test_a_slice_stands_beside_one_of_the_same_height_or_beside_words(beside: tuple[Phantom, Phantom, str]) -> None:
    before, now, url = beside
    low, high = sorted(height_mm(before, index) for index in (0, SHAPE[0] - LOST - 1))
    told = 0
    for at in range(0, SHAPE[0], 3):
        page, wanted = httpx.get(url, params={"at": at}, timeout=60).text, height_mm(now, at)
        lacking_mm = max(low - wanted, wanted - high)
        said = BEYOND.search(page)
        assert bool(said) == (lacking_mm > 0.01)
        if said:
            assert pictures(page) == [at] and 'hidden alt=""' in page and "<output>&ndash;</output>" in page
            assert abs(float(said[1]) - lacking_mm) <= 0.51 and said[2] == side(wanted < low)
            told += 1
        else:
            shown, own = pictures(page)
            assert own == at and abs(height_mm(before, shown) - wanted) < 0.01
    assert told >= LOST // 3


def side(is_lower: bool) -> str:  # noqa: FBT001
    return "above" if is_lower else "below"


def test_the_page_opens_at_the_largest_lesion_that_both_scans_show(beside: tuple[Phantom, Phantom, str]) -> None:
    before, now, url = beside
    page = httpx.get(url, timeout=60).text
    shown = pictures(page)
    assert len(shown) == 2 and not BEYOND.search(page)
    low, high = (height_mm(now, site.index[0]) for site in lesion_ratio(now.lesion, now.lung).lesions)
    lowest = min(height_mm(before, index) for index in (0, SHAPE[0] - LOST - 1))
    assert height_mm(now, shown[1]) == pytest.approx(low if low >= lowest else high)


def test_without_a_lesion_that_both_show_the_page_opens_at_the_nearest_slice_that_both_have(
    runs: dict[str, tuple[Phantom, Path]], tmp_path: Path
) -> None:
    whole = lacking("")
    alone = replace(whole.lesion, labels=np.where(np.arange(SHAPE[0])[:, None, None] < LOST, whole.lesion.labels, 0))
    for lesion, at in ((alone, LOST), (replace(alone, labels=alone.labels * 0), None)):
        now = write_run(replace(whole, lesion=lesion), tmp_path / f"{at}")
        with served(run_app(now, [runs["no base"][1]])) as url:
            page = httpx.get(f"{url}/changes", timeout=60).text
        assert not BEYOND.search(page)
        assert at is None or f"/axial/{at}.png" in page


def test_the_page_says_which_scan_ends_and_how_slices_are_matched(
    runs: dict[str, tuple[Phantom, Path]], later: dict[str, Path]
) -> None:
    for names, words in {
        ("no base", "whole"): "The earlier scan ends before the base of the lungs, so .* in mm from the apex",
        ("whole", "no apex"): "This scan ends before the apex of the lungs, so .* in mm from the base",
        ("no base", "no base turned"): "Both scans end before the base of the lungs, so .* in mm from the apex",
        ("no base", "no apex"): "show no end of the lungs in common, so slices are matched only roughly",
        ("whole", "turned"): "Slices are matched by their height between the base and the apex",
    }.items():
        with served(run_app(later[names[1]], [runs[names[0]][1]])) as url:
            assert re.search(words, httpx.get(f"{url}/changes", timeout=60).text), names


def test_slider_and_keys_say_in_the_browser_what_the_server_says(
    browser: Browser, beside: tuple[Phantom, Phantom, str]
) -> None:
    with opened(browser, beside[2]) as page:
        slider, picture = page.get_by_label("Slice"), page.locator(".beside img").nth(0)
        words, number = page.locator(".beside .beyond").nth(0), page.locator(".beside output").nth(0)
        slider.focus()
        reached = {}
        for key in ("Home", "PageUp", "End", "ArrowLeft", "PageDown"):
            page.keyboard.press(key)
            at = slider.input_value()
            expect(page).to_have_url(re.compile(rf"at={at}\b"))
            answer = httpx.get(beside[2], params={"at": at}, timeout=60).text
            said = BEYOND.search(answer)
            reached[key] = not said
            if said:
                expect(words).to_have_text(said[0].removeprefix('<p class="beyond">').removesuffix("</p>"))
                expect(picture).to_be_hidden()
                expect(number).to_have_text("\u2013")
            else:
                shown = str(pictures(answer)[0])
                expect(words).to_be_hidden()
                expect(picture).to_be_visible()
                expect(picture).to_have_attribute("alt", re.compile(rf"axial slice {shown}\."))
                expect(picture).to_have_attribute("src", re.compile(rf"/axial/{shown}\.png"))
                expect(number).to_have_text(shown)
        assert set(reached.values()) == {True, False}
        page.reload()
        assert len(page.locator(".beside img:visible").all()) == 1 + reached["PageDown"]
