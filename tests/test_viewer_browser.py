"""The viewer in a real Chromium: what is seen is judged by its pixels, what is pressed by what it does."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from scipy import ndimage

from carina.report.numbers import PAGE_MINUS
from carina.service.viewer import routes
from carina.service.viewer.scene import PLANES
from carina.service.viewer.server import run_app
from viewer_runs import POSES, posed, served, through_dicom, write_cohort, write_run

ROOT = Path(__file__).resolve().parents[1]
AXE = ROOT / "web" / "axe.min.js"
PAGES = ("/", "/report", "/files", "/?at=lesion-9", "/pdf/none.pdf")

Pixels = npt.NDArray[np.uint8]
Places = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run for each pose, read from a DICOM series in it."""
    folder = tmp_path_factory.mktemp("poses")
    made = {}
    for pose in (*POSES, "oblique"):
        name = pose.replace(" ", "-")
        made[pose] = write_run(through_dicom(posed(pose), folder / f"{name}-series"), folder / name)
    return made


@pytest.fixture(scope="module")
def url(runs: dict[str, Path]) -> Iterator[str]:
    with served(runs["plain"]) as address:
        yield address


@pytest.fixture(scope="module")
def cohort_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, 12)
    with served(folder) as address:
        yield address


@pytest.fixture(scope="module")
def changes_url(runs: dict[str, Path]) -> Iterator[str]:
    with served(run_app(runs["plain"], [runs["feet first"]])) as address:
        yield f"{address}/changes"


@pytest.fixture
def others(cohort_url: str, changes_url: str) -> list[str]:
    """Pages that are not those of a run alone."""
    return [cohort_url, f"{cohort_url}/?far=yes", changes_url]


@contextmanager
def opened(browser: Browser, address: str, **context: Any) -> Iterator[Page]:
    """A page that must not complain, and must not ask for anything elsewhere."""
    settings = {"viewport": {"width": 1280, "height": 800}, **context}
    one = browser.new_context(**settings)
    page = one.new_page()
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda line: told.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    ours = urlsplit(address).netloc
    elsewhere = [one for one in asked if urlsplit(one).netloc != ours and urlsplit(one).scheme not in ("blob", "data")]
    one.close()
    assert not elsewhere
    assert not [line for line in told if "GPU stall" not in line and "status of 404" not in line]


def pixels_of(place: Locator) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(place.screenshot())).convert("RGB"))


def coloured(pixels: Pixels) -> tuple[Places, Places]:
    """Where the colour of the lungs is, and that of the lesions."""
    red, blue = (pixels[..., part].astype(int) for part in (0, 2))
    return blue - red > 60, red - blue > 60


def check_overlay(marked: Pixels, bare: Pixels, plane: str) -> None:
    """Filled masks lie on the air inside the body, and both lesions on the patient's left, low and at the back."""
    lung, lesion = coloured(marked)
    grey = bare.astype(int).mean(axis=2)
    body = ndimage.binary_opening(grey > 150, iterations=2)
    air = ndimage.binary_fill_holes(body) & (grey < 130)
    both = lung | lesion
    assert lung.sum() > 0.02 * lung.size and lesion.any()
    assert (grey[both] < 175).mean() > 0.9, f"{plane}: the overlay lies on what is no lung"
    assert both[ndimage.binary_erosion(air, iterations=3)].mean() > 0.8, f"{plane}: lung without the overlay"
    down, right = np.argwhere(lesion).mean(axis=0) - np.argwhere(both).mean(axis=0)
    aside = 0.05 * marked.shape[0] if plane != "sagittal" else 0.0
    assert right > aside, f"{plane}: the lesions lie to the left of the lungs' middle"
    assert down > 0, f"{plane}: the lesions lie above the lungs' middle"


@pytest.mark.parametrize("pose", [*POSES, "oblique"])
def test_slices_show_the_overlay_on_the_lungs_and_left_is_left(
    browser: Browser, runs: dict[str, Path], pose: str
) -> None:
    with served(runs[pose]) as address:
        pictures = []
        for overlay in ("lung-fill,lesion-fill&opacity=100", "none"):
            with opened(browser, f"{address}/?overlay={overlay}", java_script_enabled=False) as page:
                pictures.append({name: pixels_of(page.locator(f".{name} img")) for name in PLANES})
        for plane in PLANES:
            check_overlay(pictures[0][plane], pictures[1][plane], plane)


@pytest.mark.parametrize("plane", PLANES)
def test_the_judge_of_pictures_sees_what_is_mirrored_or_beside(browser: Browser, url: str, plane: str) -> None:
    pictures = []
    for overlay in ("lung-fill,lesion-fill&opacity=100", "none"):
        with opened(browser, f"{url}/?overlay={overlay}", java_script_enabled=False) as page:
            pictures.append(pixels_of(page.locator(f".{plane} img")))
    marked, bare = pictures
    check_overlay(marked, bare, plane)
    wrong = {
        "mirrored": (marked[:, ::-1], bare[:, ::-1]),
        "upside down": (marked[::-1], bare[::-1]),
        "beside": (np.roll(marked, 40, axis=1), bare),
        "mask mirrored": (np.where(np.any(np.stack(coloured(marked)), axis=0)[..., None], marked, bare)[::-1], bare),
    }
    for name, (seen, under) in wrong.items():
        if (plane, name) != ("coronal", "mask mirrored"):  # a chest is nearly the same upside down
            with pytest.raises(AssertionError):
                check_overlay(seen, under, plane)


def volume_shown(page: Page) -> Locator:
    if page.get_by_role("button", name="Volume").is_disabled():
        pytest.skip("the volume viewer is not installed; scripts/build_viewer.py builds it (needs npm)")
    page.get_by_role("button", name="Volume").click()
    expect(page.locator("#volume[data-size=full]")).to_be_visible()
    return page.locator("#volume canvas")


TILES = {"axial": (0.0, 0.6, 0.0, 1.0), "coronal": (0.6, 1.0, 0.0, 0.5), "sagittal": (0.6, 1.0, 0.5, 1.0)}


@pytest.mark.parametrize("pose", [*POSES, "oblique"])
def test_the_volume_shows_the_overlay_on_the_lungs_and_left_is_left(
    browser: Browser, runs: dict[str, Path], pose: str
) -> None:
    with (
        served(runs[pose]) as address,
        opened(browser, f"{address}/?overlay=lung-fill,lesion-fill&opacity=100") as page,
    ):
        canvas = volume_shown(page)
        page.wait_for_timeout(300)
        marked = pixels_of(canvas)
        page.locator("[name=lung]").select_option("off")
        page.locator("[name=lesion]").select_option("off")
        page.wait_for_timeout(300)
        bare = pixels_of(canvas)
    height, width = marked.shape[:2]
    for plane, (left, right, top, bottom) in TILES.items():
        tile = (
            slice(int(top * height) + 4, int(bottom * height) - 4),
            slice(int(left * width) + 4, int(right * width) - 4),
        )
        check_overlay(marked[tile], bare[tile], plane)


def z_of(page: Page) -> float:
    found = re.search(rf"z ([{PAGE_MINUS}\d.]+) mm", page.locator("#place").inner_text())
    assert found
    return float(found[1].replace(PAGE_MINUS, "-"))


def test_keys_move_choose_and_change_everything(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}/") as page:
        place = page.locator("#place")
        output = page.locator(".axial output")
        before, start = z_of(page), int(output.inner_text())
        page.keyboard.press("ArrowDown")
        expect(place).not_to_contain_text(f"z {before}".replace("-", PAGE_MINUS))
        assert z_of(page) == pytest.approx(before - 16 / 3, abs=0.1)
        page.keyboard.press("PageDown")
        expect(output).to_have_text(str(start - 11))
        page.keyboard.press("Home")
        expect(output).to_have_text("59")
        page.keyboard.press("2")
        expect(page.locator(".coronal")).to_have_class(re.compile("active"))
        page.keyboard.press("End")
        expect(page.locator(".coronal output")).to_have_text("95")
        page.keyboard.press("p")
        page.keyboard.press("n")
        expect(page.locator("#lesions a").nth(0)).to_have_attribute("aria-current", "true")
        page.keyboard.press("n")
        expect(page.locator("#lesions a").nth(1)).to_have_attribute("aria-current", "true")
        page.keyboard.press("w")
        page.keyboard.press("o")
        page.keyboard.press("l")
        page.keyboard.press("-")
        wanted = r"at=lesion-2&window=aerated&overlay=lung-fill&opacity=25"
        expect(page).to_have_url(re.compile(re.escape(wanted)))
        expect(page.locator(".axial img")).to_have_attribute("alt", re.compile("Lesion .* cm²"))
        page.reload()
        expect(page.locator("[name=window]")).to_have_value("aerated")
        expect(page.locator("#lesions a").nth(1)).to_have_attribute("aria-current", "true")


def test_the_pointer_moves_the_crosshair_of_the_other_planes(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}/") as page:
        box = page.locator(".coronal img").bounding_box()
        assert box
        page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
        expect(page.locator(".sagittal output")).to_have_text("24")
        expect(page.locator(".axial output")).to_have_text("45")
        expect(page.locator(".axial .cross line").first).to_have_attribute("x1", re.compile(r"^25\.5"))
        page.mouse.wheel(0, 40)
        expect(page.locator(".coronal .step").first).to_be_visible()


def test_without_scripts_links_and_the_form_do_the_same(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}/", java_script_enabled=False) as page:
        page.locator("#lesions a").nth(1).click()
        expect(page.locator("#lesions a").nth(1)).to_have_attribute("aria-current", "true")
        start = int(page.locator(".axial output").inner_text())
        page.get_by_label("Next axial slice").click()
        expect(page.locator(".axial output")).to_have_text(str(start - 1))
        page.locator("[name=window]").select_option("bone")
        page.get_by_role("button", name="Show").click()
        expect(page.locator(".axial img")).to_have_attribute("src", re.compile(f"/axial/{start - 1}.png.window=bone"))


def test_a_build_that_is_missing_is_said_and_everything_else_works(
    browser: Browser, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "VOLUME_VIEWER", ROOT / "nowhere" / "volume.js")
    with served(runs["plain"]) as address, opened(browser, f"{address}/") as page:
        expect(page.get_by_text("This installation has no volume viewer")).to_be_visible()
        expect(page.get_by_role("button", name="Volume")).to_be_disabled()
        page.keyboard.press("v")
        page.keyboard.press("n")
        expect(page.locator("#lesions a").nth(1)).to_have_attribute("aria-current", "true")
        expect(page.locator(".axial img")).to_be_visible()


def test_a_cohort_is_walked_by_keyboard_from_a_bar_to_its_case(browser: Browser, cohort_url: str) -> None:
    with opened(browser, cohort_url) as page:
        ratio = page.get_by_role("columnheader", name="Ratio %").get_by_role("link")
        for order in ("descending", "ascending"):
            ratio.press("Enter")
            expect(page.locator(f"[aria-sort={order}]")).to_have_text("Ratio %")
            expect(ratio).to_be_focused()
        page.get_by_role("link", name="Ratio % 57").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text("1 of 13 rows")).to_be_visible()
        page.get_by_role("link", name="60.0 (far above the others)").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Report")).to_be_visible()
        page.get_by_role("link", name="Cohort").click()
        expect(page.get_by_text("13 of 13 rows")).to_be_visible()


def test_both_scans_follow_the_arrow_keys_and_the_address_keeps_the_place(browser: Browser, changes_url: str) -> None:
    with opened(browser, changes_url) as page:
        before = [int(text) for text in page.locator(".beside output").all_inner_texts()]
        page.get_by_label("Slice").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".beside output").nth(1)).to_have_text(str(before[1] + 1))
        expect(page.locator(".beside output").nth(0)).to_have_text(str(before[0] - 1))  # stored feet first
        expect(page).to_have_url(re.compile(rf"at={before[1] + 1}\b"))
        shown = page.locator(".beside img").nth(0).get_attribute("src")
        assert shown and f"/earlier/1/slice/axial/{before[0] - 1}.png" in shown


NUMBERS_BELOW_0 = """() => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (texts.nextNode()) {
    for (const { index } of texts.currentNode.data.matchAll(/(?<!\\w)[-\u2013\u2212](?=\\d)/g)) {
      const range = document.createRange();
      range.setStart(texts.currentNode, index);
      range.setEnd(texts.currentNode, index + 2);
      const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
      found.push([texts.currentNode.data.trim(), lines.size]);
    }
  }
  return found;
}"""


def test_no_line_breaks_between_a_minus_and_its_number(browser: Browser, url: str, changes_url: str) -> None:
    for address in (f"{url}/", f"{url}/report", changes_url):
        with opened(browser, address) as page:
            for width in range(300, 800, 25):
                page.set_viewport_size({"width": width, "height": 800})
                found = page.evaluate(NUMBERS_BELOW_0)
                assert found, "no number below 0 on the page"
                assert not [(width, text) for text, lines in found if lines > 1]


@pytest.mark.parametrize(("scheme", "width"), [("dark", 390), ("light", 1280)])
def test_axe_finds_nothing_serious_and_nothing_runs_over_the_edge(
    browser: Browser, url: str, others: list[str], scheme: str, width: int
) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; scripts/build_viewer.py fetches it (needs npm)")
    for address in [*(url + path for path in PAGES), *others]:
        size = {"width": width, "height": 800}
        with opened(browser, address, color_scheme=scheme, viewport=size) as page:
            page.route("**/static/axe.min.js", lambda route: route.fulfill(path=AXE, content_type="text/javascript"))
            page.add_script_tag(url="/static/axe.min.js")
            found = page.evaluate("axe.run()")
            serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
            assert not serious, [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious]
            assert page.evaluate("document.documentElement.scrollWidth") <= width


SHADOWED = """(it) => {
  const { backgroundImage, backgroundAttachment } = getComputedStyle(it);
  const isWhole = backgroundImage.split("linear-gradient").length === 5;
  return isWhole && backgroundAttachment === "local, local, scroll, scroll";
}"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_table_that_goes_on_beside_a_narrow_window_shows_it_and_is_scrolled_by_keys(
    browser: Browser, url: str, others: list[str], scheme: str
) -> None:
    for address in [f"{url}/report", *others]:
        with opened(browser, address, color_scheme=scheme, viewport={"width": 390, "height": 800}) as page:
            for table in page.locator("table").all():
                shown = table.locator("xpath=ancestor::div[@class='scroll']")
                if not shown.count():
                    assert table.evaluate("it => it.getBoundingClientRect().right <= innerWidth"), address
                    continue
                assert shown.evaluate(SHADOWED), address
                shown.evaluate("it => { it.firstElementChild.style.minWidth = '600px'; }")
                shown.press("ArrowRight")
                page.wait_for_function("it => it.scrollLeft > 0", arg=shown.element_handle())


def test_the_command_serves_a_run_until_it_is_told_to_end(browser: Browser, runs: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "carina.cli.main", "view", str(runs["plain"]), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert address, said
        with opened(browser, address[0]) as page:
            expect(page.get_by_role("heading", name="Lesion to lung volume ratio")).to_be_visible()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
