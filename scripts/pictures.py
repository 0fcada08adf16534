"""Takes the pictures of docs/viewer.md and README from the running viewer, on series whose licences allow it.

Usage: .venv/bin/python scripts/pictures.py [SERIES_FOLDER] [RUN_FOLDER] [COHORT_FOLDER]

SERIES_FOLDER defaults to covidctmd-p002 of the real data (COVID-CT-MD, CC BY 4.0), the cohort is that of all series
beside it. No follow-up of one patient is at hand whose licence allows it: the comparison shows another patient of the
set as if it were an earlier scan, and its caption says so. Needs chromium and the build of the volume viewer. Look at
every picture before it is committed.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from pydicom import dcmread

import carina
from carina.dicom.find import choose_source, find_series

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "images" / "viewer"
SERIES = ROOT.parent / "shared" / "data" / "ct" / "covidctmd-p002"
STAND_IN = "covidctmd-normal001"
STAND_IN_DATE = "20200212"
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
COLOURS = 256
"""Of a palette: greys of CT, two overlays, a page."""

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
SOFTWARE_MS = 20_000
"""What a browser without a graphics card takes to turn a volume."""


def settled(page: Page) -> None:
    """The three slices as they are wanted."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)
    expect(page.locator("[data-drawing]")).to_have_count(0, timeout=60_000)
    page.wait_for_timeout(1500)


def images(page: Page) -> None:
    """The largest lesion in three planes."""
    settled(page)


def second_lesion(page: Page) -> None:
    """The second lesion in the narrow window, its mask in outline."""
    settled(page)
    for key in ("n", "w", "o", "o"):
        page.keyboard.press(key)
    settled(page)


def saliency(page: Page) -> None:
    """What the probability depends on, without the lesions."""
    settled(page)
    page.keyboard.press("a")
    settled(page)


def solid(page: Page) -> None:
    """Bones, lungs and lesions in 3D."""
    page.get_by_role("button", name="3D").click()
    page.locator("#volume[data-mode=solid]").wait_for(timeout=60_000)
    page.wait_for_timeout(SOFTWARE_MS)


def airways(page: Page) -> None:
    """Trachea, bronchi and lesions in 3D."""
    shown_as(page, "airways")


def lungs(page: Page) -> None:
    """What is inside the lungs in 3D."""
    shown_as(page, "lungs")


def shown_as(page: Page, name: str) -> None:
    """One of the solids that have an image of their own."""
    solid(page)
    page.get_by_label("Shown as").select_option(name)
    page.locator(f"#volume[data-solid={name}]").wait_for(timeout=180_000)
    page.wait_for_timeout(SOFTWARE_MS)


def correcting(page: Page) -> None:
    """A correction that is finished, and a stroke after it."""
    settled(page)
    saved = page.locator("#saved[data-state=saved]")
    page.get_by_label("Radius").fill("9")
    page.locator(".axial .picture").focus()
    for key in ("b", "x", *["Shift+ArrowUp"] * 4, "x"):
        page.keyboard.press(key)
    page.wait_for_timeout(500)
    saved.wait_for()
    page.get_by_role("button", name="Finish the correction").click()
    page.locator(".corrections").wait_for()
    settled(page)
    page.locator(".axial .picture").focus()
    for key in ("x", *["Shift+ArrowLeft"] * 3, "x"):
        page.keyboard.press(key)
    page.wait_for_timeout(500)
    saved.wait_for()
    settled(page)


Step = Callable[[Page], None]

SHOTS: dict[str, tuple[str, dict[str, int], str, Step]] = {
    "images": ("/", WIDE, "dark", images),
    "lesion": ("/", WIDE, "light", second_lesion),
    "saliency": ("/", WIDE, "dark", saliency),
    "solid": ("/", WIDE, "dark", solid),
    "airways": ("/", WIDE, "dark", airways),
    "lungs": ("/", WIDE, "dark", lungs),
    "report": ("/report", WIDE, "light", settled),
    "narrow": ("/", NARROW, "dark", images),
    "correct": ("/correct/lesion", WIDE, "dark", correcting),
}


COHORT_SHOTS: dict[str, tuple[str, dict[str, int], str, Step]] = {
    "cohort": ("/?order=-lungs+ratio_percent", WIDE, "light", Page.wait_for_load_state),
}


CHANGE_SHOTS: dict[str, tuple[str, dict[str, int], str, Step]] = {"changes": ("/changes", WIDE, "light", settled)}


def take(address: str, shots: Mapping[str, tuple[str, dict[str, int], str, Step]]) -> None:
    """Every picture, of the product as it is."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, (path, size, scheme, step) in shots.items():
            context = chromium.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
            page = context.new_page()
            page.set_default_timeout(120_000)
            page.goto(address + path)
            step(page)
            shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            shown.quantize(COLOURS).save(PICTURES / f"{name}.png", optimize=True)
            print(PICTURES / f"{name}.png", flush=True)
            context.close()
        chromium.close()


def show(folder: Path, shots: Mapping[str, tuple[str, dict[str, int], str, Step]], *options: str) -> None:
    """Serve a run or a cohort and take its pictures."""
    command = [sys.executable, "-m", "carina.cli.main", "view", str(folder), "--no-browser", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline() if process.stdout else "")
        if address is None:
            raise SystemExit("carina view did not start")
        try:
            take(address[0], shots)
        finally:
            process.terminate()


def stand_in(cohort: Path, series: Path, folder: Path) -> Path:
    """A copy of the run on a series of the cohort, its objects dated as an earlier scan's."""
    uid = choose_source(find_series(series).found).uid
    manifest = next(file for file in cohort.glob("*/manifest.json") if uid in file.read_text())
    run = Path(shutil.copytree(manifest.parent, folder))
    for file in (run / "dicom").glob("*.dcm"):
        dataset = dcmread(file)
        dataset.StudyDate = STAND_IN_DATE
        dataset.save_as(file)
    return run


def main() -> None:
    """Run the pipeline, unless the runs are there, serve them and take the pictures."""
    series = Path(sys.argv[1]) if len(sys.argv) > 1 else SERIES
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "runs" / "pictures" / "P002"
    cohort = Path(sys.argv[3]) if len(sys.argv) > 3 else ROOT / "runs" / "public-chests"
    carina.run(series, out)
    show(out, SHOTS, "--source", str(series), "--reader", "Jane Doe")
    carina.run_many(series.parent, cohort, each="series")
    show(cohort, COHORT_SHOTS)
    with TemporaryDirectory() as folder:
        earlier = stand_in(cohort, series.parent / STAND_IN, Path(folder) / "run")
        show(out, CHANGE_SHOTS, "--earlier", str(earlier))


if __name__ == "__main__":
    main()
