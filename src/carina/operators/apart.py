"""Operators of installed packages, each call in a process of its own: what it does there is bounded and ends with it.

Inputs are handed over by their files, which are stored anyway; outputs are files that the run takes up. Carina's own
operators, and those that a caller gives from Python, run in the run's own process.
"""

from __future__ import annotations

import os
import pickle
import signal
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from carina.config import LimitSettings
from carina.dicom.voxel_limit import allowed_voxels
from carina.errors import BadConfig, CarinaError, ModelFailed, kind_and_place, one_line, raised_by, unwritable
from carina.operators.apart_process import (
    ANSWER_FILE,
    SAID_FILE,
    OperatorAnswer,
    OperatorCall,
    Utterance,
    error_of,
    output_folder,
    with_words_of,
)
from carina.operators.ports import SourcePort
from carina.operators.programs import Over, Program, ProgramBounds, last_lines, run_program, why_over
from carina.pipeline import ports
from carina.pipeline.folder import WRITING
from carina.pipeline.graph import Node
from carina.pipeline.guarded import ENDED_BY_SIGNAL
from carina.pipeline.json_text import read_json
from carina.pipeline.operator import Context, Operator, Port, holds
from carina.pipeline.places import below, trace_name
from carina.pipeline.table import OperatorTable
from carina.pipeline.trees import remove_tree
from carina.pipeline.values import Files
from carina.sections import OperatorSettings

START = "from carina.operators.apart_process import answer_call; answer_call()"

LARGEST_ANSWER_BYTES = 16_000_000
MOST_HEARD_BYTES = 32_000_000
"""What is read of a call's answer, and of what the operator says meanwhile; the run's manifest takes less."""

RUN_KEY, STEP_KEY = "of-the-run", "of-the-step"
"""Keywords that no parameter of an operator has."""


def with_packages_apart(table: OperatorTable, settings: OperatorSettings) -> OperatorTable:
    """The table, its operators of installed packages being run apart."""
    return replace(table, operators=tuple(apart(one, settings) for one in table.operators))


def apart(operator: Operator, settings: OperatorSettings) -> Operator:
    """An operator of an installed package as one that runs in a process of its own; any other is left as it is."""
    if not operator.entry:
        return operator
    same = {one.name: getattr(operator, one.name) for one in fields(Operator)}
    return ApartOperator(**same | {"function": Apart(operator, settings).run}, inner=operator)


@dataclass(frozen=True, kw_only=True, eq=False)
class ApartOperator(Operator):
    """An operator whose function runs ``inner`` in a process of its own; all else is as ``inner`` has it."""

    inner: Operator

    @property
    def is_apart(self) -> bool:
        """Always."""
        return True

    @property
    def is_built_in(self) -> bool:
        """Never: it is of a package."""
        return False

    @property
    def summary(self) -> str:
        """That of the operator."""
        return self.inner.summary

    @cached_property
    def code_sha256(self) -> str:
        """A hash of the package's module."""
        return self.inner.code_sha256

    @cached_property
    def input_ports(self) -> dict[str, Port]:
        """Those of the operator."""
        return self.inner.input_ports

    @cached_property
    def output_ports(self) -> dict[str, Port]:
        """Those of the operator."""
        return self.inner.output_ports

    @cached_property
    def keywords(self) -> dict[str, Any]:
        """Those of the operator."""
        return self.inner.keywords

    @cached_property
    def injected(self) -> dict[str, Any]:
        """The operator's services, and what its process is told of the run."""
        services = {name: wanted for name, wanted in self.inner.injected.items() if wanted is not Context}
        return {**services, RUN_KEY: Context, STEP_KEY: Node}

    def results(self, returned: object) -> dict[str, object]:
        """The function gives its outputs by path."""
        return dict(returned) if isinstance(returned, Mapping) else {}


@dataclass(frozen=True)
class Apart:
    """Runs an operator of an installed package in a process of its own."""

    operator: Operator
    settings: OperatorSettings

    def run(self, **values: Any) -> Mapping[str, Files]:
        """Run it; what it left at its outputs.

        Raises:
            BadConfig: ``operator.time``, it took too long; ``operator.output-size``, it wrote too much;
                ``operator.failed``, it said too much; ``operator.arguments``, an argument can't leave this process.
            ModelFailed: ``operator.raised``, ``operator.died`` or ``operator.output``: its makers must act.
            CarinaError: whatever it raises on purpose.
        """
        context, node = values.pop(RUN_KEY), values.pop(STEP_KEY)
        work = Path(mkdtemp(prefix=f"{context.step}.", dir=context.folder / WRITING)).resolve()
        is_done = False
        try:
            asked, told = self._asked(work, context, node, values), node.operator.told_in(node.name)
            taken = self._taken(asked, self._answer(asked, context, told), told)
            is_done = True
            return taken
        except OSError as error:
            raise unwritable(error, work) from error
        finally:
            for part in [work / ANSWER_FILE, work / SAID_FILE, *work.glob("in-*")] if is_done else [work]:
                remove_tree(part)
                with suppress(OSError):
                    part.unlink()

    def _asked(self, work: Path, context: Context, node: Node, values: dict[str, Any]) -> OperatorCall:
        files = {}
        for number, port in enumerate(self.operator.input_ports.values()):
            if port.key in values and not holds(SourcePort, values[port.key]):
                value = values.pop(port.key)
                stored = context.saved(value)
                if not stored and not isinstance(value, Files):
                    stored = ports.save_value(port.type, value, work / f"in-{number}")
                files[port.key] = tuple(path.absolute() for path in stored)
        try:
            pickled = pickle.dumps(values)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            words = f"{node.operator.told_in(node.name)}: what it is set to can't be handed to a process of its own"
            raise BadConfig("operator.arguments", f"{words} ({kind_and_place(error)}): use plain values.") from error
        return OperatorCall(
            entry=self.operator.entry,
            package=self.operator.package,
            step=node.step,
            wires=node.wires,
            files=files,
            values=pickled,
            folder=context.folder,
            work=work,
            when=context.when,
            limits=LimitSettings(voxels=allowed_voxels()),
        )

    def _answer(self, asked: OperatorCall, context: Context, told: str) -> OperatorAnswer:
        """Run the process of a call to its end."""
        paths = [path or str(Path.cwd()) for path in sys.path]
        most = 1e9 * self.settings.output_gb
        bounds = ProgramBounds(time_s=self.settings.time_s, writes_to=context.folder, output_bytes=most)
        program = Program(
            words=[sys.executable, "-P", "-c", START],
            environment={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"},
            folder=Path.cwd(),
            bounds=bounds,
            fed=pickle.dumps(asked),
        )
        log = below(context.folder, f"steps/{context.step}.log")
        log.parent.mkdir(exist_ok=True)
        heard = _Heard(asked.work / SAID_FILE, context)
        try:
            ended = run_program(program, log, heard.look)
            heard.take()
        finally:
            _keep(log, context)
        if isinstance(ended, Over):
            raise why_over(ended, told, self.settings, log)
        answer = _read(asked.work / ANSWER_FILE)
        if answer is None:
            raise _died(told, ended, log)
        return answer

    def _taken(self, asked: OperatorCall, answer: OperatorAnswer, told: str) -> Mapping[str, Files]:
        """The outputs of an answer, each a file of its own in its folder."""
        if failed := answer.failed:
            if failed.kind:
                raise error_of(failed)
            raise with_words_of(
                failed, raised_by(told, one_line(failed.what), asked.folder / trace_name(asked.step.name))
            )
        if set(answer.outputs) != set(self.operator.outputs):
            raise ModelFailed("operator.output", f"{told} gave other outputs than it declares.")
        folders = {path: output_folder(asked.work, number) for number, path in enumerate(self.operator.outputs)}
        for path, names in answer.outputs.items():
            _check_files(folders[path], names, f"{told} {path}")
        return {path: Files(folder=folders[path], names=tuple(names)) for path, names in answer.outputs.items()}


def _check_files(folder: Path, names: list[str], told: str) -> None:
    for name in names:
        try:
            is_file = stat.S_ISREG(below(folder, name).lstat().st_mode)
        except (BadConfig, OSError):
            is_file = False
        if not is_file:
            raise ModelFailed("operator.output", f"{told}: {one_line(name)} is no file in its output's folder.")


def _read(file: Path) -> OperatorAnswer | None:
    """The answer of a call; None where there is none, or none that can be read."""
    with suppress(OSError, ValueError), file.open("rb") as opened:
        answer: OperatorAnswer = read_json(opened.read(LARGEST_ANSWER_BYTES), OperatorAnswer)
        return answer
    return None


def _keep(log: Path, context: Context) -> None:
    """Keep the log where something was said."""
    if log.stat().st_size:
        context.record("files", [f"steps/{log.name}"])
    else:
        log.unlink()
        with suppress(OSError):  # other steps have something there
            log.parent.rmdir()


def _died(told: str, code: int, log: Path) -> CarinaError:
    """The error where a process ended without an answer."""
    how, is_signal = f"with exit code {code}", False
    with suppress(ValueError):
        number = signal.Signals(-code if code < 0 else code - ENDED_BY_SIGNAL)
        how, is_signal = f"by {number.name}{', as where memory runs out' if number is signal.SIGKILL else ''}", True
    seen = f"; {log} has all it said" if log.exists() else ""
    words = f"{told} ended its process {how}, which is no fault of Carina's: please report it to its makers"
    failure = ModelFailed("operator.died", f"{words}{seen}.")
    failure.said = one_line(last_lines(log)) if log.exists() and not is_signal else ""
    return failure


class _Heard:
    """What an operator says while it runs, handed on to the run."""

    def __init__(self, file: Path, context: Context) -> None:
        self._file, self._context = file, context
        self._at, self._fraction = 0, 0.0

    def look(self) -> None:
        """Hand on what was said since, and ask the run whether it is interrupted."""
        self.take()
        self._context.progress(self._fraction)

    def take(self) -> None:
        """Hand on what was said since; what is no sentence of ours says nothing."""
        with suppress(OSError), self._file.open("rb") as file:
            file.seek(self._at)
            lines = file.read(max(0, MOST_HEARD_BYTES - self._at)).splitlines(keepends=True)
            for line in lines:
                if line.endswith(b"\n"):
                    self._at += len(line)
                    with suppress(ValueError):
                        self._hear(read_json(line, Utterance))

    def _hear(self, said: Utterance) -> None:
        if said.fraction is not None:
            self._fraction = said.fraction
        if said.warning:
            self._context.warn(said.warning)
        if said.key:
            self._context.record(said.key, said.fact)
