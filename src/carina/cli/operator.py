"""``carina operator``: the operators, and one of them by itself on folders."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.group()
def operator() -> None:
    """List operators; run one on folders. For research use only. Not for diagnosis."""


@operator.command("list")
def list_operators() -> None:
    """List every operator with its container images, ports and variables."""
    from carina.operators.table import known_operators
    from carina.pipeline.operator import type_name

    table = known_operators()
    for one in table.operators:
        click.echo(f"{one.name}: {one.summary}")
        if one.package:
            click.echo(f"  package    {one.package}")
        click.echo(f"  images     {', '.join(one.images)}")
        for port in one.input_ports.values():
            optional = "" if port.required else ", optional"
            click.echo(f"  input      {port.path:17} {type_name(port.type)}{optional}")
        for port in one.output_ports.values():
            click.echo(f"  output     {port.path:17} {type_name(port.type)}")
        for name, setting in one.variables.items():
            click.echo(f"  variable   {name:17} {setting.meaning}")
        for name, setting in one.options.items():
            click.echo(f"  option     {name:17} {setting.meaning}")
    for refused in table.refused:
        click.echo(f"warning: {refused}", err=True)


@operator.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.option("--input", "inputs", multiple=True, metavar="PORT=FOLDER", help="Folder of an input port.")
@click.option("--output", "outputs", multiple=True, metavar="PORT=FOLDER", help="Folder for an output port.")
@click.option("--set", "variables", multiple=True, metavar="NAME=VALUE", help="A container variable.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep manifest and fallback folders there.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (carina.toml).")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run_operator(
    name: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    variables: tuple[str, ...],
    work: Path | None,
    config: Path | None,
    command: tuple[str, ...],
) -> None:
    """Run the operator NAME on folders; what follows ``--`` are its own options.

    carina operator run ai-lung --input input=volume --output output=lung
    """
    from carina.config import load_settings
    from carina.operators.alone import Alone, find_operator, run_alone
    from carina.operators.networks import Networks

    settings = load_settings(config, os.environ)
    alone = Alone(
        operator=find_operator(name),
        inputs={port: Path(folder) for port, folder in _pairs(inputs, "--input")},
        outputs={port: Path(folder) for port, folder in _pairs(outputs, "--output")},
        variables=dict(_pairs(variables, "--set")),
        command=command,
        work=work,
    )
    for warning in run_alone(alone, (settings, Networks(settings))):
        click.echo(f"warning: {warning}", err=True)


def _pairs(texts: tuple[str, ...], option: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(f"'{text}': expected NAME=VALUE", param_hint=option)
        pairs.append((name, value))
    return pairs
