"""Masks corrected in a real Chromium: what was painted outlives tab and server, and is what the object holds."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pydicom import dcmread

from carina.api.result import Run
from carina.corrections.finish import finished_folder, finished_of
from carina.corrections.masks import MaskName, network_mask, strokes_file
from carina.corrections.painting import Painting
from carina.report.overlay import layout
from carina.service.viewer.scene import PLANES
from carina.service.viewer.server import run_app
from carina.volume.arrays import Flags
from carina.volume.grid import Grid
from dicom_objects_samples import errors_of, placed, truth
from test_viewer_browser import AXE, PATIENCE_MS, browser, opened
from viewer_runs import posed, served, through_dicom, write_run

__all__ = ["browser"]

RADIUS_MM = 9.0
AT = (14, 20, 26)
DRAGGED = (0.3, 0.35), (0.4, 0.45)
"""From and to, as shares of a picture's width and height: up and to the left of its middle."""


class CorrectedRun:
    """A run of a phantom and the series from which it was made."""

    def __init__(self, pose: str, folder: Path) -> None:
        self.series = folder / "series"
        phantom = through_dicom(posed(pose, (30, 48, 48)), self.series)
        lesion = replace(phantom.lesion, names={1: "COVID-19 lesion"}, made_by="lesion-net 1.0 " + "e" * 64)
        lung = replace(phantom.lung, labels=(phantom.lung.labels > 0).astype(np.uint8), names={1: "lungs"})
        self.run = Run(write_run(replace(phantom, lesion=lesion, lung=lung), folder / "run"))
        self.grid = phantom.volume.grid
        self.network = network_mask(self.run, MaskName.LESION)

    @property
    def stored(self) -> Painting:
        """The mask as whoever opens the run's folder now finds it."""
        return Painting(self.network, strokes_file(self.run.folder, MaskName.LESION))

    @property
    def added(self) -> Flags:
        """What is marked now and was not by the network."""
        return (self.stored.labels > 0) & (self.network.labels == 0)


@pytest.fixture
def corrected(tmp_path: Path) -> CorrectedRun:
    return CorrectedRun("plain", tmp_path)


def disc(grid: Grid, plane: str, at: tuple[int, int, int], radius_mm: float = RADIUS_MM) -> Flags:
    """The voxels of a plane's slice whose centre lies within a radius of a voxel's."""
    places = np.argwhere(np.ones(grid.shape, np.bool_))
    away = np.linalg.norm(grid.points_mm(places) - grid.points_mm(at), axis=1)
    normal = layout(grid, plane).normal
    inside: Flags = ((away <= radius_mm + 1e-6) & (places[:, normal] == at[normal])).reshape(grid.shape)
    return inside


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text(
        re.compile(r"^All strokes saved \d\d:\d\d:\d\d\.$"), timeout=PATIENCE_MS
    )


def ready(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text(re.compile(r"^(Nothing painted yet|All strokes saved .*)\.$"))


def dragged(page: Page, plane: str) -> None:
    box = page.locator(f".{plane} img").bounding_box()
    assert box
    (x, y), (to_x, to_y) = [(box["x"] + box["width"] * a, box["y"] + box["height"] * b) for a, b in DRAGGED]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(to_x, to_y, steps=6)
    page.mouse.up()


@contextmanager
def correcting(browser: Browser, corrected: CorrectedRun, query: str = "") -> Iterator[Page]:
    app = run_app(corrected.run.folder, source=corrected.series, reader="Jane Doe")
    with served(app) as address, browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.goto(f"{address}/correct/lesion{query}")
        ready(page)
        yield page


@pytest.mark.parametrize("pose", ["plain", "feet first", "oblique"])
def test_keys_alone_paint_on_three_planes_and_the_object_holds_just_that(
    browser: Browser, tmp_path: Path, pose: str
) -> None:
    corrected = CorrectedRun(pose, tmp_path)
    expected = corrected.network.labels > 0
    with correcting(browser, corrected, f"?at={','.join(map(str, AT))}") as page:
        for _ in range(5):
            page.keyboard.press("]")
        for key, plane in zip("123", PLANES, strict=True):
            page.keyboard.press(key)
            page.keyboard.press(" ")
            expected |= disc(corrected.grid, plane, AT)
        saved(page)
        page.get_by_role("button", name="Finish the correction").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#decided")).to_contain_text("Corrected by Jane Doe", timeout=PATIENCE_MS)
    np.testing.assert_array_equal(corrected.stored.labels > 0, expected)
    path = finished_folder(corrected.run.folder, MaskName.LESION, 1) / "dicom" / "lesion-seg.dcm"
    assert errors_of(path) == []
    painted = replace(corrected.network, labels=expected.astype(np.uint8))
    np.testing.assert_array_equal(placed(path, tmp_path / "itk")[1], truth(painted, 1))
    assert dcmread(path).ContentCreatorName == "Doe^Jane"


TOWARDS = {"axial": (-1, -1, 0), "coronal": (-1, 0, 1), "sagittal": (0, -1, 1)}
"""Where up and left of the middle lies (LPS): the patient's right or front, the front or the head."""


@pytest.mark.parametrize("pose", ["prone", "coronal", "oblique"])
def test_a_stroke_of_the_pointer_lies_where_the_picture_shows_it(browser: Browser, tmp_path: Path, pose: str) -> None:
    corrected = CorrectedRun(pose, tmp_path)
    middle = tuple(count // 2 for count in corrected.grid.shape)
    centre = corrected.grid.points_mm(middle)
    with correcting(browser, corrected) as page:
        for plane in PLANES:
            page.goto(page.url.split("?")[0] + f"?at={','.join(map(str, middle))}")
            ready(page)
            before = corrected.stored.labels > 0
            dragged(page, plane)
            saved(page)
            places = np.argwhere((corrected.stored.labels > 0) & ~before)
            assert len(places) > 4
            away = (corrected.grid.points_mm(places) - centre).mean(axis=0)
            for axis, way in enumerate(TOWARDS[plane]):
                assert way == 0 or way * away[axis] > 10, f"{plane}: {away}"
            normal = layout(corrected.grid, plane).normal
            assert set(places[:, normal]) == {middle[normal]}


def test_what_is_drawn_lies_under_the_pointer(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected) as page:
        dragged(page, "coronal")
        saved(page)
        shares = page.evaluate(
            """() => {
              const canvas = document.querySelector('.coronal canvas');
              const { data, width, height } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
              const seen = [];
              for (let place = 0; place < width * height; place += 1) {
                const across = place % width;
                const down = (place - across) / width;
                if (data[4 * place + 3]) seen.push([(across + .5) / width, (down + .5) / height]);
              }
              return seen;
            }"""
        )
        drawn = page.locator(".coronal canvas").bounding_box()
        assert drawn == page.locator(".coronal img").bounding_box()
    for at in DRAGGED:
        assert np.linalg.norm(np.array(shares) - at, axis=1).min() < 1 / 40


def test_the_pen_that_is_put_down_paints_one_stroke_with_the_arrows(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected, "?at=14,20,24") as page:
        page.get_by_label("Radius").fill("0")
        page.locator(".axial .picture").focus()
        for key in ("x", "ArrowRight", "ArrowRight", "ArrowDown", "x"):
            page.keyboard.press(key)
        saved(page)
        assert corrected.stored.revision == 1
        line = {(14, 20, 24), (14, 20, 25), (14, 20, 26), (14, 21, 26)}
        assert {tuple(place) for place in np.argwhere(corrected.added)} == line
        page.keyboard.press("e")
        page.keyboard.press(" ")
        saved(page)
        assert {tuple(place) for place in np.argwhere(corrected.added)} == line - {(14, 21, 26)}
        for key, count, revision in (("u", 4, 3), ("u", 0, 4), ("r", 4, 5), ("r", 3, 6)):
            with page.expect_response("**/strokes"):
                page.keyboard.press(key)
            saved(page)
            assert (np.count_nonzero(corrected.added), corrected.stored.revision) == (count, revision)


def test_fill_and_grow_take_what_a_click_means(browser: Browser, corrected: CorrectedRun) -> None:
    box = [(14, row, column) for row in (18, 22) for column in range(22, 27)]
    box += [(14, row, column) for row in range(19, 22) for column in (22, 26)]
    flat = sorted(int(np.ravel_multi_index(place, corrected.grid.shape)) for place in box)
    with correcting(browser, corrected, "?at=14,20,24") as page:
        page.keyboard.press("f")
        page.keyboard.press(" ")
        expect(page.locator("#saved")).to_contain_text("do not go all the way round")
        page.request.post(
            page.url.split("?")[0] + "/strokes",
            data={"revision": 0, "id": "a", "reader": "x", "tool": "brush", "runs": [n for f in flat for n in (f, 1)]},
        )
        page.reload()
        ready(page)
        page.keyboard.press("f")
        with page.expect_response("**/strokes"):
            page.keyboard.press(" ")
        saved(page)
        assert np.count_nonzero(corrected.added) == len(box) + 9
        page.keyboard.press("g")
        with page.expect_response("**/strokes"):
            page.keyboard.press(" ")
        saved(page)
        assert corrected.stored.revision == 3
        assert corrected.stored.last
        assert corrected.stored.last.tool == "grow"


class Killable:
    """``carina view`` in a process of its own, on one port."""

    def __init__(self, corrected: CorrectedRun) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.corrected = corrected
        self.url = f"http://127.0.0.1:{self.port}/correct/lesion"

    def start(self) -> None:
        run, series = self.corrected.run.folder, self.corrected.series
        command = [sys.executable, "-m", "carina.cli.main", "view", run, "--source", series, "--reader", "Jane Doe"]
        self.process = subprocess.Popen(
            [*command, "--no-browser", "--port", str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        assert "http" in self.process.stdout.readline()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


@pytest.fixture
def server(corrected: CorrectedRun) -> Iterator[Killable]:
    one = Killable(corrected)
    one.start()
    yield one
    one.kill()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    one = browser.new_context(viewport={"width": 1280, "height": 800})
    one.set_default_timeout(PATIENCE_MS)
    yield one
    one.close()


def dab(page: Page, at: tuple[int, int, int], url: str) -> None:
    page.goto(f"{url}?at={','.join(map(str, at))}")
    ready(page)
    page.keyboard.press(" ")
    saved(page)


def test_a_server_that_is_killed_between_strokes_loses_none_and_the_page_sends_what_waited(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    page = context.new_page()
    dab(page, AT, server.url)
    server.kill()
    first = corrected.added.copy()
    assert first.any()
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press(" ")
    expect(page.locator("#saved")).to_contain_text("2 strokes not saved: the server does not answer")
    np.testing.assert_array_equal(corrected.added, first)
    server.start()
    saved(page)
    assert corrected.stored.revision == 3
    assert np.count_nonzero(corrected.added) > np.count_nonzero(first)
    page.get_by_role("button", name="Finish the correction").click()
    expect(page.locator("#decided")).to_contain_text("Corrected by Jane Doe")
    (finished,) = finished_of(corrected.run.folder, MaskName.LESION)
    assert finished.revision == 3


def test_a_server_that_is_killed_while_strokes_are_sent_has_each_stroke_whole(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    page = context.new_page()
    page.goto(f"{server.url}?at=14,20,6")
    ready(page)
    for number in range(24):
        page.keyboard.press(" ")
        page.keyboard.press("ArrowRight")
        if number % 8 == 5:
            server.kill()
            server.start()
    saved(page)
    assert corrected.stored.revision == 24
    expected = np.zeros(corrected.grid.shape, np.bool_)
    for step in range(24):
        expected |= disc(corrected.grid, "axial", (14, 20, 6 + step), 4.0)
    np.testing.assert_array_equal(corrected.added, expected & (corrected.network.labels == 0))


def test_a_tab_that_dies_with_the_server_keeps_its_strokes_for_the_next(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    page = context.new_page()
    dab(page, AT, server.url)
    server.kill()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press(" ")
    expect(page.locator("#saved")).to_contain_text("1 stroke not saved")
    page.close(run_before_unload=False)
    server.start()
    page = context.new_page()
    page.goto(server.url)
    saved(page)
    assert corrected.stored.revision == 2


def test_a_second_tab_is_told_and_paints_when_the_first_is_closed(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    first, second = context.new_page(), context.new_page()
    dab(first, AT, server.url)
    second.goto(f"{server.url}?at={','.join(map(str, AT))}")
    expect(second.locator("#saved")).to_contain_text("open in another window of this browser")
    second.keyboard.press(" ")
    assert corrected.stored.revision == 1
    first.close()
    saved(second)
    second.keyboard.press("Shift+ArrowRight")
    second.keyboard.press(" ")
    saved(second)
    assert corrected.stored.revision == 2


@pytest.mark.parametrize("button", ["add my strokes", "drop my strokes"])
def test_another_reader_s_strokes_are_told_and_nobody_s_are_lost_silently(
    browser: Browser, context: BrowserContext, server: Killable, corrected: CorrectedRun, button: str
) -> None:
    mine = context.new_page()
    mine.goto(f"{server.url}?at={','.join(map(str, AT))}")
    ready(mine)
    elsewhere = browser.new_context()
    dab(elsewhere.new_page(), (14, 20, 10), server.url)
    elsewhere.close()
    theirs = corrected.added
    mine.keyboard.press(" ")
    expect(mine.locator("#overtaken")).to_contain_text("changed elsewhere since it was opened here. 1 stroke of yours")
    np.testing.assert_array_equal(corrected.added, theirs)
    mine.get_by_role("button", name=button).click()
    expect(mine.locator("#overtaken")).to_be_hidden()
    saved(mine)
    assert corrected.stored.revision == (2 if button.startswith("add") else 1)
    assert (corrected.added >= theirs).all()


def test_accepting_and_rejecting_need_a_name_and_nothing_unfinished(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected, f"?at={','.join(map(str, AT))}") as page:
        page.get_by_label("Name").fill("")
        page.get_by_role("button", name="Accept").click()
        expect(page.locator("#said")).to_contain_text("Give your name first")
        page.get_by_label("Name").fill("Richard Roe")
        page.get_by_role("button", name="Accept").click()
        expect(page.locator("#decided")).to_contain_text("Accepted by Richard Roe")
        ready(page)
        assert page.get_by_label("Name").input_value() == "Richard Roe"
        page.keyboard.press("2")
        page.keyboard.press(" ")
        saved(page)
    with correcting(browser, corrected) as page:
        expect(page.locator("#decided")).to_contain_text("What was painted since is not finished")


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious_on_the_page(
    browser: Browser, corrected: CorrectedRun, scheme: str, width: int
) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; scripts/build_viewer.py fetches it (needs npm)")
    app = run_app(corrected.run.folder, source=corrected.series, reader="Jane Doe")
    size = {"width": width, "height": 800}
    with served(app) as url, opened(browser, f"{url}/correct/lesion", color_scheme=scheme, viewport=size) as page:
        ready(page)
        page.keyboard.press(" ")
        saved(page)
        page.get_by_role("button", name="Finish the correction").click()
        expect(page.get_by_role("heading", name="Corrections")).to_be_visible(timeout=PATIENCE_MS)
        ready(page)
        page.locator("#overtaken").evaluate("element => { element.hidden = false; }")
        page.route("**/static/axe.min.js", lambda route: route.fulfill(path=AXE, content_type="text/javascript"))
        page.add_script_tag(url="/static/axe.min.js")
        found = page.evaluate("axe.run()")
        serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        assert not serious, [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
