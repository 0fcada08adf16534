"""Where a verb writes: one option for every verb, checked before anything is read or computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from carina.pipeline.places import check_place

PATH = click.Path(path_type=Path, readable=False)
"""Whoever reads a path says what is wrong with it, as an input or as a setting."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def out_option(meaning: str, *, default: str = "", required: bool = True, is_file: bool = False) -> Decorator:
    """The option ``-o/--out`` of a verb, a folder unless it is said to be a file."""
    known = {"default": default, "show_default": True} if default else {"required": required}
    metavar = "FILE" if is_file else "FOLDER"
    return click.option("-o", "--out", type=Place(is_file=is_file), metavar=metavar, help=meaning, **known)


def claim(path: Path, ctx: click.Context | None, *, is_file: bool = False) -> Path:
    """A place that the verb will write to: it must be possible, and an error that names it is no input's.

    Raises:
        BadConfig: it can't be made or written.
    """
    check_place(path, is_file=is_file)
    if ctx is not None:
        ctx.ensure_object(list).append(path)
    return path


class Place(click.Path):
    """A path that is claimed as soon as it is read."""

    def __init__(self, *, is_file: bool = False) -> None:
        super().__init__(path_type=Path)
        self.is_file = is_file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, claimed."""
        return claim(Path(value), ctx, is_file=self.is_file)


def moved(option: str, instead: str) -> Decorator:
    """An option of an earlier release, which says what it is called now."""

    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            raise click.UsageError(f"{option} is {instead} now.", ctx)

    return click.option(option, hidden=True, expose_value=False, callback=refuse)
