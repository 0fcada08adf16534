"""Whole scans at a few millimetres, drawn for a network that tells disease from what has its HU: heart, hila, belly.

A window at full resolution shows 4 cm of a chest, in which a consolidation without air and the heart look alike. What
tells them apart is where they lie. Arrays are ``(z, y, x)`` in RAS order; a draw depends on its generator alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import ndimage

from carina.cases.case import DENSE_LUNG_HU, Case
from carina.cases.sampling import Shape
from carina.synth import dense, distractors, lesions
from carina.synth.averaging import paint_averaged
from carina.synth.severity import SevereDisease, paste_severe
from carina.train.patches import Drawn
from carina.train.whole_scans import AIRLESS, finish_scan, frame_scan, sample_scan
from carina.volume.arrays import Flags, Floats
from carina.volume.grid import Triple

HEALTHY_SCANS = 0.35
"""The share of draws without disease."""
SEVERE_SCANS = 0.33
"""The share of draws with irregular disease of little to nearly all of the lungs, white ones among them."""
WHITE_SCANS = 0.06
"""The share of draws with consolidation of most of the lungs."""
WHITE = SevereDisease(shares=(0.6, 1.0), kind=lesions.Kind.CONSOLIDATION, airless=AIRLESS)
"""What these are."""
PATCHY = 0.4
"""Of the severe ones that are not white the share with as irregular disease of little of the lungs."""
LITTLE = SevereDisease(shares=(0.02, 0.2), airless=AIRLESS)
"""What these are."""
AIRLESS_SCANS = 0.14
"""The share of draws with a part of the lungs without air, mostly below and behind."""
ONE_SLICE_SCANS = 0.35
"""The share of draws that repeat one slice."""
MOST_LESIONS = 12
SCAN_LOOK_ALIKES = distractors.LookAlikes(breath=0.6, dependent=0.4, nodules=0.3, most_nodules=7, effusion=0.12)
NEAR_VOXELS = 2
"""How far beside the lungs dense tissue is hard: hila, the heart's border, the chest's wall."""


def draw_ill_scan(cases: Sequence[Case], shape: Shape, spacing_mm: Triple, rng: np.random.Generator) -> Drawn:
    """One scan in ``shape`` voxels of ``spacing_mm``, with disease of none to nearly all of its lungs as the truth."""
    scan = sample_scan(cases, shape, spacing_mm, rng)
    hu, lung, share = scan.cut.hu, scan.cut.lung, scan.cut.share
    assert share is not None
    ill = np.zeros(lung.shape, dtype=np.bool_)
    if lung.any():
        hu, ill = paint_averaged(hu, share, partial(_beside_look_alikes, spacing_mm=spacing_mm, rng=rng), rng)
    near = ndimage.binary_dilation(lung, iterations=NEAR_VOXELS)
    drawn = Drawn(hu=finish_scan(hu, rng), truth=ill, hard=near & (hu > DENSE_LUNG_HU), ignored=scan.cut.ignore)
    return frame_scan(drawn, lung, rng, one_slice=ONE_SLICE_SCANS)


def _beside_look_alikes(hu: Floats, lung: Flags, spacing_mm: Triple, rng: np.random.Generator) -> tuple[Floats, Flags]:
    hu, fluid = distractors.look_alikes(hu, lung, spacing_mm, rng, SCAN_LOOK_ALIKES)
    return _with_disease(hu, lung & ~fluid, spacing_mm, rng)


def _with_disease(hu: Floats, lung: Flags, spacing_mm: Triple, rng: np.random.Generator) -> tuple[Floats, Flags]:
    ill = np.zeros(lung.shape, dtype=np.bool_)
    chosen = rng.random()
    if chosen < HEALTHY_SCANS or not lung.any():
        return hu, ill
    if chosen < HEALTHY_SCANS + WHITE_SCANS:
        hu, ill = paste_severe(hu, lung, spacing_mm, rng, WHITE)
    elif chosen < HEALTHY_SCANS + SEVERE_SCANS:
        hu, ill = paste_severe(hu, lung, spacing_mm, rng, _severe(rng))
    elif chosen < HEALTHY_SCANS + SEVERE_SCANS + AIRLESS_SCANS:
        hu, ill = dense.consolidate(hu, lung, spacing_mm, rng)
    if not ill.any() or rng.random() < 0.4:
        kind = list(lesions.Kind)[int(rng.integers(len(lesions.Kind)))] if rng.random() < 0.5 else None
        radii_mm = lesions.RADII_MM if rng.random() < 0.75 else (6.0, 14.0)
        count = int(rng.integers(1, MOST_LESIONS + 1))
        drawn = lesions.draw_lesions(lung, spacing_mm, rng, count=count, kind=kind, radii_mm=radii_mm)
        hu, mask = lesions.paste(hu, lung, spacing_mm, lesions.without_air(drawn, AIRLESS, rng), rng)
        ill = ill | mask
    return hu, ill


def _severe(rng: np.random.Generator) -> SevereDisease:
    return LITTLE if rng.random() < PATCHY else SevereDisease(airless=AIRLESS)
