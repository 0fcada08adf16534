"""The tubes of the phantom: ribs, great vessels, airways and the vessel trees of the lungs.

A tube is a straight piece with a round cross-section that may taper. Coordinates are those of ``anatomy``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from carina.synth import anatomy
from carina.volume.arrays import Doubles, Floats

Path = Sequence[tuple[float, float, float, float]]
"""Corner points of a bent tube: x, y, z and radius."""

FLATNESS = 0.6
"""Ribs are higher than thick by the inverse of this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tube:
    """A piece from ``start`` to ``end`` (x, y, z in nominal mm), radius tapering from ``r0`` to ``r1``.

    ``tall`` below 1 stretches the cross-section along z. ``leaves_lung`` says whether its voxels are taken out of
    the lung mask.
    """

    start: Doubles
    end: Doubles
    r0: float
    r1: float
    hu: float
    tall: float = 1.0
    leaves_lung: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Canvas:
    """The volume under construction: HU, lung labels, and the nominal coordinates of planes, rows and columns."""

    hu: npt.NDArray[np.int16]
    lung: npt.NDArray[np.uint8]
    z: Floats
    y: Floats
    x: Floats

    def box(self, low: Doubles, high: Doubles) -> tuple[slice, slice, slice]:
        """The index box ``(z, y, x)`` of all voxel centres between two corners ``(x, y, z)``; may be empty."""
        pairs = zip((self.z, self.y, self.x), low[::-1], high[::-1], strict=True)
        z, y, x = (slice(*np.searchsorted(axis, (a, b))) for axis, a, b in pairs)
        return z, y, x

    @property
    def pixel(self) -> float:
        """In-plane step in nominal mm."""
        return float(self.x[1] - self.x[0])


def paint_tube(canvas: Canvas, tube: Tube) -> None:
    """Blend one tube into the canvas, its edge softened over a pixel as a scanner would."""
    pixel = canvas.pixel
    reach = max(tube.r0, tube.r1) + pixel
    margin = np.array([reach, reach, reach / tube.tall])
    box = canvas.box(np.minimum(tube.start, tube.end) - margin, np.maximum(tube.start, tube.end) + margin)
    block = canvas.hu[box]
    if block.size == 0:
        return
    scale = np.array([1.0, 1.0, tube.tall])
    start, along = tube.start * scale, (tube.end - tube.start) * scale
    x = canvas.x[box[2]] - np.float32(start[0])
    y = canvas.y[box[1], None] - np.float32(start[1])
    z = canvas.z[box[0], None, None] * np.float32(tube.tall) - np.float32(start[2])
    length = float(along @ along)
    dx, dy, dz = (np.float32(v) for v in along)
    share = np.clip((x * dx + y * dy + z * dz) / np.float32(max(length, 1e-6)), 0, 1)
    distance = np.sqrt((x - share * dx) ** 2 + (y - share * dy) ** 2 + (z - share * dz) ** 2)
    radius = np.float32(tube.r0) + share * np.float32(tube.r1 - tube.r0)
    cover = np.clip((radius - distance) / np.float32(pixel) + np.float32(0.5), 0, 1)
    cover *= np.minimum(1, (2 * radius / np.float32(pixel)) ** 2)
    block += np.rint(cover * (np.float32(tube.hu) - block)).astype(np.int16)
    if tube.leaves_lung:
        canvas.lung[box][cover > 0.5] = 0


def bent(path: Path, hu: float, *, grow: float = 0.0, tall: float = 1.0, leaves_lung: bool = True) -> list[Tube]:
    """A bent tube through the path's points; ``grow`` widens it (the wall around a lumen)."""
    corners = [(np.array(point[:3], dtype=np.float64), point[3] + grow) for point in path]
    return [
        Tube(start=a, end=b, r0=ra, r1=rb, hu=hu, tall=tall, leaves_lung=leaves_lung)
        for (a, ra), (b, rb) in pairwise(corners)
    ]


def ribs() -> Iterator[Tube]:
    """Eleven pairs of ribs and a pair of clavicles: cortex first, then marrow; cartilage in front."""
    for side in (-1, 1):
        for number in range(11):
            yield from _rib(side, 118.0 - 24.0 * number, cartilage_from=0.72 if number < 7 else 0.85)
        clavicle = [
            (side * 22, -38, 92, 6),
            (side * 70, -52, 108, 5),
            (side * 120, -20, 118, 5),
            (side * 165, 5, 122, 6),
        ]
        yield from bent(clavicle, anatomy.CORTEX_HU)
        yield from bent(clavicle, anatomy.MARROW_HU, grow=-2.5)


def _rib(side: int, top: float, *, cartilage_from: float) -> Iterator[Tube]:
    share = np.linspace(0.0, 1.0 if cartilage_from < 0.8 else 0.85, 28)
    angle = np.deg2rad(100 - 190 * share)
    height = top - 62 * np.sin(share * np.pi / 2) ** 1.3 + 12 * np.maximum(share - cartilage_from, 0) / 0.3
    wall = anatomy.cavity(height)
    # The rounded outline bulges beyond its ellipse on the diagonals; the factor follows it.
    bulge = 1 + 0.125 * np.sin(2 * angle) ** 2 * anatomy.SQUARENESS / 0.5
    x = side * (np.asarray(wall.half_width) + 7) * np.cos(angle) * bulge
    y = np.asarray(wall.middle) + (np.asarray(wall.half_depth) + 7) * np.sin(angle) * bulge
    x[np.cos(angle) < 0] *= -1
    keep = (np.abs(x) > 12) & (np.cos(angle) > -0.2)
    points = [(a, b, c, 4.6) for a, b, c in zip(x[keep], y[keep], height[keep], strict=True)]
    bony = max(2, round(cartilage_from * len(points)))
    yield from bent(points[bony - 1 :], anatomy.CARTILAGE_HU, tall=FLATNESS)
    yield from bent(points[:bony], anatomy.CORTEX_HU, tall=FLATNESS)
    yield from bent(points[:bony], anatomy.MARROW_HU, grow=-1.9, tall=FLATNESS)


_AORTA: Path = [
    (-6, -18, -20, 15), (-18, -24, 10, 15), (-16, -20, 40, 14.5), (-4, -8, 58, 14), (12, 12, 63, 13.5),
    (22, 32, 54, 13), (25, 40, 35, 12.5), (23, 42, -40, 12), (12, 42, -110, 11), (6, 38, -200, 10),
]  # fmt: skip
_CAVA: Path = [(-24, -12, 75, 9), (-28, -6, 40, 9), (-28, 0, -10, 10)]
_PULMONARY: Path = [(18, -34, -10, 14), (16, -20, 20, 13), (8, -2, 24, 12), (-12, 2, 16, 10), (-38, 10, 8, 8)]
_PULMONARY_LEFT: Path = [(14, -8, 24, 12), (30, 12, 22, 10), (42, 18, 12, 8)]
_HEAD_VESSELS: tuple[Path, ...] = (
    [(-6, -10, 66, 7), (-16, -8, 100, 6), (-24, 0, 150, 5)],
    [(10, 5, 66, 5), (16, 2, 105, 4.5), (22, 4, 150, 4)],
    [(18, 16, 62, 6), (24, 16, 105, 5), (34, 16, 150, 5)],
)
_ESOPHAGUS: Path = [(2, 24, 150, 6), (4, 28, 40, 6.5), (4, 30, -60, 7), (22, 14, -84, 7)]


def great_vessels() -> Iterator[Tube]:
    """Aorta with arch, its branches, superior vena cava, pulmonary arteries and the oesophagus."""
    for path in (_CAVA, _PULMONARY, _PULMONARY_LEFT, *_HEAD_VESSELS, _AORTA):
        yield from bent(path, anatomy.BLOOD_HU)
    yield from bent(_ESOPHAGUS, anatomy.MUSCLE_HU - 15)


_TRACHEA: Path = [(0, 2, 170, 9), (0, 6, 100, 9), (2, 12, 36, 9)]
_BRONCHI: tuple[Path, ...] = (
    [
        (2, 12, 36, 8.5),
        (-20, 16, 20, 7.5),
        (-32, 18, 8, 6.5),
        (-42, 26, -14, 5),
        (-52, 36, -42, 3.5),
        (-60, 44, -62, 2.5),
    ],
    [(-20, 16, 20, 6), (-40, 14, 28, 4.5), (-56, 10, 46, 3), (-62, 8, 64, 2.2)],
    [(2, 12, 36, 8), (24, 18, 20, 6.5), (42, 22, 6, 6), (50, 30, -16, 4.5), (58, 40, -44, 3.2), (66, 48, -66, 2.3)],
    [(42, 22, 6, 5), (54, 10, 18, 4), (62, 0, 38, 3), (64, -4, 58, 2.2)],
    [(-42, 26, -14, 3.5), (-58, 0, -24, 2.6), (-70, -24, -30, 2)],
)


def airways() -> Iterator[Tube]:
    """Trachea, its fork at the carina, main and lobar bronchi: walls first, then the air inside."""
    paths = (_TRACHEA, *_BRONCHI)
    for path in paths:
        yield from bent(path, anatomy.MUSCLE_HU - 20, grow=1.2)
    for path in paths:
        yield from bent(path, anatomy.AIR_HU + 5)


def vessel_trees(rng: np.random.Generator, *, tips: int = 600) -> Iterator[Tube]:
    """An artery and a vein tree in each lung, reaching ``tips`` random places, wide as the tips they feed."""
    for side in (-1, 1):
        for root in ((42.0, 14.0, 10.0), (30.0, 22.0, -16.0)):
            targets = _places(rng, side, tips)
            yield from _branch(np.array([side * root[0], root[1], root[2]]), targets)


def _places(rng: np.random.Generator, side: int, count: int) -> Doubles:
    low, high = (4.0, -95.0, -140.0), (124.0, 90.0, 134.0)
    places = rng.uniform(low, high, size=(count * 8, 3)) * (side, 1, 1)
    x, y, z = places.astype(np.float32).T
    inside = anatomy.inside_lungs(x, y, z, anatomy.diaphragm(x, y))
    return places[inside][:count]


def _branch(start: Doubles, targets: Doubles) -> Iterator[Tube]:
    """Go half the way to the middle of the targets, split them across their longest extent, and go on."""
    count = len(targets)
    radius = 0.6 * count ** (1 / 2.5)
    middle = targets.mean(axis=0)
    end = middle if count == 1 else start + 0.45 * (middle - start)
    big = radius > 4.0
    yield Tube(start=start, end=end, r0=radius, r1=radius * 0.85, hu=anatomy.BLOOD_HU, leaves_lung=big)
    if count > 1:
        axis = int(np.argmax(np.ptp(targets, axis=0)))
        order = targets[:, axis].argsort(kind="stable")
        yield from _branch(end, targets[order[: count // 2]])
        yield from _branch(end, targets[order[count // 2 :]])
