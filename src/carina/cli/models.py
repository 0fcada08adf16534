"""``carina models``: the bundles at hand; checked, exported, and taken from others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carina.config import Settings
    from carina.models.bundle import Bundle

FORMATS = ("onnx", "openvino", "torchscript", "triton", "triton-python")
"""As `models.formats.Format`, which is imported when the command runs; a test compares them."""

CONFIG = click.option("--config", type=click.Path(path_type=Path), help="Settings file (carina.toml).")


@click.group()
def models() -> None:
    """List, check, export and import model bundles."""


@models.command("list")
@CONFIG
def list_models(config: Path | None) -> None:
    """List every bundle that a run could use by name."""
    from carina.models.bundle import find_bundle, known_bundles

    settings = _settings(config)
    used = {settings.models.lung, settings.models.lesion, settings.models.covid}
    for name in known_bundles(settings.models.folders):
        bundle = find_bundle(name, settings.models.folders)
        click.echo(f"{'*' if name in used else ' '} {name:20} {bundle.version:8} {bundle.title}")
    click.echo("* used by the default pipeline; for research use only, not for diagnosis")


@models.command("card")
@click.argument("name")
@CONFIG
def card(name: str, config: Path | None) -> None:
    """Print the card of the bundle NAME: data, recipe, seed and measured numbers."""
    click.echo(_bundle(name, config).card.read_text(encoding="utf-8"))


@models.command("check")
@click.argument("bundle")
@click.option("--schema", type=click.Path(path_type=Path), help="MONAI's JSON schema of metadata.json, if you have it.")
@click.option("--trust", is_flag=True, help="Run configs/inference.json even if Carina did not write it.")
@click.option("--phantom", is_flag=True, help="Also run it on a synthetic chest.")
@CONFIG
def check(bundle: str, schema: Path | None, trust: bool, phantom: bool, config: Path | None) -> None:
    """Check BUNDLE, a name or a folder: MONAI's rules, and its file against its torch network."""
    from carina.models.formats import bundle_parity
    from carina.models.verify import verify_metadata, verify_network

    found = _bundle(bundle, config)
    verify_metadata(found, schema)
    click.echo(f"metadata   ok, by MONAI's verify_metadata with {schema or 'the documented mandatory keys'}")
    if found.carina.network:
        verify_network(found, trust=trust)
        click.echo("network    ok, by MONAI's verify_net_in_out")
    else:
        click.echo("network    not checked: the metadata name no torch network")
    compared = bundle_parity(found)
    click.echo(f"parity     ok, {_figures(compared.differences)} from {compared.against}, of the outputs' range")
    if phantom:
        from carina.evaluate.on_phantom import try_on_phantom

        click.echo(f"phantom    {try_on_phantom(found, _settings(config).runtime)}")
    click.echo(f"{found.made_by}; for research use only, not for diagnosis")


@models.command("export")
@click.argument("bundle")
@click.option("--format", "form", required=True, type=click.Choice(FORMATS), help="What to.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@CONFIG
def export(bundle: str, form: str, out: Path, config: Path | None) -> None:
    """Write the network of BUNDLE, a name or a folder, in another format and compare it with the torch network."""
    from carina.models.formats import Format, export_bundle

    done = export_bundle(_bundle(bundle, config), Format(form), out)
    click.echo(f"{done.path}: {_figures(done.differences)} from {done.against}, of the outputs' range")


@models.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", default="", help="The bundle's name; PATH's own by default.")
@click.option("--card", "card_file", type=click.Path(path_type=Path), help="TOML or JSON: what PATH does not say.")
@click.option(
    "--into", type=click.Path(path_type=Path), help="Folder of bundles; the first of models.folders by default."
)
@click.option("--no-trial", is_flag=True, help="Do not run it on a synthetic chest.")
@CONFIG
def import_(
    path: Path, name: str, card_file: Path | None, into: Path | None, no_trial: bool, config: Path | None
) -> None:
    """Import PATH: a MONAI bundle, a Clara Train MMAR folder, an ONNX file with a card, or a bundle of Carina."""
    from carina.evaluate.on_phantom import try_on_phantom
    from carina.models.importing import import_model

    trial = None if no_trial else try_on_phantom
    done = import_model(path, into or _folder(config), name=name, card=card_file, trial=trial)
    task = done.bundle.carina.task
    for note in done.notes:
        click.echo(f"supposed: {note}")
    click.echo(f"{_figures(done.differences)} from the network it came as, of the outputs' range")
    click.echo(f"on a synthetic chest: {done.trial}")
    click.echo(f'{done.bundle.folder}: use it with models.{task} = "{done.bundle.name}" in carina.toml')
    if into:
        click.echo(f'and models.folders = ["{into.resolve()}"]')
    click.echo("For research use only. Not for diagnosis.")


def _settings(config: Path | None) -> Settings:
    from carina.config import load_settings

    return load_settings(config, os.environ)


def _bundle(name: str, config: Path | None) -> Bundle:
    from carina.models.bundle import METADATA, find_bundle, load_bundle

    if (Path(name) / METADATA).is_file():
        return load_bundle(Path(name))
    return find_bundle(name, _settings(config).models.folders)


def _folder(config: Path | None) -> Path:
    from carina.config import user_models
    from carina.errors import BadConfig

    folders = _settings(config).models.folders
    place = Path(folders[0]) if folders else user_models(os.environ)
    if place is None:
        raise BadConfig("import.place", "There is no home folder to put bundles into; name a folder (--into).")
    return place


def _figures(differences: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1g}" for name, value in differences.items())
