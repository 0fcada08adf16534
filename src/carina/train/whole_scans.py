"""Whole scans at a few millimetres, drawn for a network that tells where lungs are and where the belly is.

Everything that can be mistaken for a lung, or a lung for it, is drawn here at once: lungs without air, organs with it,
scans that end early, one slice in place of a volume. Arrays are ``(z, y, x)`` in RAS order; a draw depends on its
generator alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from carina.cases.case import Case
from carina.cases.sampling import Sampler, Shape, bend
from carina.synth import dense, distractors, lesions
from carina.synth.abdomen import draw_abdomen
from carina.synth.severity import paste_severe
from carina.train.patches import OUTSIDE_HU, Cut, Drawn, only_slice
from carina.volume import Grid, Mask, Volume
from carina.volume.arrays import Flags, Floats
from carina.volume.average import averaged
from carina.volume.grid import Triple

ONE_SLICE = 0.12
"""The share of draws that repeat one slice."""
LENGTHENED = 0.5
"""The share of draws with more of a belly than the scan has."""
ABDOMEN = 0.6
"""The share of draws with a stomach or a colon below the lungs."""
CUT_SHORT = 0.4
"""The share of draws in which the scan ends early, above or below."""
BELLY_ONLY = 0.15
"""The share of draws in which the scan ends above at the bases of the lungs, or below them."""
NARROW = 0.3
"""The share of draws whose field of view cuts the body."""
UNDRESSED = 0.3
"""The share of draws without anything around the body."""
MOST_NOISE_HU = 25.0


def coarse_case(case: Case, spacing_mm: Triple) -> Case:
    """``case`` averaged to voxels that are not larger than ``spacing_mm``; masks where half of a voxel is labelled."""
    hu, grid = averaged(case.hu, case.volume.grid, spacing_mm)
    volume = Volume(hu=np.rint(hu).astype(np.int16), grid=grid, uid=case.volume.uid)
    lung, lesion, ignore = (_coarse(mask, grid, spacing_mm) for mask in (case.lung, case.lesion, case.ignore))
    return replace(case, volume=volume, lung=lung, lesion=lesion, ignore=ignore)


def _coarse(mask: Mask | None, grid: Grid, spacing_mm: Triple) -> Mask | None:
    if mask is None:
        return None
    share, _ = averaged((mask.labels > 0).view(np.uint8), mask.grid, spacing_mm)
    return replace(mask, labels=(share >= 0.5).astype(np.uint8), grid=grid)


def draw_whole_scan(cases: Sequence[Case], shape: Shape, spacing_mm: Triple, rng: np.random.Generator) -> Drawn:
    """One scan in ``shape`` voxels of ``spacing_mm``, with or without disease and a belly; fluid is not taught on."""
    case = cases[int(rng.integers(len(cases)))]
    scan, seen = _sampled(case, shape, spacing_mm, rng)
    hu, lung = scan.hu, scan.lung
    lowest = int(np.argmax(seen))
    if rng.random() < LENGTHENED:
        hu = dense.lengthen(hu, lung, lowest, rng)
    organs = np.zeros(hu.shape, dtype=np.bool_)
    if rng.random() < ABDOMEN:
        for _ in range(1 + int(rng.random() < 0.5)):
            hu, drawn = draw_abdomen(hu, lung, spacing_mm, rng)
            organs |= drawn
    assert scan.around is not None and scan.gas is not None
    hu, fluid = _with_disease(hu, lung, spacing_mm, rng)
    if rng.random() < 0.3 and scan.around.any():
        hu = distractors.clothes(hu, scan.around, spacing_mm, rng)
    elif rng.random() < UNDRESSED:
        hu = np.where(scan.around, np.float32(OUTSIDE_HU), hu)
    near = ndimage.binary_dilation(lung, iterations=2)
    inner = ndimage.binary_erosion(lung)
    hard: Flags = (inner & (hu > -300)) | ((organs | ndimage.binary_dilation(scan.gas)) & ~near) | (fluid & lung)
    drawn_scan = Drawn(hu=_finish(hu, rng), truth=lung, hard=hard, ignored=scan.ignore | fluid)
    return _framed(drawn_scan, rng)


def _sampled(case: Case, shape: Shape, spacing_mm: Triple, rng: np.random.Generator) -> tuple[Cut, Flags]:
    """The case turned, stretched and bent, anywhere in the frame; and which slices lie in the scan."""
    own = np.array(case.spacing_mm)
    zooms = rng.uniform(0.8, 1.25) * np.exp(rng.uniform(-0.12, 0.12, 3))
    angle = rng.uniform(-0.25, 0.25)
    flip_x, flip_y = (-1.0 if rng.random() < p else 1.0 for p in (0.5, 0.04))
    cos, sin = np.cos(angle), np.sin(angle)
    wanted = np.array(spacing_mm) * zooms
    turn = np.array([[flip_y * cos, -flip_x * sin], [flip_y * sin, flip_x * cos]]) * wanted[1:] / own[1:, None]
    step = float(wanted[0] / own[0])
    extent = np.array(case.hu.shape)
    half = (np.array(shape) - 1) / 2
    slack = abs(extent[0] / step - shape[0]) / 2 + 4
    centre = (extent - 1) / 2 + np.array([step * rng.uniform(-slack, slack), *rng.uniform(-8, 8, 2)])
    first = np.array([centre[0] - step * half[0], *(centre[1:] - turn @ half[1:])])
    moved = bend(shape[1:], spacing_mm[1:], rng) / own[1]
    place = Sampler(shape, case.hu.shape, first, step, turn, moved)
    hu = place.sample(case.hu, outside=OUTSIDE_HU)
    lung, ignore = place.mask(case.lung), place.mask(case.ignore)
    gas, around = place.sample(case.gas) >= 0.5, place.sample(case.around, outside=1.0) >= 0.5
    seen = (place.z >= 0) & (place.z <= extent[0] - 1)
    return Cut(hu=hu, lung=lung, lesion=np.zeros_like(lung), ignore=ignore, gas=gas, around=around), seen


def _with_disease(hu: Floats, lung: Flags, spacing_mm: Triple, rng: np.random.Generator) -> tuple[Floats, Flags]:
    """Disease of none to nearly all of the lungs; and where pleural fluid is, which may be called either."""
    fluid = np.zeros(lung.shape, dtype=np.bool_)
    if rng.random() < 0.5:
        hu = distractors.breath(hu, lung, rng)
    elif rng.random() < 0.2:
        hu = dense.white_out(hu, lung, rng)
    if rng.random() < 0.3:
        hu = distractors.dependent(hu, lung, spacing_mm, rng)
    chosen = rng.random()
    if chosen < 0.45:
        hu, _ = dense.consolidate(hu, lung, spacing_mm, rng)
    elif chosen < 0.6:
        hu, _ = paste_severe(hu, lung, spacing_mm, rng)
    elif chosen < 0.75:
        count = int(rng.integers(1, 8))
        hu, _ = lesions.paste(hu, lung, spacing_mm, lesions.draw_lesions(lung, spacing_mm, rng, count=count), rng)
    if rng.random() < 0.2:
        hu, fluid = distractors.effusion(hu, lung, spacing_mm, rng)
    return hu, fluid


def _finish(hu: Floats, rng: np.random.Generator) -> Floats:
    if rng.random() < 0.5:
        hu = distractors.contrast(hu, rng)
    if rng.random() < 0.5:
        hu = hu + rng.uniform(0, MOST_NOISE_HU) * rng.standard_normal(hu.shape, dtype=np.float32)
    return np.asarray(hu * rng.uniform(0.95, 1.05) + rng.normal(0, 15), dtype=np.float32)


def _framed(drawn: Drawn, rng: np.random.Generator) -> Drawn:
    """``drawn`` as scanners frame it: cut short, with a narrow field of view, or one slice of it repeated."""
    if rng.random() < ONE_SLICE and drawn.truth.any():
        return _repeated(drawn, rng)
    kept = np.ones(drawn.hu.shape, dtype=np.bool_)
    depth, height, width = drawn.hu.shape
    if rng.random() < BELLY_ONLY:
        kept[_bases(drawn.truth, rng) :] = False
    elif rng.random() < CUT_SHORT:
        first, last = sorted(int(v) for v in rng.integers(0, depth, 2))
        if last - first >= 4:
            kept[:first], kept[last + 1 :] = False, False
    if rng.random() < NARROW:
        y, x = np.ogrid[:height, :width]
        radius = rng.uniform(0.55, 1.0) * height / 2
        far = [(y - height / 2) ** 2 + (x - width / 2) ** 2 > radius**2 * 1.6, np.abs(x - width / 2) > radius + 0 * y]
        kept &= ~far[int(rng.integers(2))]
    return replace(
        drawn,
        hu=np.where(kept, drawn.hu, np.float32(OUTSIDE_HU)),
        truth=drawn.truth & kept,
        hard=drawn.hard & kept,
        ignored=drawn.ignored & kept,
    )


def _bases(lung: Flags, rng: np.random.Generator) -> int:
    """A slice at the bases of ``lung``, or a little below them; all slices where there is no lung."""
    levels = np.flatnonzero(lung.any(axis=(1, 2)))
    if not len(levels):
        return len(lung)
    return max(4, int(levels[0] + len(levels) * rng.uniform(-0.15, 0.35)))


def _repeated(drawn: Drawn, rng: np.random.Generator) -> Drawn:
    """One slice with lung, repeated; air above and below it."""
    level = int(rng.choice(np.flatnonzero(drawn.truth.any(axis=(1, 2)))))
    count = int(rng.integers(2, min(28, len(drawn.hu)) + 1))
    start = int(rng.integers(0, len(drawn.hu) - count + 1))
    return only_slice(drawn, level, slice(start, start + count), rng)
