"""``carina evaluate``: a bundle measured on a data list."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina import RESEARCH_ONLY
from carina.cli.node import CONFIG, PLAN, bundle_called, node_settings
from carina.cli.places import PATH, out_option
from carina.cli.terminal import SOME_FAILED, say, say_table

if TYPE_CHECKING:
    from carina.evaluate.values import Evaluation


@click.command()
@click.argument("bundle")
@click.option("--data", required=True, type=PATH, help="Data list (JSON) with truth.")
@out_option("Folder for tables and report.")
@click.option("--split", type=click.Choice(["validation", "training", "all"]), default="validation", show_default=True)
@CONFIG
@PLAN
@click.option("--quiet", is_flag=True, help="No line for each case.")
def evaluate(
    bundle: str, data: Path, out: Path, split: str, config: Path | None, plan: str | None, quiet: bool
) -> None:
    """Measure BUNDLE (a name or a folder) on a data list. For research use only. Not for diagnosis.

    Writes cases.csv, summary.csv, evaluation.json and report.pdf. A case that can't be measured is named with its
    reason, the others go on, and the exit code is 3.
    """
    from carina.cases.datalist import read_datalist
    from carina.evaluate.evaluate import evaluate as measure
    from carina.evaluate.report import write_report
    from carina.evaluate.tables import write_tables
    from carina.evaluate.values import Split

    settings = node_settings(config, plan)
    evaluation = measure(
        bundle_called(bundle, settings),
        read_datalist(data),
        when=datetime.now().astimezone(),
        split=Split(split),
        settings=settings,
        tell=None if quiet else _tell,
    )
    write_tables(evaluation, out)
    write_report(evaluation, out)
    _print(evaluation, out)
    if evaluation.failures:
        sys.exit(SOME_FAILED)


def _tell(words: str, number: int, count: int) -> None:
    say(f"{number}/{count} {words}", err=True)


def _print(evaluation: Evaluation, out: Path) -> None:
    from carina.evaluate.tables import summary_rows

    rows = summary_rows(evaluation)
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    if rows:
        shown = [(figure, *(_shown(row.get(name)) for name in columns)) for figure, row in rows.items()]
        say_table(("figure", *columns), shown)
    for failure in evaluation.failures:
        say(f"failed: {failure.case}: {failure.reason} [{failure.code}]", fg="yellow")
    say(f"results: {out}")
    say(RESEARCH_ONLY, dim=True)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
