"""``carina operator``: the operators, and one of them by itself on folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.places import Place, claim
from carina.cli.terminal import say


@click.group()
def operator() -> None:
    """List operators; run one on folders. For research use only. Not for diagnosis."""


@operator.command("list")
@CONFIG
def list_operators(config: Path | None) -> None:
    """List every operator with its container images, ports and variables, and say what runs those of others."""
    from carina.operators.containers import ContainerEngine, find_engine
    from carina.operators.table import known_operators
    from carina.pipeline.operator import type_name

    table = known_operators()
    for one in table.operators:
        say(f"{one.name}: {one.summary}")
        if one.package:
            say(f"  package    {one.package}")
        say(f"  images     {', '.join(one.images)}")
        for port in one.input_ports.values():
            optional = "" if port.required else ", optional"
            say(f"  input      {port.path:17} {type_name(port.type)}{optional}")
        for port in one.output_ports.values():
            say(f"  output     {port.path:17} {type_name(port.type)}")
        for name, setting in one.variables.items():
            say(f"  variable   {name:17} {setting.meaning}")
        for name, setting in one.options.items():
            say(f"  option     {name:17} {setting.meaning}")
    for refused in table.refused:
        say(f"warning: {refused}", err=True)
    engine = find_engine(node_settings(config).operators.engine)
    runs = f"run in containers of {engine.name}" if isinstance(engine, ContainerEngine) else f"can't be run: {engine}"
    say(f"Images of others, which none of these has, {runs}.")


@operator.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.option("-i", "--input", "inputs", multiple=True, metavar="[PORT=]FOLDER", help="Folder of an input port.")
@click.option("-o", "--out", "outputs", multiple=True, metavar="[PORT=]FOLDER", help="Folder for an output port.")
@click.option("--output", "older", multiple=True, hidden=True)
@click.option("--set", "variables", multiple=True, metavar="NAME=VALUE", help="A container variable.")
@click.option("--work", type=Place(), help="Keep manifest and fallback folders there.")
@CONFIG
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run_operator(
    ctx: click.Context,
    name: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    older: tuple[str, ...],
    variables: tuple[str, ...],
    work: Path | None,
    config: Path | None,
    command: tuple[str, ...],
) -> None:
    """Run the operator NAME on folders; what follows ``--`` are its own options.

    Without PORT a folder is that of the port `input` or `output`: carina operator run ai-lung -i volume -o lung
    """
    from carina.operators.alone import Alone, find_operator, run_alone
    from carina.operators.networks import Networks

    settings = node_settings(config)
    into = _folders((*outputs, *older), "output", "--out")
    alone = Alone(
        operator=find_operator(name, settings.operators),
        inputs=_folders(inputs, "input", "--input"),
        outputs={port: claim(folder, ctx) for port, folder in into.items()},
        variables=dict(_pairs(variables, "--set")),
        command=command,
        work=work,
    )
    for warning in run_alone(alone, (settings, Networks(settings))):
        say(f"warning: {warning}", err=True)


def _folders(texts: tuple[str, ...], port: str, option: str) -> dict[str, Path]:
    """Folders by port; a folder without one is that of ``port``."""
    named = [text if "=" in text else f"{port}={text}" for text in texts]
    return {name: Path(folder) for name, folder in _pairs(named, option)}


def _pairs(texts: Iterable[str], option: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(f"'{text}': expected NAME=VALUE", param_hint=option)
        pairs.append((name, value))
    return pairs
