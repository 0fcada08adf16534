"""``carina demo``: the whole pipeline on a phantom, its findings beside the known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.numbers import PIXEL_COUNT, SEED, SLICE_COUNT
from carina.cli.places import out_option
from carina.cli.terminal import say, say_table

if TYPE_CHECKING:
    from carina.api.result import Run
    from carina.synth.phantom import Truth

OUTPUTS = {
    "volume": "the CT as MetaImage",
    "lung": "lung mask as MetaImage",
    "lesion": "lesion mask as MetaImage",
    "saliency": "what each place adds to the classification, as MetaImage",
    "dicom": "DICOM SEG, Encapsulated PDF, SR",
    "render": "volume, masks and scene for a viewer",
    "findings.json": "findings for programs",
    "findings.csv": "findings for a spreadsheet",
    "manifest.json": "what was run, with what, from what",
}


def truth_file(folder: Path) -> Path:
    """Where the true volumes of a phantom are written: beside its folder, which holds DICOM only."""
    whole = folder.resolve() if folder.name in ("", "..") else folder
    return whole.parent / f"{whole.name}-truth.json"


def write_phantom(folder: Path, *, slices: int, size: int, lesions: int, seed: int) -> Truth:
    """Write a phantom as a DICOM series into a folder, and its true volumes into a file beside it."""
    import msgspec

    from carina.synth.phantom import chest_phantom
    from carina.testing.dicom import write_ct_series

    phantom = chest_phantom(shape=(slices, size, size), lesions=lesions, seed=seed)
    write_ct_series(phantom.volume, folder)
    truth = msgspec.json.format(msgspec.json.encode(phantom.truth), indent=2)
    truth_file(folder).write_bytes(truth + b"\n")
    return phantom.truth


@click.command()
@out_option("Folder for the phantom and its run.", default="demo")
@click.option("--slices", type=SLICE_COUNT, default=120, show_default=True, help="Slices of the phantom.")
@click.option("--size", type=PIXEL_COUNT, default=384, show_default=True, help="Rows and columns of the phantom.")
@click.option("--seed", type=SEED, default=1, show_default=True, help="The same seed gives the same chest.")
def demo(out: Path, slices: int, size: int, seed: int) -> None:
    """Write a synthetic chest CT, run the pipeline on it and print the findings beside the known truth."""
    from carina.api.study import RunSettings
    from carina.cli.progress import watched

    series = out / "phantom"
    say(f"writing a synthetic chest CT of {slices} slices to {series} ...")
    truth = write_phantom(series, slices=slices, size=size, lesions=5, seed=seed)
    run = watched(series, out / "run", RunSettings())
    _print(run, truth)


def _print(run: Run, truth: Truth) -> None:
    found = {row["region"]: row for row in run.findings.to_dict("records")}
    rows = []
    for region, name, unit, known in (
        ("lungs", "lung_ml", "ml", truth.lung_ml),
        ("left lung", "lung_ml", "ml", truth.left_lung_ml),
        ("right lung", "lung_ml", "ml", truth.right_lung_ml),
        ("lungs", "lesion_ml", "ml", truth.lesion_ml),
        ("lungs", "ratio_percent", "%", truth.ratio_percent),
    ):
        measured = float(found[region][name])
        what = {"lung_ml": region, "lesion_ml": "lesions", "ratio_percent": "lesion to lung ratio"}[name]
        change = f"{100 * (measured - known) / known:+.1f} %" if known else ""
        rows.append((what, f"{measured:.1f} {unit}", f"{known:.1f} {unit}", change))
    rows += [(f"probability {name}", f"{value:.2f}", "", "") for name, value in run.probabilities.items()]
    say_table(("finding", "measured", "known truth", "difference"), rows)
    say("", "Where to look:", *(f"  {run.folder / name}  {meaning}" for name, meaning in OUTPUTS.items()), "")
    say(run.manifest.notice, bold=True)
