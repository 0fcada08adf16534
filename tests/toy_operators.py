"""Toy operators for tests of the engine: boxes with whole numbers, wired into a diamond."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from carina.errors import BadSeries
from carina.pipeline import Context, Operator, OperatorTable, Setting
from carina.pipeline.definition import Definition, parse_definition
from carina.pipeline.ports import Saved
from carina.pipeline.run import RunOptions, RunResult, run_pipeline


@dataclass(frozen=True, eq=False)
class Box:
    """A value that can be watched by a weak reference."""

    content: int

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        path = folder / "box.txt"
        path.write_text(str(self.content))
        return [path]

    @classmethod
    def load(cls, files: Sequence[Path]) -> Box:
        LOADED.append(files[0].parent.name)
        return Box(int(files[0].read_text()))

    @classmethod
    def recognise(cls, files: Sequence[Path]) -> bool:
        return files[0].name == "box.txt"


LOADED: list[str] = []


class Split(NamedTuple):
    half: int
    text: str


@dataclass(frozen=True)
class Greeting:
    words: str


class Bench:
    """A table of toy operators that count their calls; ``fail`` names those that must fail, ``raising`` with what.

    ``watches`` has ``add`` say how many boxes are alive: all garbage of a process of tests is a second's work.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.watches = False
        self.fail: set[str] = set()
        self.raising: dict[str, BaseException] = {}
        self.barrier = threading.Barrier(2, timeout=5)
        self.boxes: list[weakref.ref[Box]] = []

        def box(number: int, *, context: Context) -> Box:
            """Put a number in a box."""
            self._call(context)
            made = Box(number)
            self.boxes.append(weakref.ref(made))
            return made

        def double(box: Box, *, context: Context, times: int = 2) -> Box:
            self._call(context)
            return Box(box.content * times)

        def meet(box: Box, *, context: Context) -> Box:
            self._call(context)
            self.barrier.wait()
            return Box(box.content + 1)

        def add(left: Box, right: Box | None = None, *, context: Context) -> Box:
            self._call(context)
            context.saved(left)  # stored after every box before it, whose storing keeps it alive
            if self.watches:
                gc.collect()
                context.record("alive", sum(ref() is not None for ref in self.boxes))
            context.warn("added")
            return Box(left.content + (right.content if right else 0))

        def split(box: Box, *, greeting: Greeting, context: Context) -> Split:
            self._call(context)
            context.progress(0.5)
            return Split(half=box.content // 2, text=greeting.words)

        def sink(box: Box, *, context: Context) -> None:
            self._call(context)
            context.record("files", [path.name for path in context.saved(box)])

        times = Setting(parameter="times", read=int)
        one = {"/output": ""}
        self.table = OperatorTable.of(
            *(
                Operator(name="box", images=("toy/box",), function=box, inputs={"/input": "number"}, outputs=one),
                Operator(
                    name="double",
                    images=("toy/double",),
                    function=double,
                    inputs={"/input": "box"},
                    outputs=one,
                    variables={"TIMES": times},
                    options={"--times": times},
                ),
                Operator(name="meet", images=("toy/meet",), function=meet, inputs={"/input": "box"}, outputs=one),
                Operator(
                    name="add",
                    images=("toy/add",),
                    function=add,
                    inputs={"/left": "left", "/right": "right"},
                    outputs=one,
                    places={"/output": "sum"},
                ),
                Operator(
                    name="split",
                    images=("toy/split",),
                    function=split,
                    inputs={"/input": "box"},
                    outputs={"/half": "half", "/text": "text"},
                ),
                Operator(name="sink", images=("toy/sink",), function=sink, inputs={"/input": "box"}),
            )
        )

    def _call(self, context: Context) -> None:
        self.calls.append(context.step)
        if context.step in self.raising:
            raise self.raising[context.step]
        if context.step in self.fail:
            raise BadSeries("toy.failed", f"{context.step} can't go on")


def step(name: str, image: str, inputs: str, outputs: str = "[{path: /output}]", more: str = "") -> str:
    extra = f", {more}" if more else ""
    return f"- {{name: {name}, container: {{image: toy/{image}{extra}}}, input: {inputs}, output: {outputs}}}\n"


def definition(*steps: str) -> Definition:
    return parse_definition("api-version: 0.4.0\nname: toy\noperators:\n" + "".join(steps), "toy.yaml")


DIAMOND = (
    step("first", "box", "[{path: /input}]"),
    step("left", "double", "[{from: first, path: /input}]", more="variables: {TIMES: '3'}"),
    step("right", "double", "[{from: first, path: /input}]", more="command: [python, toy.py, --times, '5']"),
    step("sum", "add", "[{from: left, path: /left}, {from: right, path: /right}]"),
)


def run(bench: Bench, wanted: Definition, out: Path, **options: Any) -> RunResult:
    services = (Greeting("hello"),)
    return run_pipeline(
        wanted, bench.table, inputs={"input": 7}, out=out, services=services, options=RunOptions(**options)
    )
