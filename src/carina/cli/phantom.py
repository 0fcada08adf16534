"""``carina phantom``: write a synthetic chest CT with known truth."""

from __future__ import annotations

from pathlib import Path

import click

from carina.cli.demo import truth_file, write_phantom
from carina.cli.numbers import LESIONS_ASKED, PIXEL_COUNT, SEED, SLICE_COUNT
from carina.cli.places import claim, out_option
from carina.cli.terminal import say


@click.command()
@out_option("Folder for the series.")
@click.option("--slices", type=SLICE_COUNT, default=120, show_default=True, help="Number of slices.")
@click.option("--size", type=PIXEL_COUNT, default=256, show_default=True, help="Rows and columns.")
@click.option(
    "--lesions",
    type=LESIONS_ASKED,
    default=5,
    show_default=True,
    help="Number of ground-glass lesions; 0 for a healthy chest.",
)
@click.option("--seed", type=SEED, default=1, show_default=True, help="The same seed gives the same chest.")
def phantom(out: Path, slices: int, size: int, lesions: int, seed: int) -> None:
    """Write a synthetic chest CT as a DICOM series into OUT, its true volumes into OUT-truth.json."""
    claim(truth_file(out), click.get_current_context(), is_file=True)
    truth = write_phantom(out, slices=slices, size=size, lesions=lesions, seed=seed)
    say(f"{out}: {slices} slices; lungs {truth.lung_ml:.0f} ml, lesions {truth.lesion_ml:.1f} ml")
