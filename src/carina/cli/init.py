"""``carina init``: a settings file to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from carina.cli.places import PATH
from carina.cli.terminal import say


@click.command()
@click.argument("folder", type=PATH, default=".")
def init(folder: Path) -> None:
    """Write a commented carina.toml with every setting into FOLDER (default: here). Nothing is overwritten."""
    from carina.config import FILE
    from carina.service.template import write_template

    file = folder / FILE
    write_template(file)
    where = "" if folder == Path() else f"cd {folder}; "
    say(f"{file}: written; look through it, then: {where}carina serve --check; carina serve")
