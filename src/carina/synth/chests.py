"""Chests with synthetic disease of known kind, size and place, and with look-alikes that are no disease.

What a lesion looks like is `lesions`' matter, what a look-alike does `distractors`'; here chests are put together at
the images' own resolution. The same generator gives the same chest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carina.errors import BadSeries
from carina.synth import distractors, lesions
from carina.synth.fields import ORIENTATION
from carina.synth.lesions import LIMITS_ML, Kind, Size
from carina.synth.lung_labels import MARGIN_VOXELS
from carina.synth.phantom import LESION_NAMES, chest_phantom
from carina.volume import Grid, Mask, Volume
from carina.volume.arrays import Flags, Floats, marked_box
from carina.volume.grid import Triple
from carina.volume.resample import reorient

LUNG_NAMES = {1: "lung"}

PHANTOM_SHAPE = (64, 320, 320)
CHEST_LOOK_ALIKES = distractors.LookAlikes(breath=0.5, dependent=0.3, nodules=0.5, most_nodules=6, effusion=0.15)
TRIES = 8
"""Times that a lesion is drawn anew, larger or smaller, before its place is given up."""


@dataclass(frozen=True, kw_only=True)
class SynthSettings:
    """What is synthesised.

    ``lesions`` are the fewest and the most of a case; ``healthy`` is the share of cases without any. ``distractors``
    adds nodules, pleural fluid, dependent density and another breath to some. ``validation`` is the share of patients
    for validation where the lungs' own list does not say. ``phantom_shape`` is ``(z, y, x)``.
    """

    count: int = 10
    kinds: tuple[Kind, ...] = tuple(Kind)
    sizes: tuple[Size, ...] = tuple(Size)
    lesions: tuple[int, int] = (1, 5)
    healthy: float = 0.0
    distractors: bool = True
    validation: float = 0.2
    phantom_shape: tuple[int, int, int] = PHANTOM_SHAPE
    seed: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Chest:
    """Lungs to put disease into, named for messages; the mask lies on the volume's voxels."""

    name: str
    volume: Volume
    lung: Mask


@dataclass(frozen=True, kw_only=True)
class DrawnTruth:
    """One synthetic lesion: kind, size class, volume in ml, and its middle ``(x, y, z)`` LPS in mm."""

    kind: Kind
    size: Size
    lesion_ml: float
    centre_mm: Triple


@dataclass(frozen=True, kw_only=True, eq=False)
class Synthetic:
    """A chest with synthetic disease; the lung mask is without pleural fluid."""

    volume: Volume
    lung: Mask
    lesion: Mask
    truth: tuple[DrawnTruth, ...]


def synthesise(chest: Chest, settings: SynthSettings, rng: np.random.Generator) -> Synthetic:
    """Put look-alikes and lesions into a chest, at its own resolution.

    Raises:
        BadSeries: the lung mask is empty.
    """
    hu, lung_labels = chest.volume.hu.copy(), np.minimum(chest.lung.labels, 1)
    lesion_labels = np.zeros_like(lung_labels)
    (view, grid), (lung_view, _), (lesion_view, _) = (
        reorient(array, chest.volume.grid, ORIENTATION) for array in (hu, lung_labels, lesion_labels)
    )
    if not lung_view.any():
        raise BadSeries("lung.none", f"{chest.name}: its lung mask is empty; nothing can be put into it.")
    box = marked_box(lung_view > 0, MARGIN_VOXELS)
    part, lung = view[box].astype(np.float32), lung_view[box] > 0
    if settings.distractors:
        part, fluid = distractors.look_alikes(part, lung, grid.spacing_mm, rng, CHEST_LOOK_ALIKES)
        lung = lung & ~fluid
    count = int(rng.integers(settings.lesions[0], settings.lesions[1] + 1))
    wanted = 0 if rng.random() < settings.healthy else count
    part, mask, found = _with_lesions(part, lung, grid.spacing_mm, settings, wanted, rng)
    view[box] = np.clip(np.rint(part), -1024, 3071).astype(np.int16)
    lung_view[box], lesion_view[box] = lung | mask, mask
    start = np.array([side.start for side in box])
    return Synthetic(
        volume=dataclasses.replace(chest.volume, hu=hu),
        lung=dataclasses.replace(chest.lung, labels=lung_labels, names=LUNG_NAMES),
        lesion=Mask(labels=lesion_labels, grid=chest.volume.grid, names=LESION_NAMES, uid=chest.volume.uid),
        truth=tuple(_truth(kind, size, one, start, grid) for kind, size, one in found),
    )


def one_lesion(
    hu: Floats, lung: Flags, spacing_mm: Triple, kind: Kind, size: Size, rng: np.random.Generator
) -> tuple[Floats, Flags] | None:
    """``hu`` with one lesion of a kind whose volume falls into a size class, and its mask; None where it can't.

    All ``(z, y, x)``, RAS order. The lesion grows or shrinks until it fits, since the lung cuts some of it off.
    """
    half = lung[:, ::2, ::2]
    drawn = lesions.draw_lesions(half, (spacing_mm[0], 2 * spacing_mm[1], 2 * spacing_mm[2]), rng, count=1, kind=kind)
    if not drawn:
        return None
    z, y, x = drawn[0].centre
    low, high = LIMITS_ML[size]
    wanted_ml = float(np.exp(rng.uniform(np.log(low * 1.15), np.log(high * 0.85))))
    volume_ml = float(np.prod(drawn[0].radii_mm)) * 4 / 3 * np.pi / 1000
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    lesion = dataclasses.replace(drawn[0], centre=(z, 2 * y, 2 * x))
    for _ in range(TRIES):
        lesion = _scaled(lesion, (wanted_ml / volume_ml) ** (1 / 3))
        changed, mask = lesions.paste(hu, lung, spacing_mm, [lesion], rng)
        volume_ml = max(float(np.count_nonzero(mask)) * voxel_ml, wanted_ml / 8)
        if low <= volume_ml < high:
            return changed, mask
    return None


def phantom_chests(settings: SynthSettings) -> Iterator[Chest]:
    """Healthy phantoms, one after the other, each a patient of its own."""
    for number in range(settings.count):
        phantom = chest_phantom(shape=settings.phantom_shape, lesions=0, seed=1000 * settings.seed + number)
        name = f"phantom-{settings.seed}-{number + 1}"
        yield Chest(name=name, volume=phantom.volume, lung=phantom.lung)


def _with_lesions(
    hu: Floats, lung: Flags, spacing_mm: Triple, settings: SynthSettings, count: int, rng: np.random.Generator
) -> tuple[Floats, Flags, list[tuple[Kind, Size, Flags]]]:
    """HU, the mask of all lesions, and each lesion's kind, size class and own mask."""
    found = []
    whole = np.zeros(hu.shape, dtype=bool)
    for _ in range(count):
        kind = settings.kinds[int(rng.integers(len(settings.kinds)))]
        size = settings.sizes[int(rng.integers(len(settings.sizes)))]
        pasted = one_lesion(hu, lung, spacing_mm, kind, size, rng)
        if pasted is not None:
            hu, mask = pasted
            found.append((kind, size, mask))
            whole |= mask
    return hu, whole, found


def _scaled(lesion: lesions.DrawnLesion, factor: float) -> lesions.DrawnLesion:
    z, u, v = lesion.radii_mm
    return dataclasses.replace(lesion, radii_mm=(z * factor, u * factor, v * factor))


def _truth(kind: Kind, size: Size, mask: Flags, start: npt.NDArray[np.intp], grid: Grid) -> DrawnTruth:
    centre = grid.points_mm(np.argwhere(mask).mean(axis=0) + start)
    x, y, z = (float(v) for v in centre)
    return DrawnTruth(kind=kind, size=size, lesion_ml=np.count_nonzero(mask) * grid.voxel_ml, centre_mm=(x, y, z))
