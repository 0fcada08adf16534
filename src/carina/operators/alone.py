"""One operator by itself on folders, as a container's entry point would run it."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from carina.dicom.find import choose_source, find_series
from carina.dicom.series import Source
from carina.errors import BadConfig, unwritable
from carina.operators.apart import with_packages_apart
from carina.operators.table import NO_OPERATORS, known_operators
from carina.pipeline import ports
from carina.pipeline.definition import Container, Definition, Input, Output, Step, Value
from carina.pipeline.engine import Event, now
from carina.pipeline.operator import Operator, Port
from carina.pipeline.places import copy_whole, make_below
from carina.pipeline.run import RunOptions, run_pipeline
from carina.pipeline.table import known_or_near
from carina.sections import OperatorSettings


@dataclass(frozen=True, kw_only=True)
class Alone:
    """An operator with its folders by port, container variables and command options, all as texts or paths.

    ``work`` keeps what it writes besides its outputs (manifest, fallback folders); without it that is thrown away.
    """

    operator: Operator
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    variables: Mapping[str, str]
    command: tuple[str, ...] = ()
    work: Path | None = None


def find_operator(name: str, settings: OperatorSettings | None = None) -> Operator:
    """An operator by its name or one of its images, which runs as the settings say where it is of a package.

    Raises:
        BadConfig: there is none; the message lists the known ones.
    """
    table = with_packages_apart(known_operators(), settings or OperatorSettings())
    operator = table.names.get(name) or table.images.get(name)
    if operator is None:
        known = "; ".join([known_or_near(name, {**table.names, **table.images}), *table.refused])
        raise BadConfig("operator.unknown", f"no operator is called '{name}'; {known.rstrip('.')}.")
    return operator


def run_alone(
    alone: Alone,
    services: tuple[object, ...],
    *,
    progress: Callable[[Event], None] | None = None,
    clock: Callable[[], dt.datetime] = now,
) -> list[str]:
    """Load an operator's inputs from folders, run it, write its outputs into folders; gives its warnings.

    Raises:
        BadConfig: a port is unknown, a required one is missing, or a folder does not hold what the port takes.
        CarinaError: whatever the operator raises.
    """
    given = _by_path(alone.operator.input_ports, alone.inputs, "input")
    wanted = _by_path(alone.operator.output_ports, alone.outputs, "output")
    definition = _definition(alone, tuple(given), tuple(wanted))
    values, stored = {}, []
    for path, folder in given.items():
        value = values[path.strip("/")] = _given(alone.operator.input_ports[path], folder)
        stored.append((value, tuple(ports.files_in(folder))))
    with TemporaryDirectory(prefix="carina-operator-") as name:
        work = alone.work or Path(name)
        result = run_pipeline(
            definition,
            NO_OPERATORS.with_all(alone.operator),
            inputs=values,
            out=work,
            services=services,
            options=RunOptions(progress=progress, clock=clock, stored=stored),
        )
        record = result.manifest.operators[alone.operator.name]
        for path, folder in wanted.items():
            _copy(work, record.outputs.get(path, []), folder)
    lost = [] if alone.work else record.facts.get("files", [])
    if lost:
        raise BadConfig(
            "operator.work",
            f"operator {alone.operator.name} also wrote {', '.join(lost)}; say with --work where to keep it.",
        )
    return record.warnings


def _given(port: Port, folder: Path) -> object:
    """What a folder holds for a port; of series only what fits the rules, since nobody chose among them before."""
    value = ports.load_folder(port.type, folder)
    return choose_source(find_series(folder)) if isinstance(value, Source) else value


def _by_path(known: Mapping[str, Port], given: Mapping[str, Path], what: str) -> dict[str, Path]:
    """Folders by port path; a port may be named by its path, with or without slash, or by its Python name."""
    names = {name: path for path, port in known.items() for name in (path, path.strip("/"), port.key) if name}
    for name in given:
        if name not in names:
            raise BadConfig("operator.port", f"no {what} is called '{name}'; known: {', '.join(known) or 'none'}.")
    return {names[name]: folder for name, folder in given.items()}


def _definition(alone: Alone, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Definition:
    """A pipeline of the one operator, each input a pipeline input of its own."""
    step = Step(
        name=alone.operator.name,
        container=Container(
            image=alone.operator.images[0],
            command=alone.command,
            variables={name: Value(text=text, line=1) for name, text in alone.variables.items()},
        ),
        inputs=tuple(Input(path=path, name=path.strip("/")) for path in inputs),
        outputs=tuple(Output(path=path, name=path.strip("/")) for path in outputs or alone.operator.output_ports),
    )
    return Definition(name=alone.operator.name, steps=(step,), file=alone.operator.name)


def _copy(run: Path, files: list[str], folder: Path) -> None:
    """Files of an output into a folder, without the names of the run's folders above them."""
    paths = [run / file for file in files]
    home = Path(os.path.commonpath([path.parent for path in paths])) if paths else run
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            make_below(folder, (target := folder / path.relative_to(home)).parent)
            copy_whole(path, target)
    except OSError as error:
        raise unwritable(error, folder) from error
