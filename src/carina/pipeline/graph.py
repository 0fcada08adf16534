"""A definition bound to the operator table: who reads whose output, with which settings. Every mistake is collected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from carina.pipeline.definition import Definition, Input, Output, Service, Step
from carina.pipeline.document import Problem
from carina.pipeline.foreign import ForeignOperator
from carina.pipeline.operator import Operator, Port, Setting, fits, type_name
from carina.pipeline.ports import not_storable
from carina.pipeline.table import OperatorTable
from carina.pipeline.values import Files

PIPELINE_INPUT = "input"
"""What an input without ``from`` and ``name`` reads."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """Where a parameter's value comes from: ``step``'s output ``path``, or, without a step, the pipeline's input."""

    step: str = ""
    path: str = PIPELINE_INPUT


@dataclass(frozen=True, kw_only=True)
class Node:
    """A step with its operator, a wire for each connected parameter, declared outputs and settings."""

    step: Step
    operator: Operator
    wires: Mapping[str, Wire]
    outputs: Mapping[str, Output]
    settings: Mapping[str, object]

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes by name, each after those it reads from; ``inputs`` are the types of the pipeline's inputs by name."""

    nodes: Mapping[str, Node]
    inputs: Mapping[str, Any]


def bind(definition: Definition, table: OperatorTable) -> tuple[Graph, list[Problem]]:
    """Wire a definition's steps up; the graph is whole only where there are no problems."""
    binder = _Binder(definition, table)
    nodes = {step.name: node for step in definition.steps if (node := binder.node(step))}
    order = _order(nodes, binder.problems)
    return Graph(nodes={name: nodes[name] for name in order}, inputs=binder.inputs), binder.problems


class _Binder:
    """Looks up each step's operator, ports and settings."""

    def __init__(self, definition: Definition, table: OperatorTable) -> None:
        self.definition, self.table = definition, table
        self.problems: list[Problem] = []
        self.inputs: dict[str, Any] = {}
        self.steps: dict[str, Step] = {}
        for step in definition.steps:
            first = self.steps.setdefault(step.name.lower(), step)
            if first is not step and step.name:
                self._problem(step.line, f"operator name '{step.name}' is already used on line {first.line}")
        self.replacing = {step.name: path for step in definition.steps if (path := self._replaces_input(step))}

    def _replaces_input(self, step: Step) -> str:
        """The output of a step that the others must read in place of the pipeline's input; empty where none is."""
        operator = self.table.operator_of(self.definition, step)
        return "" if isinstance(operator, str) else operator.replaces_input

    def _problem(self, line: int, message: str) -> None:
        self.problems.append(Problem(line, message))

    def node(self, step: Step) -> Node | None:
        operator = self.table.operator_of(self.definition, step)
        if isinstance(operator, str):
            if step.container.image:
                self._problem(step.container.line, operator)
            return None
        outputs = self._outputs(step, operator)
        wires = self._wires(step, operator)
        for service in step.services:
            self._service(step, operator, service)
        settings: dict[str, object] = {}
        if not isinstance(operator, ForeignOperator):
            self._variables(step, operator, settings)
            self._options(step, operator, settings)
            self._settings_complete(step, operator, settings)
        return Node(step=step, operator=operator, wires=wires, outputs=outputs, settings=settings)

    def _outputs(self, step: Step, operator: Operator) -> dict[str, Output]:
        found: dict[str, Output] = {}
        for output in step.outputs:
            mistake = _output_mistake(step, operator, output, found)
            if mistake:
                self._problem(output.line, mistake)
            else:
                found[output.path] = output
        unnamed = [output for output in step.outputs if not output.name]
        if len(step.outputs) > 1:
            for output in unnamed:
                self._problem(
                    output.line, f"output '{output.path}' of '{step.name}' needs a name: it is not the only one"
                )
        if operator.output_ports and not step.outputs:
            known = ", ".join(operator.output_ports)
            self._problem(step.line, f"'{step.name}' declares no output; image '{step.container.image}' gives {known}")
        return found

    def _wires(self, step: Step, operator: Operator) -> dict[str, Wire]:
        wires: dict[str, Wire] = {}
        ports = operator.input_ports
        for entry in step.inputs:
            port = ports.get(entry.path)
            if port is None:
                known = ", ".join(ports) or "none"
                self._problem(entry.line, f"'{step.name}' has no input '{entry.path}'; known: {known}")
            elif port.key in wires:
                self._problem(entry.line, f"'{step.name}' declares the input '{entry.path}' twice")
            else:
                wire = self._origin(step, entry, port)
                wires[port.key] = wire or Wire(step=entry.source, path="")
        for port in ports.values():
            if port.required and port.key not in wires:
                self._problem(step.line, f"'{step.name}' lacks the input '{port.path}' ({type_name(port.type)})")
        return wires

    def _origin(self, step: Step, entry: Input, port: Port) -> Wire | None:
        if not entry.source:
            return self._pipeline_input(step, entry, port)
        source = self.steps.get(entry.source.lower())
        if source is None:
            known = ", ".join(s.name for s in self.steps.values())
            self._problem(
                entry.line, f"'{step.name}' reads from '{entry.source}', which is no operator here; known: {known}"
            )
            return None
        output = self._pick(step, entry, source)
        if output is None:
            return None
        operator = self.table.operator_of(self.definition, source)
        origin = None if isinstance(operator, str) else operator.output_ports.get(output.path)
        if origin is not None and origin.type is not Files and not fits(origin.type, port.type):
            self._problem(
                entry.line,
                f"'{source.name}' {output.path} gives {type_name(origin.type)}, "
                f"but '{step.name}' {entry.path} takes {type_name(port.type)}",
            )
        return Wire(step=source.name, path=output.path)

    def _pick(self, step: Step, entry: Input, source: Step) -> Output | None:
        """The output that an input reads: by its name, or the only one."""
        if not entry.name and len(source.outputs) == 1:
            return source.outputs[0]
        if entry.name:
            for output in source.outputs:
                if output.name.lower() == entry.name.lower():
                    return output
        mistake = self._pick_mistake(entry.name, source)
        if mistake:
            self._problem(entry.line, f"'{step.name}' {mistake}")
        return None

    def _pick_mistake(self, name: str, source: Step) -> str:
        """Why no output is read; empty where another mistake says so already."""
        declared = ", ".join(o.name or o.path for o in source.outputs) or "none"
        if name:
            return f"reads the output '{name}' of '{source.name}', which doesn't declare it; declared: {declared}"
        if source.outputs:
            return f"must name the output of '{source.name}' it reads; declared: {declared}"
        operator = self.table.operator_of(self.definition, source)
        has_none = not isinstance(operator, str) and not operator.output_ports
        return f"reads from '{source.name}', which has no output" if has_none else ""

    def _pipeline_input(self, step: Step, entry: Input, port: Port) -> Wire | None:
        if self.replacing and step.name not in self.replacing:
            self._problem(entry.line, self._past(step, entry))
        name = entry.name or PIPELINE_INPUT
        wanted = self.inputs.setdefault(name, port.type)
        if fits(port.type, wanted):
            self.inputs[name] = port.type
        elif not fits(wanted, port.type):
            self._problem(
                entry.line,
                f"'{step.name}' {entry.path} has no 'from' and so reads the pipeline's input, which is "
                f"{type_name(wanted)}; it takes {type_name(port.type)}",
            )
        return Wire(path=name)

    def _past(self, step: Step, entry: Input) -> str:
        """What is said of an input that goes past the step that takes something out of the pipeline's input."""
        name, path = next(iter(self.replacing.items()))
        outputs = self.steps[name.lower()].outputs
        output = next((one for one in outputs if one.path == path), None) or Output(path=path, name="replaced")
        declare = "" if output in outputs else f"declare {{path: {path}, name: {output.name}}} at '{name}' and "
        words = ", ".join([f"from: {name}", *([f"name: {output.name}"] if output.name else []), f"path: {entry.path}"])
        reads = f"'{step.name}' {entry.path} reads the pipeline's input, with all that '{name}' takes out of it"
        return f"{reads}; {declare}write {{{words}}} instead"

    def _service(self, step: Step, operator: Operator, service: Service) -> None:
        if service.container.image and service.container.image not in operator.services:
            known = ", ".join(operator.services) or "none"
            self._problem(
                service.line, f"'{step.name}' asks for the service '{service.container.image}'; known to it: {known}"
            )

    def _variables(self, step: Step, operator: Operator, settings: dict[str, object]) -> None:
        for name, value in step.container.variables.items():
            setting = operator.variables.get(name)
            if setting is None:
                known = ", ".join(operator.variables) or "none"
                self._problem(value.line, f"'{step.name}' has no variable '{name}'; known: {known}")
            else:
                self._read(settings, setting, value.text, value.line, f"variable '{name}' of '{step.name}'")

    def _options(self, step: Step, operator: Operator, settings: dict[str, object]) -> None:
        words = list(step.container.command)
        line = step.container.command_line
        while words and not words[0].startswith("--"):
            words.pop(0)
        while words:
            name, equals, text = words.pop(0).partition("=")
            if not equals:
                text = words.pop(0) if words else ""
            setting = operator.options.get(name)
            if setting is None:
                known = ", ".join(operator.options) or "none"
                self._problem(line, f"'{step.name}' has no command option '{name}'; known: {known}")
            else:
                self._read(settings, setting, text, line, f"option '{name}' of '{step.name}'")

    def _read(self, settings: dict[str, object], setting: Setting, text: str, line: int, what: str) -> None:
        try:
            value = setting.read(text)
        except ValueError as error:
            self._problem(line, f"{what} is '{text}': {error}")
            settings.setdefault(setting.parameter, None)  # wrong, but there
            return
        if setting.key:
            shared = settings.setdefault(setting.parameter, {})
            if isinstance(shared, dict):
                shared[setting.key] = value
        elif setting.parameter:
            settings[setting.parameter] = value

    def _settings_complete(self, step: Step, operator: Operator, settings: Mapping[str, object]) -> None:
        for name, setting in (*operator.variables.items(), *operator.options.items()):
            parameter = operator.keywords.get(setting.parameter)
            if parameter is not None and parameter.default is parameter.empty and setting.parameter not in settings:
                self._problem(step.line, f"'{step.name}' lacks '{name}'")


def _output_mistake(step: Step, operator: Operator, output: Output, earlier: Mapping[str, Output]) -> str:
    """What is wrong with an output that a step declares, after those it declares before; empty where nothing is."""
    port = operator.output_ports.get(output.path)
    if port is None:
        return f"'{step.name}' has no output '{output.path}'; known: {', '.join(operator.output_ports) or 'none'}"
    if output.path in earlier:
        return f"'{step.name}' declares the output '{output.path}' twice"
    if output.name and output.name.lower() in {one.name.lower() for one in earlier.values()}:
        return f"'{step.name}' has two outputs named '{output.name}'"
    if names := not_storable(port.type):
        return f"'{step.name}' {output.path} gives {' or '.join(names)}, which has no save and load of its own"
    return ""


def _order(nodes: Mapping[str, Node], problems: list[Problem]) -> list[str]:
    """Names so that each follows those it reads from; a cycle is a problem that names its path."""
    ordered: dict[str, None] = {}
    for root in nodes:
        trail = {root: _sources(nodes, root)} if root not in ordered else {}
        while trail:
            name = next(reversed(trail))
            source = next(trail[name], None)
            if source is None:
                del trail[name]
                ordered[name] = None
            elif source in trail:
                cycle = [*list(trail)[list(trail).index(source) :], source]
                problems.append(Problem(nodes[source].step.line, f"a cycle: {' -> '.join(reversed(cycle))}"))
            elif source not in ordered:
                trail[source] = _sources(nodes, source)
    return list(ordered)


def _sources(nodes: Mapping[str, Node], name: str) -> Iterator[str]:
    return (wire.step for wire in nodes[name].wires.values() if wire.step in nodes)
