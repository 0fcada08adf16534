"""What one pass costs beside windows, and what a shorter reach changes: a lesion bundle whose answers are local.

    python benchmarks/one_pass.py BUNDLE-FOLDER SERIES... [--reaches 64 48 32] [--slices 32]

For each series (a folder of DICOM files) the bundle's network runs with the reach of its convolutions, with each
shorter one in the plane (and ``--slices`` along z), and by the windows that a bundle without a reach would run. Prints
processor seconds, voxels shown, and Dice with the first. In float32, so that nothing but the plan differs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from carina.api import read_series
from carina.config import Precision, RuntimeSettings
from carina.infer.runtime import Runtime, open_runtime
from carina.infer.segment import segment
from carina.measure.agreement import dice
from carina.models.architecture import reach
from carina.models.bundle import Bundle, Lesion, load_bundle
from carina.volume import Volume
from carina.volume.arrays import Flags, Floats


@dataclass
class Shown:
    """A runtime that counts the voxels it is shown, and how often it is."""

    run: Runtime
    voxels: int = 0
    windows: int = 0

    def __call__(self, patches: Floats) -> Floats:
        self.voxels += patches.size
        self.windows += len(patches)
        return self.run(patches)


def plans(bundle: Bundle, reaches: Sequence[int], slices: int) -> Iterator[tuple[str, Bundle]]:
    """The bundle with the reach of its convolutions, with shorter ones, and with none."""
    spec = bundle.carina
    exact = reach(spec.network)
    if not isinstance(spec, Lesion) or exact is None:
        raise SystemExit(f"{bundle.folder}: no lesion network whose answers are local (norm = constant)")
    for far in (exact, *reaches):
        wanted = (far, far, far if far == exact else slices)
        yield f"reach {wanted}", replace(bundle, carina=msgspec.structs.replace(spec, reach=wanted))
    yield "windows", replace(bundle, carina=msgspec.structs.replace(spec, reach=None))


def main() -> None:
    """Read the arguments, run, print a table for each series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("series", nargs="+", type=Path)
    parser.add_argument("--reaches", type=int, nargs="*", default=[64, 48, 32])
    parser.add_argument("--slices", type=int, default=32)
    parser.add_argument("--precision", type=Precision, choices=list(Precision), default=Precision.F32)
    args = parser.parse_args()
    bundle = load_bundle(args.bundle)
    for series in args.series:
        show(series.name, read_series(series), list(plans(bundle, args.reaches, args.slices)), args.precision)


def show(name: str, volume: Volume, variants: Sequence[tuple[str, Bundle]], precision: Precision) -> None:
    """A table of what each plan takes and gives."""
    print(
        f"\n## {name}\n\n| plan | passes | million voxels | processor seconds | ml | Dice |\n|---|---|---|---|---|---|"
    )
    first: Flags | None = None
    for title, bundle in variants:
        shown = Shown(open_runtime(bundle, RuntimeSettings(precision=precision)))
        before = time.process_time()
        marked: Flags = segment(volume, bundle, shown).labels > 0
        seconds = time.process_time() - before
        first = marked if first is None else first
        ml = np.count_nonzero(marked) * volume.grid.voxel_ml
        cells = (title, shown.windows, f"{shown.voxels / 1e6:.1f}", f"{seconds:.1f}", f"{ml:.1f}")
        print("| " + " | ".join(map(str, cells)) + f" | {dice(marked, first):.4f} |", flush=True)


if __name__ == "__main__":
    main()
