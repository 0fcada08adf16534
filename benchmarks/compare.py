"""Carina against the reference way, in one run, with the same weights: seconds by stage, Dice, distance to the limit.

    python benchmarks/compare.py SERIES... [--phantom 300] [--bundles FOLDER] [--json FILE]

A series is a folder of DICOM files; ``--phantom`` adds a synthetic chest of 512x512 and that many slices.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import arithmetic
import numpy as np
import reference
import torch
from stopwatch import Stopwatch

from carina.config import ModelSettings, Plan, Precision, RuntimeSettings
from carina.dicom.find import choose_source, find_series
from carina.dicom.read import read_source
from carina.infer import segment as segmentation
from carina.infer.runtime import open_runtime
from carina.models.bundle import Bundle, find_bundle
from carina.volume.volume import Mask

OURS = {
    "regions_of": "find lungs",
    "resample": "resample",
    "kept": "components",
    "_restored": "restore",
    "_settle_border": "border",
}
STAGES = ("read", "load network", "find lungs", "resample", "network", "components", "restore", "border", "rest")


@dataclass
class Side:
    """One way's times and results. ``shapes`` are those of the windows the network saw, by bundle."""

    watch: Stopwatch = field(default_factory=Stopwatch)
    masks: dict[str, Any] = field(default_factory=dict)
    network_s: dict[str, float] = field(default_factory=dict)
    shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    wall_s: float = 0.0
    cpu_s: float = 0.0


def run_ours(series: Path, bundles: list[Bundle], settings: RuntimeSettings) -> tuple[Side, Mask]:
    """Carina's way, and the last mask."""
    side = Side()
    watch = side.watch
    start, cpu = time.perf_counter(), time.process_time()
    with watch.stage("read"):
        volume = read_source(choose_source(find_series(series)))
    for bundle in bundles:
        with watch.stage("load network"):
            runtime = open_runtime(bundle, settings)
        side.shapes[bundle.name] = []

        def seen(patches: Any, runtime: Any = runtime, bundle: Bundle = bundle) -> Any:
            side.shapes[bundle.name].append(patches.shape)
            return runtime(patches)

        before = watch.seconds["network"]
        with watch.stage("rest"), watch.listening(segmentation, OURS):
            mask = segmentation.segment(volume, bundle, watch.timed("network", seen), settings.plan)
        side.network_s[bundle.name] = watch.seconds["network"] - before
        side.masks[bundle.name] = mask
    side.wall_s, side.cpu_s = time.perf_counter() - start, time.process_time() - cpu
    return side, mask


def run_reference(series: Path, bundles: list[Bundle]) -> Side:
    """The reference way; masks are ``(labels, affine)``."""
    side = Side()
    start, cpu = time.perf_counter(), time.process_time()
    image = reference.read(series, side.watch)
    for bundle in bundles:
        before = side.watch.seconds["network"]
        side.masks[bundle.name] = reference.segment(image, bundle, side.watch)
        side.network_s[bundle.name] = side.watch.seconds["network"] - before
    side.wall_s, side.cpu_s = time.perf_counter() - start, time.process_time() - cpu
    return side


def dice(a: Any, b: Any) -> float:
    """Twice the common voxels over the sum; 1 where nothing is marked in both."""
    both = np.count_nonzero(a) + np.count_nonzero(b)
    return float(2 * np.count_nonzero(a & b) / both) if both else 1.0


def compare(name: str, series: Path, bundles: list[Bundle], settings: RuntimeSettings) -> dict[str, Any]:
    """Both ways on one series, and what they differ in."""
    ours, mask = run_ours(series, bundles, settings)
    theirs = run_reference(series, bundles)
    result: dict[str, Any] = {
        "series": name,
        "shape": mask.grid.shape,
        "ours_s": ours.wall_s,
        "reference_s": theirs.wall_s,
        "cpu_s": (ours.cpu_s, theirs.cpu_s),
        "load": os.getloadavg()[0],
        "ratio": theirs.wall_s / ours.wall_s,
        "stages": {s: (ours.watch.seconds.get(s, 0.0), theirs.watch.seconds.get(s, 0.0)) for s in STAGES},
        "bundles": {},
    }
    peak = arithmetic.peak_gmac_per_second()
    result["peak_gmac_per_s"] = peak
    for bundle in bundles:
        own = ours.masks[bundle.name]
        found, affine = theirs.masks[bundle.name]
        labels = reference.on_grid(found, affine, own.grid)
        work = sum(arithmetic.gmac(bundle, shape) for shape in ours.shapes[bundle.name])
        spent = ours.network_s[bundle.name]
        result["bundles"][bundle.name] = {
            "made_by": bundle.made_by,
            "dice": dice(own.labels > 0, labels > 0),
            "ours_ml": own.volume_ml(),
            "reference_ml": float(np.count_nonzero(labels)) * own.grid.voxel_ml,
            "windows": [str(tuple(s[2:])) for s in ours.shapes[bundle.name]],
            "network_s": (spent, theirs.network_s[bundle.name]),
            "gmac": work,
            "limit_s": work / peak,
            "times_limit": spent / (work / peak),
        }
    return result


def show(result: dict[str, Any]) -> None:
    """The result as Markdown."""
    print(f"\n## {result['series']}, {'x'.join(map(str, result['shape']))}\n")
    print("| stage | Carina, s | reference, s |\n|---|---|---|")
    for stage, (ours, theirs) in result["stages"].items():
        print(f"| {stage} | {ours:.2f} | {theirs:.2f} |")
    print(f"| **all** | **{result['ours_s']:.2f}** | **{result['reference_s']:.2f}** |")
    ours, theirs = result["cpu_s"]
    print(f"| processor time | {ours:.2f} | {theirs:.2f} |")
    print(
        f"\n**{result['ratio']:.1f} times faster** ({theirs / ours:.1f} by processor time; load {result['load']:.1f}). "
        f"Matrix product: {result['peak_gmac_per_s']:.0f} GMAC/s.\n"
    )
    print("| bundle | Dice | ml, Carina / reference | windows | network, s | GMAC | limit, s | times the limit |")
    print("|---|---|---|---|---|---|---|---|")
    for name, b in result["bundles"].items():
        windows = ", ".join(f"{b['windows'].count(w)} of {w}" for w in dict.fromkeys(b["windows"]))
        print(
            f"| {name} | {b['dice']:.4f} | {b['ours_ml']:.1f} / {b['reference_ml']:.1f} | {windows} | "
            f"{b['network_s'][0]:.2f} / {b['network_s'][1]:.2f} | {b['gmac']:.0f} | {b['limit_s']:.2f} | "
            f"{b['times_limit']:.1f} |"
        )


def phantom_series(slices: int, folder: Path) -> Path:
    """A synthetic chest of ``slices`` x 512 x 512 as DICOM files."""
    from carina.synth.phantom import chest_phantom
    from carina.testing.dicom import write_ct_series

    write_ct_series(chest_phantom(shape=(slices, 512, 512)).volume, folder)
    return folder


def main() -> None:
    """Read the arguments, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", nargs="*", type=Path)
    parser.add_argument("--phantom", type=int, default=0, metavar="SLICES")
    parser.add_argument("--bundles", type=Path, action="append", default=[])
    parser.add_argument("--names", nargs="+", default=[ModelSettings().lung, ModelSettings().lesion])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--precision", type=Precision, default=Precision.AUTO)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    bundles = [find_bundle(name, args.bundles) for name in args.names]
    settings = RuntimeSettings(threads=args.threads, precision=args.precision, plan=Plan.FAST)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        cases = [(folder.name, folder) for folder in args.series]
        if args.phantom:
            cases.append(("phantom", phantom_series(args.phantom, Path(temporary) / "phantom")))
        for name, folder in cases:
            results.append(compare(name, folder, bundles, settings))
            show(results[-1])
            if args.json:
                args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
