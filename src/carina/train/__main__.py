"""``python -m carina.train prepare|lung|lesion|covid``: make cases, train a network, write its bundle."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from carina.models.networks import build_network
from carina.train.data import load_cases
from carina.train.fit import fit
from carina.train.recipes import RECIPES


def main() -> None:
    """Parse the arguments and run one recipe."""
    parser = argparse.ArgumentParser(prog="carina.train", description="For research use only. Not for diagnosis.")
    parser.add_argument("recipe", choices=["prepare", *RECIPES])
    parser.add_argument("--data", type=Path, required=True, help="folder of cases (.npz); for prepare: DICOM series")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    recipe = RECIPES[args.recipe]
    settings = dataclasses.replace(recipe.settings, seed=args.seed, threads=args.threads)
    if args.steps:
        settings = dataclasses.replace(settings, steps=args.steps)
    cases = load_cases(args.data, leave_out=recipe.leave_out)
    fit(build_network(recipe.network), recipe.drawer(cases), recipe.loss, settings, args.out)


if __name__ == "__main__":
    main()
