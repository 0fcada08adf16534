"""``carina models``: the bundles at hand and their cards."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.group()
def models() -> None:
    """List the model bundles and show their cards."""


@models.command("list")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (carina.toml).")
def list_models(config: Path | None) -> None:
    """List every bundle that a run could use by name."""
    from carina.config import load_settings
    from carina.models.bundle import find_bundle, known_bundles

    settings = load_settings(config, os.environ)
    used = {settings.models.lung, settings.models.lesion, settings.models.covid}
    for name in known_bundles(settings.models.folders):
        bundle = find_bundle(name, settings.models.folders)
        click.echo(f"{'*' if name in used else ' '} {name:20} {bundle.version:8} {bundle.title}")
    click.echo("* used by the default pipeline; for research use only, not for diagnosis")


@models.command("card")
@click.argument("name")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (carina.toml).")
def card(name: str, config: Path | None) -> None:
    """Print the card of the bundle NAME: data, recipe, seed and measured numbers."""
    from carina.config import load_settings
    from carina.models.bundle import find_bundle

    bundle = find_bundle(name, load_settings(config, os.environ).models.folders)
    click.echo(bundle.card.read_text(encoding="utf-8"))
