"""``carina convert``: DICOM series to NIfTI, MetaImage or NRRD, whole folders at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from carina.dicom.find import Found
    from carina.errors import CarinaError

SUFFIXES = {"nifti": ".nii.gz", "metaimage": ".mhd", "nrrd": ".nrrd"}

NOT_MEANT = frozenset({"series.modality", "series.localizer", "series.no-pixels", "file.no-hu"})
"""Refusals that are no failure: such things lie in every study's folder, and nobody wants them as a volume."""

SOME_FAILED = 3


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(list(SUFFIXES)), default="nifti", show_default=True)
@click.option("--fitting", is_flag=True, help="Only series that fit the rules (default: every CT that can be read).")
@click.option("--rules", type=click.Path(path_type=Path), help="Rules file (TOML) instead of the configured one.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (carina.toml).")
@click.pass_context
def convert(
    ctx: click.Context, source: Path, target: Path, kind: str, rules: Path | None, config: Path | None, *, fitting: bool
) -> None:
    """Turn every CT series below SOURCE into a file in the folder TARGET, named by its Series Instance UID.

    Goes on after a series that can't be read, lists what failed and why, and then ends with exit code 3.
    """
    from carina.config import load_settings
    from carina.dicom.find import find_series
    from carina.dicom.rules import load_rules
    from carina.errors import BadSeries

    known = load_rules(rules or load_settings(config, os.environ).series_rules)
    found = find_series(source, known)
    wanted = list(_wanted(found, fitting=fitting))
    if not wanted:
        raise BadSeries("series.none-fits", f"{source}: holds no CT series; 'carina series' says what is there.")
    failures = []
    for one, name in zip(wanted, file_names(wanted), strict=True):
        try:
            click.echo(_convert(one, target / f"{name}{SUFFIXES[kind]}"))
        except BadSeries as error:
            failures.append(f"{_named(one, error)} [{error.code}]")
    others = len(found) - len(wanted)
    left = f"; {others} left out, 'carina series' says why" if others else ""
    click.echo(f"{len(wanted) - len(failures)} of {len(wanted)} series converted{left}")
    for failure in failures:
        click.echo(f"failed: {failure}", err=True)
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


def file_names(found: Iterable[Found]) -> list[str]:
    """A name without a suffix for each series: its UID, numbered from the second volume of one UID on."""
    seen: dict[str, int] = {}
    names = []
    for one in found:
        base = one.uid or one.path.name
        seen[base] = seen.get(base, 0) + 1
        names.append(base if seen[base] == 1 else f"{base}-{seen[base]}")
    return names


def _convert(found: Found, file: Path) -> str:
    from carina.dicom.read import read_volume
    from carina.errors import BadSeries
    from carina.volume.files import write_volume

    if found.source is None:
        raise found.error or BadSeries("series.unreadable", f"{found.path}: can't be read.")
    volume = read_volume(found.source)
    write_volume(volume, file, compress=file.suffix == ".nrrd")
    size = " x ".join(map(str, volume.grid.shape))
    spacing = " x ".join(f"{s:.3g}" for s in volume.grid.spacing_mm)
    return "\n  note: ".join([f"{file}: {size} voxels of {spacing} mm (z, y, x)", *volume.warnings])
