"""``carina series``: every series below a path, which one would be taken, and why."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.places import PATH
from carina.cli.terminal import say, say_fields, say_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carina.dicom.find import Found, Listing

ABSENT = "-"
INDENT = " " * 7

JUDGED_BY = "headers"
"""Pixel data is not decoded for a listing: what is taken may still be refused."""

BROKEN_SHOWN = 20
"""Broken files that are named before the rest is counted."""


@click.command()
@click.argument("path", type=PATH)
@click.option("--rules", type=PATH, help="Rules file (TOML) instead of the configured one.")
@CONFIG
@click.option(
    "--each", type=click.Choice(["path", "study"]), default="path", help="Take one for the path, or per study."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def series(path: Path, rules: Path | None, config: Path | None, each: str, *, as_json: bool) -> None:
    """List every series below PATH and say for each whether it would be taken, and why."""
    from carina.dicom.find import find_series, judge_each_study
    from carina.dicom.rules import load_rules

    settings = node_settings(config)
    known = load_rules(rules or settings.series_rules)
    listing = find_series(path, known, most_voxels=settings.limits.voxels)
    found = judge_each_study(listing, known) if each == "study" else listing
    if as_json:
        say_json([facts(one) for one in found])
        return
    if sys.stdout.isatty():
        _print_records(found)
    else:
        _print_lines(found)
    _print_counts(path, listing, found)


def _print_counts(path: Path, listing: Listing, judged: Sequence[Found]) -> None:
    """What became of every file below the path, the last line; before it, what a verdict rests on."""
    broken = listing.inventory.broken
    for one in broken[:BROKEN_SHOWN]:
        place = one.path.relative_to(path) if one.path != path else one.path.name
        say(f"broken: {place}: {one.reason}")
    if len(broken) > BROKEN_SHOWN:
        say(f"broken: and {len(broken) - BROKEN_SHOWN} more")
    counts = listing.counts(judged)
    copies = "1 copy" if counts.copy == 1 else f"{counts.copy} copies"
    if any(one.taken for one in judged):
        say("note: judged by headers alone; pixel data is decoded, and its HU are checked, in a run or conversion")
    say(f"files: {counts.total}: {counts.used} used, {copies}, {counts.other} other, {counts.broken} broken")


def facts(found: Found) -> dict[str, Any]:
    """What a script may want to know of one series; lengths in mm."""
    return {
        "taken": found.taken,
        "judged_by": JUDGED_BY,
        "code": found.error.code if found.error else None,
        "reason": found.reason,
        "uid": found.uid,
        "part": found.part,
        "study_uid": found.study_uid,
        "path": str(found.path),
        "modality": found.modality,
        "description": found.description,
        "kernel": found.kernel,
        "body_part": found.body_part,
        "image_type": list(found.image_type),
        "transfer_syntax": found.transfer_syntax,
        "plane": found.plane,
        "slices": found.slices,
        "files": len(found.files),
        "matrix": list(found.matrix),
        "pixel_spacing_mm": list(found.pixel_spacing_mm) if found.pixel_spacing_mm else None,
        "slice_spacing_mm": found.slice_spacing_mm,
        "coverage_mm": found.coverage_mm,
        "warnings": list(found.warnings),
    }


def _row(found: Found) -> list[str]:
    spacing = ABSENT if found.slice_spacing_mm is None else f"{found.slice_spacing_mm:.2f}"
    return [
        "taken" if found.taken else "no" if found.error else "fits",
        found.uid or found.path.name,
        found.modality or "file",
        found.description or ABSENT,
        str(found.slices or ABSENT),
        spacing,
        found.kernel or ABSENT,
        found.reason,
    ]


def _print_lines(found: Sequence[Found]) -> None:
    for one in found:
        say_fields(*_row(one))
        for warning in one.warnings:
            say_fields("", f"note: {warning}")


def _print_records(found: Sequence[Found]) -> None:
    columns = shutil.get_terminal_size().columns
    for one in found:
        verdict, uid, kind, description, slices, spacing, kernel, reason = _row(one)
        fg = "green" if one.taken else ""
        head = f"{verdict:7}{kind}  {description}  {slices} slices  {spacing} mm  {kernel}"
        say(head, fg=fg, bold=one.taken, dim=one.error is not None)
        for line in (f"{uid}  {one.part}".rstrip(), reason, *(f"note: {warning}" for warning in one.warnings)):
            say(*textwrap.wrap(line, columns, initial_indent=INDENT, subsequent_indent=INDENT), dim=not one.taken)
