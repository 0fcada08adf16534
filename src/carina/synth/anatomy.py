"""The torso of the phantom as formulas: where lungs, heart, diaphragm and chest wall are, and their HU.

Coordinates are nominal patient millimetres (x to the left, y posterior, z superior), z = 0 a little below the
carina. Every ``inside_*`` function broadcasts over its coordinates, so one formula serves whole slices and points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carina.volume.arrays import Flags, Floats

Heights = float | npt.NDArray[np.floating]

AIR_HU = -1000.0
FAT_HU = -100.0
MUSCLE_HU = 50.0
BLOOD_HU = 42.0
SKIN_HU = 25.0
LIVER_HU = 60.0
SPLEEN_HU = 50.0
FLUID_HU = 12.0
MARROW_HU = 190.0
CORTEX_HU = 700.0
CARTILAGE_HU = 110.0
DISC_HU = 80.0

SQUARENESS = 0.45
"""How far the outlines are from an ellipse (0) towards a rectangle (1)."""

_HEIGHT = (-190.0, -120.0, -60.0, 0.0, 50.0, 90.0, 115.0, 128.0, 136.0, 170.0)
_CAVITY_WIDTH = (118.0, 124.0, 124.0, 118.0, 106.0, 88.0, 68.0, 52.0, 36.0, 30.0)
_CAVITY_DEPTH = (86.0, 92.0, 93.0, 89.0, 79.0, 62.0, 44.0, 28.0, 12.0, 10.0)
_CAVITY_MIDDLE = (-4.0, -4.0, -4.0, 0.0, 6.0, 16.0, 24.0, 28.0, 30.0, 30.0)
_BODY_WIDTH = (152.0, 156.0, 158.0, 160.0, 164.0, 174.0, 186.0, 190.0, 190.0, 150.0)
_BODY_DEPTH = (112.0, 118.0, 119.0, 118.0, 112.0, 104.0, 96.0, 90.0, 86.0, 76.0)
_BODY_MIDDLE = (0.0, -2.0, -3.0, -2.0, 2.0, 8.0, 14.0, 18.0, 20.0, 24.0)
LUNG_TOP = 136.0


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A rounded cross-section at one height: half width, half depth and the y of its middle."""

    half_width: Floats
    half_depth: Floats
    middle: Floats

    def at(self, x: Floats, y: Floats, grow: float = 0.0) -> Floats:
        """Value below 1 inside the outline grown by ``grow`` mm, above 1 outside."""
        across = (x / (self.half_width + np.float32(grow))) ** 2
        along = ((y - self.middle) / (self.half_depth + np.float32(grow))) ** 2
        value: Floats = across + along * (1 - np.float32(SQUARENESS) * across)
        return value


def cavity(z: Heights) -> Outline:
    """The inner chest wall at height ``z``."""
    return Outline(
        half_width=_profile(z, _CAVITY_WIDTH),
        half_depth=_profile(z, _CAVITY_DEPTH),
        middle=_profile(z, _CAVITY_MIDDLE),
    )


def body(z: float) -> Outline:
    """The skin at height ``z``."""
    return Outline(
        half_width=_profile(z, _BODY_WIDTH),
        half_depth=_profile(z, _BODY_DEPTH),
        middle=_profile(z, _BODY_MIDDLE),
    )


def _profile(z: Heights, values: tuple[float, ...]) -> Floats:
    return np.asarray(np.interp(np.asarray(z), _HEIGHT, values), dtype=np.float32)


def inside(outline: Outline, x: Floats, y: Floats, grow: float = 0.0) -> Flags:
    """Whether points lie inside an outline grown by ``grow`` mm (the square's far corners are cut off)."""
    near = np.abs(x) < outline.half_width + np.float32(grow)
    return (outline.at(x, y, grow) < 1) & near


def diaphragm(x: Floats, y: Floats) -> Floats:
    """Height of the diaphragm, two domes, the right one (x < 0) higher."""
    top = np.where(x < 0, np.float32(-46), np.float32(-57))
    sideways = (np.abs(x) - 60) / 62
    back = (y + 16) / 80
    return np.asarray(top - 42 * sideways**2 - 46 * back**2 - 22 * np.maximum(back, 0) ** 2, dtype=np.float32)


def mediastinum_half_width(y: Floats, z: Heights) -> Floats:
    """Half the distance between the lungs: narrow behind the sternum, widest around the trachea."""
    neck = np.clip((np.asarray(z, dtype=np.float32) - 85) / 50, 0, 1) * 10
    return np.asarray(7 + neck + 23 * np.exp(-(((y + 2) / 38) ** 2)), dtype=np.float32)


def heart(x: Floats, y: Floats, z: Heights) -> Floats:
    """Value below 1 inside the heart: an ellipsoid whose tip points left, forwards and down."""
    down = np.asarray(z, dtype=np.float32) + 28
    right, ahead = x - 20 + np.float32(0.35) * down, y + 32 + np.float32(0.1) * down
    long_axis = np.float32(0.86) * right - np.float32(0.5) * ahead
    short_axis = np.float32(0.5) * right + np.float32(0.86) * ahead
    return np.asarray((long_axis / 60) ** 2 + (short_axis / 43) ** 2 + (down / 50) ** 2, dtype=np.float32)


def spine_bump(x: Floats, y: Floats) -> Floats:
    """Value below 1 where vertebrae and the muscles beside them push into the chest."""
    return np.asarray((x / 29) ** 2 + ((y - 80) / 38) ** 2, dtype=np.float32)


def inside_lungs(x: Floats, y: Floats, z: Heights, floor: Floats) -> Flags:
    """Whether points lie in a lung; ``floor`` is the diaphragm's height there."""
    found: Flags = (
        inside(cavity(z), x, y)
        & (np.abs(x) > mediastinum_half_width(y, z))
        & (np.asarray(z) > floor)
        & (spine_bump(x, y) > 1)
        & (heart(x, y, z) > 1.12)
        & (np.asarray(z) < LUNG_TOP)
    )
    return found


def paint_slice(x: Floats, y: Floats, z: float, floor: Floats) -> tuple[Floats, Flags]:
    """One axial slice without tubes and lesions: HU ``(y, x)`` float32 and the lung mask.

    ``x`` is a row ``(1, n)``, ``y`` a column ``(m, 1)``; ``floor`` is ``(m, n)``.
    """
    hu = np.full(floor.shape, AIR_HU, dtype=np.float32)
    _table(hu, x, y)
    chest, skin = cavity(z), body(z)
    _soft_tissue(hu, x, y, z)
    thorax = inside(chest, x, y) & inside(skin, x, y, -8)
    np.copyto(hu, np.float32(FAT_HU + 15), where=thorax)
    below = thorax & (floor > z)
    if below.any():
        np.copyto(hu, np.float32(MUSCLE_HU), where=below)
        _abdomen(hu, (x, y, z), below & (floor - 4 > z))
    size = heart(x, y, z)
    np.copyto(hu, np.float32(BLOOD_HU + 12), where=(size < 1) & ~below)
    np.copyto(hu, np.float32(BLOOD_HU), where=(size < 0.55) & ~below)
    lung = inside_lungs(x, y, z, floor)
    slope = np.float32(0.35)
    np.copyto(hu, np.broadcast_to(-868 + slope * (y + 90) - np.float32(0.1) * z, hu.shape), where=lung)
    oblique = np.abs(y - 20 + np.float32(0.9) * (z - 20))
    np.copyto(hu, np.float32(-720), where=lung & (oblique < 0.9))
    _spine(hu, x, y, z)
    _sternum_and_scapulae(hu, x, y, z)
    return hu, lung


def _table(hu: Floats, x: Floats, y: Floats) -> None:
    depth = y - 124 + np.float32(0.0011) * x**2
    np.copyto(hu, np.float32(-880), where=(depth > 0) & (depth < 22) & (np.abs(x) < 190))
    np.copyto(hu, np.float32(60), where=(np.abs(depth - 1) < 1.5) & (np.abs(x) < 190))


def _soft_tissue(hu: Floats, x: Floats, y: Floats, z: float) -> None:
    chest, skin = cavity(z), body(z)
    np.copyto(hu, np.float32(SKIN_HU), where=inside(skin, x, y))
    np.copyto(hu, np.float32(FAT_HU), where=inside(skin, x, y, -2.5))
    np.copyto(hu, np.float32(MUSCLE_HU), where=inside(skin, x, y, -15))
    if z < 95:
        np.copyto(hu, np.float32(FAT_HU), where=inside(chest, x, y, 17) & inside(skin, x, y, -15))
    np.copyto(hu, np.float32(MUSCLE_HU), where=inside(chest, x, y, 13) & inside(skin, x, y, -8))


def _ball(place: tuple[Floats, Floats, float], centre: tuple[float, float, float], radii: tuple[float, ...]) -> Floats:
    x, y, z = place
    near = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
    value: Floats = near + np.float32(((z - centre[2]) / radii[2]) ** 2)
    return value


def _abdomen(hu: Floats, place: tuple[Floats, Floats, float], where: Flags) -> None:
    """Liver, spleen, and stomach and colon with gas: the air below the diaphragm is a trap for lung finders."""
    x, y, z = place
    np.copyto(hu, np.float32(FAT_HU), where=where)
    edge = 26 - np.float32(0.25) * (y + 40)
    np.copyto(hu, np.float32(LIVER_HU), where=where & (x < edge) & (z > -175) & (y < 62))
    np.copyto(hu, np.float32(SPLEEN_HU), where=where & (_ball(place, (82, 42, -112), (34, 42, 50)) < 1))
    stomach = _ball(place, (58, -20, -108), (44, 44, 40))
    np.copyto(hu, np.float32(MUSCLE_HU), where=where & (stomach < 1))
    level = np.broadcast_to(np.where(y < -22, np.float32(AIR_HU + 5), np.float32(FLUID_HU)), hu.shape)
    np.copyto(hu, level, where=where & (stomach < 0.84))
    for centre, radius in (((92, -48, -132), 21.0), ((-78, -66, -160), 17.0), ((98, -8, -160), 18.0)):
        loop = _ball(place, centre, (radius, radius, radius))
        fold = np.sin((x + z) / 4) > 0.93
        np.copyto(hu, np.float32(MUSCLE_HU - 15), where=where & (loop < 1))
        np.copyto(hu, np.float32(AIR_HU + 10), where=where & (loop < 0.8) & ~fold)


def _spine(hu: Floats, x: Floats, y: Floats, z: float) -> None:
    phase = (z + 4) % 26
    vertebra = (x / 17) ** 2 + ((y - 60) / 14.5) ** 2
    shell = 0.78 if 4 < phase < 24 else 0.0
    outer = np.float32(CORTEX_HU - 250 if phase > 2 else DISC_HU)
    np.copyto(hu, np.float32(MUSCLE_HU), where=(x / 40) ** 2 + ((y - 92) / 20) ** 2 < 1)
    np.copyto(hu, outer, where=vertebra < 1)
    np.copyto(hu, np.float32(MARROW_HU if phase > 2 else DISC_HU), where=vertebra < shell)
    canal = (x / 11) ** 2 + ((y - 83) / 9) ** 2
    np.copyto(hu, np.float32(CORTEX_HU - 200), where=(canal < 1.9) & ((phase > 6) | (y < 80)))
    np.copyto(hu, np.float32(20), where=canal < 1)
    if phase > 8:
        wing = (np.abs(y - 88 - np.float32(0.25) * (np.abs(x) - 12)) < 4.5) & (np.abs(x) > 11) & (np.abs(x) < 36)
        process = (np.abs(x) < 3.5) & (y > 92) & (y < 108)
        np.copyto(hu, np.float32(MARROW_HU + 160), where=(wing & (phase > 14)) | process)


def _sternum_and_scapulae(hu: Floats, x: Floats, y: Floats, z: float) -> None:
    chest = cavity(z)
    if -65 < z < 85:
        front = chest.middle - chest.half_depth - 7
        half = np.float32(19 if z > 50 else 15)
        plate = np.maximum(np.abs(x) / half, np.abs(y - front) / np.float32(6.0))
        np.copyto(hu, np.float32(CORTEX_HU - 200), where=plate < 1)
        np.copyto(hu, np.float32(MARROW_HU - 60), where=plate < 0.7)
    if -20 < z < 125:
        blade = np.abs(chest.at(x, y, 24) - 1) * 45
        reach = 45 + 0.35 * (125 - z)
        where = (
            (y > 18) & (np.abs(x) > 150 - reach - 10) & (np.abs(x) < 138) & (blade < 4.0) & inside(body(z), x, y, -9)
        )
        np.copyto(hu, np.float32(CORTEX_HU - 150), where=where)
        np.copyto(hu, np.float32(MARROW_HU), where=where & (blade < 1.8))
