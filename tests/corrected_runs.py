"""A run whose masks the tests correct, its server that can be killed, and what they look at on its page."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect

from carina.api.result import Run
from carina.corrections.masks import MaskName, network_mask, strokes_file
from carina.corrections.painting import Painting
from carina.report.overlay import layout
from carina.testing.ports import free_port
from carina.volume.arrays import Flags
from carina.volume.grid import Grid
from viewer_runs import posed, through_dicom, write_run

RADIUS_MM = 9.0
AT = (14, 20, 26)


class CorrectedRun:
    """A run of a phantom and the series from which it was made."""

    def __init__(self, pose: str, folder: Path, shape: tuple[int, int, int] = (30, 48, 48)) -> None:
        self.series = folder / "series"
        phantom = through_dicom(posed(pose, shape), self.series)
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
        found: Flags = (self.stored.labels > 0) & (self.network.labels == 0)
        return found


def disc(grid: Grid, plane: str, at: tuple[int, int, int], radius_mm: float = RADIUS_MM) -> Flags:
    """The voxels of a plane's slice whose centre lies within a radius of a voxel's."""
    places = np.argwhere(np.ones(grid.shape, np.bool_))
    away = np.linalg.norm(grid.points_mm(places) - grid.points_mm(at), axis=1)
    normal = layout(grid, plane).normal
    inside: Flags = ((away <= radius_mm + 1e-6) & (places[:, normal] == at[normal])).reshape(grid.shape)
    return inside


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text(re.compile(r"^All strokes saved \d\d:\d\d:\d\d\.$"))


def ready(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text(re.compile(r"^(Nothing painted yet|All strokes saved .*)\.$"))


def decided(page: Page, words: str) -> None:
    """Waits until a decision stands on the page, and the page takes keys again."""
    expect(page.locator("#decided")).to_contain_text(words)
    ready(page)


class Killable:
    """``carina view`` in a process of its own, on one port."""

    def __init__(self, corrected: CorrectedRun) -> None:
        self.port = free_port()
        self.corrected = corrected
        self.url = f"http://127.0.0.1:{self.port}/correct/lesion"

    def start(self) -> None:
        run, series = str(self.corrected.run.folder), str(self.corrected.series)
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


def dab(page: Page, at: tuple[int, int, int], url: str) -> None:
    page.goto(f"{url}?at={','.join(map(str, at))}")
    ready(page)
    page.keyboard.press(" ")
    saved(page)
