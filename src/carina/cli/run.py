"""``carina run``: the pipeline on one series, or on each study of a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, PLAN, node_settings
from carina.cli.places import PATH, out_option
from carina.cli.terminal import SOME_FAILED, say, say_table

if TYPE_CHECKING:
    from carina.api.cohort import Cohort
    from carina.api.cohort_table import Item
    from carina.api.result import Run
    from carina.api.study import RunSettings


SHOWN = 20
"""Failures that the summary repeats."""


@click.command()
@click.argument("path", type=PATH)
@out_option("Folder for every result.")
@click.option("--each", type=click.Choice(["study", "series"]), help="Run on each study or series below PATH.")
@click.option("--series", "uid", default="", help="Take the series of this UID, whatever the rules say.")
@click.option("--pipeline", type=PATH, help="Definition to run: a file, or the name of one that ships.")
@click.option("--set", "arguments", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the definition.")
@CONFIG
@PLAN
@click.option("--quiet", is_flag=True, help="No progress display.")
def run(
    path: Path,
    out: Path,
    each: str | None,
    uid: str,
    pipeline: Path | None,
    arguments: tuple[str, ...],
    config: Path | None,
    plan: str | None,
    quiet: bool,
) -> None:
    """Run the pipeline on the best axial chest CT below PATH. For research use only. Not for diagnosis.

    PATH is a folder of DICOM files, one file, or a MetaImage, NIfTI or NRRD volume. The same command resumes a run
    that was interrupted.
    """
    from carina.api.study import RunSettings

    how = RunSettings(settings=node_settings(config, plan), pipeline=pipeline, arguments=_pairs(arguments), uid=uid)
    if each:
        _many(path, out, each, how)
    else:
        from carina.cli.progress import watched

        print_run(watched(path, out, how, quiet=quiet))


def _pairs(arguments: tuple[str, ...]) -> dict[str, str]:
    for one in arguments:
        if "=" not in one:
            raise click.BadParameter(f"{one!r} is not NAME=VALUE", param_hint="--set")
    return dict(one.split("=", 1) for one in arguments)


def print_run(run: Run) -> None:
    """Print a run's findings, its warnings and where its results lie."""
    if run.regions:
        say_table(("region", "lung ml", "lesion ml", "ratio %", "lung HU"), _rows(run))
    for name, value in run.probabilities.items():
        say(f"probability {name}: {value:.2f}")
    for warning in run.warnings:
        say(f"warning: {warning}", fg="yellow")
    say(f"results: {run.folder}")
    say(run.manifest.notice, dim=True)


def _rows(run: Run) -> Iterator[tuple[str, ...]]:
    for row in run.regions:
        hu = row["lung_mean_hu"]
        ratio, shown_hu = f"{row['ratio_percent']:.2f}", "" if hu is None else f"{hu:.0f}"
        yield row["region"], f"{row['lung_ml']:.0f}", f"{row['lesion_ml']:.1f}", ratio, shown_hu


def _many(path: Path, out: Path, each: str, how: RunSettings) -> None:
    from carina.api.cohort import run_many
    from carina.api.cohort_table import Fate

    cohort = run_many(path, out, each, how, _tell)
    _summary(cohort)
    if cohort.failures or not cohort.counts[Fate.DONE]:
        sys.exit(SOME_FAILED)


def _tell(item: Item, number: int, count: int) -> None:
    say(f"{number}/{count} {_told(item)}")


def _told(item: Item) -> str:
    why = f"{item.message.rstrip('.')} [{item.code}]" if item.code else ""
    return ": ".join(filter(None, (item.name, item.fate, why)))


def _summary(cohort: Cohort) -> None:
    counted = ", ".join(f"{count} {fate}" for fate, count in cohort.counts.items())
    say(f"{counted}; table: {cohort.table}")
    say(*(f"  {_told(item)}" for item in cohort.failures[:SHOWN]))
    if len(cohort.failures) > SHOWN:
        say(f"  and {len(cohort.failures) - SHOWN} more; the table has them all")
