"""The node's settings on the command line: the same options, and the same file without them, for every verb."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.places import PATH
from carina.cli.terminal import complain
from carina.errors import BadConfig

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from carina.config import Settings
    from carina.models.bundle import Bundle

CONFIG = click.option("--config", type=PATH, metavar="FILE", help="Settings file (default: ./carina.toml if there).")

PLAN = click.option("--plan", type=click.Choice(["fast", "original"]), help="Where network time goes.")


def node_settings(config: Path | None, plan: str | None = None) -> Settings:
    """The settings of a file, by default ``./carina.toml`` where it is, of the environment and of ``--plan``."""
    from carina.config import find_settings
    from carina.dicom.voxel_limit import allow_voxels

    override = {"CARINA_RUNTIME_PLAN": plan} if plan else {}
    settings = find_settings(config, {**os.environ, **override})
    allow_voxels(settings.limits)
    return settings


def acting_by_command() -> str:
    """Let the audit trail name whoever gives the command; gives the name."""
    import getpass

    from carina.service.access.caller import asking

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    asking.set(f"{user[:64]} (command line)")
    return asking.get()


def noted(engine: Engine, action: str, *subjects: str) -> None:
    """Put into the audit trail what whoever gives the command is about to do or see; without it, they don't."""
    from carina.service.changes import audit

    acting_by_command()
    with engine.begin() as connection:
        for subject in subjects:
            audit(connection, action, subject)


def looked(engine: Engine, *subjects: str) -> None:
    """Put into the audit trail what is about to be shown; a node whose disk is full shows it all the same."""
    from sqlalchemy.exc import OperationalError

    try:
        noted(engine, "looked", *subjects)
    except OperationalError as error:
        complain(f"this is not in the audit trail, which can't be written ({error.orig})")


def bundle_called(name: str, settings: Settings) -> Bundle:
    """A bundle by its folder, or by its name among those that the settings know.

    Raises:
        BadConfig: there is none, or it is damaged or can't be looked at.
    """
    from carina.models.bundle import METADATA, find_bundle, load_bundle

    folder = Path(name)
    try:
        is_folder = folder.stat() and folder.is_dir() and (os.sep in name or (folder / METADATA).is_file())
    except (FileNotFoundError, NotADirectoryError):
        is_folder = False
    except OSError as error:
        raise BadConfig("bundle.unreadable", f"{name}: can't be looked at ({error.strerror}).") from error
    return load_bundle(folder) if is_folder else find_bundle(name, settings.models.folders)
