"""The process of one call of an operator of an installed package: it reads what is asked, runs it, and answers.

What is asked comes pickled on the standard input, from the process that runs the pipeline. The answer is a file of
JSON, and so is, line by line, what the operator says meanwhile: whatever a stranger's code leaves there can be read.
"""

from __future__ import annotations

import datetime as dt
import faulthandler
import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec

from carina.config import LimitSettings
from carina.dicom.voxel_limit import allow_voxels
from carina.errors import CarinaError, WrongType, kind_and_place, told, with_traces
from carina.operators.placed import misplaced
from carina.pipeline import ports
from carina.pipeline.call import call_operator, is_to_blame, read_output
from carina.pipeline.definition import Step
from carina.pipeline.graph import Node, Wire
from carina.pipeline.json_text import as_json
from carina.pipeline.operator import Context, Operator
from carina.pipeline.plugins import GROUP

ANSWER_FILE, SAID_FILE = "answer.json", "said.jsonl"
"""Files in the call's working folder."""

FIRST_TO_GO = "1000"
"""Where memory runs out, Linux ends this process, and what it starts, before any other (proc(5), oom_score_adj)."""


@dataclass(frozen=True, kw_only=True)
class OperatorCall:
    """A call: ``files`` are those of its inputs by parameter, ``values`` the other arguments, pickled.

    Its values are unpickled in reach of whatever tells errors, since that runs the package's code.
    """

    entry: str
    package: str
    step: Step
    wires: Mapping[str, Wire]
    files: Mapping[str, tuple[Path, ...]]
    values: bytes
    folder: Path
    work: Path
    when: dt.datetime
    limits: LimitSettings


class Utterance(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an operator says while it runs: how far it is, a warning, or a fact under a key."""

    fraction: float | None = None
    warning: str = ""
    key: str = ""
    fact: Any = None


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """What a call ended with: an error of Carina's own ``kind``, or, without one, ``what`` its makers must act on."""

    kind: str = ""
    code: str = ""
    message: str = ""
    what: str = ""
    said: str = ""
    trace: str = ""
    places: str = ""


class OperatorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The files of each output, relative to its folder, or why there are none."""

    outputs: dict[str, list[str]] = {}
    failed: Failed | None = None


def output_folder(work: Path, number: int) -> Path:
    """Where a call's output lies, by its number among the operator's."""
    return work / f"out-{number}"


def answer_call() -> None:
    """Read, run, answer; threads that the operator left running end here."""
    asked: OperatorCall = pickle.load(sys.stdin.buffer)
    allow_voxels(asked.limits)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.enable()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    answer = as_json(_answer(asked))
    whole = asked.work / f"{ANSWER_FILE}.new"
    whole.write_bytes(answer)
    whole.replace(asked.work / ANSWER_FILE)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the operator may have closed it, or put anything in its place
            stream.flush()
    os._exit(0)


def _answer(asked: OperatorCall) -> OperatorAnswer:
    operator: Operator | None = None
    try:
        operator = _operator(asked)
        return OperatorAnswer(outputs=_outputs(asked, operator))
    except BaseException as error:  # noqa: BLE001 - the run: whatever a stranger's code raises is told where it is run
        return OperatorAnswer(failed=_failed(asked, operator, error))


def _operator(asked: OperatorCall) -> Operator:
    found = EntryPoint(name=asked.step.name, value=asked.entry, group=GROUP).load()
    if not isinstance(found, Operator):
        raise WrongType(f"{asked.entry} is a {type(found).__name__} and no operator any more")
    return replace(found, package=asked.package)


def _outputs(asked: OperatorCall, operator: Operator) -> dict[str, list[str]]:
    node = Node(step=asked.step, operator=operator, wires=asked.wires, outputs={}, settings={})
    values: dict[str, Any] = pickle.loads(asked.values)
    stored: list[tuple[object, tuple[Path, ...]]] = []
    for port in operator.input_ports.values():
        if (files := asked.files.get(port.key)) is not None:
            values[port.key] = read_output(port.type, files, asked.wires[port.key])
            stored.append((values[port.key], files))

    def saved(value: object) -> tuple[Path, ...]:
        return next((files for one, files in stored if one is value), ())

    for key, wanted in operator.injected.items():
        if wanted is Context:
            values[key] = _context(asked, saved)
    outputs = {}
    for number, (path, value) in enumerate(call_operator(node, values, {}, misplaced).items()):
        folder = output_folder(asked.work, number)
        files = ports.save_value(operator.output_ports[path].type, value, folder, saved)
        stored.append((value, files))
        outputs[path] = [file.relative_to(folder).as_posix() for file in files]
    return outputs


def _context(asked: OperatorCall, saved: ports.Saved) -> Context:
    file = os.open(asked.work / SAID_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(said: Utterance) -> None:
        os.write(file, as_json(said) + b"\n")

    return Context(
        step=asked.step.name,
        folder=asked.folder,
        when=asked.when,
        progress=lambda fraction: say(Utterance(fraction=float(fraction))),
        warn=lambda sentence: say(Utterance(warning=str(sentence))),
        record=lambda key, fact: say(Utterance(key=str(key), fact=msgspec.to_builtins(fact, str_keys=True))),
        saved=saved,
    )


def _failed(asked: OperatorCall, operator: Operator | None, error: BaseException) -> Failed:
    if not isinstance(error, Exception) or not _is_told(operator, error):
        traced = with_traces(CarinaError("", ""), error)
        return _struct(traced, what=kind_and_place(error))
    failure = told(error, (asked.folder,))
    return _struct(failure, kind=_own_kind(failure), code=failure.code, message=failure.message)


def _is_told(operator: Operator | None, error: Exception) -> bool:
    """Whether an exception is one that Carina tells, and no fault of the operator's makers."""
    return isinstance(error, CarinaError) if operator is None else not is_to_blame(operator, error)


def _own_kind(failure: CarinaError) -> str:
    """The class of ours that an error is of; a package may have made classes of its own of them."""
    return next(one.__name__ for one in type(failure).__mro__ if one.__module__ == CarinaError.__module__)


def _struct(failure: CarinaError, **more: str) -> Failed:
    said = {"said": failure.said, "trace": failure.trace, "places": failure.places}
    return Failed(**said, **more)


def _kinds(above: type[CarinaError] = CarinaError) -> Sequence[type[CarinaError]]:
    below = [one for kind in above.__subclasses__() for one in _kinds(kind)]
    return [one for one in (above, *below) if one.__module__ == CarinaError.__module__]


def error_of(failed: Failed) -> CarinaError:
    """The error of Carina's own that a call ended with; of a kind that isn't ours, one that the makers must act on."""
    kind = next((one for one in _kinds() if one.__name__ == failed.kind), CarinaError)
    return with_words_of(failed, kind(failed.code, *failed.message.split("\n")))


def with_words_of(failed: Failed, error: CarinaError) -> CarinaError:
    """The error with the traces and words of what a call ended with."""
    error.said, error.trace, error.places = failed.said, failed.trace, failed.places
    return error
