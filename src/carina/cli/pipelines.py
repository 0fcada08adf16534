"""``carina pipelines``: the definitions that ship, and the check of any other."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.places import PATH
from carina.cli.terminal import say
from carina.errors import BadConfig


@click.group()
def pipelines() -> None:
    """List, show and check pipeline definitions. For research use only. Not for diagnosis."""


@pipelines.command("list")
def list_pipelines() -> None:
    """List the definitions that ship with Carina."""
    from carina.operators.catalogue import known_definitions
    from carina.pipeline.definition import load_definition

    for name, path in known_definitions().items():
        definition = load_definition(path)
        say(f"{name:12} {len(definition.steps):3} operators  {definition.description}")


@pipelines.command("show")
@click.argument("name", default="default")
def show(name: str) -> None:
    """Print the definition NAME that ships with Carina, to be changed and used with ``carina run --pipeline``."""
    from carina.operators.catalogue import find_definition

    say(*find_definition(name).read_text(encoding="utf-8").splitlines())


@pipelines.command("check")
@click.argument("file", type=PATH)
@CONFIG
def check(file: Path, config: Path | None) -> None:
    """Report every mistake of the definition FILE with its line; exit code 4 if there is one.

    Operators of others are named, with how they would be run here.
    """
    from carina.operators.others import with_others
    from carina.pipeline.check import check_text
    from carina.pipeline.definition import read_definition, read_text
    from carina.pipeline.foreign import ForeignOperator

    text, table = read_text(file), with_others(node_settings(config).operators)
    problems = check_text(text, str(file), table)
    for problem in problems:
        say(f"{file}:{problem.line}: {problem.message}")
    if problems:
        counted = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
        say(f"carina: {file}: {counted} [definition.invalid]", err=True)
        sys.exit(BadConfig.exit_code)
    definition, _ = read_definition(text, str(file))
    wires = sum(1 for step in definition.steps for entry in step.inputs if entry.source)
    say(f"{file}: {definition.name}: {len(definition.steps)} operators, {wires} wires between them, no mistakes")
    for step in definition.steps:
        operator = table.operator_of(definition, step)
        if isinstance(operator, ForeignOperator):
            say(f"  {step.name} is somebody else's; it runs {operator.how}")
