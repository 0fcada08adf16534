"""Leave patients out: trains one network for each fold of a data list and measures it on the patients it has not seen.

    python scripts/folds.py lung   LIST OUT --folds 3 --stages starter --set steps=1100
    python scripts/folds.py lesion LIST OUT --folds 3 --stages starter starter-2 --slices covidctmd-p002=SLICES.csv

Each stage is a preset and goes on from the bundle before it, in ``OUT/fold-K/STAGE``; what is finished is not done
again, what was interrupted goes on. ``OUT/figures.csv`` holds, for each case, figures by the network of its fold.
For research use only. Not for diagnosis.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import carina.train.configure as configure
from carina.models.bundle import Bundle, load_bundle
from carina.train.cases import read_case
from carina.train.datalist import read_datalist, with_fold
from carina.train.evaluate import Figures, evaluate_lesion, evaluate_lung
from carina.train.settings import Task
from carina.train.training import How, train


def train_fold(task: Task, data: Path, out: Path, stages: Sequence[str], changes: Sequence[str]) -> Bundle:
    """The bundle of the last stage."""
    bundle: Bundle | None = None
    for stage in stages:
        init = [f'init="{bundle.folder}"'] if bundle else []
        settings = configure.load(task, preset=stage, changes=[*changes, *init])
        done = out / stage / "bundle" / settings.name
        bundle = load_bundle(done) if done.is_dir() else train(data, settings, out / stage, How(tell=print))
        assert bundle is not None
    assert bundle is not None
    return bundle


def measure(task: Task, bundle: Bundle, data: Path, fold: tuple[int, int], slices: dict[str, Path]) -> Figures:
    """The figures of a fold's network on the cases that were held out from it."""
    listed = with_fold(read_datalist(data), *fold)
    cases = [read_case(listed, item, task) for item in listed.validation]
    if task is Task.LUNG:
        return evaluate_lung(bundle, cases, pasted=len(cases))
    return evaluate_lesion(bundle, cases, slices, unseen=[case.name for case in cases if case.name not in slices])


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Task, choices=[Task.LUNG, Task.LESION])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--only", type=int, nargs="*", help="these folds only")
    parser.add_argument("--stages", nargs="+", default=["starter"])
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--slices", action="append", default=[], help="NAME=CSV of slices that a radiologist marked")
    asked = parser.parse_args()
    slices = {name: Path(path) for name, path in (one.split("=", 1) for one in asked.slices)}
    asked.out.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[int, str, float]] = []
    for fold in asked.only if asked.only is not None else range(asked.folds):
        changes = [*asked.changes, f"folds={asked.folds}", f"fold={fold}"]
        bundle = train_fold(asked.task, asked.data, asked.out / f"fold-{fold}", asked.stages, changes)
        for name, value in measure(asked.task, bundle, asked.data, (asked.folds, fold), slices).items():
            rows.append((fold, name, value))
            print(f"{fold} {name}: {value:.4f}", flush=True)
    with (asked.out / "figures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("fold", "figure", "value"))
        writer.writerows((fold, name, f"{value:.4f}") for fold, name, value in rows)


if __name__ == "__main__":
    main()
