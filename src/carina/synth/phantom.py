"""A synthetic chest CT with known truth, for demonstrations, training and tests.

It looks like a chest where a segmentation can go wrong: fat and muscle, ribs, spine, heart and great vessels, a
trachea that forks, vessel trees in the lungs, and gas in stomach and bowel below the diaphragm. It is no patient and
no model of one: figures measured on it say whether the software counts right, not how good a network is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.synth import anatomy, tubes
from carina.volume import Grid, Mask, Volume
from carina.volume.grid import Triple

FIELD_MM = (320.0, 384.0, 384.0)
"""Height, depth and width that the phantom needs to be seen whole, in mm ``(z, y, x)``."""

CENTRE_Z = -8.0
"""Nominal height of the middle slice."""

BLUR_MM = 0.55
"""Standard deviation of the in-plane point spread function."""

SIDE_LUNG_NAMES = {1: "left lung", 2: "right lung"}
LESION_NAMES = {1: "lesion"}


@dataclass(frozen=True, kw_only=True)
class PhantomLesion:
    """A ground-glass opacity: an ellipsoid, cut off where the lung ends.

    ``centre_mm`` is ``(x, y, z)`` LPS in the volume's patient space, ``radii_mm`` its half axes along the same.
    ``lobulation`` 0 is a plain ellipsoid, 0.3 a ragged one. ``hu`` is reached in its core.
    """

    centre_mm: Triple
    radii_mm: Triple
    hu: float = -520.0
    lobulation: float = 0.0

    @property
    def ellipsoid_ml(self) -> float:
        """Volume in ml of the whole ellipsoid, whatever part of it lies in the lung."""
        return float(np.prod(self.radii_mm)) * 4 / 3 * np.pi / 1000


@dataclass(frozen=True, kw_only=True)
class LesionTruth:
    """One painted lesion and its volume in ml in the mask (voxels times voxel volume)."""

    lesion: PhantomLesion
    lesion_ml: float


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a perfect measurement finds: mask voxels times voxel volume, in ml."""

    lung_ml: float
    left_lung_ml: float
    right_lung_ml: float
    lesion_ml: float
    lesions: tuple[LesionTruth, ...]

    @property
    def ratio_percent(self) -> float:
        """Lesion volume in percent of lung volume."""
        return 100 * self.lesion_ml / self.lung_ml if self.lung_ml else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Phantom:
    """A synthetic chest: CT, lung mask (1 left, 2 right; lesions and thin vessels included, airways not), lesions."""

    volume: Volume
    lung: Mask
    lesion: Mask
    truth: Truth


def chest_phantom(
    *,
    shape: tuple[int, int, int] = (120, 256, 256),
    spacing_mm: Triple | None = None,
    lesions: int | Sequence[PhantomLesion] = 5,
    seed: int = 1,
    noise_hu: float = 18.0,
) -> Phantom:
    """Make a chest CT whose lung and lesion volumes are known.

    ``shape`` and ``spacing_mm`` are ``(z, y, x)``; without a spacing the whole chest fills the shape. ``lesions`` is
    a number of random peripheral opacities (0: a healthy chest) or the lesions themselves. Size of the chest,
    vessels, lesions and noise follow from ``seed`` alone. ``noise_hu`` is the noise's standard deviation.

    Raises:
        ValueError: more than 254 lesions, or a shape with fewer than 2 rows, columns or slices.
    """
    if min(shape) < 2:
        raise ValueError(f"shape {shape}: a phantom needs at least 2 voxels along every axis")
    rng = np.random.default_rng(seed)
    size = rng.uniform((0.98, 0.98, 0.97), (1.08, 1.08, 1.06))
    grid = _grid(shape, spacing_mm)
    chosen = _random_lesions(rng, lesions, size) if isinstance(lesions, int) else tuple(lesions)
    if len(chosen) > 254:
        raise ValueError(f"{len(chosen)} lesions: a phantom takes at most 254")
    canvas = _torso(grid, size)
    for tube in tubes.ribs():
        tubes.paint_tube(canvas, tube)
    lesion = np.zeros(shape, dtype=np.uint8)
    for label, one in enumerate(chosen, start=1):
        _paint_lesion(canvas, lesion, _Spot(label=label, lesion=one, grid=grid, size=size), rng)
    for tube in (*tubes.vessel_trees(rng), *tubes.great_vessels(), *tubes.airways()):
        tubes.paint_tube(canvas, tube)
    lesion[canvas.lung == 0] = 0
    _scan(canvas, noise_hu, seed)
    return _phantom(canvas, lesion, grid, chosen)


def _grid(shape: tuple[int, int, int], spacing_mm: Triple | None) -> Grid:
    if spacing_mm is None:
        z, y, x = (length / count for length, count in zip(FIELD_MM, shape, strict=True))
        spacing_mm = (z, y, x)
    z, y, x = (-(count - 1) / 2 * step for count, step in zip(shape, spacing_mm, strict=True))
    return Grid(shape=shape, spacing_mm=spacing_mm, origin_mm=(x, y, z + CENTRE_Z))


def _torso(grid: Grid, size: npt.NDArray[np.float64]) -> tubes.Canvas:
    """Paint everything but tubes and lesions, slice by slice."""
    z, y, x = (
        ((np.arange(count) * step + start) / scale).astype(np.float32)
        for count, step, start, scale in zip(grid.shape, grid.spacing_mm, grid.origin_mm[::-1], size[::-1], strict=True)
    )
    row, column = x[None, :], y[:, None]
    floor = anatomy.diaphragm(row, column)
    side = np.where(row > 0, np.uint8(1), np.uint8(2))
    hu = np.empty(grid.shape, dtype=np.int16)
    lung = np.empty(grid.shape, dtype=np.uint8)
    for index, height in enumerate(z):
        painted, inside = anatomy.paint_slice(row, column, float(height), floor)
        hu[index] = painted
        lung[index] = inside * side
    return tubes.Canvas(hu=hu, lung=lung, z=z, y=y, x=x)


def _random_lesions(rng: np.random.Generator, count: int, size: npt.NDArray[np.float64]) -> tuple[PhantomLesion, ...]:
    """Opacities at the pleura, mostly at the back and in the lower half, as COVID-19 has them."""
    found: list[PhantomLesion] = []
    while len(found) < count:
        side = rng.choice((-1, 1))
        z = rng.triangular(-95, -40, 95)
        angle = np.deg2rad(rng.triangular(-50, 45, 68))
        wall = anatomy.cavity(z)
        depth = rng.uniform(0.86, 0.96)
        x = side * float(wall.half_width) * np.cos(angle) * depth
        y = float(wall.middle) + float(wall.half_depth) * np.sin(angle) * depth
        at_x, at_y = np.array([x], dtype=np.float32), np.array([y], dtype=np.float32)
        if not anatomy.inside_lungs(at_x, at_y, z, anatomy.diaphragm(at_x, at_y)).all():
            continue
        centre = np.array([x, y, z]) * size
        a, b, c = rng.uniform(9, 27, size=3)
        hu, lobulation = rng.uniform(-620, -420), rng.uniform(0.15, 0.3)
        found.append(
            PhantomLesion(
                centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
                radii_mm=(float(a), float(b), float(c)),
                hu=float(hu),
                lobulation=float(lobulation),
            )
        )
    return tuple(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Spot:
    """A lesion with what is needed to place it."""

    label: int
    lesion: PhantomLesion
    grid: Grid
    size: npt.NDArray[np.float64]


def _paint_lesion(canvas: tubes.Canvas, labels: npt.NDArray[np.uint8], spot: _Spot, rng: np.random.Generator) -> None:
    """Blend a lesion into the lungs and label its voxels; its edge fades over some millimetres."""
    lesion = spot.lesion
    centre, radii = np.array(lesion.centre_mm), np.array(lesion.radii_mm)
    reach = radii * 1.6
    box = canvas.box((centre - reach) / spot.size, (centre + reach) / spot.size)
    waves = rng.normal(size=(4, 3)) * (2.5 / radii.mean())
    phases = rng.uniform(0, 2 * np.pi, size=4)
    z, y, x = (
        (axis[part] * np.float32(scale) - np.float32(middle)).astype(np.float32)
        for axis, part, scale, middle in zip(
            (canvas.z, canvas.y, canvas.x), box, spot.size[::-1], centre[::-1], strict=True
        )
    )
    z, y = z[:, None, None], y[:, None]
    radius = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2).astype(np.float32)
    if lesion.lobulation:
        ripple = sum(np.sin(x * w[0] + y * w[1] + z * w[2] + p) for w, p in zip(waves, phases, strict=True))
        radius += (lesion.lobulation / 2) * np.asarray(ripple, dtype=np.float32)
    lung = canvas.lung[box] > 0
    softness = np.float32(max(2.5, canvas.pixel) / radii.mean())
    cover = np.clip((1 - radius) / softness + np.float32(0.5), 0, 1) * lung
    block = canvas.hu[box]
    block += np.rint(cover * (np.float32(lesion.hu) - block)).astype(np.int16)
    labels[box][(radius < 1) & lung] = spot.label


def _scan(canvas: tubes.Canvas, noise_hu: float, seed: int) -> None:
    """Blur each slice as a scanner would and add noise that neighbouring voxels share."""
    blur = BLUR_MM / canvas.pixel
    before = _noise(seed, 0, canvas.hu.shape[1:])
    for index in range(len(canvas.hu)):
        image = ndimage.gaussian_filter(canvas.hu[index].astype(np.float32), blur, truncate=3)
        if noise_hu:
            fresh = _noise(seed, index + 1, image.shape)
            image += np.float32(noise_hu) * (np.float32(0.9) * fresh + np.float32(0.436) * before)
            before = fresh
        canvas.hu[index] = np.clip(np.rint(image), -1024, 3071)


def _noise(seed: int, index: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Unit-variance noise with the grain of a soft kernel."""
    white = np.random.default_rng((seed, index)).standard_normal(shape, dtype=np.float32)
    weights = np.array([0.35, 0.86, 0.35], dtype=np.float32)
    weights /= np.sqrt((weights**2).sum())
    return ndimage.correlate1d(ndimage.correlate1d(white, weights, axis=0), weights, axis=1)


def _phantom(
    canvas: tubes.Canvas, labels: npt.NDArray[np.uint8], grid: Grid, lesions: tuple[PhantomLesion, ...]
) -> Phantom:
    counts = np.bincount(labels.ravel(), minlength=len(lesions) + 1) if lesions else np.zeros(1)
    sides = [float(np.count_nonzero(canvas.lung == label)) * grid.voxel_ml for label in (1, 2)]
    np.minimum(labels, 1, out=labels)
    uid = "2.25." + str(int.from_bytes(hashlib.sha256(canvas.hu.tobytes()).digest()[:15], "big"))
    truth = Truth(
        lung_ml=sum(sides),
        left_lung_ml=sides[0],
        right_lung_ml=sides[1],
        lesion_ml=float(counts[1:].sum()) * grid.voxel_ml,
        lesions=tuple(
            LesionTruth(lesion=lesion, lesion_ml=float(count) * grid.voxel_ml)
            for lesion, count in zip(lesions, counts[1:], strict=True)
        ),
    )
    return Phantom(
        volume=Volume(hu=canvas.hu, grid=grid, uid=uid),
        lung=Mask(labels=canvas.lung, grid=grid, names=SIDE_LUNG_NAMES, uid=uid),
        lesion=Mask(labels=labels, grid=grid, names=LESION_NAMES, uid=uid),
        truth=truth,
    )
