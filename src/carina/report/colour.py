"""A source slice in colour for a PACS that shows no Segmentation: pixel for pixel, with the notice burned in."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw, ImageFont

from carina import RESEARCH_ONLY
from carina.dicom.instances import Colours
from carina.report.paint import INK_RGB, SHADOW, Plane, paint
from carina.volume.arrays import HU, Flags
from carina.volume.grid import Axes, Triple

DIRECTIONS = (("L", "R"), ("P", "A"), ("S", "I"))
"""Where x, y and z grow to in the patient (LPS), and the opposite."""

LETTERS_ACROSS = 34
"""The notice's letters are this part of the picture's width high, and smaller where it would not fit."""

LEAST_PX = 7


def colour_plane(hu: HU, lung: Flags, lesion: Flags, axes: Axes) -> Colours:
    """The slice ``(rows, columns)`` as RGB ``(rows, columns, 3)``: lungs outlined, lesions filled, nothing resized.

    ``axes`` are the unit vectors (LPS) of the slice normal, of growing row and of growing column index: letters at the
    left and right edge say which side of the patient lies there. The notice stands at the top, in every slice.
    """
    plane = Plane(hu=hu, lung=lung, lesion=lesion, spacing_mm=(1.0, 1.0))
    picture = paint(plane, max(hu.shape))
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    size = max(LEAST_PX, width // LETTERS_ACROSS)
    _write(draw, (width / 2, 2), RESEARCH_ONLY, "ma", _fitting(RESEARCH_ONLY, size, width - 4))
    left, right = side_letters(axes[2])
    for x, letter, anchor in ((2, left, "lm"), (width - 2, right, "rm")):
        _write(draw, (x, height / 2), letter, anchor, size)
    return np.asarray(picture)


def side_letters(direction: Triple) -> tuple[str, str]:
    """The letters at the beginning and the end of a direction: of growing x, right and left."""
    axis = int(np.argmax(np.abs(direction)))
    to, away = DIRECTIONS[axis]
    return (away, to) if direction[axis] > 0 else (to, away)


def _fitting(text: str, size: int, width: float) -> int:
    """The largest letters up to ``size`` in which a text fits, at least ``LEAST_PX``."""
    while size > LEAST_PX and ImageFont.load_default(size).getlength(text) > width:
        size -= 1
    return size


def _write(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, anchor: str, size: int) -> None:
    font = ImageFont.load_default(size)
    draw.text(place, text, font=font, fill=INK_RGB, anchor=anchor, stroke_width=max(1, size // 14), stroke_fill=SHADOW)
