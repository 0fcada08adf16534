"""Deliberate faults, one by one in a copy of the tree: each must turn a test red.

Usage: scripts/mutants [--only WORDS] [--list] [--tree FOLDER]

The list is `scripts/mutants.toml` of the tree: a file, a text that occurs in it once, what is put in its place, the
tests that must see it, and what breaks. First those tests run on the unchanged copy and must pass, so that a mutant is
not taken for killed by a test that fails anyway. Each run is a process forked from this one, which has the libraries
loaded. Exit code 1 where a mutant survives, an entry does not fit the tree, or a test fails unchanged.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import shutil
import signal
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIST = Path("scripts") / "mutants.toml"
DATA = "CARINA_TEST_DATA"

LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "venv", "__pycache__", ".*_cache", ".hypothesis", "shared", "site", "build", "dist"
)

PATIENCE_S = 600
"""A mutant whose tests take longer is not killed: a test that hangs tells nobody what is wrong."""

FAILED = 1
"""What pytest ends with where tests ran and one failed; other codes say that they could not run."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One fault: in ``file`` the text ``old`` becomes ``new``; one of ``tests`` (node ids) must fail then."""

    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MutantList:
    """The mutants of a tree, and the libraries to load once, before any of them is tried."""

    mutants: tuple[Mutant, ...]
    preload: tuple[str, ...] = ()


def read_mutants(tree: Path) -> MutantList:
    """The list of a tree."""
    content = tomllib.loads((tree / LIST).read_text(encoding="utf-8"))
    mutants = tuple(Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in content["mutant"])
    return MutantList(mutants=mutants, preload=tuple(content.get("preload", ())))


def misfits(tree: Path, mutants: Sequence[Mutant]) -> list[str]:
    """What keeps entries from meaning what they say, a line each: a text that is not there once, an absent test."""
    return [f"{mutant.breaks}: {words}" for mutant in mutants for words in _misfits(tree, mutant)]


def _misfits(tree: Path, mutant: Mutant) -> Iterator[str]:
    path = tree / mutant.file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    count = text.count(mutant.old)
    if count != 1:
        yield f"{mutant.file} holds its old text {count} times, expected once"
    elif path.suffix == ".py" and not _is_python(text.replace(mutant.old, mutant.new)):
        yield f"{mutant.file} is no Python with its new text"
    if mutant.old == mutant.new or not mutant.tests:
        yield "it changes nothing, or names no test"
    yield from (f"there is no test {test}" for test in mutant.tests if not _is_there(tree, test))


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _is_there(tree: Path, test: str) -> bool:
    name, _, function = test.partition("::")
    path = tree / name
    return path.is_file() and f"def {function.partition('[')[0]}(" in path.read_text(encoding="utf-8")


def run_tests(copy: Path, tests: Sequence[str], *, at_first: bool) -> tuple[int | None, str]:
    """Run tests in a copy of a tree, in a forked process: pytest's exit code (None: it took too long) and output."""
    output = copy / "mutants-output.txt"
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _become_pytest(copy, tests, output, at_first=at_first)
    code = _ended(child)
    return code, output.read_text(encoding="utf-8", errors="replace")


def _become_pytest(copy: Path, tests: Sequence[str], output: Path, *, at_first: bool) -> None:
    """What the forked process does; it never comes back."""
    code = 70
    try:
        os.setsid()
        with output.open("w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(copy)
        source = str(copy / "src")
        os.environ["PYTHONPATH"] = source
        sys.path.insert(0, source)
        options = ["-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", *(["-x"] if at_first else [])]
        code = int(pytest.main([*options, *tests]))
        sys.stdout.flush()
    finally:
        os._exit(code)


def _ended(child: int) -> int | None:
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE_S:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def put(path: Path, text: str) -> None:
    """Write a source file and forget what was compiled of it: two texts may have one size and one time."""
    path.write_text(text, encoding="utf-8")
    if path.suffix == ".py":
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def survives(copy: Path, mutant: Mutant) -> str:
    """Why a mutant is not killed; empty where it is."""
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    put(path, text.replace(mutant.old, mutant.new))
    try:
        code, output = run_tests(copy, mutant.tests, at_first=True)
    finally:
        put(path, text)
    if code == FAILED:
        return ""
    if code is None:
        return f"its tests did not end within {PATIENCE_S} s"
    return "its tests pass" if code == 0 else f"its tests could not run (pytest ended with {code}):\n{output[-2000:]}"


def try_all(tree: Path, mutants: Sequence[Mutant]) -> list[str]:
    """Try mutants in a copy of a tree; the survivors, a line each. The tree itself is only read."""
    os.environ.setdefault(DATA, str(tree.parent / "shared" / "data"))
    with TemporaryDirectory(prefix="carina-mutants-") as name:
        copy = Path(name) / "tree"
        shutil.copytree(tree, copy, ignore=LEFT_OUT)
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        started = time.monotonic()
        code, output = run_tests(copy, tests, at_first=False)
        if code != 0:
            return [f"the tests do not pass without any mutant (pytest ended with {code}):\n{output[-4000:]}"]
        print(f"{len(tests)} tests pass unchanged, {time.monotonic() - started:.0f} s", flush=True)
        found = []
        for number, mutant in enumerate(mutants, 1):
            started = time.monotonic()
            why = survives(copy, mutant)
            seconds = time.monotonic() - started
            told = "SURVIVES" if why else "killed"
            print(f"{number}/{len(mutants)} {told} {seconds:.0f} s: {mutant.breaks} ({mutant.file})", flush=True)
            found += [f"{mutant.breaks} ({mutant.file}): {why}"] if why else []
        return found


def main() -> int:
    """Try the list and say what survives."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", metavar="WORDS", help="only mutants whose file or words hold this text")
    parser.add_argument("--list", action="store_true", help="say which there are, and try none")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the tree to copy (default: this one)")
    given = parser.parse_args()
    tree = given.tree.resolve()
    known = read_mutants(tree)
    mutants = [one for one in known.mutants if given.only.lower() in f"{one.file} {one.breaks}".lower()]
    if given.list:
        print("\n".join(f"{mutant.file}: {mutant.breaks}" for mutant in mutants))
        return 0
    faults = misfits(tree, mutants) if mutants else [f"no mutant holds {given.only!r}"]
    if not faults:
        faults = _timed(tree, mutants, known.preload)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def _timed(tree: Path, mutants: Sequence[Mutant], preload: Sequence[str]) -> list[str]:
    started = time.monotonic()
    for library in preload:
        importlib.import_module(library)
    faults = try_all(tree, mutants)
    print(f"{len(mutants)} mutants, {len(faults)} survivors or faults, {time.monotonic() - started:.0f} s")
    return faults


if __name__ == "__main__":
    sys.exit(main())
