"""From how much marked disease on a probability says something: scans with drawn disease, marked and classified.

    python benchmarks/little_disease.py LIST.json OUT.csv [--numbers 0 24]

The list names chests without disease, each with its lungs (docs/data.md). Each draw is marked by the lesion bundle and
classified by the classifier that ship; OUT.csv gets a row each: which share is ill, which is marked, the probability.
Prints the two limits (bundle key ``little_disease``) by all chests, and by all but each.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import asdict, fields
from pathlib import Path

from carina.cases.datalist import read_datalist
from carina.cases.purpose import Task
from carina.cases.reading import read_case
from carina.config import ModelSettings, RuntimeSettings
from carina.evaluate.little_disease import DrawnScan, little_limits, look_at_drawn
from carina.infer.classify import classifier, classify
from carina.infer.runtime import open_runtime
from carina.infer.segment import segment
from carina.models.bundle import find_bundle
from carina.models.first_look import first_look_of
from carina.volume import Mask, Volume

SEED = 970_000


def main() -> int:
    """Read the arguments, draw, look, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--numbers", type=int, nargs=2, default=[0, 24], help="the draws of each chest: from, to")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    data, how = read_datalist(args.list), RuntimeSettings(threads=1)
    cases = [read_case(data, listed, Task.COVID) for listed in data.training]
    lesion, covid = find_bundle(ModelSettings().lesion), find_bundle(ModelSettings().covid)
    first, spec = first_look_of(lesion), classifier(covid)
    marks, answers = open_runtime(lesion, how), open_runtime(covid, how)
    sees = open_runtime(first, how) if first else None

    def mark(scan: Volume) -> Mask:
        return segment(scan, lesion, marks, first_look=sees)

    def probability(scan: Volume, lung: Mask) -> float:
        return classify(scan, lung, covid, answers)[spec.labels[spec.saliency.label]]

    with args.out.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [one.name for one in fields(DrawnScan)])
        rows.writeheader()
        found: list[DrawnScan] = []
        for one in look_at_drawn(cases, range(*args.numbers), args.seed, mark, probability):
            rows.writerow(asdict(one))
            file.flush()
            found.append(one)
    for left_out in ("", *(case.name for case in cases)):
        none, enough = little_limits([one for one in found if one.case != left_out])
        print(f"without {left_out or 'none'}: nothing up to {100 * none:.3f} %, enough from {100 * enough:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
