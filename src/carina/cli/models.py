"""``carina models``: the bundles at hand; checked, exported, and taken from others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, bundle_called, node_settings
from carina.cli.places import PATH, moved, out_option
from carina.cli.terminal import say
from carina.errors import BadConfig

if TYPE_CHECKING:
    from collections.abc import Mapping


FORMATS = ("onnx", "monai", "openvino", "torchscript", "triton", "triton-python")
"""As `models.formats.Format`, which is imported when the command runs; a test compares them."""


@click.group()
def models() -> None:
    """List, check, export and import model bundles."""


@models.command("list")
@CONFIG
def list_models(config: Path | None) -> None:
    """List every bundle that a run could use by name."""
    from carina.models.bundle import find_bundle, known_bundles
    from carina.models.damaged import check_weights
    from carina.models.weights_digest import without_digest

    settings = node_settings(config)
    used = {settings.models.lung, settings.models.lesion, settings.models.covid}
    for name in known_bundles(settings.models.folders):
        mark = "*" if name in used else " "
        try:
            bundle = find_bundle(name, settings.models.folders)
            check_weights(bundle)
        except BadConfig as error:
            say(f"{mark} {name:20} can't be used: {error.message}")
        else:
            lack = " (no digest beside its weights)" if without_digest(bundle.onnx) else ""
            say(f"{mark} {name:20} {bundle.version:8} {bundle.title}{lack}")
    say("* used by the default pipeline; for research use only, not for diagnosis")


@models.command("card")
@click.argument("name")
@CONFIG
def card(name: str, config: Path | None) -> None:
    """Print the card of the bundle NAME: data, recipe, seed and measured numbers."""
    say(*bundle_called(name, node_settings(config)).card.read_text(encoding="utf-8").splitlines())


@models.command("check")
@click.argument("bundle")
@click.option("--schema", type=PATH, help="MONAI's JSON schema of metadata.json, if you have it.")
@click.option("--trust", is_flag=True, help="Run configs/inference.json even if Carina did not write it.")
@click.option("--phantom", is_flag=True, help="Also run it on a synthetic chest.")
@CONFIG
def check(bundle: str, schema: Path | None, trust: bool, phantom: bool, config: Path | None) -> None:
    """Check BUNDLE, a name or a folder: MONAI's rules, and its file against its torch network."""
    from carina.infer.runtime import open_network
    from carina.models.formats import bundle_parity
    from carina.models.verify import verify_metadata, verify_network
    from carina.models.weights_digest import digest_file, without_digest

    found = bundle_called(bundle, node_settings(config))
    lack = without_digest(found.onnx)
    say(f"bytes      {f'not checked: {lack}' if lack else f'ok, as {digest_file(found.onnx).name} says'}")
    open_network(found)
    verify_metadata(found, schema)
    say(f"metadata   ok, by MONAI's verify_metadata with {schema or 'the documented mandatory keys'}")
    if found.carina.network:
        verify_network(found, trust=trust)
        say("network    ok, by MONAI's verify_net_in_out")
    else:
        say("network    not checked: the metadata name no torch network")
    compared = bundle_parity(found)
    say(f"parity     ok, {_figures(compared.differences)} from {compared.against}, of the outputs' range")
    if phantom:
        from carina.evaluate.on_phantom import try_on_phantom

        say(f"phantom    {try_on_phantom(found, node_settings(config).runtime)}")
    say(f"{found.made_by}; for research use only, not for diagnosis")


@models.command("export")
@click.argument("bundle")
@click.option("--format", "form", required=True, type=click.Choice(FORMATS), help="What to.")
@out_option("Folder to write to.")
@CONFIG
def export(bundle: str, form: str, out: Path, config: Path | None) -> None:
    """Write the network of BUNDLE, a name or a folder, in another format and compare it with the torch network."""
    from carina.models.formats import Format, export_bundle

    done = export_bundle(bundle_called(bundle, node_settings(config)), Format(form), out)
    say(f"{done.path}: {_figures(done.differences)} from {done.against}, of the outputs' range")


@models.command("import")
@click.argument("path", type=PATH)
@click.option("--name", default="", help="The bundle's name; PATH's own by default.")
@click.option("--card", "card_file", type=PATH, help="TOML or JSON: what PATH does not say.")
@out_option("Folder of bundles; the first of models.folders by default.", required=False)
@moved("--into", "-o/--out")
@click.option("--no-trial", is_flag=True, help="Do not run it on a synthetic chest.")
@CONFIG
def import_(
    path: Path, name: str, card_file: Path | None, out: Path | None, no_trial: bool, config: Path | None
) -> None:
    """Import PATH: a MONAI bundle, a Clara Train MMAR folder, an ONNX file with a card, or a bundle of Carina."""
    from carina.evaluate.on_phantom import try_on_phantom
    from carina.models.importing import import_model

    trial = None if no_trial else try_on_phantom
    done = import_model(path, out or _folder(config), name=name, card=card_file, trial=trial)
    task = done.bundle.carina.task
    for note in done.notes:
        say(f"supposed: {note}")
    say(f"{_figures(done.differences)} from the network it came as, of the outputs' range")
    say(f"on a synthetic chest: {done.trial}")
    say(f'{done.bundle.folder}: use it with models.{task} = "{done.bundle.name}" in carina.toml')
    if out:
        say(f'and models.folders = ["{out.resolve()}"]')
    say("For research use only. Not for diagnosis.")


def _folder(config: Path | None) -> Path:
    from carina.config import user_models

    folders = node_settings(config).models.folders
    place = Path(folders[0]) if folders else user_models(os.environ)
    if place is None:
        raise BadConfig("import.place", "There is no home folder to put bundles into; name a folder (-o).")
    return place


def _figures(differences: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1g}" for name, value in differences.items())
