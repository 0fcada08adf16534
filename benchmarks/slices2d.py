"""A lesion bundle on single slices that radiologists outlined: what it finds of ground glass and consolidation.

    python benchmarks/slices2d.py FOLDER [--bundle NAME] [--repeats 8 16]

FOLDER has ``images/NAME.png`` (8 bits, outside the body black) and ``masks/NAME.png`` (1 ground glass, 2
consolidation, 3 effusion, which is no lesion). HU are -1350 + value x 1500 / 255. The spacing is not known: the thorax
is taken for 360 mm wide. A slice is repeated in place of a volume, 5 mm apart; its middle one is compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from carina.config import ModelSettings, Plan
from carina.infer.runtime import open_runtime
from carina.infer.segment import segment
from carina.measure.agreement import dice
from carina.models.bundle import find_bundle
from carina.volume.arrays import HU, Labels
from carina.volume.grid import Grid
from carina.volume.volume import Mask, Volume

THORAX_MM = 360.0
SLICE_MM = 5.0
GROUND_GLASS, CONSOLIDATION = 1, 2


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Pixels of one slice: outlined, marked, both; and of each kind, outlined and found."""

    name: str
    outlined: int
    marked: int
    both: int
    dice: float
    ground_glass: tuple[int, int]
    consolidation: tuple[int, int]


def hounsfield(picture: Labels) -> HU:
    """HU of the 8-bit ``picture``; what is black is air."""
    hu: HU = np.maximum(np.rint(-1350 + picture * (1500 / 255)), -1024).astype(np.int16)
    return hu


def thorax_pixels(picture: Labels) -> int:
    """The width of the largest piece that is not black."""
    pieces, _ = ndimage.label(ndimage.binary_opening(picture > 0, iterations=2))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    columns = np.flatnonzero((pieces == sizes.argmax()).any(axis=0))
    return int(columns[-1] - columns[0] + 1)


def repeated(picture: Labels, count: int) -> Volume:
    """A volume of ``count`` times the slice, as patients lie: to the left along columns, to the back along rows."""
    side = THORAX_MM / thorax_pixels(picture)
    grid = Grid(shape=(count, *picture.shape), spacing_mm=(SLICE_MM, side, side), origin_mm=(0.0, 0.0, 0.0))
    return Volume(hu=np.repeat(hounsfield(picture)[None], count, axis=0), grid=grid, uid="slice")


def measured(folder: Path, find: Callable[[Volume], Mask], count: int) -> Iterator[Slice]:
    """Each slice of ``folder`` by name, with what ``find`` marks on the middle one of ``count``."""
    for file in sorted((folder / "images").glob("*.png")):
        picture, truth = (np.array(Image.open(folder / part / file.name)) for part in ("images", "masks"))
        marked = find(repeated(picture, count)).labels[count // 2] > 0
        ill = (truth == GROUND_GLASS) | (truth == CONSOLIDATION)
        kinds = [(int((truth == k).sum()), int((marked & (truth == k)).sum())) for k in (GROUND_GLASS, CONSOLIDATION)]
        both = int((marked & ill).sum())
        yield Slice(
            name=file.stem,
            outlined=int(ill.sum()),
            marked=int(marked.sum()),
            both=both,
            dice=dice(marked, ill),
            ground_glass=kinds[0],
            consolidation=kinds[1],
        )


def summary(slices: list[Slice]) -> dict[str, float]:
    """Figures over all slices: Dice as their mean and pooled, shares of pooled areas, slices with nothing found."""
    outlined, marked, both = (sum(getattr(one, key) for one in slices) for key in ("outlined", "marked", "both"))
    of_kind = {
        kind: sum(getattr(one, kind)[1] for one in slices) / max(sum(getattr(one, kind)[0] for one in slices), 1)
        for kind in ("ground_glass", "consolidation")
    }
    return {
        "mean Dice": float(np.mean([one.dice for one in slices])),
        "pooled Dice": 2 * both / max(outlined + marked, 1),
        "sensitivity": both / max(outlined, 1),
        "precision": both / max(marked, 1),
        "ground glass found": of_kind["ground_glass"],
        "consolidation found": of_kind["consolidation"],
        "slices with nothing found": sum(one.outlined > 0 and one.both == 0 for one in slices),
    }


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundle", default=ModelSettings().lesion)
    parser.add_argument("--bundles", type=Path, action="append", default=[])
    parser.add_argument("--plan", type=Plan, choices=list(Plan), default=Plan.FAST)
    parser.add_argument("--repeats", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    bundle = find_bundle(args.bundle, args.bundles)
    find = partial(segment, bundle=bundle, runtime=open_runtime(bundle), plan=args.plan)
    found: dict[str, list[dict[str, object]]] = {}
    print(f"{bundle.made_by}, plan {args.plan}")
    for count in args.repeats:
        before = time.process_time()
        slices = list(measured(args.folder, find, count))
        print(f"\n## {len(slices)} slices, each {count} times, {time.process_time() - before:.0f} processor seconds\n")
        for name, value in summary(slices).items():
            print(f"- {name}: {value:.3g}", flush=True)
        found[str(count)] = [asdict(one) for one in slices]
    if args.json:
        args.json.write_text(json.dumps({"bundle": bundle.made_by, "slices": found}, indent=2))


if __name__ == "__main__":
    main()
