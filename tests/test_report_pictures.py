"""Pictures lie the right way round: overlays, key slices and saliency, however the voxels are stored.

What is expected is reckoned from boxes in mm, not from arrays: whichever way a layer is turned on the way to the
picture, its middle must come to lie where the patient's is.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from carina.errors import BadConfig
from carina.measure.findings import KeySlice
from carina.measure.key_slices import choose_salient, choose_slices
from carina.report.facts import ReportFacts
from carina.report.overlay import VIEWS, overlay_image, overlay_png
from carina.report.paint import FALL_RGB, LESION_RGB, LUNG_RGB, RISE_RGB, png
from carina.report.pictures import picture_of
from carina.volume import Grid, ScalarMap, Volume
from report_samples import LESION_MM, LUNGS_MM, SIZE_MM, STORED, Box, body, in_box

AXES = {"axial": (1, 0, 2), "coronal": (2, 0, 1), "sagittal": (2, 1, 0)}
"""Downwards, to the right and through the slice: indices into x, y, z."""

AXIAL = [name for name in STORED if name != "sagittal"]

FALL_MM = ((40.0, 80.0), (-40.0, 0.0), (10.0, 50.0))
RISE_MM = ((-100.0, -60.0), (0.0, 40.0), (10.0, 50.0))
"""Where hiding makes the probability fall (left, in front) and rise (right, behind)."""

WHOLE = (slice(0, 1000), slice(0, 1000))


def expected(view: str, boxes: Sequence[Box], at_mm: float, *, outline: bool = False) -> tuple[float, float]:
    """Where the middle of boxes, or of their outlines, lies in the picture of the slice at ``at_mm``.

    As shares of the picture's height and width.
    """
    down, right, through = AXES[view]
    cut = [box for box in boxes if box[through][0] < at_mm < box[through][1]]
    sides = [(np.ptp(box[down]), np.ptp(box[right])) for box in cut]
    weights = [height + width if outline else height * width for height, width in sides]
    middle = [np.average([np.mean(box[axis]) for box in cut], weights=weights) for axis in (down, right)]
    # The head (+z) is up; the front (-y) is up, or left in a sagittal slice; the patient's right (-x) is left.
    signs = (-1 if down == 2 else 1, 1)
    row, column = (0.5 + sign * mm / SIZE_MM[axis] for sign, mm, axis in zip(signs, middle, (down, right), strict=True))
    return row, column


def middle_of(picture: Image.Image, flags: np.ndarray) -> tuple[float, float]:
    row, column = np.argwhere(flags).mean(axis=0)
    return (row + 0.5) / picture.height, (column + 0.5) / picture.width


def near(picture: Image.Image, rgb: tuple[int, int, int]) -> np.ndarray:
    away = np.abs(np.asarray(picture, np.int32) - np.array(rgb)).sum(axis=2)
    return np.asarray(away < 60)


def dark(picture: Image.Image) -> np.ndarray:
    """Aerated lung: grey, and darker than tissue."""
    colours = np.asarray(picture, np.int32)
    return np.asarray((np.ptp(colours, axis=2) < 12) & (colours.mean(axis=2) < 130) & (colours.mean(axis=2) > 40))


def toward(picture: Image.Image, rgb: tuple[int, int, int]) -> np.ndarray:
    """Pixels that are tinted as a colour is: red above blue, or blue above red, as far as in the strongest place."""
    colours = np.asarray(picture, np.int32)
    tint = (colours[..., 0] - colours[..., 2]) * (1 if rgb[0] > rgb[2] else -1)
    return np.asarray(tint > 0.5 * tint.max())


# Overlays


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(
    ("view", "at_mm", "height_to_width"),
    [("axial", 30.0, 160 / 240), ("coronal", -40.0, 120 / 240), ("sagittal", -80.0, 120 / 160)],
)
def test_an_overlay_is_the_same_however_the_voxels_are_stored(
    stored: str, view: str, at_mm: float, height_to_width: float
) -> None:
    """The patient's right and front are on the left, front and head on top; CT, lungs and lesion lie alike."""
    volume, lung, lesion = body(STORED[stored])
    picture = overlay_image(volume, lung, lesion, view=view)
    assert picture.height / picture.width == pytest.approx(height_to_width, abs=0.01)
    assert middle_of(picture, near(picture, LESION_RGB)) == pytest.approx(expected(view, [LESION_MM], at_mm), abs=0.02)
    lungs_alone = overlay_image(volume, lung, None, view=view, index=_index(volume, view, at_mm))
    where = expected(view, LUNGS_MM, at_mm)
    assert middle_of(lungs_alone, dark(lungs_alone)) == pytest.approx(where, abs=0.02), "the CT"
    where = expected(view, LUNGS_MM, at_mm, outline=True)
    assert middle_of(lungs_alone, near(lungs_alone, LUNG_RGB)) == pytest.approx(where, abs=0.02), "the lungs' outline"


def _index(volume: Volume, view: str, at_mm: float) -> int:
    """The array index of the slice at ``at_mm`` along the view's normal."""
    normal = np.zeros(3)
    normal[AXES[view][2]] = 1.0
    axis = int(np.argmax(np.abs(np.array(volume.grid.axes) @ normal)))
    return round(float(volume.grid.indices(at_mm * normal)[axis]))


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("view", VIEWS)
def test_the_letters_of_an_overlay_stand_on_their_sides(stored: str, view: str) -> None:
    volume, _lung, _lesion = body(STORED[stored])
    picture = overlay_image(replace(volume, hu=np.full_like(volume.hu, -1024)), None, None, view=view)
    top, bottom, left, right = {
        "axial": ("A", "P", "R", "L"),
        "coronal": ("S", "I", "R", "L"),
        "sagittal": ("S", "I", "A", "P"),
    }[view]
    assert read_letter(picture, "left") == left and read_letter(picture, "right") == right
    assert read_letter(picture, "top") == top and read_letter(picture, "bottom") == bottom


SIDES = {"left": (0.5, 0.0), "right": (0.5, 1.0), "top": (0.0, 0.5), "bottom": (1.0, 0.5)}


def read_letter(picture: Image.Image, side: str) -> str:
    """Which of the letters stands in the middle of a side: its ink is compared with each glyph's."""
    bright = np.asarray(picture.convert("L"), np.int32) > 150
    size = max(picture.size) // 15
    row, column = (round(share * (length - size)) for share, length in zip(SIDES[side], bright.shape, strict=True))
    ink = _trimmed(bright[row : row + size, column : column + size])
    fits = {letter: _alike(ink, _glyph(letter)) for letter in "APRLSI"}
    best = max(fits, key=lambda letter: fits[letter])
    assert fits[best] > 0.75, f"no letter is readable: {fits}"
    return best


def _glyph(letter: str) -> np.ndarray:
    picture = Image.new("L", (80, 80))
    ImageDraw.Draw(picture).text((20, 10), letter, font=ImageFont.load_default(48), fill=255)
    return _trimmed(np.asarray(picture) > 128)


def _trimmed(ink: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    assert rows.size, "there is no letter"
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _alike(ink: np.ndarray, glyph: np.ndarray) -> float:
    """How much of two letters agrees, one brought to the other's height; letters of other proportions do not fit."""
    width = round(glyph.shape[1] * ink.shape[0] / glyph.shape[0])
    if abs(width - ink.shape[1]) > 0.2 * max(width, ink.shape[1]) + 1:
        return 0.0
    shown = Image.fromarray(glyph).resize((ink.shape[1], ink.shape[0]))
    return float(np.mean(np.asarray(shown) == ink))


# Key slices and saliency


def told(grid: Grid) -> ReportFacts:
    return ReportFacts(made_at=datetime(2026, 1, 2, 3, 4), software_version="0.1.0", grid=grid)


def shown(key: KeySlice, grid: Grid) -> Image.Image:
    data, size, _caption = picture_of(key, WHOLE, told(grid), 480)
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    assert picture.size == size
    return picture


def at(grid: Grid, key: KeySlice) -> float:
    return float(grid.points_mm((key.index, 0, 0))[2])


@pytest.mark.parametrize("stored", AXIAL)
def test_key_slices_lie_as_overlays_do(stored: str) -> None:
    volume, lung, lesion = body(STORED[stored])
    key = choose_slices(volume, lung, lesion, count=1)[0]
    picture = shown(key, volume.grid)
    where = expected("axial", [LESION_MM], at(volume.grid, key))
    assert middle_of(picture, near(picture, LESION_RGB)) == pytest.approx(where, abs=0.02)
    nothing = replace(key, lesion=np.zeros_like(key.lesion))
    bare = shown(nothing, volume.grid)
    where = expected("axial", LUNGS_MM, at(volume.grid, key))
    assert middle_of(bare, dark(bare)) == pytest.approx(where, abs=0.02), "the CT"
    where = expected("axial", LUNGS_MM, at(volume.grid, key), outline=True)
    for picture in (bare, shown(replace(nothing, hu=None), volume.grid)):
        assert middle_of(picture, near(picture, LUNG_RGB)) == pytest.approx(where, abs=0.02), "the lungs' outline"


@pytest.mark.parametrize("stored", AXIAL)
def test_saliency_lies_as_the_slice_below_it(stored: str) -> None:
    volume, lung, _lesion = body(STORED[stored])
    values = np.zeros(volume.grid.shape, np.float32)
    values[in_box(volume.grid, FALL_MM)] = 0.4
    values[in_box(volume.grid, RISE_MM)] = -0.4
    saliency = ScalarMap(values=values, grid=volume.grid, uid="1.2.3", quantity="q", unit="u")
    key = choose_salient(volume, lung, saliency, count=1)[0]
    assert key.saliency is not None
    data, _size, _caption = picture_of(key, WHOLE, told(volume.grid), 480, 0.4)
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    height_mm = at(volume.grid, key)
    for box, rgb in ((FALL_MM, FALL_RGB), (RISE_MM, RISE_RGB)):
        where = expected("axial", [box], height_mm)
        assert middle_of(picture, toward(picture, rgb)) == pytest.approx(where, abs=0.02)
    where = expected("axial", LUNGS_MM, height_mm)
    flat = shown(replace(key, saliency=None), volume.grid)
    assert middle_of(flat, dark(flat)) == pytest.approx(where, abs=0.02)


@pytest.mark.parametrize("stored", AXIAL)
def test_the_letters_of_a_key_slice_stand_on_their_sides(stored: str) -> None:
    volume, lung, _lesion = body(STORED[stored])
    key = choose_slices(replace(volume, hu=np.full_like(volume.hu, -1024)), lung, None, count=1)[0]
    picture = shown(replace(key, lung=np.zeros_like(key.lung)), volume.grid)
    assert read_letter(picture, "left") == "R" and read_letter(picture, "right") == "L"


def test_a_slice_that_is_not_axial_claims_no_side() -> None:
    volume, lung, _lesion = body(STORED["sagittal"])
    key = choose_slices(replace(volume, hu=np.full_like(volume.hu, -1024)), lung, None, count=1)[0]
    picture = shown(replace(key, lung=np.zeros_like(key.lung)), volume.grid)
    with pytest.raises(AssertionError, match="there is no letter"):
        read_letter(picture, "left")


# What an overlay shows


def test_the_default_slice_shows_most_lesion_else_most_lung_else_the_middle() -> None:
    volume, lung, lesion = body()
    nothing = replace(lesion, labels=np.zeros_like(lesion.labels))
    some = lesion.labels.copy()
    some[17] = 0
    some[17, 5, 5:9] = 1
    many = replace(lesion, labels=some)
    fullest = int(np.argmax(np.count_nonzero(some, axis=(1, 2))))
    assert overlay_png(volume, lung, many) == overlay_png(volume, lung, many, index=fullest)
    assert overlay_png(volume, None, None) == overlay_png(volume, None, None, index=12)
    most_lung = int(np.argmax(np.count_nonzero(lung.labels, axis=(1, 2))))
    assert overlay_png(volume, lung, nothing) == overlay_png(volume, lung, nothing, index=most_lung)


def test_an_overlay_is_a_png_and_the_same_each_time() -> None:
    volume, lung, lesion = body()
    data = overlay_png(volume, lung, lesion)
    assert Image.open(io.BytesIO(data)).size == (720, 480)
    assert data == overlay_png(volume, lung, lesion)


def test_an_unknown_view_or_slice_is_refused() -> None:
    volume, lung, lesion = body()
    with pytest.raises(BadConfig, match="'oblique' is not known; use axial, coronal, sagittal"):
        overlay_png(volume, lung, lesion, view="oblique")
    with pytest.raises(BadConfig, match="no axial slice 24; the volume has 0 to 23"):
        overlay_png(volume, lung, lesion, index=24)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 3), (64, 720)])
def test_a_png_holds_every_pixel(width: int, height: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    found = Image.open(io.BytesIO(png(Image.fromarray(pixels))))
    found.verify()
    again = Image.open(io.BytesIO(png(Image.fromarray(pixels))))
    assert (again.format, again.mode) == ("PNG", "RGB")
    np.testing.assert_array_equal(np.asarray(again), pixels)
