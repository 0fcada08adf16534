"""Training patches drawn from cases: geometry, synthetic disease, look-alikes, noise.

``draw_...`` functions return ``(z, y, x)`` arrays in RAS order. A patch depends on nothing but its generator, so a
resumed training sees the patches that an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.cases.case import DENSE_LUNG_HU, IN_PLANE_MM, SLICE_MM, Case
from carina.cases.sampling import Sampler, Shape, bend
from carina.synth import distractors, lesions
from carina.synth.severity import paste_severe
from carina.volume.arrays import Flags, Floats

PATCH_SPACING_MM = (SLICE_MM, IN_PLANE_MM, IN_PLANE_MM)

PATCH_LOOK_ALIKES = distractors.LookAlikes(breath=0.5, dependent=0.3, nodules=0.3, most_nodules=4, effusion=0.1)

NEAR_MM = 8.0
"""How far beside the lungs dense tissue counts as hard for lesions: the hila, the heart's border, the pleura."""

BORROWED = 0.5
"""The share of patches for lesions that hold vessels of a second chest."""

DISEASED = 0.55
"""The share of patches for lesions that hold drawn disease."""

AT_THE_HILA = 0.4
"""The share of patches for lesions in the lungs' dense parts: without it, vessels at the hila become consolidation."""

SEVERE = 0.35
"""The share of patches with drawn disease in which it takes 20 to 95 % of the lung (`severity.paste_severe`)."""

REPEATED = 0.35
"""The share of patches for lesions that repeat one slice."""

PICTURE_TOP_HU = (100.0, 400.0)
"""A picture of a slice ends at a HU in here: what is denser is as bright as that."""
PICTURE_SHIFT_HU = 60.0
"""By how much a picture's HU can be wrong, either way."""

OUTSIDE_HU = -1024.0
"""What lies outside a case."""

_CROSS = ndimage.generate_binary_structure(2, 1)[None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What a network is shown: HU, what is to be found, hard voxels, and those nothing is taught on, ``(z, y, x)``."""

    hu: Floats
    truth: Flags
    hard: Flags
    ignored: Flags


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """HU, masks and (where asked for) gas that is no lung, what is around the body and each voxel's share of lung.

    All are ``(z, y, x)``.
    """

    hu: Floats
    lung: Flags
    lesion: Flags
    ignore: Flags
    gas: Flags | None = None
    around: Flags | None = None
    share: Floats | None = None


def cut(
    case: Case, centre: npt.NDArray[np.float64], shape: Shape, rng: np.random.Generator, *, with_air: bool = False
) -> Cut:
    """Cut a patch around ``centre`` (voxels ``(z, y, x)``), turned by up to 17 degrees, zoomed by 0.75 to 1.35, bent.

    No two patients have the same chest: depth and width are zoomed apart by up to a tenth, and the plane is bent by a
    smooth field of up to about 8 mm (`sampling.bend`). Slices are 3.5 to 6.5 mm apart, sampled linearly or (half of the
    time) averaged over up to 1.2 of a slice, as thick slices are; left and right change places half of the time; one in
    20 lies on its face. Outside the case is air.
    """
    angle = rng.uniform(-0.3, 0.3)
    zoom = rng.uniform(0.85, 1.2)
    zooms = zoom * np.exp(rng.uniform(-0.1, 0.1, 2))
    slice_mm = rng.uniform(3.5, 6.5)
    flip_x, flip_y = (-1.0 if rng.random() < p else 1.0 for p in (0.5, 0.05))
    cos, sin = np.cos(angle), np.sin(angle)
    ratio = IN_PLANE_MM / case.spacing_mm[1]
    step = slice_mm / case.spacing_mm[0]
    turn = np.array([[flip_y * cos, -flip_x * sin], [flip_y * sin, flip_x * cos]]) * zooms[:, None] * ratio
    half = (np.array(shape) - 1) / 2
    first = np.array([centre[0] - step * half[0], *(centre[1:] - turn @ half[1:])])
    slab = step * rng.uniform(0.2, 0.6) if rng.random() < 0.5 else 0.0
    moved = bend(shape[1:], PATCH_SPACING_MM[1:], rng) / case.spacing_mm[1]
    place = Sampler(shape, case.hu.shape, first, step, turn, moved)
    hu = place.sample(case.hu, slab=slab, outside=OUTSIDE_HU)
    lung, lesion, ignore = (place.mask(mask, slab=slab) for mask in (case.lung, case.lesion, case.ignore))
    gas = place.sample(case.gas) >= 0.5 if with_air else None
    around = place.sample(case.around, outside=1.0) >= 0.5 if with_air else None
    return Cut(hu=hu, lung=lung, lesion=lesion, ignore=ignore, gas=gas, around=around)


def centre_in(mask: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random voxel of ``mask`` (``(z, y, x)``, not empty)."""
    sizes = np.count_nonzero(mask, axis=(1, 2)).astype(float)
    z = int(rng.choice(len(sizes), p=sizes / sizes.sum()))
    flat = np.flatnonzero(mask[z])
    y, x = divmod(int(flat[rng.integers(len(flat))]), mask.shape[2])
    return np.array([z, y, x], dtype=float)


def draw_lesion_patch(cases: Sequence[Case], shape: Shape, rng: np.random.Generator) -> Drawn:
    """One patch for lesion segmentation: half and more hold lesions, most look-alikes, half another chest's vessels.

    Of those with lesions a third hold severe disease; a third of all repeat one slice along z (`repeat_slice`). Two in
    five are centred where the lungs are dense, which is at the hila mostly.

    Hard is what is dense in the lungs and up to `NEAR_MM` beside them, lesion or not: a network learns early that the
    dense is healthy, and then never finds consolidation; told only to find it, it takes vessels at the hila for it.
    """
    case = cases[int(rng.integers(len(cases)))]
    reach = (12, 12, 12) if rng.random() < 0.7 else (60, 90, 90)
    around = case.dense if rng.random() < AT_THE_HILA and case.dense.any() else case.lungs
    patch = cut(case, centre_in(around, rng) + rng.uniform(-1, 1, 3) * reach * np.array((0.2, 1, 1)), shape, rng)
    hu, lung, lesion = patch.hu, patch.lung, patch.lesion
    if rng.random() < BORROWED:
        hu = _with_borrowed(hu, lung, cases, rng)
    hu, fluid = distractors.look_alikes(hu, lung, PATCH_SPACING_MM, rng, PATCH_LOOK_ALIKES)
    hu = _other_patient(hu, rng)
    if rng.random() < DISEASED:
        hu, mask = _with_disease(hu, lung & ~fluid, rng)
        lesion = lesion | mask
    side = 2 * round(NEAR_MM / IN_PLANE_MM) + 1
    near = ndimage.maximum_filter(lung.view(np.uint8), (1, side, side)).astype(bool)
    hard: Flags = near & (hu > DENSE_LUNG_HU)
    drawn = Drawn(hu=_finish(hu, rng), truth=lesion, hard=hard, ignored=patch.ignore)
    return repeat_slice(drawn, rng) if rng.random() < REPEATED else drawn


def _with_disease(hu: Floats, lung: Flags, rng: np.random.Generator) -> tuple[Floats, Flags]:
    """``hu`` with disease in ``lung``, severe in `SEVERE` of the draws, and its mask."""
    if rng.random() < SEVERE:
        return paste_severe(hu, lung, PATCH_SPACING_MM, rng)
    return lesions.paste(hu, lung, PATCH_SPACING_MM, draw_disease(lung, rng), rng)


def repeat_slice(drawn: Drawn, rng: np.random.Generator) -> Drawn:
    """One slice of ``drawn`` in place of all, noise included: what a network is shown of a picture without a volume.

    A slice with something to learn, where there is one. Half of the time it is repeated less often, down to twice, with
    air above and below it; half of the time it is a picture (`as_picture`).
    """
    depth = len(drawn.hu)
    levels = np.flatnonzero((drawn.hard | drawn.truth).any(axis=(1, 2)))
    level = int(rng.choice(levels if len(levels) else depth))
    count = int(rng.integers(2, depth + 1)) if rng.random() < 0.5 else depth
    start = (depth - count) // 2
    return only_slice(drawn, level, slice(start, start + count), rng)


def only_slice(drawn: Drawn, level: int, kept: slice, rng: np.random.Generator) -> Drawn:
    """Slice ``level`` of ``drawn`` in place of those ``kept``, air above and below; half of the time as a picture."""
    hu = np.full_like(drawn.hu, OUTSIDE_HU)
    hu[kept] = as_picture(drawn.hu[level], rng) if rng.random() < 0.5 else drawn.hu[level]
    masks = [np.zeros(hu.shape, dtype=np.bool_) for _ in range(3)]
    for mask, old in zip(masks, (drawn.truth, drawn.hard, drawn.ignored), strict=True):
        mask[kept] = old[level]
    return Drawn(hu=hu, truth=masks[0], hard=masks[1], ignored=masks[2])


def as_picture(plane: Floats, rng: np.random.Generator) -> Floats:
    """HU of a slice as a picture keeps them: cut off at the top, and a little beside the truth."""
    shown = np.minimum(plane, rng.uniform(*PICTURE_TOP_HU)) + rng.uniform(-PICTURE_SHIFT_HU, PICTURE_SHIFT_HU)
    return np.maximum(shown, OUTSIDE_HU).astype(np.float32)


def draw_disease(lung: Flags, rng: np.random.Generator) -> list[lesions.DrawnLesion]:
    """The lesions of one patch: up to about 5 in a small one, 12 in one that holds most of the lungs.

    A large or an easy lesion would decide the Dice of its patch: a third of patches hold small ones only, twice as
    many, and half hold one kind only, consolidation, the hardest, in two of five of them.
    """
    kind = None
    if rng.random() < 0.5:
        kinds = list(lesions.Kind)
        kind = lesions.Kind.CONSOLIDATION if rng.random() < 0.25 else kinds[int(rng.integers(len(kinds)))]
    most = 1 + round(8 * np.sqrt(np.count_nonzero(lung) * np.prod(PATCH_SPACING_MM) / 1e6))
    count = int(rng.integers(1, most + 1))
    radii_mm = lesions.RADII_MM
    if rng.random() < 1 / 3:
        count, radii_mm = 2 * count + 1, lesions.SMALL_RADII_MM
    # Places on every other voxel: the distances that choose them took half of a patch's time.
    z, y, x = PATCH_SPACING_MM
    drawn = lesions.draw_lesions(lung[:, ::2, ::2], (z, 2 * y, 2 * x), rng, count=count, kind=kind, radii_mm=radii_mm)
    return [replace(one, centre=(one.centre[0], 2 * one.centre[1], 2 * one.centre[2])) for one in drawn]


def draw_lung_patch(cases: Sequence[Case], shape: Shape, rng: np.random.Generator) -> Drawn:
    """One patch for lung segmentation; half hold disease, fluid is taken out of the lung.

    Hard is where a threshold errs and what looks like disease: gas that the body encloses outside the lungs (airways,
    bowel) and 6 mm around it (bowel contents), and tissue inside them (vessels, consolidation), 2 voxels from the
    border at least.
    """
    case = cases[int(rng.integers(len(cases)))]
    where = rng.random()
    if where < 0.3 and case.gas.any():
        centre = centre_in(case.gas, rng)
    elif where < 0.75:
        centre = centre_in(case.lungs, rng) + rng.uniform(-30, 30, 3) * (0.2, 1, 1)
    else:
        centre = rng.uniform(0, 1, 3) * case.hu.shape
    patch = cut(case, centre, shape, rng, with_air=True)
    assert patch.gas is not None and patch.around is not None
    hu, fluid = distractors.look_alikes(patch.hu, patch.lung, PATCH_SPACING_MM, rng, PATCH_LOOK_ALIKES)
    if rng.random() < 0.5 and patch.around.any():
        hu = distractors.clothes(hu, patch.around, PATCH_SPACING_MM, rng)
    lung = patch.lung & ~fluid
    if rng.random() < 0.5:
        kind = lesions.Kind.CONSOLIDATION if rng.random() < 0.5 else None
        drawn = lesions.draw_lesions(lung, PATCH_SPACING_MM, rng, count=int(rng.integers(1, 5)), kind=kind)
        hu, _ = lesions.paste(hu, lung, PATCH_SPACING_MM, drawn, rng)
    inner = ndimage.binary_erosion(lung, _CROSS, iterations=2)
    near = ndimage.binary_dilation(lung, _CROSS, iterations=3)
    around = ndimage.binary_dilation(patch.gas, _CROSS, iterations=8) & ~near
    hard: Flags = (inner & (hu > -300)) | (around | patch.gas) & ~lung
    return Drawn(hu=_finish(hu, rng), truth=lung, hard=hard, ignored=patch.ignore)


def _with_borrowed(hu: Floats, lung: Flags, cases: Sequence[Case], rng: np.random.Generator) -> Floats:
    """``hu`` with the vessels of a patch of any of ``cases``, but not of its lesions and of what is ignored in it."""
    case = cases[int(rng.integers(len(cases)))]
    other = cut(case, centre_in(case.dense if case.dense.any() else case.lungs, rng), hu.shape, rng)
    near = ndimage.maximum_filter((other.lesion | other.ignore).view(np.uint8), (3, 15, 15)).astype(bool)
    return distractors.borrowed(hu, lung, other.hu, other.lung & ~near)


def _other_patient(hu: Floats, rng: np.random.Generator) -> Floats:
    """Other vessels than the case has: more or less contrast medium, thicker or thinner."""
    if rng.random() < 0.5:
        hu = distractors.contrast(hu, rng)
    if rng.random() < 0.5:
        hu = distractors.vessels(hu, rng)
    return hu


def _finish(hu: Floats, rng: np.random.Generator) -> Floats:
    """What the scanner does to everything alike: motion, kernel, noise, calibration."""
    if rng.random() < 0.15:
        hu = distractors.motion(hu, PATCH_SPACING_MM, rng)
    hu = distractors.kernel_and_noise(hu, PATCH_SPACING_MM, rng)
    shifted: Floats = (hu * rng.uniform(0.95, 1.05) + rng.normal(0, 20)).astype(np.float32)
    return shifted
