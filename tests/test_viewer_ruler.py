"""The ruler in a real browser, compared with the geometry of the run's own volume."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from carina.report.numbers import PAGE_MINUS
from carina.report.overlay import layout
from carina.service.viewer.scene import PLANES
from carina.volume.files import read_volume
from carina.volume.grid import Grid
from test_viewer_browser import opened
from viewer_runs import posed, served, through_dicom, write_run

POSES_MEASURED = ("feet first", "oblique")


@pytest.fixture(scope="module", params=POSES_MEASURED)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ruler")
    return write_run(through_dicom(posed(request.param), folder / "series"), folder / "run")


def grid_of(run: Path) -> Grid:
    return read_volume(next((run / "volume").glob("*.mhd"))).grid


def length_mm(page: Page) -> float:
    said = page.locator("#measured")
    expect(said).to_contain_text("Ruler: ")
    found = re.search(r"Ruler: ([\d.]+) mm", said.inner_text())
    assert found
    return float(found[1])


def voxel_of(page: Page) -> tuple[int, ...]:
    return tuple(int(part) for part in page.locator("#tools [name=at]").input_value().split(","))


def between_mm(grid: Grid, one: object, other: object) -> float:
    """The distance of two indices by the grid itself."""
    return float(np.linalg.norm(grid.points_mm(np.array(one)) - grid.points_mm(np.array(other))))


def test_the_ruler_measures_between_crosshairs_in_three_dimensions_by_keys(browser: Browser, run: Path) -> None:
    grid = grid_of(run)
    with served(run) as address, opened(browser, f"{address}/?at=30,40,45") as page:
        start = voxel_of(page)
        page.keyboard.press("m")
        expect(page.locator("#measured")).to_contain_text("Ruler: 0.0 mm")
        for plane, steps in (("1", 9), ("2", 13), ("3", 21)):
            page.keyboard.press(plane)
            for _ in range(steps):
                page.keyboard.press("ArrowDown")
        end = voxel_of(page)
        assert sorted(abs(a - b) for a, b in zip(start, end, strict=True)) == [9, 13, 21]
        expected = between_mm(grid, start, end)
        expect(page.locator("#measured")).to_contain_text(f"Ruler: {expected:.1f} mm")
        expect(page.locator(".axial .ruler")).to_have_class(re.compile("drawn away"))
        expect(page.locator(".axial .ruler text")).to_have_text(f"{expected:.1f} mm")
        page.keyboard.press("m")
        page.keyboard.press("ArrowUp")
        expect(page.locator("#measured")).not_to_contain_text("M sets its end")
        assert length_mm(page) == pytest.approx(expected, abs=0.051)
        x, y, z = grid.points_mm(np.array(end))
        expect(page.locator("#measured")).to_contain_text(
            f"to x {x:.1f} y {y:.1f} z {z:.1f} mm".replace("-", PAGE_MINUS)
        )
        page.keyboard.press("Escape")
        expect(page.locator("#measured")).to_be_empty()
        expect(page.locator(".axial .ruler line")).to_be_hidden()


Share = tuple[float, float]
"""Across and down in a picture."""


def drag(page: Page, plane: str, *shares: Share) -> float:
    """Drag over a picture; what the ruler says once its line is that of what was drawn, in mm."""
    said = page.locator("#measured")
    before = said.inner_text()
    box = page.locator(f".{plane} img").bounding_box()
    assert box
    (x, y), *others = [(box["x"] + box["width"] * a, box["y"] + box["height"] * b) for a, b in shares]
    page.mouse.move(x, y)
    page.mouse.down()
    for one in others:
        page.mouse.move(*one)
    page.mouse.up()
    drawn = page.locator(f".{plane} .ruler text").text_content()
    expect(said).not_to_have_text(before)
    expect(said).to_contain_text(f"Ruler: {drawn}")
    return length_mm(page)


def index_at(grid: Grid, plane: str, at: tuple[int, ...], share: Share) -> list[float]:
    """The index under a place of a picture, by the layout that the reports draw by."""
    shown, index = layout(grid, plane), [float(value) for value in at]
    for axis, flip, part in ((shown.columns, shown.flip_columns, share[0]), (shown.rows, shown.flip_rows, share[1])):
        index[axis] = (1 - part if flip else part) * grid.shape[axis] - 0.5
    return index


@pytest.mark.parametrize("plane", PLANES)
def test_the_ruler_measures_what_is_drawn_by_pointer(browser: Browser, run: Path, plane: str) -> None:
    """From edge to edge of a picture is the volume's own extent; a slanted line is what the grid says of its ends."""
    grid = grid_of(run)
    shown = layout(grid, plane)
    width_mm, height_mm = grid.extent_mm[shown.columns], grid.extent_mm[shown.rows]
    with served(run) as address, opened(browser, f"{address}/") as page:
        page.get_by_role("button", name="Measure").press("Enter")
        at = voxel_of(page)
        box = page.locator(f".{plane} img").bounding_box()
        assert box
        near = 2 * max(width_mm / box["width"], height_mm / box["height"])
        assert drag(page, plane, (0.001, 0.5), (0.999, 0.5)) == pytest.approx(0.998 * width_mm, abs=near)
        assert drag(page, plane, (0.3, 0.01), (0.3, 0.5), (0.3, 0.99)) == pytest.approx(0.98 * height_mm, abs=near)
        ends = ((0.2, 0.3), (0.7, 0.85))
        expected = between_mm(grid, *(index_at(grid, plane, at, share) for share in ends))
        assert drag(page, plane, *ends) == pytest.approx(expected, abs=near)
        assert voxel_of(page) == at  # the crosshair stays while the ruler is drawn
        expect(page.locator(f".{plane} .ruler")).not_to_have_class(re.compile("away"))
        page.get_by_role("button", name="Measure").click()
        expect(page.locator("#measured")).to_be_empty()
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
        assert voxel_of(page) != at


def test_where_no_slice_is_shown_nothing_is_measured(browser: Browser, run: Path) -> None:
    with served(run) as address, opened(browser, f"{address}/") as page:
        measure = page.get_by_role("button", name="Measure")
        if page.get_by_role("button", name="3D").is_disabled():
            pytest.skip("the volume viewer is not built (scripts/build_viewer.py, needs npm)")
        for mode in ("3D", "Volume"):
            measure.click()
            expect(measure).to_have_attribute("aria-pressed", "true")
            page.get_by_role("button", name=mode, exact=True).click()
            expect(measure).to_have_attribute("aria-pressed", "false")
            expect(measure).to_be_disabled()
            page.locator("body").press("m")
            page.get_by_role("button", name="Slices").click()
            expect(measure).to_be_enabled()
            expect(page.locator("#panes")).not_to_have_class(re.compile("measuring"))
            page.wait_for_timeout(400)
            expect(page.locator("#measured")).to_be_empty()
