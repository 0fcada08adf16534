"""``carina run``: the pipeline on one series, or on each study of a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from carina.api.cohort import Cohort, Item
    from carina.api.result import Run
    from carina.api.study import RunSettings
    from carina.config import Settings


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder for every result.")
@click.option("--each", type=click.Choice(["study", "series"]), help="Run on each study or series below PATH.")
@click.option("--series", "uid", default="", help="Take the series of this UID, whatever the rules say.")
@click.option("--pipeline", type=click.Path(path_type=Path), help="Definition to run (default: the one that ships).")
@click.option("--set", "arguments", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the definition.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (default: ./carina.toml if there).")
@click.option("--plan", type=click.Choice(["fast", "original"]), help="Where network time goes.")
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

    PATH is a folder of DICOM files, one file, or a MetaImage, NIfTI or NRRD volume. The same command goes on with a
    run that was interrupted.
    """
    from carina.api.study import RunSettings

    how = RunSettings(settings=_settings(config, plan), pipeline=pipeline, arguments=_pairs(arguments), uid=uid)
    if each:
        _many(path, out, each, how)
    else:
        from carina.cli.progress import watched

        print_run(watched(path, out, how, quiet=quiet))


def _settings(config: Path | None, plan: str | None) -> Settings:
    from carina.config import load_settings

    if config is None and Path("carina.toml").is_file():
        config = Path("carina.toml")
    override = {"CARINA_RUNTIME_PLAN": plan} if plan else {}
    return load_settings(config, {**os.environ, **override})


def _pairs(arguments: tuple[str, ...]) -> dict[str, str]:
    for one in arguments:
        if "=" not in one:
            raise click.BadParameter(f"{one!r} is not NAME=VALUE", param_hint="--set")
    return dict(one.split("=", 1) for one in arguments)


def print_run(run: Run) -> None:
    """Print a run's findings, its warnings and where its results lie."""
    from rich.console import Console

    console = Console()
    if len(run.findings):
        console.print(_table(run))
    for name, value in run.probabilities.items():
        console.print(f"probability {name}: {value:.2f}", highlight=False)
    for warning in run.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(f"results: {run.folder}", markup=False, highlight=False, soft_wrap=True)
    console.print(run.manifest.notice, style="dim")


def _table(run: Run) -> Table:
    from rich.table import Table

    table = Table("region", "lung ml", "lesion ml", "ratio %", "lung HU", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in run.findings.to_dict("records"):
        hu = row["lung_mean_hu"]
        ratio, shown_hu = f"{row['ratio_percent']:.2f}", "" if hu is None or hu != hu else f"{hu:.0f}"
        table.add_row(row["region"], f"{row['lung_ml']:.0f}", f"{row['lesion_ml']:.1f}", ratio, shown_hu)
    return table


def _many(path: Path, out: Path, each: str, how: RunSettings) -> None:
    from carina.api.cohort import run_many

    cohort = run_many(path, out, each, how, _tell)
    _summary(cohort)
    if cohort.failures:
        sys.exit(3)


def _tell(item: Item, number: int, count: int) -> None:
    state = "done" if item.run else f"failed: {item.message} [{item.code}]"
    click.echo(f"{number}/{count} {item.uid}: {state}")


def _summary(cohort: Cohort) -> None:
    click.echo(f"{len(cohort.items) - len(cohort.failures)} done, {len(cohort.failures)} failed; table: {cohort.table}")
    for item in cohort.failures:
        click.echo(f"  {item.uid}: {item.message} [{item.code}]")
