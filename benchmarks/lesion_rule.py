"""Which marked voxels count: consolidation at the pleura and bowel below the diaphragm, put into real chests.

Usage: lesion_rule.py SERIES... (folders of DICOM). Lungs are found by threshold, which leaves consolidation out wholly,
as many lung masks do. Balls of 10, 20 and 30 mm are put at places of each kind, and for each kind the share of what
was marked outside the lung mask that counts is
printed: by the rule of ``carina.measure.joined``, and by the one before
it (a connected lesion that lies at least half in the lungs counts whole).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from carina.api import read_series
from carina.measure.joined import join_masks
from carina.volume import Grid, Mask, Volume
from carina.volume.arrays import HU, Doubles, Flags

LUNG_HU = -500
TISSUE_HU, GROUND_GLASS_HU = 40, -620
RADII_MM = (10.0, 20.0, 30.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """A point of the lungs' surface: patient coordinates, and the direction out of the lung, LPS."""

    point_mm: Doubles
    outward: Doubles


@dataclass(frozen=True, kw_only=True, eq=False)
class Painted:
    """A chest with something put into it: lungs by threshold, what is marked, and one mask for each that was put in."""

    lung: Mask
    lesion: Mask
    parts: tuple[Flags, ...]


def lungs_by_threshold(hu: HU) -> Flags:
    """Air that does not reach the sides of the picture, in its largest pieces: lungs with their airways, no bowel."""
    labels, _ = ndimage.label(hu < LUNG_HU)
    outside = np.unique(np.concatenate([labels[:, edge].ravel() for edge in (0, -1)] + [labels[..., 0].ravel()]))
    sizes = np.bincount(labels.ravel())
    sizes[np.union1d(outside, [0])] = 0
    keep = sizes > sizes.max() / 4
    found: Flags = keep[labels]
    return np.stack([ndimage.binary_fill_holes(plane) for plane in found]).astype(np.bool_)


def places(lung: Flags, grid: Grid, kind: str, count: int, seed: int = 0) -> list[Place]:
    """Points of the lungs' surface of a kind, ``apart`` from each other: costal, posterior, medial or base."""
    steps = [max(1, round(2.5 / step)) for step in grid.spacing_mm]
    coarse = lung[:: steps[0], :: steps[1], :: steps[2]]
    spacing = [step * mm for step, mm in zip(steps, grid.spacing_mm, strict=True)]
    smooth = ndimage.gaussian_filter(coarse.astype(np.float32), [6 / mm for mm in spacing])
    slope = [np.gradient(-smooth, mm, axis=axis) for axis, mm in enumerate(spacing)]
    where = np.argwhere(coarse & ~ndimage.binary_erosion(coarse, border_value=1))
    out = np.stack([part[tuple(where.T)] for part in slope], axis=1) @ np.array(grid.axes)
    out /= np.linalg.norm(out, axis=1, keepdims=True) + 1e-9
    points = grid.points_mm(where * steps)
    height = (points[:, 2] - points[:, 2].min()) / np.ptp(points[:, 2])
    beside = points[:, :2] - points[:, :2].mean(axis=0)
    away = (out[:, :2] * beside).sum(axis=1) / np.linalg.norm(beside, axis=1)
    kinds: Mapping[str, Flags] = {
        "costal": (np.abs(out[:, 2]) < 0.4) & (away > 0.6) & (height > 0.3) & (height < 0.8),
        "posterior": (np.abs(out[:, 2]) < 0.5) & (out[:, 1] > 0.7) & (height > 0.2) & (height < 0.6),
        "medial": (np.abs(out[:, 2]) < 0.4) & (away < -0.5) & (height > 0.3) & (height < 0.8),
        "base": (out[:, 2] < -0.75) & (height > 0.05) & (height < 0.5),
    }
    chosen: list[Place] = []
    for index in np.random.default_rng(seed).permutation(np.flatnonzero(kinds[kind])):
        place = Place(point_mm=points[index], outward=out[index])
        if all(np.linalg.norm(place.point_mm - other.point_mm) > 90 for other in chosen) and len(chosen) < count:
            chosen.append(place)
    return chosen


def ball(grid: Grid, centre_mm: Doubles, radius_mm: float) -> Flags:
    """The voxels within a radius."""
    inside = np.zeros(grid.shape, dtype=np.bool_)
    middle = grid.indices(centre_mm[None])[0]
    reach = [radius_mm / step + 1 for step in grid.spacing_mm]
    block = tuple(slice(max(0, int(m - r)), max(0, int(m + r) + 2)) for m, r in zip(middle, reach, strict=True))
    lines = np.ogrid[block]
    away = sum(((line - m) * step) ** 2 for line, m, step in zip(lines, middle, grid.spacing_mm, strict=True))
    inside[block] = (away <= radius_mm**2)[tuple(slice(0, size) for size in inside[block].shape)]
    return inside


def consolidation(volume: Volume, lung: Flags, sites: Sequence[Place], radius_mm: float, halo: float) -> Painted:
    """Half-balls at the pleura; ``halo`` of their radius is ground glass, which a threshold takes for lung."""
    hu, parts = volume.hu.copy(), []
    for site in sites:
        whole = ball(volume.grid, site.point_mm, radius_mm) & lung
        hu[whole] = np.maximum(hu[whole], GROUND_GLASS_HU)
        hu[whole & ball(volume.grid, site.point_mm, radius_mm * (1 - halo))] = TISSUE_HU
        parts.append(whole)
    return _painted(volume, lungs_by_threshold(hu), np.logical_or.reduce(parts), parts)


def bowel(volume: Volume, lung: Flags, sites: Sequence[Place], radius_mm: float, *, with_lesion: bool) -> Painted:
    """Loops below the diaphragm, marked as lesion, alone or hanging together with ground glass at the base."""
    loops = [ball(volume.grid, site.point_mm + site.outward * radius_mm * 0.7, radius_mm) & ~lung for site in sites]
    lesions = [ball(volume.grid, site.point_mm, 1.8 * radius_mm) & lung for site in sites if with_lesion]
    return _painted(volume, lung, np.logical_or.reduce([*loops, *lesions]), loops)


def _painted(volume: Volume, lung: Flags, marked: Flags, parts: Sequence[Flags]) -> Painted:
    def mask(flags: Flags, name: str) -> Mask:
        return Mask(labels=flags.astype(np.uint8), grid=volume.grid, names={1: name}, uid=volume.uid)

    return Painted(lung=mask(lung, "lung"), lesion=mask(marked, "lesion"), parts=tuple(parts))


def counted_shares(painted: Painted, *, before: bool = False) -> list[float]:
    """For each part, which share of what lies outside the lung mask counts, by today's rule or the one before it."""
    lung, lesion = painted.lung.labels > 0, painted.lesion.labels > 0
    counted = half_counts_whole(lesion, lung) if before else join_masks(painted.lesion, painted.lung).lesion.labels > 0
    return [
        float(np.count_nonzero(counted & outside) / np.count_nonzero(outside))
        for outside in (part & ~lung for part in painted.parts)
        if outside.any()
    ]


def half_counts_whole(lesion: Flags, lung: Flags) -> Flags:
    """The rule before: a connected lesion counts whole where at least half of it lies in the lungs."""
    labels, count = ndimage.label(lesion, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    whole = np.bincount(labels[lesion & lung], minlength=count + 1) >= 0.5 * sizes
    whole[0] = False
    found: Flags = whole[labels] | (lesion & lung)
    return found


def cases(volume: Volume, lung: Flags, count: int = 3) -> dict[str, Painted]:
    """Every kind at every size, by name."""
    found: dict[str, Painted] = {}
    for radius_mm in RADII_MM:
        for kind in ("costal", "posterior", "medial"):
            sites = places(lung, volume.grid, kind, count, seed=int(radius_mm))
            for halo in (0.0, 0.2):
                name = f"consolidation, {kind}, {radius_mm:g} mm" + (", in ground glass" if halo else "")
                found[name] = consolidation(volume, lung, sites, radius_mm, halo)
        sites = places(lung, volume.grid, "base", count, seed=int(radius_mm))
        found[f"bowel, {radius_mm:g} mm"] = bowel(volume, lung, sites, radius_mm, with_lesion=False)
        found[f"bowel, {radius_mm:g} mm, with a lesion"] = bowel(volume, lung, sites, radius_mm, with_lesion=True)
    return found


def main(folders: Sequence[str]) -> int:
    """Print a table of the share that counts: mean, lowest and highest over all series and places."""
    shares: dict[str, list[tuple[float, float]]] = {}
    for folder in folders:
        volume = read_series(Path(folder))
        for name, painted in cases(volume, lungs_by_threshold(volume.hu)).items():
            pairs: Any = zip(counted_shares(painted, before=True), counted_shares(painted), strict=True)
            shares.setdefault(name, []).extend(pairs)
    print("| marked | places | before, mean | now, mean | now, lowest to highest |\n|---|---|---|---|---|")
    for name, pairs in shares.items():
        before, now = np.array(pairs).T
        print(f"| {name} | {len(now)} | {before.mean():.2f} | {now.mean():.2f} | {now.min():.2f} to {now.max():.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
