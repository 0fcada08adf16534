"""Leave patients out: trains one network for each fold of a data list and measures it on the patients it has not seen.

    python scripts/folds.py lung   LIST OUT --folds 3 --set steps=1100
    python scripts/folds.py lesion LIST OUT --folds 3 --recipe mine.toml --slices covidctmd-p002=SLICES.csv

Each fold goes through the stages of a recipe (default: the one of the network that ships) in ``OUT/fold-K``; what is
finished is not done again, what was interrupted resumes. Each fold writes ``fold-K/figures.csv``; ``OUT/figures.csv``
holds those of all
folds that are there, for each case by the network of its fold.
For research use only. Not for diagnosis.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from carina.cases.datalist import read_datalist, with_fold
from carina.cases.purpose import Task
from carina.cases.reading import read_case
from carina.errors import CarinaError
from carina.evaluate.card_figures import Figures, evaluate_lesion, evaluate_lung
from carina.models.bundle import Bundle
from carina.train.recipe import load_recipe, train_recipe
from carina.train.training import How

FIGURES = "figures.csv"


def measure(task: Task, bundle: Bundle, data: Path, fold: tuple[int, int], slices: dict[str, Path]) -> Figures:
    """The figures of a fold's network on the cases that were held out from it."""
    listed = with_fold(read_datalist(data), *fold)
    cases = [read_case(listed, item, task) for item in listed.validation]
    if task is Task.LUNG:
        return evaluate_lung(bundle, cases, pasted=len(cases))
    return evaluate_lesion(bundle, cases, slices, unseen=[case.name for case in cases if case.name not in slices])


def write_figures(out: Path, fold: int, figures: Figures) -> None:
    """The figures of one fold, and once more those of all folds that are there."""
    (out / f"fold-{fold}").mkdir(parents=True, exist_ok=True)
    with (out / f"fold-{fold}" / FIGURES).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows((fold, name, f"{value:.4f}") for name, value in figures.items())
    rows = [file.read_text(encoding="utf-8") for file in sorted(out.glob(f"fold-*/{FIGURES}"))]
    (out / FIGURES).write_text("fold,figure,value\n" + "".join(rows), encoding="utf-8")


def marked_slices(text: str) -> tuple[str, Path]:
    """``NAME=CSV``, a case and the table of its marked slices."""
    name, _, path = text.partition("=")
    if not name or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=CSV, a case of the list and a file that is there")
    return name, Path(path)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Task, choices=[Task.LUNG, Task.LESION])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--only", type=int, nargs="+", help="these folds only")
    parser.add_argument("--recipe", default="", help="a recipe that ships, or a file; default: that of the task")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="KEY=VALUE, as for carina train")
    parser.add_argument("--slices", type=marked_slices, action="append", default=[], help="NAME=CSV, marked slices")
    asked = parser.parse_args()
    for fold in asked.only or range(asked.folds):
        changes = [*asked.changes, f"folds={asked.folds}", f"fold={fold}"]
        try:
            recipe = load_recipe(asked.recipe or asked.task, changes)
            bundle = train_recipe(recipe, asked.data, asked.out / f"fold-{fold}", How(tell=print))
            figures = measure(asked.task, bundle, asked.data, (asked.folds, fold), dict(asked.slices))
        except CarinaError as error:
            sys.exit(str(error))
        write_figures(asked.out, fold, figures)
        for name, value in figures.items():
            print(f"{fold} {name}: {value:.4f}", flush=True)


if __name__ == "__main__":
    main()
