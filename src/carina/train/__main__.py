"""``python -m carina.train prepare|lung|lesion|covid``: make cases, train a network, write its bundle."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from carina.train.recipes import RECIPES, Recipe


def main() -> None:
    """Parse the arguments and run one recipe."""
    parser = argparse.ArgumentParser(prog="carina.train", description="For research use only. Not for diagnosis.")
    parser.add_argument("recipe", choices=["prepare", *RECIPES])
    parser.add_argument("--data", type=Path, required=True, help="cases (*.npz); for prepare: a folder of DICOM series")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, log and bundle; for prepare: the cases")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slices", type=Path, help="folder of NAME-slices.csv tables that mark infected slices")
    parser.add_argument("--publish-only", action="store_true", help="write the bundle of the checkpoint in --out")
    args = parser.parse_args()
    if args.recipe == "prepare":
        from carina.train.prepare import prepare

        for _ in prepare(args.data, args.out):
            pass
        return
    recipe = RECIPES[args.recipe]
    settings = dataclasses.replace(recipe.settings, seed=args.seed, threads=args.threads)
    if args.steps:
        settings = dataclasses.replace(settings, steps=args.steps)
    _train(dataclasses.replace(recipe, settings=settings), args)


def _train(recipe: Recipe, args: argparse.Namespace) -> None:
    from carina.models.networks import build_network
    from carina.train.data import load_cases
    from carina.train.fit import fit
    from carina.train.publish import publish

    cases = load_cases(args.data)
    if not args.publish_only:
        seen = [case for case in cases if case.name not in recipe.leave_out]
        fit(build_network(recipe.network), recipe.drawer(seen), recipe.loss, recipe.settings, args.out)
    suffix = "-slices.csv"
    tables = {p.name.removesuffix(suffix): p for p in args.slices.glob(f"*{suffix}")} if args.slices else {}
    publish(recipe, args.out / "checkpoint.pt", cases, args.out / "bundle", slices_csv=tables)


if __name__ == "__main__":
    main()
