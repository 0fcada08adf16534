"""``scripts/mutants``: its list fits the tree, and it tells a mutant that survives from one that is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from runpy import run_path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "mutants.py"

TOY_TEST = """
from toy import largest


def test_of_two():
    assert largest(2, 1) == 2
"""

TOY_LIST = """
[[mutant]]
breaks = "the smallest is given"
file = "src/toy.py"
old = "a if a > b else b"
new = "b if a > b else a"
tests = ["tests/test_toy.py::test_of_two"]

[[mutant]]
breaks = "the second is forgotten"
file = "src/toy.py"
old = "a if a > b else b"
new = "a"
tests = ["tests/test_toy.py::test_of_two"]
"""


def toy(folder: Path, *, source: str = "def largest(a, b):\n    return a if a > b else b\n") -> Path:
    for name, text in (("src/toy.py", source), ("tests/test_toy.py", TOY_TEST), ("scripts/mutants.toml", TOY_LIST)):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    return folder


def mutants(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--tree", str(tree), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_mutant_fits_the_tree() -> None:
    script = run_path(str(SCRIPT))
    known = script["read_mutants"](ROOT).mutants
    misfits: Callable[..., list[str]] = script["misfits"]
    assert len(known) >= 60
    assert misfits(ROOT, known) == []
    changes = [(one.file, one.old, one.new) for one in known]
    assert len(set(changes)) == len(changes)


def test_a_survivor_is_named_and_the_tree_left_alone(tmp_path: Path) -> None:
    tree = toy(tmp_path)
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    done = mutants(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1/2 killed" in done.stdout
    assert "2/2 SURVIVES" in done.stdout
    assert done.stdout.splitlines()[-1] == "the second is forgotten (src/toy.py): its tests pass"
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


def test_killed_mutants_end_with_0_and_a_list_is_only_read(tmp_path: Path) -> None:
    tree = toy(tmp_path)
    done = mutants(tree, "--only", "smallest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 mutants, 0 survivors" in done.stdout
    assert mutants(tree, "--list").stdout.splitlines() == [
        "src/toy.py: the smallest is given",
        "src/toy.py: the second is forgotten",
    ]


def test_an_entry_that_fits_no_more_is_an_error(tmp_path: Path) -> None:
    done = mutants(toy(tmp_path, source="def largest(a, b):\n    return max(a, b)\n"))
    assert done.returncode == 1
    assert "the smallest is given: src/toy.py holds its old text 0 times, expected once" in done.stdout


def test_tests_that_fail_anyway_kill_nothing(tmp_path: Path) -> None:
    tree = toy(tmp_path, source="def largest(a, b):\n    return (a if a > b else b) + 1\n")
    done = mutants(tree)
    assert done.returncode == 1
    assert "the tests do not pass without any mutant" in done.stdout
