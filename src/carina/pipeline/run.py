"""Running a definition: independent operators at once, outputs stored on the way, resumable after any end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from carina.errors import BadConfig, one_line, unwritable
from carina.pipeline import manifest as records
from carina.pipeline import ports
from carina.pipeline.check import bound
from carina.pipeline.definition import Definition
from carina.pipeline.digests import Digests
from carina.pipeline.engine import Engine, Event, What, now
from carina.pipeline.folder import MANIFEST, opened, remove_files
from carina.pipeline.graph import Graph, Node
from carina.pipeline.manifest import Manifest, OperatorRecord, Provenance, State
from carina.pipeline.operator import Context, holds, type_name
from carina.pipeline.places import below
from carina.pipeline.table import OperatorTable

__all__ = ["Event", "RunOptions", "RunResult", "What", "run_pipeline"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run. ``needed_bytes`` is the caller's estimate of what the run will write; ``workers`` how many
    operators may run at once; ``clock`` gives the time of day, with its offset; ``stored`` are inputs with the files
    that they lie in, for operators that ask for a value's files.
    """

    progress: Callable[[Event], None] | None = None
    provenance: Provenance = field(default_factory=Provenance)
    needed_bytes: int = 0
    workers: int = 2
    clock: Callable[[], dt.datetime] = now
    stored: Sequence[tuple[object, tuple[Path, ...]]] = ()


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run: its folder, its manifest and its graph."""

    folder: Path
    manifest: Manifest
    graph: Graph

    def files(self, operator: str, output: str) -> tuple[Path, ...]:
        """The files of an operator's output, by the output's path or its name in the definition."""
        path = self._path(operator, output)
        return tuple(self.folder / name for name in self.manifest.operators[operator].outputs.get(path, []))

    def load(self, operator: str, output: str) -> Any:
        """Read an operator's output back from its files."""
        port = self.graph.nodes[operator].operator.output_ports[self._path(operator, output)]
        return ports.load_value(port.type, self.files(operator, output))

    def _path(self, operator: str, output: str) -> str:
        declared = self.graph.nodes[operator].outputs
        return next((path for path, entry in declared.items() if output in (path, entry.name)), output)


def run_pipeline(
    definition: Definition,
    table: OperatorTable,
    *,
    inputs: Mapping[str, object],
    out: Path,
    services: tuple[object, ...] = (),
    options: RunOptions | None = None,
) -> RunResult:
    """Run a definition on ``inputs`` (values of the pipeline's inputs by name, the unnamed one being ``input``).

    ``services`` are handed to the operators that ask for their types. A run that is already in ``out``, of the same
    definition, inputs, bundles and settings, resumes after its last finished operator; anything else there that an
    earlier run wrote is replaced.

    Raises:
        BadConfig: mistakes in the definition, an input or service missing, the folder unwritable or full.
        CarinaError: the first error of an operator; the others that did not depend on it have been run.
    """
    options = options or RunOptions()
    graph = bound(definition, table)
    _check_inputs(graph, inputs)
    injected = {name: _inject(node, services) for name, node in graph.nodes.items()}
    with opened(out, options.needed_bytes):
        try:
            manifest = _open_manifest(definition, graph, out, options)
        except OSError as error:
            raise unwritable(error, out) from error
        engine = Engine(graph, manifest, out, inputs, injected)
        engine.progress = options.progress or engine.progress
        engine.clock = options.clock
        engine.misplaced, engine.left_aside = table.misplaced, table.left_aside
        for value, files in options.stored:
            engine.store.found(value, files)
        engine.go(options.workers)
    return RunResult(folder=out, manifest=manifest, graph=graph)


def _check_inputs(graph: Graph, inputs: Mapping[str, object]) -> None:
    for name, wanted in graph.inputs.items():
        if name not in inputs:
            what = f"the input '{name}' ({type_name(wanted)})"
            raise BadConfig("run.input", f"the pipeline needs {what}, which isn't given.")
        if not holds(wanted, inputs[name]):
            given = type(inputs[name]).__name__
            raise BadConfig("run.input", f"the pipeline's input '{name}' must be {type_name(wanted)}, not {given}.")


def _inject(node: Node, services: tuple[object, ...]) -> dict[str, object]:
    """Services for the keyword-only parameters that ask for one; the context is added when the operator runs."""
    found: dict[str, object] = {}
    for name, wanted in node.operator.injected.items():
        service = next((one for one in services if holds(wanted, one)), None)
        if service is not None:
            found[name] = service
        elif (
            wanted not in (Context, Node) and node.operator.keywords[name].default is node.operator.keywords[name].empty
        ):
            raise BadConfig(
                "run.service", f"operator '{node.name}' needs a {type_name(wanted)}, which this run was not given."
            )
    return found


def _open_manifest(definition: Definition, graph: Graph, out: Path, options: RunOptions) -> Manifest:
    """A new manifest, or the one in the folder where it is of the same run."""
    provenance = options.provenance
    mark = records.fingerprint(definition.sha256, provenance, _versions(graph))
    now = options.clock().isoformat(timespec="seconds")
    earlier, warnings = _earlier(out)
    if earlier is not None and _is_same_run(earlier, mark, graph):
        earlier.resumed.append(now)
        _reset(earlier, graph, out)
        return earlier
    if earlier is not None:
        foreign = remove_files(out, [name for record in earlier.operators.values() for name in record.all_files])
        warnings += [
            f"The earlier run in this folder lists {name!r}, which is none of its files: left alone."
            for name in foreign
        ]
    return Manifest(
        fingerprint=mark,
        started=now,
        definition=records.DefinitionRecord(name=definition.name, file=definition.file, sha256=definition.sha256),
        inputs={**provenance.inputs, **provenance.beside},
        bundles=dict(provenance.bundles),
        settings=dict(provenance.settings),
        versions=dict(provenance.versions),
        warnings=[*provenance.warnings, *map(one_line, warnings)],
        operators={
            name: OperatorRecord(image=node.step.container.image, package=node.operator.package)
            for name, node in graph.nodes.items()
        },
    )


def _earlier(out: Path) -> tuple[Manifest | None, list[str]]:
    """The manifest of an earlier run in a folder; one that can't be understood is set aside, with a warning."""
    try:
        return records.read_manifest(out), []
    except BadConfig as error:
        if error.code != "run.manifest" or not (out / MANIFEST).is_file():
            raise
        aside = next(path for number in count(1) if not (path := out / f"manifest.unreadable-{number}.json").exists())
        (out / MANIFEST).rename(aside)
        return None, [f"{error.message} It is set aside as {aside.name}, and the run starts anew."]


def _is_same_run(earlier: Manifest, mark: str, graph: Graph) -> bool:
    try:
        dt.datetime.fromisoformat(earlier.started)
    except ValueError:
        return False
    return earlier.fingerprint == mark and set(earlier.operators) == set(graph.nodes)


def _reset(earlier: Manifest, graph: Graph, out: Path) -> None:
    """Let every operator whose outputs are not all there, as they were written, run again."""
    digests = Digests()
    said = {one for record in earlier.operators.values() for one in record.warnings}
    earlier.warnings = [one for one in earlier.warnings if one not in said]  # they are gathered again at the end
    for name, record in earlier.operators.items():
        if _is_finished(record, graph.nodes[name], out, digests):
            continue
        if record.error and record.error.traceback:
            remove_files(out, [record.error.traceback])
        record.state, record.outputs, record.files, record.facts = State.WAITING, {}, {}, {}
        record.warnings, record.error = [], None


def _is_finished(record: OperatorRecord, node: Node, out: Path, digests: Digests) -> bool:
    stored = [name for names in record.outputs.values() for name in names]
    if (
        record.state is not State.DONE
        or set(record.outputs) != set(node.outputs)
        or not set(stored) <= set(record.files)
    ):
        return False
    try:
        files = {below(out, name): record.files.get(name) for name in (*stored, *record.own_files)}
        return all(digests.agrees(path, digest) if digest else path.is_file() for path, digest in files.items())
    except (BadConfig, OSError):
        return False


def _versions(graph: Graph) -> dict[str, str]:
    """By step, what an operator of somebody else's is told by: its package's version and its code."""
    steps = ((name, node.operator) for name, node in graph.nodes.items())
    return {name: f"{one.package} {one.code_sha256}" for name, one in steps if not one.is_built_in}
