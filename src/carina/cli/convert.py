"""``carina convert``: DICOM series to NIfTI, MetaImage or NRRD, whole folders at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.places import PATH, out_option
from carina.cli.terminal import SOME_FAILED, say, told_lines
from carina.errors import BadConfig, BadSeries, told

if TYPE_CHECKING:
    from carina.dicom.find import Found
    from carina.errors import CarinaError

FORM_SUFFIXES = {"nifti": ".nii.gz", "metaimage": ".mhd", "nrrd": ".nrrd"}

NOT_MEANT = frozenset({"series.modality", "series.localizer", "series.no-image", "file.no-hu"})
"""Refusals that are no failure: such things lie in every study's folder, and nobody wants them as a volume."""


def _moved(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError("the folder is given with -o now: carina convert SOURCE -o TARGET.", ctx)


@click.command()
@click.argument("source", type=PATH)
@click.argument("target", required=False, callback=_moved, expose_value=False, metavar="")
@out_option("Folder for the files.")
@click.option("--format", "kind", type=click.Choice(list(FORM_SUFFIXES)), default="nifti", show_default=True)
@click.option("--fitting", is_flag=True, help="Only series that fit the rules (default: every CT that can be read).")
@click.option("--rules", type=PATH, metavar="FILE", help="Rules file (TOML) instead of the configured one.")
@CONFIG
@click.pass_context
def convert(
    ctx: click.Context, source: Path, out: Path, kind: str, rules: Path | None, config: Path | None, *, fitting: bool
) -> None:
    """Turn every CT series below SOURCE into a file of its own, named by its Series Instance UID.

    A series that can't be converted stops no other: it is listed with the reason, and the exit code is 3.
    """
    from carina.api.names import is_result, names_of
    from carina.dicom.find import find_series
    from carina.dicom.rules import load_rules

    settings = node_settings(config)
    known = load_rules(rules or settings.series_rules)
    listing = find_series(source, known, most_voxels=settings.limits.voxels)
    found = [one for one in listing if not is_result(one.path, source, out)]
    wanted = list(_wanted(found, fitting=fitting))
    if not wanted:
        raise BadSeries("series.none-fits", f"{source}: holds no CT series; 'carina series' says what is there.")
    files = [out / f"{name}{FORM_SUFFIXES[kind]}" for name in names_of(wanted, source)]
    failures = [lines for one, file in zip(wanted, files, strict=True) if (lines := _converted(one, file))]
    others = len(found) - len(wanted)
    left = f"; {others} left out, 'carina series' says why" if others else ""
    say(f"{len(wanted) - len(failures)} of {len(wanted)} series converted{left}")
    say(*chain.from_iterable(failures), err=True)
    if failures:
        ctx.exit(SOME_FAILED)


def _named(found: Found, error: CarinaError) -> str:
    from carina.dicom.find import name_of

    name = name_of(found)
    return error.message if error.message.startswith(name) else f"{name}: {error.message}"


def _wanted(found: Iterable[Found], *, fitting: bool) -> Iterator[Found]:
    for one in found:
        is_meant = one.error is None or (not fitting and one.error.code not in NOT_MEANT)
        if is_meant:
            yield one


def _converted(found: Found, file: Path) -> list[str]:
    """Convert one series and say so; or the lines that say why it could not be done, a fault of ours too."""
    try:
        say(*_convert(found, file))
    except BadConfig:  # the place can't be written: nor will the next file be
        raise
    except Exception as error:  # noqa: BLE001 - as with a study of a cohort, one series stops no other
        failure = told(error, [file.parent])
        return told_lines(failure, f"failed: {_named(found, failure)}")
    return []


def _convert(found: Found, file: Path) -> list[str]:
    from carina.dicom.read import read_source
    from carina.volume.files import write_volume

    if found.source is None:
        raise found.error or BadSeries("series.unreadable", f"{found.path}: can't be read.")
    volume = read_source(found.source)
    write_volume(volume, file, compress=file.suffix == ".nrrd")
    size = " x ".join(map(str, volume.grid.shape))
    spacing = " x ".join(f"{s:.3g}" for s in volume.grid.spacing_mm)
    notes = [f"  note: {warning}" for warning in volume.warnings]
    return [f"{file}: {size} voxels of {spacing} mm (z, y, x)", *notes]
