"""Letters, position and scale on a picture can be read whatever lies below them, and however small a page shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser
from scipy import ndimage

from carina.report.overlay import LONGEST_PX
from carina.report.paint import Lettering, Style, annotate
from carina.service.viewer.slices import ACROSS_A_PANE
from test_viewer_browser import opened, pixels_of, volume_shown
from viewer_runs import posed, served, through_dicom, write_run

LEAST_CONTRAST = 4.5
"""Of letters and what is around them (WCAG 2.2, 1.4.3)."""

Luminance = npt.NDArray[np.float64]


def lettered_picture(grey: int, letters_across: int, shown_px: int) -> Luminance:
    """Relative luminance (WCAG 2.2) of an even picture with its letters, as it is shown."""
    picture = Image.new("RGB", (LONGEST_PX, LONGEST_PX), (grey,) * 3)
    annotate(picture, Lettering(letters=("A", "P", "R", "L"), line="z 10.0 mm   slice 4"), 2.0, letters_across)
    return luminance(np.asarray(picture.resize((shown_px, shown_px), Image.Resampling.LANCZOS)))


def luminance(pixels: npt.NDArray[np.uint8]) -> Luminance:
    """Of RGB in the last axis."""
    shown = pixels / 255
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    seen: Luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return seen


@pytest.mark.parametrize(
    ("letters_across", "shown_px"), [(ACROSS_A_PANE, 600), (ACROSS_A_PANE, 300), (Style().letters_across, 720)]
)
@pytest.mark.parametrize("grey", [0, 90, 170, 235, 255])
def test_every_letter_differs_from_what_is_around_it(grey: int, letters_across: int, shown_px: int) -> None:
    alone = lettered_picture(0, letters_across, shown_px)
    seen = lettered_picture(grey, letters_across, shown_px)
    numbers, count = ndimage.label(ndimage.binary_dilation(alone > 0.3, iterations=2))
    assert count >= 6, "the four letters, the line and the scale"
    for number in range(1, count + 1):
        letter = (numbers == number) & (alone > 0.3)
        around = ndimage.binary_dilation(letter) & ~letter & (alone < 0.1)
        ink, edge = np.median(seen[letter]), np.median(seen[around])
        assert (ink + 0.05) / (edge + 0.05) >= LEAST_CONTRAST, f"on {grey}: {number} of {count}"


@pytest.mark.parametrize("window", ["-3000,-2000", "bone"])
def test_the_letters_of_the_volume_differ_from_what_is_around_them(
    browser: Browser, tmp_path: Path, window: str
) -> None:
    run = write_run(through_dicom(posed("plain", (24, 48, 48)), tmp_path / "series"), tmp_path / "run")
    with served(run) as url, opened(browser, f"{url}/?window={window}&overlay=none") as page:
        page.set_viewport_size({"width": 1280, "height": 800})
        canvas = volume_shown(page)
        page.wait_for_timeout(300)
        pixels = pixels_of(canvas)
    red, blue = pixels[..., 0].astype(int), pixels[..., 2].astype(int)
    gold = (red > 200) & (red - blue > 90)
    numbers, count = ndimage.label(ndimage.binary_dilation(gold, iterations=3))
    assert count == 6, "two letters in each plane"
    seen = luminance(pixels)
    for number in range(1, count + 1):
        letter = (numbers == number) & gold
        around = ndimage.binary_dilation(letter, iterations=2) & ~ndimage.binary_dilation(letter)
        assert (np.median(seen[letter]) + 0.05) / (np.median(seen[around]) + 0.05) >= LEAST_CONTRAST, number
