"""Takes the picture of docs/node.md: the worklist of a running node to which public series were sent.

Usage: .venv/bin/python scripts/worklist_picture.py

Needs the real data, chromium and DCMTK's storescu. Look at the picture before it is committed.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from carina.testing.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "worklist.png"
DATA = ROOT.parent / "shared" / "data"
SERIES = ("ct/covidctmd-p002", "ct/lidc-0001", "reader/localizer")
MINUTES_MS = 10 * 60 * 1000
COLOURS = 128

SETTINGS = """
[node]
folder = "{folder}/node"
free_gb = 0.0
[dicom]
port = {dicom}
[web]
port = {web}
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
quiet_s = 1.0
destinations = ["share"]
[destinations.share]
kind = "folder"
path = "{folder}/results"
"""


def send(series: Path, port: int) -> None:
    """Send a series as it lies there."""
    program = shutil.which("storescu") or "storescu"
    command = [program, "-aec", "CARINA", "-xs", "127.0.0.1", str(port), "+sd", "+r", str(series)]
    subprocess.run(command, check=True)


def wait_for(url: str) -> None:
    """Come back when the node can work."""
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"{url}/health/ready").close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)


def take(url: str) -> None:
    """The worklist once the first job has ended, while the second runs."""
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 620}, color_scheme="light")
        page.goto(url)
        expect(page.get_by_text("5 of 5 confirmed").first).to_be_visible(timeout=MINUTES_MS)
        expect(page.get_by_role("progressbar")).to_be_visible(timeout=MINUTES_MS)
        shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        shown.quantize(COLOURS).save(PICTURE, optimize=True)
        chromium.close()


def main() -> None:
    """Serve, send, take."""
    with TemporaryDirectory() as name:
        folder, dicom, web = Path(name), free_port(), free_port()
        (folder / "carina.toml").write_text(SETTINGS.format(folder=folder, dicom=dicom, web=web))
        command = [sys.executable, "-m", "carina.cli.main", "serve", "--config", str(folder / "carina.toml")]
        with subprocess.Popen(command) as process:
            try:
                wait_for(f"http://127.0.0.1:{web}")
                for series in SERIES:
                    send(DATA / series, dicom)
                take(f"http://127.0.0.1:{web}")
            finally:
                process.terminate()
    print(PICTURE)


if __name__ == "__main__":
    main()
