"""A picture of synthetic lesions by kind and size, beside real disease, so that both are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from carina import RESEARCH_ONLY
from carina.report.paint import INK_RGB, Plane, paint
from carina.synth.chests import Chest, one_lesion
from carina.synth.fields import ORIENTATION
from carina.synth.lesions import Kind, Size
from carina.volume.arrays import Flags, marked_box
from carina.volume.grid import Triple
from carina.volume.resample import reorient

TILE_MM, TILE_PX = 96.0, 180
REAL_COLUMNS = 2
LEFT_PX, TOP_PX = 118, 46

OPACITY_HU = (-750.0, -150.0)
"""Where real disease is looked for: denser than lung, less dense than vessels and walls."""
AROUND_MM = 12.0
STEP = 4
FAINT = 0.35
"""Places with less opacity around them than this part of the densest are not shown."""
SPOTS_APART_MM = 35.0
"""Pictures of real disease lie this far apart."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RealDisease:
    """A patient's chest with disease: HU and lungs (0 or 1), ``(z, y, x)`` in RAS order like the spacing."""

    name: str
    hu: npt.NDArray[np.int16]
    lung: npt.NDArray[np.uint8]
    spacing_mm: Triple


@dataclass(frozen=True, kw_only=True, eq=False)
class Spot:
    """A slice of lung: HU and mask ``(y, x)`` in RAS order, and the pixel ``(y, x)`` in the middle of the picture."""

    hu: npt.NDArray[np.int16]
    mask: Flags
    middle: tuple[int, int]
    spacing_mm: tuple[float, float]


def sheet(chests: Sequence[Chest], real: RealDisease | None, seed: int) -> Image.Image:
    """One row for each kind: a small, a medium and a large lesion, each drawn anew, the last one outlined beside it.

    Lungs are taken in turn from ``chests``. Where ``real`` disease is given, its densest places fill more columns, in
    no relation to the rows. Deterministic by ``seed``.
    """
    heads = [*Size, "the same, its mask"]
    rows = [[*_row(chests, kind, number, seed)] for number, kind in enumerate(Kind)]
    if real is not None:
        spots = real_spots(real, REAL_COLUMNS * len(rows))
        heads += [f"real: {real.name}"] + [""] * (REAL_COLUMNS - 1)
        for number, row in enumerate(rows):
            row += [tile(spot) for spot in spots[REAL_COLUMNS * number : REAL_COLUMNS * (number + 1)]]
    return _laid_out(rows, heads, [str(kind) for kind in Kind])


def tile(spot: Spot, *, outlined: bool = False) -> Image.Image:
    """A square of `TILE_MM` in the lung window, as a radiologist looks at it."""
    rows, columns = (round(TILE_MM / s / 2) for s in spot.spacing_mm)
    y, x = spot.middle
    hu = np.pad(spot.hu, ((rows, rows), (columns, columns)), constant_values=-1024)
    mask = np.pad(spot.mask & outlined, ((rows, rows), (columns, columns)))
    part = (slice(y, y + 2 * rows), slice(x, x + 2 * columns))
    shown, lesion = hu[part][::-1, ::-1], mask[part][::-1, ::-1]
    plane = Plane(hu=shown, lung=np.zeros_like(lesion), lesion=lesion, spacing_mm=spot.spacing_mm)
    return paint(plane, TILE_PX)


def real_spots(real: RealDisease, count: int) -> list[Spot]:
    """The places with most opacity deep in the lung or below the pleura, the densest first."""
    low, high = OPACITY_HU
    lung = real.lung > 0
    inner = np.stack([ndimage.binary_erosion(plane, iterations=3) for plane in lung])
    opaque = ndimage.binary_opening((real.hu > low) & (real.hu < high) & inner, np.ones((1, 3, 3), dtype=bool))
    coarse = opaque[:, ::STEP, ::STEP].astype(np.float32)
    z_mm, y_mm, x_mm = real.spacing_mm
    spacing = (z_mm, STEP * y_mm, STEP * x_mm)
    density = ndimage.gaussian_filter(coarse, [AROUND_MM / s for s in spacing])
    highest = float(density.max())
    spots: list[Spot] = []
    for _ in range(count):
        z, y, x = (int(v) for v in np.unravel_index(int(density.argmax()), density.shape))
        if density[z, y, x] <= FAINT * highest:
            break
        spots.append(Spot(hu=real.hu[z], mask=opaque[z], middle=(STEP * y, STEP * x), spacing_mm=(y_mm, x_mm)))
        away = [np.arange(n) - c for n, c in zip(density.shape, (z, y, x), strict=True)]
        far = sum(((a * s) ** 2) for a, s in zip(np.ix_(*away), spacing, strict=True))
        density[np.asarray(far) < SPOTS_APART_MM**2] = 0
    return spots


def _row(chests: Sequence[Chest], kind: Kind, number: int, seed: int) -> list[Image.Image]:
    """Pictures of one kind: one of each size class, and the last again with its mask."""
    tiles, last = [], None
    for place, size in enumerate(Size):
        chest = chests[(number * len(Size) + place) % len(chests)]
        last = _synthetic_spot(chest, kind, size, np.random.default_rng([seed, number, place]))
        tiles.append(tile(last))
    return tiles if last is None else [*tiles, tile(last, outlined=True)]


def _synthetic_spot(chest: Chest, kind: Kind, size: Size, rng: np.random.Generator) -> Spot:
    """The slice of a new lesion that shows most of it; a place where it does not fit is given up for another."""
    view, grid = reorient(chest.volume.hu, chest.volume.grid, ORIENTATION)
    lung, _ = reorient(chest.lung.labels, chest.lung.grid, ORIENTATION)
    box = marked_box(lung > 0, 20)
    plain = view[box].astype(np.float32)
    made = None
    while made is None:
        made = one_lesion(plain, lung[box] > 0, grid.spacing_mm, kind, size, rng)
    hu, mask = made
    z = int(mask.sum(axis=(1, 2)).argmax())
    y, x = (int(v) for v in np.argwhere(mask[z]).mean(axis=0))
    shown = np.clip(np.rint(hu[z]), -1024, 3071).astype(np.int16)
    return Spot(hu=shown, mask=mask[z], middle=(y, x), spacing_mm=(grid.spacing_mm[1], grid.spacing_mm[2]))


def _laid_out(rows: Sequence[Sequence[Image.Image]], heads: Sequence[str], names: Sequence[str]) -> Image.Image:
    width = LEFT_PX + TILE_PX * max(len(row) for row in rows)
    picture = Image.new("RGB", (width, TOP_PX + TILE_PX * len(rows)))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    draw.text((6, 4), f"Tiles of {TILE_MM:.0f} mm, lung window. {RESEARCH_ONLY}", font=font, fill=INK_RGB)
    for column, head in enumerate(heads):
        draw.text((LEFT_PX + column * TILE_PX + 4, 26), str(head), font=font, fill=INK_RGB)
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        draw.text((6, TOP_PX + number * TILE_PX + TILE_PX // 2), name, font=font, fill=INK_RGB)
        for column, one in enumerate(row):
            picture.paste(one, (LEFT_PX + column * TILE_PX, TOP_PX + number * TILE_PX))
    return picture
