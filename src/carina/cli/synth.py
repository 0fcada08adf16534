"""``carina synth``: data to train on: synthetic cases, data lists from DICOM, sheets to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.numbers import CASES_ASKED, LESIONS_ASKED, PIXEL_COUNT, SEED, SHARE_ASKED, SLICE_COUNT
from carina.cli.places import PATH, out_option
from carina.cli.terminal import say

if TYPE_CHECKING:
    from carina.synth.chests import Chest

KINDS = ("ground-glass", "consolidation", "reticulation", "crazy-paving", "mixed")
SIZES = ("small", "medium", "large")
"""As `synth.lesions.Kind` and `synth.lesions.Size`, which are imported when a command runs; a test compares them."""

SHEET_CHESTS = 3
COLOURS = 160
"""Greys and one orange: a sheet of more colours is a larger file and no better picture."""


@click.group()
def synth() -> None:
    """Make data to train on: data lists from DICOM, synthetic disease with masks. For research use only."""


@synth.command("prepare")
@click.argument("source", type=PATH)
@out_option("Folder for images, lung masks and the list.")
@click.option("--ill", multiple=True, metavar="NAME", help="A case that shows the disease (label 1; all others 0).")
@click.option(
    "--validation", type=SHARE_ASKED, default=0.2, show_default=True, help="Share of the patients for validation."
)
@click.option("--sheet", is_flag=True, help="Write a picture of each case's lung labels: look at every one.")
def prepare(source: Path, out: Path, ill: tuple[str, ...], validation: float, *, sheet: bool) -> None:
    """Make a data list from the DICOM series (or volume files) below SOURCE: images as NIfTI, lungs labelled.

    Takes the best series of each study; what can't be used is named at the end and left out.
    """
    from carina.cases.prepare import PrepareSettings
    from carina.cases.prepare import prepare as make

    settings = PrepareSettings(ill=ill, validation=validation, sheets=sheet)
    made = make(source, out, settings, say)
    for failure in made.failures:
        say(f"left out: {failure}", err=True)
    listed = f"{len(made.data.training)} for training, {len(made.data.validation)} for validation"
    say(f"{made.data.file}: {listed}; {len(made.failures)} left out")
    if sheet:
        say(f"Look at {out / 'sheets'}; take a case with wrong lungs out of the list.")


@synth.command("cases")
@out_option("Folder for images, masks, the list and the truth.")
@click.option("--lungs", type=PATH, help="Data list whose lungs are used (from prepare); without it, phantoms.")
@click.option("--count", type=CASES_ASKED, default=10, show_default=True, help="Number of cases.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only these kinds (default: all).")
@click.option(
    "--size", "sizes", type=click.Choice(SIZES), multiple=True, help="Only these sizes: below 1 ml, to 10 ml, above."
)
@click.option(
    "--lesions",
    type=LESIONS_ASKED,
    nargs=2,
    default=(1, 5),
    show_default=True,
    help="Fewest and most lesions of a case.",
)
@click.option("--healthy", type=SHARE_ASKED, default=0.0, show_default=True, help="Share of cases without a lesion.")
@click.option("--no-distractors", is_flag=True, help="No nodules, fluid, dependent density or other breath.")
@click.option(
    "--validation",
    type=SHARE_ASKED,
    default=0.2,
    show_default=True,
    help="Share for validation, where LUNGS does not say.",
)
@click.option("--slices", type=SLICE_COUNT, default=64, show_default=True, help="Slices of a phantom.")
@click.option("--pixels", type=PIXEL_COUNT, default=320, show_default=True, help="Rows and columns of a phantom.")
@click.option("--seed", type=SEED, default=1, show_default=True, help="The same seed gives the same cases.")
def cases(
    out: Path,
    lungs: Path | None,
    count: int,
    kinds: tuple[str, ...],
    sizes: tuple[str, ...],
    lesions: tuple[int, int],
    healthy: float,
    validation: float,
    slices: int,
    pixels: int,
    seed: int,
    *,
    no_distractors: bool,
) -> None:
    """Write synthetic cases: images, lesion and lung masks, a data list, a table of every lesion."""
    from carina.cases.datalist import read_datalist
    from carina.cases.synthetic import write_synthetic
    from carina.synth.chests import SynthSettings
    from carina.synth.lesions import Kind, Size

    if not 1 <= lesions[0] <= lesions[1] or count < 1:
        raise click.UsageError("--count and --lesions: expected 1 or more, and the fewest before the most.")
    settings = SynthSettings(
        count=count,
        kinds=tuple(Kind(kind) for kind in kinds or KINDS),
        sizes=tuple(Size(size) for size in sizes or SIZES),
        lesions=lesions,
        healthy=healthy,
        distractors=not no_distractors,
        validation=validation,
        phantom_shape=(slices, pixels, pixels),
        seed=seed,
    )
    data = write_synthetic(out, settings, read_datalist(lungs) if lungs else None, say)
    say(f"{data.file}: {len(data.training)} for training, {len(data.validation)} for validation")


@synth.command("sheet")
@out_option("The picture, .png or .jpg.", is_file=True)
@click.option("--lungs", type=PATH, help="Data list whose lungs are used; without it, a phantom.")
@click.option("--real", type=PATH, help="A series (DICOM folder or volume file) with real disease, shown beside.")
@click.option("--seed", type=SEED, default=1, show_default=True, help="The same seed gives the same picture.")
def sheet(out: Path, lungs: Path | None, real: Path | None, seed: int) -> None:
    """Draw synthetic lesions of each kind and size, and real ones where a series is given."""
    from carina.cases.case import Case, resample_case
    from carina.dicom.find import choose_source, find_series
    from carina.dicom.read import read_source
    from carina.synth.sheet import RealDisease
    from carina.synth.sheet import sheet as draw

    shown = None
    if real is not None:
        case = resample_case(Case(name=real.name, volume=read_source(choose_source(find_series(real)))))
        shown = RealDisease(name=case.name, hu=case.hu, lung=case.lungs, spacing_mm=case.spacing_mm)
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw(_chests(lungs), shown, seed)
    drawn = drawn.quantize(COLOURS) if out.suffix.lower() == ".png" else drawn
    drawn.save(out, optimize=True)
    say(out)


def _chests(lungs: Path | None) -> list[Chest]:
    """The first chests of a list, or one phantom."""
    from carina.cases.datalist import read_datalist
    from carina.cases.synthetic import healthy_cases, read_chest
    from carina.synth.chests import SynthSettings, phantom_chests

    if lungs is None:
        return list(phantom_chests(SynthSettings(count=1, phantom_shape=(96, 448, 448))))
    data = read_datalist(lungs)
    return [read_chest(data, listed) for _, listed in healthy_cases(data)[:SHEET_CHESTS]]
