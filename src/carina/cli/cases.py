"""``carina cases``: masks that readers accepted or corrected, as a data list, and how network and readers agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina import RESEARCH_ONLY
from carina.cli.places import PATH
from carina.cli.terminal import say, say_table

if TYPE_CHECKING:
    from carina.corrections.reviewed import Agreement, Reviewed


@click.command()
@click.argument("runs", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, help="Data list to write: what was accepted or corrected, for carina train.")
@click.option("--csv", type=PATH, help="Table to write: each mask that a reader has looked at.")
def cases(runs: tuple[Path, ...], out: Path | None, csv: Path | None) -> None:
    """Collect masks that readers have looked at. For research use only. Not for diagnosis.

    RUNS are folders of runs, of cohorts, or of a node. Shows how network and readers agree; with --out also writes the
    data list of accepted and corrected cases. A rejected mask, or one that nobody looked at, is not in it.
    """
    from carina.cases.datalist import write_datalist
    from carina.corrections.masks import MaskName
    from carina.corrections.reviewed import agreement, reviewed, reviewed_list, runs_below, write_reviewed

    folders = runs_below(runs)
    rows = [row for folder in folders for row in reviewed(folder)]
    if csv is not None:
        write_reviewed(rows, csv)
    header = [
        "mask",
        "accepted",
        "corrected",
        "rejected",
        "median Dice",
        "network - reader, ml",
        "limits of agreement, ml",
    ]
    say_table(header, [_row(agreement(rows, layer)) for layer in MaskName])
    if out is not None:
        data = reviewed_list(folders, out)
        write_datalist(data, out)
        say(f"{out}: {_many(len(data.training), 'case')} of {_looked_at(len(folders))}.", *_left_out(rows))
    say(RESEARCH_ONLY, dim=True)


def _looked_at(runs: int) -> str:
    return f"{_many(runs, 'run')} whose masks a reader has looked at"


def _many(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _left_out(rows: Sequence[Reviewed]) -> list[str]:
    """A line for each rejected mask: why it is not in the list."""
    return [
        f"left out: {one.layer} mask of {one.run}, rejected by {one.by}, {one.at.astimezone():%Y-%m-%d %H:%M}"
        for one in rows
        if not one.mask_image
    ]


def _row(found: Agreement) -> list[str]:
    from carina.report.numbers import difference_text, range_text

    counts = [str(found.counts[name]) for name in ("accepted", "corrected", "rejected")]
    dice = "" if found.median_dice is None else f"{found.median_dice:.3f}"
    mean, limits = difference_text(found.mean_ml), range_text(found.lowest_ml, found.highest_ml)
    return [found.layer, *counts, dice, mean, limits]
