"""From the click to the first slice: the viewer of a 512x512x300 run, asked by a program and by headless Chromium.

Usage: python benchmarks/viewer.py [--slices 300] [--times 5] [--no-browser]

Every measurement has a server of its own, which has read nothing yet. Needs the ``test`` extra and chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page, sync_playwright

from carina.measure.ratio import lesion_ratio
from carina.operators.stored_findings import StoredRatio
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord, State, write_manifest
from carina.synth.phantom import chest_phantom
from carina.volume.files import write_mask, write_volume

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PLANES = ("axial", "coronal", "sagittal")

Timed = dict[str, float]

SETTLED_MS = 2000
"""Whoever clicks does so in a browser that has started: a new window still loads its own bars."""

TICKS = os.sysconf("SC_CLK_TCK")


class Server(NamedTuple):
    """A viewer that listens."""

    address: str
    process_id: int

    def processor_s(self) -> float:
        """Processor seconds that it has taken so far, all threads together; for Linux."""
        fields = Path(f"/proc/{self.process_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def make_run(folder: Path, slices: int) -> None:
    """The run of a phantom, its masks being the truth."""
    phantom = chest_phantom(shape=(slices, 512, 512), lesions=8)
    write_volume(phantom.volume, folder / "volume" / "1.2.3.mhd")
    write_mask(phantom.lung, folder / "lung" / "1.2.3.mhd")
    write_mask(phantom.lesion, folder / "lesion" / "1.2.3.mhd")
    step = folder / "steps" / "volume-ratio"
    step.mkdir(parents=True)
    files = StoredRatio.save(lesion_ratio(phantom.lesion, phantom.lung, phantom.volume), step, lambda _: ())
    outputs = {"/output": [path.relative_to(folder).as_posix() for path in files]}
    record = OperatorRecord(image="carina/ai-volume-ratio", state=State.DONE, outputs=outputs)
    definition = DefinitionRecord(name="benchmark", file="", sha256="")
    write_manifest(
        Manifest(
            state=State.DONE, fingerprint="", started="", definition=definition, operators={"volume-ratio": record}
        ),
        folder,
    )


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """``carina view`` of a run, as its users start it."""
    command = [sys.executable, "-m", "carina.cli.main", "view", str(folder), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline() if process.stdout else ""
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        if address is None:
            raise SystemExit(f"carina view did not start: {said!r}")
        urllib.request.urlopen(f"{address[0]}/static/icon.svg").read()
        try:
            yield Server(address[0], process.pid)
        finally:
            process.terminate()


def asked(server: Server) -> Timed:
    """Seconds that a program waits, one request after the other."""
    timed: Timed = {}

    def take(name: str, path: str) -> bytes:
        start = time.perf_counter()
        body: bytes = urllib.request.urlopen(server.address + path).read()
        timed[name] = time.perf_counter() - start
        return body

    before = server.processor_s()
    page = take("page", "/").decode()
    for plane, path in zip(PLANES, re.findall(r'src="(/slice/[^"]+)"', page), strict=True):
        take(f"{plane} slice", path.replace("&amp;", "&"))
        timed.setdefault("page and first slice, processor", server.processor_s() - before)
    timed["page and first slice"] = timed["page"] + timed["axial slice"]
    take("the same slice again", "/slice/axial/150.png")
    take("quarter of the CT", "/volume/quarter/ct.nii.gz")
    take("quarter of the marks", "/volume/quarter/marks.nii.gz")
    take("whole CT", "/volume/full/ct.nii")
    return timed


NOTED = """document.addEventListener("load", async ({ target }) => {
  if (!target.matches?.(".pane img")) return;
  await target.decode();
  document.documentElement.dataset[target.closest(".pane").dataset.plane] ??= performance.now() / 1000;
}, true)"""
"""Noted by the page itself: a driver's question waits while NiiVue starts."""


def seen(page: Page, server: Server) -> Timed:
    """Seconds from the click until Chromium has decoded the slices and painted the quarter."""
    page.add_init_script(NOTED)
    page.goto(f"{server.address}/static/icon.svg")
    page.wait_for_timeout(SETTLED_MS)
    before = server.processor_s()
    page.goto(f"{server.address}/", wait_until="commit")
    page.wait_for_selector("".join(f"[data-{plane}]" for plane in PLANES))
    noted = page.evaluate("({...document.documentElement.dataset})")
    timed = {f"{plane} slice": float(noted[plane]) for plane in PLANES}
    timed["slices, processor"] = server.processor_s() - before
    if page.get_by_role("button", name="Volume").is_enabled():
        page.locator("#volume[data-size=quarter]").wait_for(state="attached", timeout=120_000)
        timed["quarter loaded behind the slices"] = float(page.evaluate("performance.now() / 1000"))
        start = time.perf_counter()
        page.get_by_role("button", name="Volume").click()
        page.locator("#volume[data-mode=volume] canvas").wait_for()
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        timed["from the click on Volume until it is painted"] = time.perf_counter() - start
    return timed


def repeated(folder: Path, times: int, measure: Callable[[Server], Timed]) -> Timed:
    """The median of each figure over fresh servers."""
    rounds = []
    for _ in range(times):
        with served(folder) as server:
            rounds.append(measure(server))
    return {name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--no-browser", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="carina-viewer-") as name:
        make_run(Path(name), wanted.slices)
        found = {"asked by a program": repeated(Path(name), wanted.times, asked)}
        if not wanted.no_browser:
            with sync_playwright() as playwright:
                chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)

                def measure(server: Server) -> Timed:
                    context = chromium.new_context(viewport={"width": 1280, "height": 800})
                    try:
                        return seen(context.new_page(), server)
                    finally:
                        context.close()

                found["seen in Chromium"] = repeated(Path(name), wanted.times, measure)
        print(json.dumps({"load": os.getloadavg()[0], "medians, s": found}, indent=2))


if __name__ == "__main__":
    main()
