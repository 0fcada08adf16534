"""A run resumes only what was made from the same: the fingerprint, kind by kind."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import msgspec
import numpy as np
import pydicom
import pytest

from carina.api.study import provenance
from carina.config import ModelSettings, Plan, Precision, RuntimeSettings, Settings
from carina.dicom.find import choose_source, find_series
from carina.operators.networks import Networks
from carina.pipeline import Operator, OperatorTable
from carina.pipeline import manifest as records
from carina.pipeline.definition import parse_definition
from carina.pipeline.manifest import Provenance
from carina.pipeline.run import run_pipeline
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import write_ct_series
from toy_operators import DIAMOND, Bench, definition, run

ALL = ["first", "left", "right", "sum"]
MADE_FROM = Provenance(
    inputs={"sha256": "a"}, bundles={"lung": {"sha256": "b"}}, settings={"plan": "fast"}, versions={"numpy": "2"}
)


def called(out: Path, made_from: Provenance = MADE_FROM, wanted: object = DIAMOND) -> list[str]:
    bench = Bench()
    run(bench, definition(*wanted), out, provenance=made_from, workers=1)  # type: ignore[misc]
    return sorted(bench.calls)


@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": {"sha256": "other"}},
        {"bundles": {"lung": {"sha256": "other"}}},
        {"bundles": {}},
        {"settings": {"plan": "original"}},
    ],
)
def test_another_input_bundle_or_setting_starts_anew(tmp_path: Path, changed: dict[str, object]) -> None:
    assert called(tmp_path) == ALL
    assert called(tmp_path) == []
    assert called(tmp_path, msgspec.structs.replace(MADE_FROM, **changed)) == ALL
    assert called(tmp_path) == ALL


def test_another_definition_of_the_same_steps_starts_anew(tmp_path: Path) -> None:
    assert called(tmp_path) == ALL
    other = tuple(step.replace("'3'", "'4'") for step in DIAMOND)
    assert called(tmp_path, wanted=other) == ALL
    assert (tmp_path / "sum" / "box.txt").read_text() == str(7 * 4 + 7 * 5)


def test_versions_of_libraries_tell_and_do_not_decide(tmp_path: Path) -> None:
    assert called(tmp_path) == ALL
    assert called(tmp_path, msgspec.structs.replace(MADE_FROM, versions={"numpy": "3"})) == []


def test_another_version_of_carina_or_of_the_manifest_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert called(tmp_path) == ALL
    monkeypatch.setattr(records, "__version__", "99.0")
    assert called(tmp_path) == ALL
    monkeypatch.setattr(records, "FORMAT", records.FORMAT + 1)
    assert called(tmp_path) == ALL


CODE = """
def times(number: int) -> int:
    "Multiply."
    return number * {factor}
"""


def test_an_operator_of_somebody_elses_starts_anew_when_its_code_or_package_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = "api-version: 0.4.0\nname: x\noperators:\n- {name: times, container: {image: x/times}, "
    wanted = text + "input: [{path: /input}], output: [{path: /output}]}"

    def result(factor: int, package: str) -> tuple[int, int]:
        (tmp_path / "foreign_times.py").write_text(CODE.format(factor=factor))
        sys.modules.pop("foreign_times", None)
        importlib.invalidate_caches()
        function = importlib.import_module("foreign_times").times
        operator = Operator(
            name="times",
            images=("x/times",),
            function=function,
            inputs={"/input": "number"},
            outputs={"/output": ""},
            package=package,
        )
        parsed = parse_definition(wanted)
        ran = run_pipeline(parsed, OperatorTable.of(operator), inputs={"input": 7}, out=tmp_path / "run")
        return ran.load("times", "/output"), len(ran.manifest.resumed)

    assert result(2, "acme 1.0") == (14, 0)
    assert result(2, "acme 1.0") == (14, 1)
    assert result(30, "acme 1.0") == (210, 0)
    assert result(30, "acme 1.1") == (210, 0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(36, 200, 200), lesions=0)


def mark(folder: Path, settings: Settings) -> str:
    source = choose_source(find_series(folder))
    return records.fingerprint("", provenance(source, settings, Networks(settings)), {})


def test_what_a_run_is_made_from_is_told_by_voxels_bundles_and_runtime(phantom: Phantom, tmp_path: Path) -> None:
    files = write_ct_series(phantom.volume, tmp_path / "ct")
    plain = Settings()
    first = mark(tmp_path / "ct", plain)
    assert mark(tmp_path / "ct", plain) == first
    others = (
        Settings(runtime=RuntimeSettings(plan=Plan.ORIGINAL)),
        Settings(runtime=RuntimeSettings(precision=Precision.F32)),
        Settings(runtime=RuntimeSettings(precision=Precision.BF16)),
        Settings(models=ModelSettings(lesion="lung-ahnet")),
    )
    marks = {mark(tmp_path / "ct", settings) for settings in others[:1] + others[3:]}
    assert first not in marks and len(marks) == 2
    assert mark(tmp_path / "ct", others[1]) != mark(tmp_path / "ct", others[2])
    dataset = pydicom.dcmread(files[7])
    pixels = dataset.pixel_array.copy()
    pixels[0, 0] ^= 1
    dataset.PixelData = pixels.astype(np.uint16).tobytes()
    dataset.save_as(files[7])
    assert mark(tmp_path / "ct", plain) != first
