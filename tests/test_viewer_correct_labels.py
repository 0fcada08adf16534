"""Which mask is painted: chosen by click or key, told by a legend, and what comes of it is of that mask alone."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, Error, Page, Route, expect
from pydicom import dcmread

from carina.corrections.finish import finished_folder, finished_of, reader_mask
from carina.corrections.masks import CORRECTIONS, MaskName, network_mask
from carina.measure.ratio import lesion_ratio
from carina.report.overlay import LONGEST_PX, layout
from carina.report.paint import Plane, Style, paint
from carina.service.viewer.scene import PLANES
from carina.service.viewer.slices import Index
from carina.volume.arrays import Flags
from conftest import PATIENCE_MS
from corrected_runs import AT, CorrectedRun, decided, disc, ready, saved
from dicom_objects_samples import errors_of, placed
from test_viewer_correct_browser import correcting

COLOURS = {MaskName.LUNG: [86, 180, 233], MaskName.LESION: [230, 159, 0]}
FILLED = 110
THIN, THICK = (30, 48, 48), (12, 72, 72)
"""Shapes of the same chest: of slices as thick as one and five of their pixels."""


@pytest.fixture
def corrected(tmp_path: Path) -> CorrectedRun:
    return CorrectedRun("plain", tmp_path)


def asked(at: Index) -> str:
    return f"?at={','.join(map(str, at))}"


def at_border(corrected: CorrectedRun) -> Index:
    """A lesion's voxel at its border to the lung around it, where all three planes cut both masks."""
    z = int(np.argmax(np.count_nonzero(corrected.network.labels, axis=(1, 2))))
    places = np.argwhere(corrected.network.labels[z] > 0)
    y, x = places[places[:, 1].argmin()].tolist()
    return z, y, x


def active(page: Page, name: str) -> None:
    expect(page.locator(".labels [aria-current]")).to_contain_text(f"{name} being painted")


def chosen(page: Page, way: str, name: str) -> None:
    link = page.get_by_role("link", name=re.compile(f"^{name}"))
    if way == "key":
        page.keyboard.press({"Lung": "l", "Lesion": "o"}[name])
    elif way == "click":
        link.click()
    else:
        link.press("Enter")


@pytest.mark.parametrize("way", ["key", "click", "Enter"])
def test_the_lung_is_chosen_at_the_same_place_with_the_same_tools_and_back(
    browser: Browser, corrected: CorrectedRun, way: str
) -> None:
    with correcting(browser, corrected, asked(AT)) as page:
        active(page, "Lesion")
        page.get_by_label("Radius").fill("9")
        page.get_by_label("Tool").select_option("eraser")
        page.locator(".axial .picture").focus()
        page.keyboard.press("ArrowRight")
        chosen(page, way, "Lung")
        active(page, "Lung")
        ready(page)
        z, y, x = AT
        assert page.url.endswith(f"/correct/lung?at={z},{y},{x + 1}")
        expect(page.get_by_role("heading", name="The lung mask", exact=True)).to_be_visible()
        assert page.get_by_label("Radius").input_value() == "9"
        assert page.get_by_label("Tool").input_value() == "eraser"
        chosen(page, way, "Lesion")
        active(page, "Lesion")
        ready(page)


def test_a_corrected_lung_is_an_object_of_the_lungs_and_the_ratio_is_measured_with_it(
    browser: Browser, corrected: CorrectedRun, tmp_path: Path
) -> None:
    run, at = corrected.run, at_border(corrected)
    before = network_mask(run, MaskName.LUNG)
    erased = (before.labels > 0) & ~disc(corrected.grid, "axial", at)
    with correcting(browser, corrected, asked(at)) as page:
        page.keyboard.press("l")
        active(page, "Lung")
        ready(page)
        page.get_by_label("Radius").fill("9")
        page.locator(".axial .picture").focus()
        page.keyboard.press("e")
        page.keyboard.press(" ")
        saved(page)
        page.get_by_role("button", name="Finish the correction").click()
        decided(page, "Corrected by Jane Doe")
        np.testing.assert_array_equal(reader_mask(run, MaskName.LUNG).labels > 0, erased)
        (finished,) = finished_of(run.folder, MaskName.LUNG)
        lung = replace(before, labels=erased.astype(np.uint8))
        ratio = lesion_ratio(network_mask(run, MaskName.LESION), lung, run.volume).regions[0].ratio_percent
        assert finished.reader_ratio_percent == pytest.approx(ratio)
        assert finished.reader_ratio_percent != finished.network_ratio_percent
        words = f"Lesion to lung ratio: {ratio:.2f} %, measured with lung correction 1 of Jane Doe"
        expect(page.get_by_text(words)).to_be_visible()
        page.keyboard.press("o")
        active(page, "Lesion")
        expect(page.get_by_text(words)).to_be_visible()
    check_lungs(finished_folder(run.folder, MaskName.LUNG, 1) / "dicom" / "lung-seg.dcm", erased, tmp_path)
    assert finished_of(run.folder, MaskName.LESION) == []


def check_lungs(path: Path, erased: Flags, folder: Path) -> None:
    assert errors_of(path) == []
    assert [one.SegmentLabel for one in dcmread(path).SegmentSequence] == ["left lung", "right lung"]
    sides = placed(path, folder / "itk")
    assert sum(map(len, sides.values())) == np.count_nonzero(erased)


@pytest.mark.parametrize(("pose", "shape"), [("plain", THIN), ("feet first", THICK)], ids=["thin", "thick"])
def test_the_painted_mask_is_filled_and_the_other_outlined_as_it_is_painted_by_now(
    browser: Browser, tmp_path: Path, pose: str, shape: tuple[int, int, int]
) -> None:
    corrected = CorrectedRun(pose, tmp_path, shape)
    lung, at = network_mask(corrected.run, MaskName.LUNG).labels > 0, at_border(corrected)
    with correcting(browser, corrected, asked(at)) as page:
        check_drawn(page, corrected, MaskName.LESION, corrected.network.labels > 0, lung)
        page.get_by_label("Radius").fill("9")
        page.locator(".axial .picture").focus()
        page.keyboard.press(" ")
        saved(page)
        assert corrected.added.any()
        page.keyboard.press("l")
        active(page, "Lung")
        expect(page.get_by_role("link", name="Lesion")).to_contain_text("outlined, not finished")
        ready(page)
        check_drawn(page, corrected, MaskName.LUNG, lung, corrected.stored.labels > 0)
        page.keyboard.press("h")
        expect(page.locator("#saved")).to_contain_text("The masks are hidden")
        assert not any(canvas_of(page, plane, name).any() for plane in PLANES for name in ("fill", "outlines"))
        page.keyboard.press("h")
        check_drawn(page, corrected, MaskName.LUNG, lung, corrected.stored.labels > 0)


def canvas_of(page: Page, plane: str, name: str) -> npt.NDArray[np.float64]:
    """A canvas of a pane: rows, columns, RGBA."""
    picture = page.locator(f".{plane} .{name}").evaluate("canvas => canvas.toDataURL().split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGBA"), np.float64)


def line_of(marks: Flags, layer: MaskName, mm: tuple[float, float]) -> npt.NDArray[np.float64]:
    """How strongly each pixel of the picture of a slice is covered by a mask's outline, as the server draws it."""
    masks = {name: marks if name is layer else np.zeros_like(marks) for name in MaskName}
    black = np.full(marks.shape, -2000, np.int16)
    drawn = Plane(hu=black, lung=masks[MaskName.LUNG], lesion=masks[MaskName.LESION], spacing_mm=mm)
    pixels = np.asarray(paint(drawn, LONGEST_PX, style=Style(lesion_fill=0.0)), np.float64)
    covered: npt.NDArray[np.float64] = pixels[..., 1] / COLOURS[layer][1]
    return covered


def check_drawn(page: Page, corrected: CorrectedRun, layer: MaskName, filled: Flags, outlined: Flags) -> None:
    """In each plane each voxel that is painted is filled; the other mask has the line that the server draws of it."""
    other = next(name for name in MaskName if name != layer)
    at, spacing = at_border(corrected), corrected.grid.spacing_mm
    page.wait_for_load_state("networkidle")
    for plane in PLANES:
        shown = layout(corrected.grid, plane)
        fill, marks = (np.ascontiguousarray(shown.plane(flags, at[shown.normal]) > 0) for flags in (filled, outlined))
        pixels = canvas_of(page, plane, "fill")
        np.testing.assert_array_equal(pixels[..., 3], FILLED * fill)
        assert np.abs(pixels[fill][:, :3] - COLOURS[layer]).max() <= 2  # premultiplied by the browser
        pixels = canvas_of(page, plane, "outlines")
        line = line_of(marks, other, (spacing[shown.rows], spacing[shown.columns]))
        np.testing.assert_allclose(pixels[..., 3] / 255, line, atol=0.01)
        assert np.abs(pixels[pixels[..., 3] == 255][:, :3] - COLOURS[other]).max() == 0


class HeldStrokes:
    """Strokes of a page, held by their ids: a page that is kept waiting sends a stroke again under the same one."""

    def __init__(self, page: Page) -> None:
        self._page, self._free = page, set[str]()
        self._held: dict[str, list[Route]] = {}
        page.route("**/strokes", self._take)

    def _take(self, route: Route) -> None:
        stroke = str(json.loads(route.request.post_data or "{}")["id"])
        if stroke in self._free:
            route.continue_()
        else:
            self._held.setdefault(stroke, []).append(route)

    def let_go(self) -> None:
        """Lets the first stroke that is held go on, once the browser has sent it."""
        for _ in range(int(PATIENCE_MS / 20)):
            if self._held:
                break
            self._page.wait_for_timeout(20)
        assert self._held, "no stroke was held: none was sent, or one slipped by"
        stroke = next(iter(self._held))
        self._free.add(stroke)
        for route in self._held.pop(stroke):
            with suppress(Error):  # the page has given this one up
                route.continue_()


def test_what_is_not_saved_keeps_the_page_until_it_is(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected, asked(AT)) as page:
        held = HeldStrokes(page)
        page.keyboard.press(" ")
        page.keyboard.press("l")
        expect(page.locator("#saved")).to_contain_text("The other mask opens when they are saved.")
        active(page, "Lesion")
        held.let_go()
        active(page, "Lung")
    assert corrected.stored.revision == 1


def test_a_stroke_that_is_being_drawn_is_not_cut_off_by_the_other_mask(
    browser: Browser, corrected: CorrectedRun
) -> None:
    with correcting(browser, corrected, asked(AT)) as page:
        held = HeldStrokes(page)
        page.keyboard.press(" ")
        page.keyboard.press("l")
        expect(page.locator("#saved")).to_contain_text("1 stroke not saved")
        box = page.locator(".axial .picture").bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.4)
        page.mouse.down()
        held.let_go()
        expect(page.locator("#saved")).to_have_attribute("data-state", "saved")
        active(page, "Lesion")
        page.mouse.up()
        expect(page.locator("#saved")).to_contain_text("The other mask opens when they are saved.")
        held.let_go()
        active(page, "Lung")
    assert corrected.stored.revision == 2


def test_the_mask_that_is_painted_takes_the_choice_of_the_other_back(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected, asked(AT)) as page:
        held = HeldStrokes(page)
        page.keyboard.press(" ")
        page.keyboard.press("l")
        expect(page.locator("#saved")).to_contain_text("The other mask opens")
        page.keyboard.press("o")
        expect(page.locator("#saved")).not_to_contain_text("The other mask opens")
        held.let_go()
        saved(page)
        active(page, "Lesion")


PRESSED = """(keys) => {
  const place = document.querySelector('.axial .picture');
  for (const key of keys) place.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
  return Object.keys(localStorage).filter((name) => name.startsWith('carina strokes'));
}"""
"""Keys in one turn of the page's own loop: it is on its way to where the first leads when it gets the second."""


def test_nothing_is_painted_while_the_browser_leaves_for_the_other_mask(
    browser: Browser, corrected: CorrectedRun
) -> None:
    with correcting(browser, corrected, asked(AT)) as page:
        assert len(page.evaluate(PRESSED, [" "])) == 1
        saved(page)
        assert corrected.stored.revision == 1
        assert page.evaluate(PRESSED, ["l", " "]) == []
        active(page, "Lung")
        ready(page)
        assert corrected.stored.revision == 1
        assert page.evaluate(PRESSED, []) == []


def test_a_run_with_one_mask_offers_that_one(browser: Browser, corrected: CorrectedRun) -> None:
    shutil.rmtree(corrected.run.folder / "lesion")
    with correcting(browser, corrected, asked(AT)) as page:  # asks for the lesions
        assert page.url.endswith(f"/correct/lung{asked(AT)}")
        active(page, "Lung")
        expect(page.get_by_text("This run made no lesion mask.")).to_be_visible()
        page.keyboard.press("o")
        page.keyboard.press(" ")
        saved(page)
        active(page, "Lung")
    assert [path.name for path in (corrected.run.folder / CORRECTIONS).glob("*.strokes")] == ["lung.strokes"]
