"""Peak memory of both segmentations at once, for volumes of 512x512 and a growing number of slices.

    python benchmarks/memory.py [--slices 75 150 300 600] [--bundles FOLDER]

Each size runs in a process of its own, on a phantom read from a file; the peak is the process's resident set.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from carina.config import ModelSettings
from carina.infer.runtime import open_runtime
from carina.infer.segment import segment
from carina.models.bundle import find_bundle
from carina.volume.files import read_volume, write_volume


def measure(file: Path, folders: list[Path]) -> None:
    """Segment lungs and lesions of ``file`` side by side; print MB before, and at the peak."""
    volume = read_volume(file)
    before = _peak_mb()
    bundles = [find_bundle(name, folders) for name in (ModelSettings().lung, ModelSettings().lesion)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda bundle: segment(volume, bundle, open_runtime(bundle)), bundles))
    print(f"{volume.hu.nbytes / 1e6:.0f} {before:.0f} {_peak_mb():.0f}")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def write_phantom(file: Path, slices: int) -> None:
    """A synthetic chest of ``slices`` x 512 x 512; in a process of its own, for its memory."""
    from carina.synth.phantom import chest_phantom

    write_volume(chest_phantom(shape=(slices, 512, 512)).volume, file)


def main() -> None:
    """Run each size in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[75, 150, 300, 600])
    parser.add_argument("--bundles", type=Path, action="append", default=[])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write_phantom(args.write, args.slices[0])
        return
    if args.measure:
        measure(args.measure, args.bundles)
        return
    print("| slices | volume, MB | after reading, MB | peak, MB |\n|---|---|---|---|")
    folders = [part for folder in args.bundles for part in ("--bundles", str(folder))]
    with tempfile.TemporaryDirectory() as temporary:
        for slices in args.slices:
            file = Path(temporary) / f"{slices}.mha"
            here = [sys.executable, __file__]
            subprocess.run([*here, "--slices", str(slices), "--write", str(file)], check=True)
            done = subprocess.run([*here, "--measure", str(file), *folders], check=True, capture_output=True, text=True)
            print(f"| {slices} | {' | '.join(done.stdout.split()[-3:])} |", flush=True)
            file.unlink()


if __name__ == "__main__":
    main()
