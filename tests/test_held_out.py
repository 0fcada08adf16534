"""What is kept out of training is refused by it, each use of it is counted, and what was used again is no test set."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carina.cases.datalist import read_datalist
from carina.cases.held_out import held_out, held_out_in, is_held_out, kept_for_tests

NAMES = [one.name for one in held_out()]


def listed(folder: Path, part: str, **case: str) -> Path:
    file = folder / "list.json"
    file.write_text(json.dumps({"training": [], "validation": [], part: [{"image": "a.nii.gz", **case}]}))
    return file


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("name", NAMES)
def test_a_list_with_one_of_them_is_refused_by_file_name_and_by_patient(name: str, part: str, tmp_path: Path) -> None:
    for case in ({"image": f"somewhere/{name}_ct.nii.gz"}, {"image": f"{name}.mhd"}, {"patient": name}):
        (problem,) = held_out_in(read_datalist(listed(tmp_path, part, **case)))
        assert f"{part} case 1 is '{name}" in problem and "kept out of training (held_out.json)" in problem


def test_others_are_taken(tmp_path: Path) -> None:
    assert not list(held_out_in(read_datalist(listed(tmp_path, "training", patient="lidc-0001"))))
    assert not is_held_out("lctsc-s1-1011") and not is_held_out("acrin-flt-001-abdomen_ct")


@given(st.sampled_from(NAMES), st.text(alphabet="abc019", min_size=1, max_size=3))
def test_a_longer_name_is_somebody_else(name: str, more: str) -> None:
    assert not is_held_out(name + more) and is_held_out(f"{name}_{more}")


@pytest.fixture
def script() -> ModuleType:
    file = Path(__file__).parents[1] / "scripts" / "held_out.py"
    spec = importlib.util.spec_from_file_location("held_out_script", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_use_is_a_line_before_the_command_runs(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.csv"
    monkeypatch.setattr(script.count_use, "__defaults__", (log,))
    command = [sys.executable, "-c", f"import sys; sys.exit(len(open({str(log)!r}).readlines()))"]
    assert script.main(["use", *NAMES[:2], "--why", "lungs", "--", *command]) == 3, "a head and two lines were there"
    script.main(["use", NAMES[0], "--why", "again", "--", *command])
    assert script.uses(log) == {NAMES[0]: 2, NAMES[1]: 1}


def test_what_was_used_more_than_once_is_not_kept_for_tests(script: ModuleType) -> None:
    counted = script.uses()
    assert [one.name for one in kept_for_tests() if counted[one.name] > 1] == []
    assert {one.name for one in kept_for_tests()} <= set(NAMES) and counted["lctsc-s1-101"] > 1


def test_the_list_says_what_each_is_for(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all("for development, used " in line for line in lines)
    assert last == "Nothing is kept for tests: no figure comes from a set that was left untouched."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["use", "lidc-0001", "--why", "x", "--", "true"], "not kept out of training: lidc-0001; known are lctsc"),
        (["use", "lctsc-s1-201", "--why", " ", "--", "true"], "--why is empty"),
        (["use", "lctsc-s1-201", "--why", "x"], "no command after --"),
    ],
)
def test_a_use_needs_a_name_a_reason_and_a_command(
    words: list[str], said: str, script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.main(words)
    assert said in capsys.readouterr().err
