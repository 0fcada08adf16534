"""Whole scans at a few millimetres, drawn for a network that tells where lungs are and where the belly is.

Everything that can be mistaken for a lung, or a lung for it, is drawn here at once: lungs without air, organs with it,
scans that end early, one slice in place of a volume. Cases without lungs are bellies: some draws show one alone, others
have one below another patient's chest. Arrays are ``(z, y, x)`` in RAS order; a draw depends on its
generator alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.cases.case import Case
from carina.cases.sampling import Shape
from carina.synth import dense, distractors, fields, lesions
from carina.synth.abdomen import draw_abdomen
from carina.synth.averaging import paint_averaged
from carina.synth.severity import SevereDisease, paste_severe
from carina.train.patches import OUTSIDE_HU, Cut, Drawn, only_slice
from carina.volume import Grid, Mask, Volume
from carina.volume.arrays import Flags, Floats, Labels
from carina.volume.average import averaged
from carina.volume.grid import Triple

ONE_SLICE = 0.12
"""The share of draws that repeat one slice."""
LENGTHENED = 0.6
"""The share of draws with more of a belly than the scan has."""
FOREIGN_BELLY = 0.7
"""The share of these in which it is another patient's, where the cases hold bellies."""
RAISED = 0.35
"""The share of draws in which the chest lies higher, so that much of a belly is in view, where the cases hold any."""
RAISED_SHARE = (0.1, 0.85)
"""By how much of the frame's height."""
FEW_SLICES = 8
"""With more room than this below the chest, a belly is always another patient's."""
BELLY_ALONE = 0.15
"""The share of draws that show a belly alone, where the cases hold bellies."""
ABDOMEN = 0.6
"""The share of draws with a stomach or a colon below the lungs."""
CUT_SHORT = 0.4
"""The share of draws in which the scan ends early, above or below."""
BELLY_ONLY = 0.25
"""The share of draws in which the scan ends above at the bases of the lungs, or below them."""
NARROW = 0.3
"""The share of draws whose field of view cuts the body."""
UNDRESSED = 0.3
"""The share of draws without anything around the body."""
AIRLESS = 0.6
"""The share of drawn consolidations that hold no air, as dense as vessels and walls: what a whole scan alone tells."""
MOST_NOISE_HU = 25.0
MIRRORED = 0.03
"""The share of draws with left and right exchanged: which side the heart is on tells it from a lobe without air."""
BENDS_MM = (60.0, 140.0)
"""How wide the bends are by which all tissue is moved, in three dimensions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragedCase(Case):
    """A case averaged to voxels so large that many hold lung and what lies beside it.

    ``lung_share`` is how much of each voxel is lung, 0 to 255; None without a lung mask.
    """

    lung_share: Labels | None


def coarse_case(case: Case, spacing_mm: Triple) -> AveragedCase:
    """``case`` averaged to voxels that are not larger than ``spacing_mm``; masks where half of a voxel is labelled."""
    hu, grid = averaged(case.hu, case.volume.grid, spacing_mm)
    volume = Volume(hu=np.rint(hu).astype(np.int16), grid=grid, uid=case.volume.uid)
    lung, lesion, ignore = (_coarse(mask, grid, spacing_mm) for mask in (case.lung, case.lesion, case.ignore))
    share = None if case.lung is None else np.rint(255 * _share(case.lung, spacing_mm)).astype(np.uint8)
    return AveragedCase(
        name=case.name, volume=volume, lung=lung, lesion=lesion, ignore=ignore, label=case.label, lung_share=share
    )


def _coarse(mask: Mask | None, grid: Grid, spacing_mm: Triple) -> Mask | None:
    if mask is None:
        return None
    return replace(mask, labels=(_share(mask, spacing_mm) >= 0.5).astype(np.uint8), grid=grid)


def _share(mask: Mask, spacing_mm: Triple) -> Floats:
    share, _ = averaged((mask.labels > 0).view(np.uint8), mask.grid, spacing_mm)
    return share


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """A scan before disease: as it was cut, the organs drawn into it, and which slices are its own."""

    cut: Cut
    organs: Flags
    seen: Flags


def draw_whole_scan(cases: Sequence[Case], shape: Shape, spacing_mm: Triple, rng: np.random.Generator) -> Drawn:
    """One scan in ``shape`` voxels of ``spacing_mm``, with or without disease and a belly; fluid is not taught on."""
    scan = sample_scan(cases, shape, spacing_mm, rng)
    lung, around, share = scan.cut.lung, scan.cut.around, scan.cut.share
    assert around is not None and share is not None
    hu, fluid = scan.cut.hu, np.zeros(lung.shape, dtype=np.bool_)
    if lung.any():
        hu, fluid = paint_averaged(hu, share, partial(_ill, spacing_mm=spacing_mm, rng=rng), rng)
    hu = _dressed(hu, around & scan.seen[:, None, None], spacing_mm, rng)
    hard = _hard(replace(scan.cut, hu=hu), scan.organs) | (fluid & lung)
    drawn = Drawn(hu=finish_scan(hu, rng), truth=lung, hard=hard, ignored=scan.cut.ignore | fluid)
    return frame_scan(drawn, lung, rng, one_slice=ONE_SLICE)


def sample_scan(cases: Sequence[Case], shape: Shape, spacing_mm: Triple, rng: np.random.Generator) -> Scan:
    """A chest, or at times a belly, turned, stretched, bent; with more of a belly below it, and organs with gas."""
    case, bellies = _chosen(cases, rng)
    raised = rng.uniform(*RAISED_SHARE) if bellies and rng.random() < RAISED else 0.0
    scan, seen = _sampled(case, shape, spacing_mm, raised, rng)
    hu = scan.hu
    if scan.lung.any() and (raised or rng.random() < LENGTHENED):
        hu = _lengthened(hu, scan.lung, int(np.argmax(seen)), bellies, spacing_mm[0], rng)
    hu, organs = _with_organs(hu, scan.lung, spacing_mm, rng)
    return Scan(cut=replace(scan, hu=hu), organs=organs, seen=seen)


def _hard(scan: Cut, organs: Flags) -> Flags:
    """What is easily mistaken: lung without air inside its border, gas and organs that are not beside it."""
    assert scan.gas is not None
    near = ndimage.binary_dilation(scan.lung, iterations=2)
    inner = ndimage.binary_erosion(scan.lung)
    hard: Flags = (inner & (scan.hu > -300)) | ((organs | ndimage.binary_dilation(scan.gas)) & ~near)
    return hard


def _is_belly(case: Case) -> bool:
    return case.lung is not None and case.lung.is_empty


def _chosen(cases: Sequence[Case], rng: np.random.Generator) -> tuple[Case, list[Case]]:
    """A chest, or at times a belly; and all bellies."""
    bellies = [case for case in cases if _is_belly(case)]
    chests = [case for case in cases if not _is_belly(case)]
    if bellies and (not chests or rng.random() < BELLY_ALONE):
        chests = bellies
    return chests[int(rng.integers(len(chests)))], bellies


def _lengthened(
    hu: Floats, lung: Flags, lowest: int, bellies: Sequence[Case], slice_mm: float, rng: np.random.Generator
) -> Floats:
    """``hu`` with more of a belly below slice ``lowest``: one of ``bellies``, or its own slices without lung."""
    if not bellies or (lowest < FEW_SLICES and rng.random() >= FOREIGN_BELLY):
        return dense.lengthen(hu, lung, lowest, rng)
    belly = bellies[int(rng.integers(len(bellies)))]
    step = slice_mm / belly.spacing_mm[0] * float(rng.uniform(0.8, 1.25))
    return dense.join_belly(hu, lung, lowest, belly.hu[..., :: rng.choice([-1, 1])], step, rng)


def _with_organs(hu: Floats, lung: Flags, spacing_mm: Triple, rng: np.random.Generator) -> tuple[Floats, Flags]:
    """Stomach and colon below the lungs, in most draws; and where they are."""
    organs = np.zeros(hu.shape, dtype=np.bool_)
    if rng.random() < ABDOMEN:
        for _ in range(1 + int(rng.random() < 0.5)):
            hu, drawn = draw_abdomen(hu, lung, spacing_mm, rng)
            organs |= drawn
    return hu, organs


def _dressed(hu: Floats, around: Flags, spacing_mm: Triple, rng: np.random.Generator) -> Floats:
    """``hu`` with clothes in what lies around the body, or with nothing there, or as it was."""
    if rng.random() < 0.3 and around.any():
        return distractors.clothes(hu, around, spacing_mm, rng)
    if rng.random() < UNDRESSED:
        return np.where(around, np.float32(OUTSIDE_HU), hu)
    return hu


def _sampled(
    case: Case, shape: Shape, spacing_mm: Triple, raised: float, rng: np.random.Generator
) -> tuple[Cut, Flags]:
    """The case turned, stretched and bent, anywhere in the frame; and which slices lie in the scan.

    ``raised`` is the share of the frame's height by which the case lies higher, its upper part beyond the frame.
    """
    own = np.array(case.spacing_mm)
    zooms = rng.uniform(0.8, 1.25) * np.exp(rng.uniform(-0.12, 0.12, 3))
    angle = rng.uniform(-0.25, 0.25)
    flip_x, flip_y = (-1.0 if rng.random() < p else 1.0 for p in (MIRRORED, 0.04))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[1.0, 0.0, 0.0], [0.0, flip_y * cos, -flip_x * sin], [0.0, flip_y * sin, flip_x * cos]])
    turn *= np.array(spacing_mm) * zooms / own[:, None]
    extent = np.array(case.hu.shape)
    slack = abs(extent[0] / turn[0, 0] - shape[0]) / 2 + 4
    away = np.array([turn[0, 0] * (rng.uniform(-slack, slack) - raised * shape[0]), *rng.uniform(-8, 8, 2)])
    from_centre = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    straight = np.tensordot(turn, from_centre, axes=1) + ((extent - 1) / 2 + away)[:, None, None, None]
    seen = (straight[0, :, 0, 0] >= 0) & (straight[0, :, 0, 0] <= extent[0] - 1)
    at = straight + _moved(shape, spacing_mm, rng) / own[:, None, None, None]
    at[0] = np.clip(at[0], 0, extent[0] - 1)

    def sampled(array: npt.NDArray[np.generic], outside: float = 0.0) -> Floats:
        values = ndimage.map_coordinates(array.astype(np.float32), at, order=1, cval=outside)
        return np.where(seen[:, None, None], values, np.float32(outside))

    share, ignore = (
        np.zeros(shape, dtype=np.float32) if labels is None else sampled(labels)
        for labels in (_lung_share(case), None if case.ignore is None else case.ignore.labels)
    )
    share /= 255
    gas, around = sampled(case.gas) >= 0.5, sampled(case.around, 1.0) >= 0.5
    hu = sampled(case.hu, OUTSIDE_HU)
    lung = share >= 0.5
    none = np.zeros_like(lung)
    return Cut(hu=hu, lung=lung, lesion=none, ignore=ignore >= 0.5, gas=gas, around=around, share=share), seen


def _lung_share(case: Case) -> Labels | None:
    """How much of each voxel is lung, 0 to 255."""
    if isinstance(case, AveragedCase):
        return case.lung_share
    return None if case.lung is None else np.where(case.lung.labels > 0, np.uint8(255), np.uint8(0))


def _moved(shape: Shape, spacing_mm: Triple, rng: np.random.Generator) -> Floats:
    """By how many mm each place moves along z, y and x, ``(3, z, y, x)``: smooth, at most a twelfth of a bend."""
    wide_mm = float(rng.uniform(*BENDS_MM))
    return np.stack([rng.uniform(0, wide_mm / 12) * fields.noise(shape, spacing_mm, wide_mm, rng) for _ in range(3)])


def _ill(hu: Floats, lung: Flags, spacing_mm: Triple, rng: np.random.Generator) -> tuple[Floats, Flags]:
    """Disease of none to nearly all of the lungs; and where pleural fluid is, which may be called either."""
    fluid = np.zeros(lung.shape, dtype=np.bool_)
    if rng.random() < 0.5:
        hu = distractors.breath(hu, lung, rng)
    elif rng.random() < 0.2:
        hu = dense.white_out(hu, lung, rng)
    if rng.random() < 0.3:
        hu = distractors.dependent(hu, lung, spacing_mm, rng)
    chosen = rng.random()
    if chosen < 0.3:
        hu, _ = dense.consolidate(hu, lung, spacing_mm, rng)
    elif chosen < 0.62:
        hu, _ = paste_severe(hu, lung, spacing_mm, rng, SevereDisease(airless=AIRLESS))
    elif chosen < 0.78:
        count = int(rng.integers(1, 8))
        drawn = lesions.without_air(lesions.draw_lesions(lung, spacing_mm, rng, count=count), AIRLESS, rng)
        hu, _ = lesions.paste(hu, lung, spacing_mm, drawn, rng)
    if rng.random() < 0.2:
        hu, fluid = distractors.effusion(hu, lung, spacing_mm, rng)
    return hu, fluid


def finish_scan(hu: Floats, rng: np.random.Generator) -> Floats:
    """Contrast medium, noise and calibration."""
    if rng.random() < 0.5:
        hu = distractors.contrast(hu, rng)
    if rng.random() < 0.5:
        hu = hu + rng.uniform(0, MOST_NOISE_HU) * rng.standard_normal(hu.shape, dtype=np.float32)
    return np.asarray(hu * rng.uniform(0.95, 1.05) + rng.normal(0, 15), dtype=np.float32)


def frame_scan(drawn: Drawn, lung: Flags, rng: np.random.Generator, *, one_slice: float) -> Drawn:
    """``drawn`` as scanners frame it: cut short, with a narrow field of view, or (``one_slice``) a slice repeated."""
    if rng.random() < one_slice and lung.any():
        return _repeated(drawn, lung, rng)
    kept = np.ones(drawn.hu.shape, dtype=np.bool_)
    depth, height, width = drawn.hu.shape
    if rng.random() < BELLY_ONLY:
        kept[_bases(lung, rng) :] = False
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


def _repeated(drawn: Drawn, lung: Flags, rng: np.random.Generator) -> Drawn:
    """One slice with lung, repeated; air above and below it."""
    level = int(rng.choice(np.flatnonzero(lung.any(axis=(1, 2)))))
    count = int(rng.integers(2, min(28, len(drawn.hu)) + 1))
    start = int(rng.integers(0, len(drawn.hu) - count + 1))
    return only_slice(drawn, level, slice(start, start + count), rng)
