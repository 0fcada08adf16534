"""A pipeline definition (api-version 0.4.0) as frozen values that remember their lines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yaml.nodes import Node

from carina.errors import BadConfig
from carina.pipeline.document import MOST_NODES, Problem, Reader, TooMuch, compose, line_of

API_VERSION = "0.4.0"
LARGEST_MEMORY = 2**40

MOST_CHARACTERS = 1_000_000
"""More than any definition has; YAML of this size takes some seconds."""

ROOT_KEYS = ("api-version", "name", "description", "orchestrator", "pull-secrets", "parameters", "operators")
STEP_KEYS = ("name", "description", "container", "requests", "input", "output", "services")
CONTAINER_KEYS = ("image", "tag", "command", "variables")
SERVICE_KEYS = ("name", "description", "container", "connections", "requests", "variables")


@dataclass(frozen=True, kw_only=True)
class Value:
    """A text with the line it stands on."""

    text: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Container:
    """What runs: an image name, a tag (informational here), a command line and variables."""

    image: str
    tag: str = "latest"
    command: tuple[str, ...] = ()
    variables: Mapping[str, Value] = field(default_factory=dict)
    line: int = 0
    command_line: int = 0


@dataclass(frozen=True, kw_only=True)
class Input:
    """A path that an operator reads: from another operator's output, or from the pipeline's input (``source`` empty).

    ``name`` is the output's name in the operator it comes from.
    """

    path: str
    source: str = ""
    name: str = ""
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Output:
    """A path that an operator writes, with the name other operators know it by."""

    path: str
    name: str = ""
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How a service is reached: ``kind`` http (with a port) or file (with a path)."""

    kind: str
    name: str
    port: int | None = None
    path: str = ""
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Requests:
    """The least hardware asked for: processor cores, GPUs, memory in MB."""

    cpu: int | None = None
    gpu: int | None = None
    memory_mb: int | None = None


@dataclass(frozen=True, kw_only=True)
class Service:
    """A server that an operator relies on."""

    name: str
    container: Container
    connections: tuple[Connection, ...] = ()
    requests: Requests = Requests()
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One use of an operator in a definition (an entry of ``operators``)."""

    name: str
    container: Container
    description: str = ""
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    services: tuple[Service, ...] = ()
    requests: Requests = Requests()
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A pipeline: named steps and their wires.

    ``file`` is what messages call it; ``sha256`` is that of its text and arguments.
    """

    name: str
    steps: tuple[Step, ...]
    file: str = "definition"
    sha256: str = ""
    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()


def parse_definition(text: str, name: str = "definition", arguments: Mapping[str, str] | None = None) -> Definition:
    """Read a definition; ``name`` is what messages call it, ``arguments`` replace the defaults of its parameters.

    Raises:
        BadConfig: the text is not a definition; the message lists every mistake with its line.
    """
    definition, problems = read_definition(text, name, arguments)
    if problems:
        raise invalid(name, problems)
    return definition


def invalid(file: str, problems: list[Problem]) -> BadConfig:
    """The error that lists every problem of a definition, one a line."""
    lines = [f"{file}:{problem.line}: {problem.message}" for problem in sorted(problems)]
    return BadConfig("definition.invalid", *lines)


def load_definition(path: Path, arguments: Mapping[str, str] | None = None) -> Definition:
    """Read a definition file.

    Raises:
        BadConfig: the file can't be read or is no definition.
    """
    return parse_definition(read_text(path), str(path), arguments)


def read_text(path: Path) -> str:
    """The text of a definition file.

    Raises:
        BadConfig: the file can't be read, or is no UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARACTERS + 1)
    except OSError as error:
        raise BadConfig("definition.unreadable", f"{path}: can't be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise BadConfig("definition.unreadable", f"{path}: is no UTF-8 text; expected a YAML definition.") from error
    if len(text) > MOST_CHARACTERS:
        raise BadConfig(
            "definition.unreadable", f"{path}: has more than {MOST_CHARACTERS} characters; no definition has."
        )
    return text


def read_definition(
    text: str, name: str = "definition", arguments: Mapping[str, str] | None = None
) -> tuple[Definition, list[Problem]]:
    """Read what can be read of a definition, and say what can't."""
    arguments = arguments or {}
    problems: list[Problem] = []
    reader = Reader(problems)
    root = compose(text, problems)
    digest = hashlib.sha256(repr((text, sorted(arguments.items()))).encode()).hexdigest()
    if root is None:
        return Definition(name="", steps=(), file=name, sha256=digest), problems
    try:
        return _definition(reader, root, name, digest, arguments), problems
    except TooMuch:
        problems.append(Problem(1, f"aliases make more than {MOST_NODES} nodes of it; a definition has some hundred"))
        return Definition(name="", steps=(), file=name, sha256=digest), problems


def _definition(reader: Reader, root: Node, file: str, digest: str, arguments: Mapping[str, str]) -> Definition:
    entries = reader.mapping(root, "the definition", ROOT_KEYS, ("api-version", "name", "operators"))
    reader.parameters = _parameters(reader, root, entries.get("parameters"), arguments)
    _check_version(reader, entries.get("api-version"))
    steps = tuple(_step(reader, node) for node in reader.sequence(entries.get("operators"), "'operators'"))
    if "operators" in entries and not steps:
        reader.problem(entries["operators"], "the definition has no operators")
    secrets = reader.sequence(entries.get("pull-secrets"), "'pull-secrets'")
    return Definition(
        name=reader.name(entries.get("name"), "the pipeline's name"),
        steps=steps,
        file=file,
        sha256=digest,
        description=reader.text(entries.get("description"), "the description"),
        parameters=reader.parameters,
        pull_secrets=tuple(reader.text(node, "a pull secret") for node in secrets),
    )


def _parameters(reader: Reader, root: Node, node: Node | None, arguments: Mapping[str, str]) -> dict[str, str]:
    declared = reader.texts(node, "'parameters'")
    for name in arguments:
        if name not in declared:
            reader.problem(node or root, f"argument '{name}' is no parameter; known: {', '.join(declared) or 'none'}")
    return {name: arguments.get(name, default) for name, default in declared.items()}


def _check_version(reader: Reader, node: Node | None) -> None:
    version = reader.text(node, "'api-version'", API_VERSION)
    if node is not None and version != API_VERSION:
        reader.problem(node, f"api-version is '{version}'; this engine reads '{API_VERSION}'")


def _step(reader: Reader, node: Node) -> Step:
    entries = reader.mapping(node, "an operator", STEP_KEYS, ("name", "container"))
    name = reader.name(entries.get("name"), "an operator's name")
    what = f"operator '{name}'"
    container = entries.get("container")
    inputs = reader.sequence(entries.get("input"), f"'input' of {what}")
    outputs = reader.sequence(entries.get("output"), f"'output' of {what}")
    services = reader.sequence(entries.get("services"), f"'services' of {what}")
    return Step(
        name=name,
        description=reader.text(entries.get("description"), f"the description of {what}"),
        container=_container(reader, container, what) if container else Container(image="", line=line_of(node)),
        inputs=tuple(_input(reader, item, what) for item in inputs),
        outputs=tuple(_output(reader, item, what) for item in outputs),
        services=tuple(_service(reader, item, what) for item in services),
        requests=_requests(reader, entries.get("requests"), what),
        line=line_of(node),
    )


def _container(reader: Reader, node: Node, what: str) -> Container:
    entries = reader.mapping(node, f"the container of {what}", CONTAINER_KEYS, ("image",))
    command = entries.get("command")
    words = reader.sequence(command, f"'command' of {what}")
    return Container(
        image=reader.text(entries.get("image"), f"the image of {what}"),
        tag=reader.text(entries.get("tag"), f"the tag of {what}", "latest"),
        command=tuple(reader.text(word, f"a word of the command of {what}") for word in words),
        variables=_variables(reader, entries.get("variables"), what),
        line=line_of(entries.get("image", node)),
        command_line=line_of(command or node),
    )


def _variables(reader: Reader, node: Node | None, what: str) -> dict[str, Value]:
    if node is None:
        return {}
    entries = reader.mapping(node, f"'variables' of {what}")
    return {
        name: Value(text=reader.text(value, f"variable '{name}' of {what}"), line=line_of(value))
        for name, value in entries.items()
    }


def _input(reader: Reader, node: Node, what: str) -> Input:
    entries = reader.mapping(node, f"an input of {what}", ("from", "name", "path"), ("path",))
    return Input(
        path=reader.path(entries.get("path"), f"an input's path of {what}"),
        source=reader.name(entries.get("from"), f"'from' of an input of {what}"),
        name=reader.name(entries.get("name"), f"an input's name of {what}"),
        line=line_of(node),
    )


def _output(reader: Reader, node: Node, what: str) -> Output:
    entries = reader.mapping(node, f"an output of {what}", ("name", "path"), ("path",))
    return Output(
        path=reader.path(entries.get("path"), f"an output's path of {what}"),
        name=reader.name(entries.get("name"), f"an output's name of {what}"),
        line=line_of(node),
    )


def _requests(reader: Reader, node: Node | None, what: str) -> Requests:
    if node is None:
        return Requests()
    entries = reader.mapping(node, f"'requests' of {what}", ("cpu", "gpu", "memory"))
    return Requests(
        cpu=reader.number(entries.get("cpu"), f"'cpu' of {what}", 1, LARGEST_MEMORY),
        gpu=reader.number(entries.get("gpu"), f"'gpu' of {what}", 0, LARGEST_MEMORY),
        memory_mb=reader.number(entries.get("memory"), f"'memory' (MB) of {what}", 1, LARGEST_MEMORY),
    )


def _service(reader: Reader, node: Node, owner: str) -> Service:
    entries = reader.mapping(node, f"a service of {owner}", SERVICE_KEYS, ("name", "container"))
    name = reader.name(entries.get("name"), f"a service's name of {owner}")
    what = f"service '{name}' of {owner}"
    container = entries.get("container")
    _variables(reader, entries.get("variables"), what)
    return Service(
        name=name,
        container=_container(reader, container, what) if container else Container(image="", line=line_of(node)),
        connections=_connections(reader, entries.get("connections"), what),
        requests=_requests(reader, entries.get("requests"), what),
        line=line_of(node),
    )


def _connections(reader: Reader, node: Node | None, what: str) -> tuple[Connection, ...]:
    if node is None:
        return ()
    kinds = reader.mapping(node, f"'connections' of {what}", ("http", "file"))
    found = []
    for kind, items in kinds.items():
        key = "port" if kind == "http" else "path"
        for item in reader.sequence(items, f"'{kind}' connections of {what}"):
            entries = reader.mapping(item, f"a {kind} connection of {what}", ("name", key), ("name",))
            found.append(
                Connection(
                    kind=kind,
                    name=reader.name(entries.get("name"), f"a connection's name of {what}"),
                    port=reader.number(entries.get("port"), f"a connection's port of {what}", 1, 65535),
                    path=reader.path(entries.get("path"), f"a connection's path of {what}"),
                    line=line_of(item),
                )
            )
    return tuple(found)
