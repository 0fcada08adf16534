"""One slice painted: a lung window, the lungs outlined, lesions or a saliency over it; millimetres are square."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from carina.volume.arrays import Flags, Floats

WINDOW_HU = (-1350.0, 150.0)
"""The usual lung window: centre -600, width 1500."""

LUNG_RGB = (86, 180, 233)
LESION_RGB = (230, 159, 0)
"""Sky blue and orange of the Okabe-Ito palette, which colour-blind readers tell apart."""

LESION_ALPHA = 0.35

FALL_RGB = (213, 94, 0)
RISE_RGB = (0, 114, 178)
"""Vermilion and blue of the same palette: where hiding a place makes the probability fall or rise."""

SALIENCY_ALPHA = 0.75

OUTLINE_RGB = (190, 190, 190)
"""The lungs' outline below a saliency, whose colours it must not be taken for."""

NO_CT_GREY = (22, 74)
"""Grey of background and of lung where no CT was given."""

INK_RGB = (235, 235, 235)
SHADOW = (0, 0, 0)
SCALE_MM = 50.0


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_UP = 2
"""The filter of PNG that stores by how much each row differs from the one above."""
PNG_LEVEL = 1


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a slice is painted: the grey window in HU, and how strongly lungs and lesions are filled, 0 to 1.

    The longer side of the picture takes ``letters_across`` letters.
    """

    window_hu: tuple[float, float] = WINDOW_HU
    lung_fill: float = 0.0
    lesion_fill: float = LESION_ALPHA
    letters_across: int = 40


_Places = npt.NDArray[np.intp]

USUAL = Style()


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """A slice as it is shown: rows downwards, columns to the right, ``spacing_mm`` (row step, column step).

    ``saliency`` is painted with ``saliency_colour``: -1 to 1, 1 where hiding makes the probability fall most.
    """

    hu: npt.NDArray[np.int16] | None
    lung: Flags
    lesion: Flags
    spacing_mm: tuple[float, float]
    saliency: Floats | None = None

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width in mm."""
        rows, columns = self.lung.shape
        return rows * self.spacing_mm[0], columns * self.spacing_mm[1]


@dataclass(frozen=True, kw_only=True)
class Lettering:
    """Words on a picture: letters at top, bottom, left and right, and a line at the bottom left."""

    letters: tuple[str, str, str, str]
    line: str


def paint(plane: Plane, longest_px: int, *, style: Style = USUAL) -> Image.Image:
    """The slice in RGB with square millimetres, its longer side ``longest_px`` pixels."""
    height_mm, width_mm = plane.size_mm
    scale = longest_px / max(height_mm, width_mm)
    size = max(1, round(width_mm * scale)), max(1, round(height_mm * scale))
    colours = np.repeat(_grey(plane, size, style.window_hu)[..., None], 3, axis=2)
    line = max(1.0, longest_px / 480)
    lung, lesion = _resized(plane.lung, size), _resized(plane.lesion, size)
    if plane.saliency is not None:
        shares = np.asarray(Image.fromarray(plane.saliency).resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
        for share in (1.0, -1.0):
            rgb, alpha = saliency_colour(share)
            _blend(colours, rgb, alpha * np.clip(shares * share, 0, 1))
    if style.lung_fill:
        _blend(colours, LUNG_RGB, lung * style.lung_fill)
    _blend(colours, LUNG_RGB if plane.saliency is None else OUTLINE_RGB, _outline(lung, line))
    _blend(colours, LESION_RGB, lesion * style.lesion_fill)
    _blend(colours, LESION_RGB, _outline(lesion, line))
    return Image.fromarray(np.clip(colours + 0.5, 0, 255).astype(np.uint8), "RGB")


def saliency_colour(share: float) -> tuple[tuple[int, int, int], float]:
    """The colour of a change, as a share of the largest (-1 to 1), and how much it covers."""
    return FALL_RGB if share > 0 else RISE_RGB, SALIENCY_ALPHA * min(abs(share), 1.0)


def annotate(picture: Image.Image, labels: Lettering, pixels_per_mm: float, letters_across: int = 40) -> None:
    """Write letters, position and a 5 cm scale onto a picture, in place; its longer side takes ``letters_across``."""
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    size = max(10, max(width, height) // letters_across)
    font = ImageFont.load_default(size)
    edge = size * 0.6
    top, bottom, left, right = labels.letters
    places = {
        (width / 2, edge): (top, "ma"),
        (width / 2, height - edge): (bottom, "md"),
        (edge, height / 2): (left, "lm"),
        (width - edge, height / 2): (right, "rm"),
        (edge, height - edge): (labels.line, "ld"),
    }
    for place, (text, anchor) in places.items():
        draw.text(place, text, INK_RGB, font, anchor, stroke_width=_edge_px(size), stroke_fill=SHADOW)
    _scale(draw, (width - edge, height - edge), SCALE_MM * pixels_per_mm, (font, size))


def _scale(
    draw: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    length: float,
    letters: tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, int],
) -> None:
    font, size = letters
    (x, y), tick, thick = corner, size * 0.3, max(2, size // 8)
    for wider, colour in ((2 * _edge_px(size), SHADOW), (0, INK_RGB)):
        for line in ((x - length, y, x, y), (x - length, y - tick, x - length, y), (x, y - tick, x, y)):
            draw.line(line, fill=colour, width=thick + wider)
    place = (x - length / 2, y - tick)
    draw.text(place, "5 cm", INK_RGB, font, "md", stroke_width=_edge_px(size), stroke_fill=SHADOW)


def _edge_px(size: int) -> int:
    """How wide the dark edge of letters of a size is: bone is as pale as they are, and a page shows them smaller."""
    return max(1, round(size / 8))


def png(picture: Image.Image) -> bytes:
    """The picture, RGB, as PNG (ISO/IEC 15948): a fifth larger than Pillow makes it, in an eighth of the time."""
    colours = np.asarray(picture)
    height, width = colours.shape[:2]
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = PNG_UP
    rows[:, 1:] = colours.reshape(height, 3 * width)
    rows[1:, 1:] -= colours.reshape(height, 3 * width)[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # eight bits, RGB
    chunks = {b"IHDR": header, b"IDAT": isal_zlib.compress(rows, level=PNG_LEVEL), b"IEND": b""}
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", isal_zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def jpeg(picture: Image.Image, quality: int = 88) -> bytes:
    """The picture as JPEG with full colour resolution, so that thin outlines keep their colour."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, subsampling=0, optimize=True)
    return out.getvalue()


def _grey(plane: Plane, size: tuple[int, int], window_hu: tuple[float, float]) -> Floats:
    if plane.hu is None:
        dark, lung = NO_CT_GREY
        return dark + (lung - dark) * _resized(plane.lung, size)
    low, high = window_hu
    grey = (np.clip(plane.hu, low, high).astype(np.float32) - low) / (high - low) * 255
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)


def _resized(mask: Flags, size: tuple[int, int]) -> Floats:
    """The part of each picture pixel that a mask covers, 0 to 1, with smooth borders."""
    picture = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    cover: Floats = np.clip((np.asarray(picture, dtype=np.float32) - 0.5) * 3 + 0.5, 0, 1)
    return cover


def _outline(cover: Floats, width_px: float) -> Floats:
    """How strongly each pixel belongs to the border of a mask, drawn just inside it."""
    inside = cover >= 0.5
    drawn = np.zeros_like(cover)
    if inside.any() and not inside.all():
        rows, columns, depth = _border(inside, int(np.ceil(width_px + 1)))
        drawn[rows, columns] = np.clip(width_px + 1 - depth, 0, 1)
    return drawn


def _border(inside: Flags, reach: int) -> tuple[_Places, _Places, Floats]:
    """The pixels inside within ``reach`` of the outside, and how far it is from each: a picture's edge is no outside.

    The same distances as those of a distance transform, which takes five times as long, since it looks everywhere.
    """
    near = inside & (ndimage.minimum_filter(inside.view(np.uint8), 2 * reach + 1, mode="nearest") == 0)
    rows, columns = np.nonzero(near)
    padded = np.pad(inside, reach, constant_values=True)
    depth = np.full(len(rows), reach + 1, np.float32)
    steps = range(-reach, reach + 1)
    for down, right in ((down, right) for down in steps for right in steps):
        away = np.float32(np.hypot(down, right))
        outside = ~padded[rows + (down + reach), columns + (right + reach)]
        np.minimum(depth, away, out=depth, where=outside)
    return rows, columns, depth


def _blend(colours: Floats, rgb: tuple[int, int, int], alpha: Floats) -> None:
    places = alpha > 0
    under = colours[places]
    colours[places] = under + alpha[places][:, None] * (np.array(rgb, np.float32) - under)
