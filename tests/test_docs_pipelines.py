"""Every example of docs/pipelines.md does what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import yaml

from called import called
from carina.config import load_settings
from carina.operators.catalogue import find_definition
from carina.operators.table import BUILT_IN
from carina.pipeline import Operator, Table, ports
from carina.pipeline.check import check_text
from carina.pipeline.manifest import FORMAT, Manifest, OperatorRecord
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from tiny_networks import tiny_environment

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def test_every_block_says_its_language_and_has_its_test() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "yaml", "json", "python", "toml"}
    counts = {kind: len(blocks(kind)) for kind in ("sh", "yaml", "json", "python", "toml")}
    assert counts == {"sh": 4, "yaml": 5, "json": 1, "python": 2, "toml": 2}


def example() -> dict[str, Any]:
    """The names that the page's module defines."""
    names: dict[str, Any] = {"__name__": "example_of_the_page"}
    exec(compile(blocks("python")[0], "docs/pipelines.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def operator() -> Operator:
    operator = example()["OPERATOR"]
    assert isinstance(operator, Operator)
    return operator


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_definition_of_the_page_has_no_mistake(number: int, operator: Operator) -> None:
    text = blocks("yaml")[number]
    assert text.startswith("api-version: ")
    assert check_text(text, "page.yaml", BUILT_IN.with_all(operator)) == []


def test_a_step_of_the_page_fits_the_default_definition() -> None:
    definition = yaml.safe_load(find_definition("default").read_text(encoding="utf-8"))
    (changed,) = yaml.safe_load(blocks("yaml")[1])
    steps = {step["name"]: step for step in definition["operators"]}
    steps[changed["name"]].update(changed)
    assert check_text(yaml.safe_dump(definition), "changed.yaml", BUILT_IN) == []


def test_the_step_and_the_commands_of_somebody_elses_operator_are_those_of_the_example(tmp_path: Path) -> None:
    file = ROOT / "examples" / "lung-profile" / "lung-profile.yaml"
    (step,) = yaml.safe_load(blocks("yaml")[3])
    assert step in yaml.safe_load(file.read_text(encoding="utf-8"))["operators"]
    assert set(re.findall(r"examples/\S+", blocks("sh")[2])) == {
        "examples/lung-profile",
        "examples/lung-profile/lung-profile.yaml",
    }
    (tmp_path / "carina.toml").write_text(blocks("toml")[1], encoding="utf-8")
    operators = load_settings(tmp_path / "carina.toml", {}).operators
    assert [ROOT / trusted for trusted in operators.trusted] == [file]


def test_the_manifest_of_the_page_is_one() -> None:
    text = blocks("json")[0]
    manifest = msgspec.json.decode(text, type=Manifest)
    assert manifest.format == FORMAT
    shown = msgspec.json.decode(text)
    assert set(shown) == set(Manifest.__struct_fields__)
    assert set(shown["operators"]["dicom-reader"]) == set(OperatorRecord.__struct_fields__)


def test_the_entry_point_of_the_page_is_that_of_the_example() -> None:
    project = (ROOT / "examples" / "emphysema-operator" / "pyproject.toml").read_text(encoding="utf-8")
    assert blocks("toml")[0] in project


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=1).volume, folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny_environment(tmp_path_factory.mktemp("bundles"))


def shell(text: str, folder: Path, study: Path, tiny: dict[str, str]) -> str:
    """Run commands as somebody types them."""
    carina = f'carina() {{ "{sys.executable}" -m carina.cli.main "$@"; }}\n'
    script = carina + text.replace("STUDY", str(study))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **tiny}
    words = ["bash", "-e", "-c", script]
    ended = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_commands_at_the_top_work(study: Path, tiny: dict[str, str], tmp_path: Path) -> None:
    said = shell(blocks("sh")[0], tmp_path, study, tiny)
    assert " between them, no mistakes" in said and "clara/dicom-seg-writer" in said
    shipped = find_definition("default").read_text(encoding="utf-8")
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == shipped
    assert len(list((tmp_path / "RUN" / "dicom").glob("*.dcm"))) == 5


def test_the_operators_of_the_page_run_one_by_one(study: Path, tiny: dict[str, str], tmp_path: Path) -> None:
    with patch.dict(os.environ, tiny):
        for line in blocks("sh")[1].replace("STUDY", str(study)).splitlines():
            program, *words = shlex.split(line)
            ended = called(*words, folder=tmp_path)
            assert (program, ended.returncode) == ("carina", 0), ended.stderr
    assert (tmp_path / "seg" / "lung-seg.dcm").read_bytes() == (tmp_path / "sent/PACS/lung-seg.dcm").read_bytes()


def test_the_operator_of_the_page_runs_from_python(
    study: Path, tiny: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in tiny.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emphysema.yaml").write_text(blocks("yaml")[2])
    exec(compile(blocks("python")[1].replace("STUDY", str(study)), "docs/pipelines.md", "exec"), example())
    table = ports.load_folder(Table, tmp_path / "RUN" / "steps" / "emphysema")
    assert table.rows[0]["region"] == "lungs" and 0 <= table.rows[0]["emphysema_percent"] <= 100


def test_the_page_lists_every_operator_with_its_ports() -> None:
    rows = re.findall(r"^\| `(?:carina/)?([\w-]+)` \| (.*) \| (.*) \|$", PAGE, flags=re.MULTILINE)
    told = {name: tuple(set(re.findall(r"`(/\w+)`", cell)) for cell in cells) for name, *cells in rows}
    known = {one.name: (set(one.input_ports), set(one.output_ports)) for one in BUILT_IN.operators}
    assert told == known
