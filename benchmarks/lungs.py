"""Where a lung bundle is right and where it is not: outlines, bellies, stomachs under the dome, lobes without air.

    python benchmarks/lungs.py LIST [--bundle NAME] [--abdomen IMAGE LUNG] [--only CASE...]

LIST is a data list (docs/data.md) of chests with lung masks. Each is measured as it is; with a stomach of gas and fluid
painted under its left dome; and with both lower lobes painted dense (35 HU), the mask being what it was. ``--abdomen``
names a scan of a belly and the mask of the lungs' bases in it, of which nothing is said within 5 mm of their border.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from carina.cases.datalist import read_datalist
from carina.cases.purpose import Task
from carina.cases.reading import read_case
from carina.config import ModelSettings, Plan
from carina.infer.runtime import open_runtime
from carina.infer.segment import segment
from carina.measure.agreement import dice, surface_dice
from carina.models.bundle import find_bundle
from carina.synth.fields import ORIENTATION
from carina.volume import Mask, Volume
from carina.volume.arrays import HU, Doubles, Flags
from carina.volume.files import read_mask, read_volume
from carina.volume.grid import Triple
from carina.volume.resample import reorient

PAINTED_HU, GAS_HU, FLUID_HU, WALL_HU = 35.0, -980, 15, 45
LOWER_SHARE = 0.45
"""The share of each lung that counts as its lower lobe: below and behind a plane that falls to the front."""
STOMACH_MM = (38.0, 45.0, 50.0)
"""Half axes of the stomach, ``(z, y, x)``."""
DOME_MM = 4.0
"""Between lung and stomach."""
NEAR_MM = 5.0

Find = Callable[[Volume], Mask]


def lower_lobes(lung: Flags, spacing_mm: Triple) -> Flags:
    """The lower lobes of ``lung`` (``(z, y, x)``, RAS), about: the `LOWER_SHARE` that lies lowest and farthest back."""
    z, y, _ = (np.arange(n, dtype=np.float32) * s for n, s in zip(lung.shape, spacing_mm, strict=True))
    place = np.broadcast_to(z[:, None, None] + 0.9 * y[:, None], lung.shape)
    return lung & (place <= np.quantile(place[lung], LOWER_SHARE))


def with_dense_lobes(volume: Volume, lung: Flags) -> Volume:
    """``volume`` with both lower lobes without air, up to the pleura; vessels vanish in them."""
    hu = volume.hu.copy()
    view, grid = reorient(hu, volume.grid, ORIENTATION)
    inside = reorient(lung, volume.grid, ORIENTATION)[0]
    weight = np.maximum(ndimage.gaussian_filter(lower_lobes(inside, grid.spacing_mm).astype(np.float32), 0.7), 0)
    grain = ndimage.gaussian_filter(np.random.default_rng(7).standard_normal(view.shape, dtype=np.float32), 1)
    filling = PAINTED_HU + grain * (15 / float(grain.std()))
    view[:] = np.rint(view + weight * inside * (filling - view)).astype(np.int16)
    return replace(volume, hu=hu)


def with_stomach(volume: Volume, lung: Flags) -> tuple[Volume, Flags]:
    """``volume`` with a stomach under the left dome, gas in front of fluid; and where it is."""
    hu, stomach = volume.hu.copy(), np.zeros(lung.shape, dtype=np.bool_)
    view, grid = reorient(hu, volume.grid, ORIENTATION)
    inside, place = (reorient(flags, volume.grid, ORIENTATION)[0] for flags in (lung, stomach))
    columns = np.flatnonzero(inside.any(axis=(0, 1)))
    left = inside[..., : (columns[0] + columns[-1]) // 2]
    floor = np.where(left.any(axis=0), left.argmax(axis=0), -1)
    dome = np.percentile(floor[floor >= 0], 70)
    at = np.argwhere((floor >= 0) & (floor >= dome - 1) & (floor <= dome + 1)).mean(axis=0)
    centre = (dome - (STOMACH_MM[0] + DOME_MM) / grid.spacing_mm[0], float(at[0]), float(at[1]))
    depth = _ellipsoid(view, centre, grid.spacing_mm)
    below = np.logical_or.accumulate(inside[::-1], axis=0)[::-1] & ~np.logical_or.accumulate(inside, axis=0)
    near = ndimage.distance_transform_edt(~inside, sampling=grid.spacing_mm) <= DOME_MM
    depth = np.where(below & ~near, depth, -1)
    front = (np.arange(view.shape[1]) > centre[1])[:, None]
    content = np.where(front, np.int16(GAS_HU), np.int16(FLUID_HU))
    view[:] = np.where(depth > 3, content, np.where(depth > 0, np.int16(WALL_HU), view))
    place[:] = depth > 0
    return replace(volume, hu=hu), stomach


def _ellipsoid(view: HU, centre: Sequence[float], spacing_mm: Triple) -> Doubles:
    """Depth in mm inside the stomach, about; positive inside."""
    axes = zip(view.shape, centre, spacing_mm, STOMACH_MM, strict=True)
    z, y, x = (((np.arange(n) - c) * s / r) ** 2 for n, c, s, r in axes)
    depth: Doubles = (1 - np.sqrt(z[:, None, None] + y[:, None] + x)) * float(np.prod(STOMACH_MM)) ** (1 / 3)
    return depth


def measured(volume: Volume, lung: Flags, find: Find) -> Mapping[str, float]:
    """All figures of one chest."""
    spacing, ml = volume.grid.spacing_mm, volume.grid.voxel_ml
    before = time.process_time()
    found = find(volume).labels > 0
    seconds = time.process_time() - before
    fed, stomach = with_stomach(volume, lung)
    marked = find(fed).labels > 0
    dense = find(with_dense_lobes(volume, lung)).labels > 0
    return {
        "dice": dice(found, lung),
        "surface dice 2 mm": surface_dice(found, lung, spacing),
        "stomach, ml": np.count_nonzero(stomach) * ml,
        "stomach marked, ml": np.count_nonzero(marked & stomach) * ml,
        "dense lower lobes: dice": dice(dense, lung),
        "dense lower lobes: surface dice 2 mm": surface_dice(dense, lung, spacing),
        "processor seconds": seconds,
    }


def in_belly(image: Path, bases: Path, find: Find) -> Mapping[str, float]:
    """What is marked in a scan of a belly farther than `NEAR_MM` from the lungs' bases, and how much of these is."""
    volume, mask = read_volume(image), read_mask(bases)
    if not mask.grid.same_place(volume.grid):
        raise SystemExit(f"{bases}: its voxels lie elsewhere than those of {image}; expected a mask on the image's own")
    truth = mask.labels > 0
    found, ml = find(volume).labels > 0, volume.grid.voxel_ml
    far = ndimage.distance_transform_edt(~truth, sampling=volume.grid.spacing_mm) > NEAR_MM
    return {
        "outside the bases, ml": np.count_nonzero(found & far) * ml,
        "bases, ml": np.count_nonzero(truth) * ml,
        "bases marked, ml": np.count_nonzero(found & truth) * ml,
    }


def rows(args: argparse.Namespace, find: Find) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Every case of the list, then the belly."""
    data = read_datalist(args.list)
    for listed in (*data.training, *data.validation):
        if not args.only or listed.name in args.only:
            case = read_case(data, listed, Task.LUNG, ("lung",))
            yield listed.name, measured(case.volume, case.lungs > 0, find)
    if args.abdomen:
        image, bases = args.abdomen
        yield "abdomen", in_belly(image, bases, find)


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("--bundle", default=ModelSettings().lung)
    parser.add_argument("--bundles", type=Path, action="append", default=[])
    parser.add_argument("--plan", type=Plan, choices=list(Plan), default=Plan.FAST)
    parser.add_argument("--abdomen", type=Path, nargs=2, metavar=("IMAGE", "LUNG"))
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    bundle = find_bundle(args.bundle, args.bundles)
    find = partial(segment, bundle=bundle, runtime=open_runtime(bundle), plan=args.plan)
    print(f"{bundle.made_by}, plan {args.plan}", flush=True)
    found = {}
    for name, figures in rows(args, find):
        found[name] = dict(figures)
        print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()), flush=True)
        if args.json:
            args.json.write_text(json.dumps({"bundle": bundle.made_by, "cases": found}, indent=2))


if __name__ == "__main__":
    main()
