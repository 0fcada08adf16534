"""Operators of other packages, and of the caller: found, named, refused, run."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carina.api.study import RunSettings, run
from carina.errors import BadConfig
from carina.operators import MaskPort, VolumePort
from carina.operators.apart import with_packages_apart
from carina.operators.table import BUILT_IN
from carina.pipeline import Context, Operator, OperatorTable, Setting, Table, ports
from carina.pipeline.check import check_text
from carina.pipeline.manifest import read_manifest
from carina.pipeline.plugins import GROUP, with_installed
from carina.sections import OperatorSettings
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import write_ct_series
from tiny_networks import tiny_environment

ROOT = Path(__file__).resolve().parents[1]


def count(number: int, *, times: int = 1) -> int:
    """Count."""
    return number * times


def toy(name: str, **more: Any) -> Operator:
    plain = Operator(
        name=name, images=(f"toy/{name}",), function=count, inputs={"/input": "number"}, outputs={"/output": ""}
    )
    return dataclasses.replace(plain, **more)


class Opaque:
    """Something without files."""


def opaque(number: int) -> Opaque:
    """Give what can't be stored."""
    return Opaque()


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (toy("a", images=()), "images must be a tuple of at least one image name"),
        (toy("a", images="toy/a"), "images must be a tuple of at least one image name"),
        (toy("a", inputs={"/input": "ct"}), r"inputs .* don't match its function's parameters"),
        (toy("a", outputs={"/output": "mask"}), r"outputs .* don't match its result"),
        (toy("a", function=opaque), "its port /output is Opaque, which has no save, load and recognise"),
        (toy("a", variables={"X": Setting(parameter="x")}), "'X' sets 'x', which is no keyword-only parameter"),
        (toy("a", places={"/out": "x"}), "it has a place for '/out', which is no output"),
    ],
)
def test_an_operator_that_can_not_work_is_refused_before_anything_runs(operator: Operator, expected: str) -> None:
    with pytest.raises(BadConfig, match=f"^operator 'a' of Carina is left out: .*{expected}"):
        OperatorTable.of(operator)


class Site:
    """A folder of installed packages, as pip leaves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, package: str, code: str, entry: str = "OPERATOR") -> None:
        module = package.replace("-", "_")
        (self.folder / f"{module}.py").write_text(code)
        info = self.folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{package} = {module}:{entry}\n")

    @property
    def found(self) -> list[EntryPoint]:
        """The entry points of the group, of this folder alone."""
        return [one for dist in distributions(path=[str(self.folder)]) for one in dist.entry_points]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Site(tmp_path)


OPERATOR = """
from carina.pipeline import Operator
def f(number: int) -> int:
    "Count."
    return number
OPERATOR = Operator(name={name!r}, images=({image!r},), function=f, inputs={{"/i": "number"}}, outputs={{"/o": ""}})
"""


def test_installed_operators_say_their_package_and_broken_ones_disturb_nobody(site: Site) -> None:
    site.install("good-one", OPERATOR.format(name="good", image="good/one"))
    site.install("no-module", "import no_such_module")
    site.install("raises", "raise RuntimeError('no licence\\nfound')")
    site.install("exits", "raise SystemExit(3)")
    site.install("no-syntax", "def")
    site.install("lacks-it", "")
    site.install("no-operator", "OPERATOR = 3")
    site.install("no-hint", OPERATOR.format(name="h", image="h/h").replace("number: int", "number: 'Missing'"))
    site.install("odd-hint", OPERATOR.format(name="o", image="o/o").replace("number: int", "number: '1/0'"))
    table = with_packages_apart(with_installed(BUILT_IN, site.found), OperatorSettings())
    assert set(table.names) == {*BUILT_IN.names, "good"}
    assert [name for name, one in table.names.items() if one.is_apart] == ["good"]
    assert table.names["good"].package == "good-one 1.0"
    said = "\n".join(sorted(table.refused))
    expected = (
        r"exits 1.0: its operator exits:OPERATOR can't be loaded \(SystemExit: 3\).",
        r"lacks-it 1.0: .* can't be loaded \(AttributeError: .*\).",
        r"no-module 1.0: .* can't be loaded \(ModuleNotFoundError: No module named 'no_such_module'\).",
        r"no-operator 1.0: no_operator:OPERATOR is a int; expected a carina.pipeline.Operator.",
        r"no-syntax 1.0: .* can't be loaded \(SyntaxError: .*\).",
        r"odd-hint 1.0: .* can't be loaded \(ZeroDivisionError: division by zero\).",
        r"operator 'h' of no-hint 1.0 is left out: name 'Missing' is not defined.",
        r"raises 1.0: .* can't be loaded \(RuntimeError: no licence found\).",
    )
    assert re.fullmatch("\n".join(expected), said)


def test_two_operators_of_one_name_or_image_are_refused_and_both_packages_named(site: Site) -> None:
    site.install("acme", OPERATOR.format(name="a", image="same/image"))
    site.install("other", OPERATOR.format(name="b", image="same/image"))
    site.install("usurper", OPERATOR.format(name="ai-lung", image="usurper/lung"))
    site.install("fine", OPERATOR.format(name="fine", image="fine/fine"))
    table = with_installed(BUILT_IN, site.found)
    assert set(table.names) == {*BUILT_IN.names, "fine"} and table.names["ai-lung"] is BUILT_IN.names["ai-lung"]
    assert sorted(table.refused) == [
        "operator 'a' of acme 1.0 is left out: operator 'b' of other 1.0 is called 'same/image' too; "
        "uninstall one of the two.",
        "operator 'ai-lung' of usurper 1.0 is left out: operator 'ai-lung' of Carina is called 'ai-lung' too; "
        "uninstall one of the two.",
        "operator 'b' of other 1.0 is left out: operator 'a' of acme 1.0 is called 'same/image' too; "
        "uninstall one of the two.",
    ]
    text = "api-version: 0.4.0\nname: x\noperators: [{name: a, container: {image: same/image}}]"
    (problem,) = check_text(text, "x.yaml", table)
    assert problem.message.startswith("unknown image 'same/image'; `carina operator list` shows all")
    assert "operator 'a' of acme 1.0 is left out: operator 'b' of other 1.0" in problem.message


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(40, 200, 200), lesions=0, seed=3)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, built and installed by pip into a folder of its own, without network."""
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    source = shutil.copytree(ROOT / "examples" / "emphysema-operator", tmp_path_factory.mktemp("source") / "package")
    target = tmp_path_factory.mktemp("site")
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([sys.executable, "-m", "pip", *words, target, source], check=True, timeout=300)
    return target


def carina(installed: Path, *words: object) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(installed), str(ROOT / "src")])
    command = [sys.executable, "-m", "carina.cli.main", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_the_example_package_is_two_files() -> None:
    assert sorted(path.name for path in (ROOT / "examples" / "emphysema-operator").iterdir() if path.is_file()) == [
        "emphysema_operator.py",
        "pyproject.toml",
    ]


def test_an_installed_operator_is_listed_with_its_package(installed: Path) -> None:
    listed = carina(installed, "operator", "list")
    assert listed.returncode == 0, listed.stderr
    assert "emphysema: Measure the emphysema index of each lung" in listed.stdout
    assert "  package    emphysema-operator 0.1.0\n  images     example/emphysema\n" in listed.stdout


def test_an_installed_operator_runs_alone(installed: Path, phantom: Phantom, tmp_path: Path) -> None:
    ports.save_value(VolumePort, phantom.volume, tmp_path / "volume")
    ports.save_value(MaskPort, phantom.lung, tmp_path / "lung")
    inputs = ("--input", f"input={tmp_path / 'volume'}", "--input", f"label_image={tmp_path / 'lung'}")
    words = (
        "operator",
        "run",
        "emphysema",
        *inputs,
        "--output",
        f"output={tmp_path / 'out'}",
        "--set",
        "LIMIT_HU=-850",
    )
    ran = carina(installed, *words)
    assert ran.returncode == 0, ran.stderr
    (left, right) = ports.load_folder(Table, tmp_path / "out").rows
    for row, label in ((left, 1), (right, 2)):
        hu = phantom.volume.hu[phantom.lung.labels == label]
        assert row["region"] == phantom.lung.names[label] and row["limit_hu"] == -850
        assert row["emphysema_percent"] == pytest.approx(100 * np.mean(hu < -850), abs=0.001) and row["lung_ml"] > 0


DEFINITION = """
api-version: 0.4.0
name: emphysema
operators:
- name: reader
  container: {image: carina/dicom-reader}
  input: [{path: /input}]
  output: [{path: /output}]
- name: lungs
  container: {image: carina/ai-lung}
  input: [{from: reader, path: /input}]
  output: [{path: /output}]
- name: emphysema
  container: {image: IMAGE}
  input:
  - {from: reader, path: /input}
  - {from: lungs, path: /label_image}
  output: [{path: /output}]
"""


def test_an_installed_operator_works_in_a_definition(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=0).volume, tmp_path / "ct")
    file = tmp_path / "mine.yaml"
    file.write_text(DEFINITION.replace("IMAGE", "example/emphysema"))
    for name, value in tiny_environment(tmp_path / "bundles").items():
        monkeypatch.setenv(name, value)
    ran = carina(installed, "run", tmp_path / "ct", "-o", tmp_path / "run", "--pipeline", file, "--quiet")
    assert ran.returncode == 0, ran.stderr
    lines = (tmp_path / "run" / "emphysema" / "emphysema.csv").read_text().splitlines()
    assert lines[0] == '"region","lung_ml","limit_hu","emphysema_percent"'
    assert [line.split(",")[0] for line in lines[1:]] == ['"left lung"', '"right lung"']
    record = json.loads((tmp_path / "run" / "manifest.json").read_text())["operators"]["emphysema"]
    assert record["package"] == "emphysema-operator 0.1.0"
    without = carina(tmp_path, "pipelines", "check", file)
    assert without.returncode == 4 and "unknown image 'example/emphysema'" in without.stdout


def darkest(volume: VolumePort, *, context: Context) -> Table:
    """Say the darkest voxel."""
    return Table(rows=[{"lowest_hu": int(volume.hu.min())}])


def test_an_operator_of_the_callers_is_a_step_as_well(phantom: Phantom, tmp_path: Path) -> None:
    write_ct_series(phantom.volume, tmp_path / "ct")
    (tmp_path / "mine.yaml").write_text(
        "api-version: 0.4.0\nname: mine\noperators:\n"
        "- {name: ct, container: {image: carina/dicom-reader}, input: [{path: /input}], output: [{path: /output}]}\n"
        "- {name: darkest, container: {image: my/own}, input: [{from: ct, path: /input}], "
        "output: [{path: /output}]}\n"
    )
    mine = Operator(
        name="darkest", images=("my/own",), function=darkest, inputs={"/input": "volume"}, outputs={"/output": ""}
    )
    run(tmp_path / "ct", tmp_path / "run", RunSettings(pipeline=tmp_path / "mine.yaml"), operators=[mine])
    table = ports.load_folder(Table, tmp_path / "run" / "steps" / "darkest")
    assert table.rows == [{"lowest_hu": int(phantom.volume.hu.min())}]
    manifest = read_manifest(tmp_path / "run")
    assert manifest is not None and manifest.operators["darkest"].image == "my/own"
    usurper = dataclasses.replace(mine, name="dicom-reader")
    with pytest.raises(BadConfig, match="'dicom-reader' of Carina is called 'dicom-reader' too"):
        run(tmp_path / "ct", tmp_path / "run", operators=[usurper])
