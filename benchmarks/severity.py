"""More where there is more: a lesion bundle on healthy chests, of which a growing share is painted ill.

    python benchmarks/severity.py SERIES... [--shares 5 10 30 50 70 90 95] [--fillings ground-glass consolidation]

A series is a folder of DICOM files of a chest without disease; its lungs are found by the lung bundle that ships,
before anything is painted. Prints marked share and Dice by share, and whether marks keep within 15 % and never fall:
the exit status is 1 where they don't.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from carina.api import read_series
from carina.config import ModelSettings, Plan
from carina.evaluate.severity import SHARES, Severity, severities, severity_problems
from carina.infer.runtime import open_runtime
from carina.infer.segment import segment
from carina.models.bundle import find_bundle
from carina.synth.severity import FILLINGS


def show(name: str, found: list[Severity]) -> list[str]:
    """Print a table of ``found``, and return what is wrong with it."""
    problems = severity_problems(found)
    print(f"\n## {name}\n\n| ill, % | " + " | ".join(f"{100 * one.true_share:.0f}" for one in found) + " |")
    print("|---|" + "---|" * len(found))
    print("| marked, % | " + " | ".join(f"{100 * one.marked_share:.1f}" for one in found) + " |")
    print("| Dice | " + " | ".join(f"{one.dice:.2f}" for one in found) + " |")
    print("| marked outside the lungs, ml | " + " | ".join(f"{one.outside_ml:.0f}" for one in found) + " |")
    print("\n" + ("\n".join(f"- {problem}" for problem in problems) or "Within 15 % and never falling."), flush=True)
    return problems


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", nargs="+", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[100 * share for share in SHARES], help="percent")
    parser.add_argument("--fillings", nargs="+", choices=sorted(FILLINGS), default=list(FILLINGS))
    parser.add_argument("--bundle", default=ModelSettings().lesion)
    parser.add_argument("--bundles", type=Path, action="append", default=[])
    parser.add_argument("--plan", type=Plan, choices=list(Plan), default=Plan.FAST)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    """Read the arguments, paint, count, print."""
    args = arguments()
    bundle, lung_bundle = find_bundle(args.bundle, args.bundles), find_bundle(ModelSettings().lung)
    find = partial(segment, bundle=bundle, runtime=open_runtime(bundle), plan=args.plan)
    shares = [percent / 100 for percent in args.shares]
    results: list[dict[str, object]] = []
    print(f"{bundle.made_by}, plan {args.plan}")
    for series in args.series:
        volume = read_series(series)
        lung = segment(volume, lung_bundle, open_runtime(lung_bundle))
        for filling in args.fillings:
            before = time.process_time()
            found = list(severities(volume, lung, find, FILLINGS[filling], shares, seed=args.seed))
            problems = show(f"{series.name}, {filling}", found)
            print(f"{time.process_time() - before:.0f} processor seconds.")
            rows = [asdict(one) for one in found]
            results.append({"series": series.name, "filling": filling, "rows": rows, "problems": problems})
            if args.json:
                args.json.write_text(json.dumps({"bundle": bundle.made_by, "results": results}, indent=2))
    return int(any(result["problems"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
