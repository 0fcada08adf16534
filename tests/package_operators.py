"""A package of operators of every bad kind, which a pipeline of one or two steps runs in processes of their own."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from carina.operators.apart import apart
from carina.operators.table import NO_OPERATORS
from carina.pipeline.manifest import FailureRecord, read_manifest
from carina.pipeline.run import RunResult, run_pipeline
from carina.sections import OperatorSettings
from toy_operators import definition, step

PACKAGE = '''
import ctypes, os, signal, sys, threading, time
from carina.config import Settings
from carina.errors import BadSeries
from carina.pipeline import Context, Json, Operator, Setting

LEAVES = """
import os, signal, sys, time
for number in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(PLACE + str(number), "w").write(str(os.getpid()))
        while True:
            os.write(1, b"x" * 1000)
            time.sleep(0.01)
"""

class Own:
    """A type of the package's, whose files only it can read."""

    def __init__(self, text):
        self.text = text

    def save(self, folder, saved):
        (folder / "own.bin").write_bytes(self.text.encode()[::-1])
        return [folder / "own.bin"]

    @classmethod
    def load(cls, files):
        return cls(files[0].read_bytes()[::-1].decode())

    @classmethod
    def recognise(cls, files):
        return True

def act(number: int, *, how: str = "", context: Context, settings: Settings | None = None) -> Json:
    """Do what is asked."""
    context.warn(f"{how} began")
    exec(how)
    context.record("pid", os.getpid())
    context.progress(0.5)
    return Json(value={"number": number, "stored": [path.name for path in context.saved(number)]})

def give(number: int) -> Own:
    """Give the package's own type."""
    return Own(str(number))

def take(own: Own) -> Json:
    """Take it."""
    return Json(value=own.text)

ACT = Operator(name="act", images=("toy/act",), function=act, inputs={"/input": "number"}, outputs={"/output": ""},
               variables={"HOW": Setting(parameter="how")})
GIVE = Operator(name="give", images=("toy/give",), function=give, inputs={"/input": "number"}, outputs={"/output": ""})
TAKE = Operator(name="take", images=("toy/take",), function=take, inputs={"/input": "own"}, outputs={"/output": ""})
'''


class Package:
    """The package, importable, and a run of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "bad_package.py").write_text(PACKAGE)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "bad_package", raising=False)
        self.module = importlib.import_module("bad_package")
        self.folder = folder
        self.out = folder / "run"

    def act(self, how: str = "", *, services: tuple[object, ...] = (), **settings: float) -> RunResult:
        """Let the operator ``act`` do it."""
        variables = f"variables: {{HOW: {json.dumps(how)}}}"
        return self.run(step("bad", "act", "[{path: /input}]", more=variables), services, **settings)

    def run(self, steps: str, services: tuple[object, ...] = (), **settings: float) -> RunResult:
        """Run some steps on the number 7."""
        limits = OperatorSettings(**settings)  # type: ignore[arg-type]
        operators = [
            apart(replace(getattr(self.module, name), package="bad 1.0", entry=f"bad_package:{name}"), limits)
            for name in ("ACT", "GIVE", "TAKE")
        ]
        table = NO_OPERATORS.with_all(*operators)
        return run_pipeline(definition(steps), table, inputs={"input": 7}, out=self.out, services=services)

    @property
    def failure(self) -> FailureRecord:
        """What the manifest says of the one step."""
        manifest = read_manifest(self.out)
        assert manifest is not None
        failure = manifest.operators["bad"].error
        assert failure is not None
        return failure

    @property
    def everything_said(self) -> str:
        """The manifest's text."""
        return (self.out / "manifest.json").read_text()
