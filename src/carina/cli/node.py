"""The node's settings on the command line: the same options, and the same file without them, for every verb."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.places import PATH

if TYPE_CHECKING:
    from carina.config import Settings

CONFIG = click.option("--config", type=PATH, metavar="FILE", help="Settings file (default: ./carina.toml if there).")

PLAN = click.option("--plan", type=click.Choice(["fast", "original"]), help="Where network time goes.")


def node_settings(config: Path | None, plan: str | None = None) -> Settings:
    """The settings of a file, by default ``./carina.toml`` where it is, of the environment and of ``--plan``."""
    from carina.config import find_settings

    override = {"CARINA_RUNTIME_PLAN": plan} if plan else {}
    return find_settings(config, {**os.environ, **override})
