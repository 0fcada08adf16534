"""The operators in a pipeline: the spec's definition and our own, on a phantom whose masks are known."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

import carina.infer.saliency
import carina.operators.ai_covid_19
import carina.operators.networks
import carina.operators.segmented
from carina.config import FolderDestination, RuntimeKind, RuntimeSettings, Settings
from carina.dicom.find import choose_source, find_series
from carina.dicom.series import Series, Source, VolumeFile
from carina.errors import BadConfig
from carina.infer.activation import Explained
from carina.measure.texts import plain_ml_text
from carina.models.bundle import Covid
from carina.operators.catalogue import find_definition, known_definitions
from carina.operators.networks import Networks
from carina.operators.ports import DicomObjects, Scene, VolumePort
from carina.operators.table import BUILT_IN
from carina.pipeline import ports
from carina.pipeline.check import check_definition, check_text
from carina.pipeline.definition import Definition, load_definition, parse_definition
from carina.pipeline.manifest import State, read_manifest, write_manifest
from carina.pipeline.run import RunOptions, RunResult, run_pipeline
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume.files import read_mask, write_volume
from carina.volume.volume import Mask, ScalarMap, Volume

Truth = dict[str, np.ndarray]
CLASSES = {0: "non-COVID-19", 1: "COVID-19"}

WHEN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


class NamedNetworks(Networks):
    """Networks whose bundles are named only."""

    def bundle(self, task: str) -> Any:
        return SimpleNamespace(
            task=task,
            name=f"true-{task}",
            version="1.0",
            sha256=task[0] * 64,
            made_by=f"true-{task} 1.0 {task[0] * 12}",
            intended_use="A demonstration.",
            carina=Covid(orientation="RAS", window_hu=(-1000, 0), labels=CLASSES, size=(8, 8, 8)),
        )


class TrueNetworks(NamedNetworks):
    """The fixture answers for them, with the phantom's truth."""

    @contextmanager
    def opened(self, task: str) -> Iterator[Any]:
        yield lambda patches: [patches]  # which nobody asks


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(40, 200, 200), lesions=3, seed=5)


@pytest.fixture(scope="module")
def folder(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ct")
    write_ct_series(phantom.volume, place)
    return place


@pytest.fixture(scope="module")
def series(folder: Path) -> Series:
    source = choose_source(find_series(folder))
    assert isinstance(source, Series)
    return source


@pytest.fixture
def truth(phantom: Phantom, monkeypatch: pytest.MonkeyPatch) -> Truth:
    """What the networks find; a test may change it."""
    return answered(phantom, monkeypatch)


@pytest.fixture(scope="module")
def done(phantom: Phantom, series: Series, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of the default definition with the networks' true answers: tests look at it and change nothing."""
    with pytest.MonkeyPatch.context() as patch:
        answered(phantom, patch)
        return run(default(), series, tmp_path_factory.mktemp("done"))


def answered(phantom: Phantom, monkeypatch: pytest.MonkeyPatch) -> Truth:
    """What the networks find from now on."""
    answers = {
        "lung": (phantom.lung.labels > 0).astype(np.uint8),
        "lesion": (phantom.lesion.labels > 0).astype(np.uint8),
    }

    def segment(volume: Volume, bundle: SimpleNamespace, runtime: Any, *rest: Any) -> Mask:
        rest[1](1, 2)  # after the plan: who hears of progress
        labels = answers[bundle.task]
        return Mask(labels=labels, grid=volume.grid, names={1: bundle.task}, uid=volume.uid, made_by=bundle.made_by)

    def classify(volume: Volume, lung: Mask, bundle: SimpleNamespace, runtime: Any) -> dict[str, float]:
        return {"non-COVID-19": 0.25, "COVID-19": 0.75}

    def explain(volume: Volume, lung: Mask, bundle: SimpleNamespace, network: Any) -> Explained:
        return Explained(classify(volume, lung, bundle, network), None, (0, 0, 0))  # no class maps

    def saliency(volume: Volume, lung: Mask, *_: object) -> ScalarMap:
        values = np.where(lung.labels > 0, np.float32(0.25), np.float32(0))
        return ScalarMap(values=values, grid=volume.grid, quantity="fall", unit="probability", uid=volume.uid)

    monkeypatch.setattr(carina.infer.saliency, "saliency", saliency)
    monkeypatch.setattr(carina.operators.segmented, "segment", segment)
    monkeypatch.setattr(carina.operators.ai_covid_19, "classify", classify)
    monkeypatch.setattr(carina.operators.ai_covid_19, "explain", explain)
    return answers


@pytest.fixture
def spec(data: Path) -> Definition:
    """The definition printed in the specification, cut out and unchanged."""
    file = data.parent / "spec" / "deployment-pipeline.txt"
    if not file.is_file():
        pytest.skip(f"the specification is not at {file}")
    return parse_definition(extract(file.read_text(encoding="utf-8")), "deployment-pipeline.txt")


def extract(text: str) -> str:
    end = "## End covid_lung_ratio"
    return text[text.index("api-version: 0.4.0") : text.index(end) + len(end)]


def run(definition: Definition, source: Source, out: Path, settings: Settings | None = None) -> RunResult:
    settings = settings or Settings()
    return run_pipeline(
        definition,
        BUILT_IN,
        inputs={"input": source},
        out=out,
        services=(settings, TrueNetworks(settings)),
        options=RunOptions(clock=lambda: WHEN),
    )


def default(**arguments: str) -> Definition:
    return load_definition(find_definition("default"), arguments)


def test_every_definition_that_ships_is_without_mistakes() -> None:
    assert list(known_definitions()) == ["default", "default-deidentified", "default-overlay"]
    for path in known_definitions().values():
        assert check_text(path.read_text(encoding="utf-8"), path.name, BUILT_IN) == []


@pytest.mark.parametrize("name", list(BUILT_IN.names))
def test_each_operator_matches_its_function_and_its_ports_can_be_stored(name: str) -> None:
    operator = BUILT_IN.names[name]
    assert operator.summary.endswith(".")
    for port in (*operator.input_ports.values(), *operator.output_ports.values()):
        assert ports.not_storable(port.type) == [], port
    settable = {s.parameter for s in (*operator.variables.values(), *operator.options.values())} - {""}
    assert settable <= set(operator.keywords)
    assert set(operator.places) <= set(operator.outputs)


def test_the_definition_of_the_specification_has_fifteen_operators_and_no_mistake(spec: Definition) -> None:
    assert len(spec.steps) == 15
    assert check_definition(spec, BUILT_IN) == []


def test_the_definition_of_the_specification_runs_unchanged(
    spec: Definition, series: Series, truth: Truth, tmp_path: Path
) -> None:
    result = run(spec, series, tmp_path)
    assert {record.state for record in result.manifest.operators.values()} == {State.DONE}
    assert (tmp_path / "volume" / f"{series.uid}.mhd").is_file()
    assert np.array_equal(read_mask(tmp_path / "lung" / f"{series.uid}.mhd").labels, truth["lung"])
    assert np.array_equal(read_mask(tmp_path / "lesion" / f"{series.uid}.mhd").labels, truth["lesion"])
    names = {"lung-seg.dcm", "lesion-seg.dcm", "classification.dcm", "volume-ratio.dcm"}
    written = ((tmp_path / "dicom").glob("*.dcm"), (tmp_path / "MYPACS").iterdir())
    assert [{path.name for path in files} for files in written] == [names, names]
    warning = result.manifest.operators["register-dicom-output"].warnings
    assert len(warning) == 1 and "MYPACS is not configured; its objects are in the folder MYPACS" in warning[0]
    labels = [
        [str(item.SegmentLabel) for item in dcmread(tmp_path / "dicom" / name).SegmentSequence]
        for name in ("lung-seg.dcm", "lesion-seg.dcm")
    ]
    assert labels == [["Lung-seg"], ["GroundGlass-seg"]]


def test_the_scene_has_volume_masks_and_saliency_without_a_second_copy(done: RunResult) -> None:
    scene = json.loads((done.folder / "render" / "scene.json").read_text())
    assert [layer["name"] for layer in scene["layers"]] == ["lung", "lesion", "saliency"]
    assert scene["layers"][2]["range"] == [-0.25, 0.25] and scene["layers"][2]["kind"] == "map"
    for name in (scene["volume"], *(layer["file"] for layer in scene["layers"])):
        assert (done.folder / "render" / name).samefile(done.folder / name)
    assert scene["window_hu"] == [-1350, 150] and scene["notice"].startswith("For research use only")


def test_the_default_definition_gives_every_result(phantom: Phantom, done: RunResult) -> None:
    names = {"lung-seg", "lesion-seg", "classification", "volume-ratio", "measurements"}
    assert {path.stem for path in (done.folder / "dicom").glob("*.dcm")} == names
    segments = dcmread(done.folder / "dicom" / "lung-seg.dcm").SegmentSequence
    assert [str(item.SegmentLabel) for item in segments] == ["left lung", "right lung"]
    found = json.loads((done.folder / "findings.json").read_text())
    whole = found["regions"][0]
    assert whole["lesion_ml"] == pytest.approx(phantom.lesion.volume_ml(), rel=0.01)
    assert whole["lung_ml"] == pytest.approx(phantom.lung.volume_ml(), rel=0.02)
    assert found["probabilities"] == {"non-COVID-19": 0.25, "COVID-19": 0.75}
    with (done.folder / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["region"] == "lungs" and float(rows[0]["lesion_ml"]) == whole["lesion_ml"]
    assert done.manifest.operators["lung-segmentation"].facts["made_by"] == "true-lung 1.0 llllllllllll"


def test_what_everything_measures_and_shows_are_the_joined_masks(series: Series, truth: Truth, tmp_path: Path) -> None:
    """The lung network leaves a lesion's place out, the lesion network marks a block beside the lungs."""
    whole, lesions = truth["lung"].copy(), truth["lesion"].copy()
    truth["lung"][lesions > 0] = 0
    truth["lesion"][:4, :40, :40] = 1
    result = run(default(), series, tmp_path)
    lung, lesion = (read_mask(tmp_path / place / f"{series.uid}.mhd") for place in ("lung", "lesion"))
    assert np.array_equal(lung.labels, whole) and np.array_equal(lesion.labels, lesions)
    marked = tmp_path / "steps" / "lung-segmentation" / "marked" / f"{series.uid}.mhd"
    assert np.array_equal(read_mask(marked).labels, truth["lung"]), "what the network said is kept"
    found = json.loads((tmp_path / "findings.json").read_text())
    lungs = found["regions"][0]
    assert (lungs["lung_ml"], lungs["lesion_ml"]) == (round(lung.volume_ml(), 3), round(lesion.volume_ml(), 3))
    left_out = 4 * 40 * 40 * lesion.grid.voxel_ml
    warning = f"{plain_ml_text(left_out)} ml marked as lesion lie outside the lungs and were left out."
    assert warning in found["warnings"] and warning in result.manifest.operators["lung-lesions"].warnings
    assert result.manifest.operators["lung-lesions"].facts["left_out_ml"] == round(left_out, 3)
    assert (tmp_path / "render" / "lung" / f"{series.uid}.mhd").samefile(tmp_path / "lung" / f"{series.uid}.mhd")
    for name, mask in (("lung-seg", lung), ("lesion-seg", lesion)):
        bits = np.unpackbits(np.frombuffer(dcmread(tmp_path / "dicom" / f"{name}.dcm").PixelData, np.uint8))
        assert np.count_nonzero(bits) == np.count_nonzero(mask.labels)


def test_the_same_run_gives_the_same_objects(done: RunResult, series: Series, truth: Truth, tmp_path: Path) -> None:
    run(default(), series, tmp_path)
    first, second = (
        {path.name: str(dcmread(path).SOPInstanceUID) for path in (folder / "dicom").iterdir()}
        for folder in (done.folder, tmp_path)
    )
    assert first == second and len(first) == 5


def test_nothing_found_is_a_result_with_valid_objects(series: Series, truth: Truth, tmp_path: Path) -> None:
    truth["lesion"] = np.zeros_like(truth["lesion"])
    run(default(), series, tmp_path)
    found = json.loads((tmp_path / "findings.json").read_text())
    assert found["regions"][0]["lesion_ml"] == 0 and found["lesion_count"] == 0
    assert str(dcmread(tmp_path / "dicom" / "lesion-seg.dcm").Modality) == "SEG"


def test_no_lung_is_a_result_that_says_why(series: Series, truth: Truth, tmp_path: Path) -> None:
    truth["lung"], truth["lesion"] = (np.zeros_like(truth["lung"]) for _ in range(2))
    result = run(default(), series, tmp_path)
    assert result.manifest.state is State.DONE
    found = json.loads((tmp_path / "findings.json").read_text())
    assert found["probabilities"] == {}
    assert found["not_computed"] == "No lung was found, so there is nothing to classify."
    scene = json.loads((tmp_path / "render" / "scene.json").read_text())
    assert [layer["name"] for layer in scene["layers"]] == ["lung", "lesion"]
    assert result.manifest.operators["show-saliency"].facts["not_shown"] == found["not_computed"]
    assert len(list((tmp_path / "dicom").glob("*.dcm"))) == 5


def test_a_volume_file_gives_no_dicom_objects_and_says_so(phantom: Phantom, truth: Truth, tmp_path: Path) -> None:
    file = tmp_path / "chest.nii.gz"
    write_volume(phantom.volume, file)
    result = run(default(), VolumeFile(path=file, uid="chest"), tmp_path / "run")
    assert result.manifest.state is State.DONE
    assert not list((tmp_path / "run").rglob("*.dcm"))
    assert "without DICOM attributes, so no DICOM objects" in result.manifest.operators["lung-seg"].warnings[0]
    assert (tmp_path / "run" / "lung" / "chest.mhd").is_file() and (tmp_path / "run" / "findings.json").is_file()


def test_destinations_are_an_argument_and_a_run_that_failed_there_goes_on_without_the_networks(
    series: Series, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "archive").write_text("in the way")
    settings = Settings(destinations={"archive": FolderDestination(path=str(tmp_path / "archive"))})
    with pytest.raises(Exception, match="can't be written"):
        run(default(destinations='["archive"]'), series, tmp_path / "run", settings)
    record = read_manifest(tmp_path / "run")
    assert record is not None and record.operators["measurements"].state is State.DONE
    (tmp_path / "archive").unlink()
    monkeypatch.delattr(carina.operators.segmented, "segment")
    result = run(default(destinations='["archive"]'), series, tmp_path / "run", settings)
    assert result.manifest.state is State.DONE and len(list((tmp_path / "archive").iterdir())) == 5
    receipt = result.manifest.operators["send-measurements"].facts["deliveries"][0]
    assert (receipt["destination"], receipt["kind"], receipt["sent"][0]["stored"]) == ("archive", "folder", True)


def test_an_agent_that_does_not_take_a_result_is_named(series: Series, truth: Truth, tmp_path: Path) -> None:
    text = find_definition("default").read_text().replace("renderserver", "ClaraSCU")
    with pytest.raises(BadConfig, match=r"operator 'show-l.*': agent ClaraSCU does not take a scene"):
        run(parse_definition(text), series, tmp_path)
    wrong = find_definition("default").read_text().replace("renderserver", "fax")
    messages = [problem.message for problem in check_text(wrong, "x", BUILT_IN)]
    steps = ("show-lung", "show-lesion", "show-saliency")
    assert messages == [f"option '--agent' of '{one}' is 'fax': expected ClaraSCU or renderserver" for one in steps]


def test_an_endpoint_serves_the_networks_on_triton() -> None:
    assert Networks(Settings()).runtime_settings.kind is RuntimeKind.OPENVINO
    settings = Settings(runtime=RuntimeSettings(endpoint="http://triton:8000"))
    assert Networks(settings).runtime_settings.kind is RuntimeKind.TRITON


def test_reports_without_ct_slices_read_them_from_the_source(series: Series, phantom: Phantom) -> None:
    from carina.measure.findings import KeySlice
    from carina.operators.dicom_report_writer import _key_slices

    empty = np.zeros(phantom.volume.hu.shape[1:], bool)
    slices = (KeySlice(index=7, spacing_mm=(1.0, 1.0), lung=empty, lesion=empty),)
    filled, grid = _key_slices(slices, series)
    assert filled[0].hu is not None and np.array_equal(filled[0].hu, phantom.volume.hu[7])
    assert grid.same_place(phantom.volume.grid)


def test_values_survive_their_folders(phantom: Phantom, tmp_path: Path) -> None:
    lung = dataclasses.replace(phantom.lung, made_by="lung 1 abc", warnings=("small",))
    volume = dataclasses.replace(phantom.volume, warnings=("tilted",))
    scene = Scene(volume=volume, shown=lung, layer="lung", order=1, colours={1: "#56b4e9", 2: "#009e73"})
    ports.save_value(Scene, scene, tmp_path / "scene")
    back = ports.load_folder(Scene, tmp_path / "scene")
    assert np.array_equal(back.volume.hu, volume.hu) and back.volume.warnings == ("tilted",)
    assert np.array_equal(back.shown.labels, lung.labels) and back.shown.names == lung.names
    assert (back.shown.made_by, back.shown.warnings, back.colours) == ("lung 1 abc", ("small",), scene.colours)


def test_a_folder_with_the_wrong_content_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(BadConfig, match=r"expected DicomObjects or Scene, found x.txt"):
        ports.load_folder(DicomObjects | Scene, tmp_path)
    with pytest.raises(BadConfig, match="no such folder; expected one that holds Volume"):
        ports.load_folder(VolumePort, tmp_path / "none")


def test_a_report_tells_the_definitions_words_beside_what_really_ran(
    series: Series, truth: Truth, tmp_path: Path
) -> None:
    text = find_definition("default").read_text()
    named = 'variables: {NVIDIA_AI_MODEL_NAME: Famous, NVIDIA_AI_MODEL_VERSION: "2", NVIDIA_AI_MODEL_CREATOR: Them}'
    image = "container: {image: carina/dicom-report-writer"
    result = run(parse_definition(text.replace(image, f"{image}, {named}")), series, tmp_path)
    words = "The pipeline definition calls this Famous 2 by Them; what really ran is named on this page."
    assert result.manifest.operators["classification-report"].state is State.DONE
    dataset = dcmread(tmp_path / "dicom" / "classification.dcm")
    assert dataset.ManufacturerModelName == "true-covid"
    assert words not in str(dataset) and b"%PDF" in dataset.EncapsulatedDocument


def killed_after(finished: Sequence[str], folder: Path) -> None:
    """Make of a whole run what is left of one that was killed: finished outputs, a half-written file, a manifest."""
    record = read_manifest(folder)
    assert record is not None
    kept = {file for name in finished for files in record.operators[name].outputs.values() for file in files}
    for name, operator in record.operators.items():
        if name not in finished:
            operator.state = State.RUNNING
            for files in operator.outputs.values():
                for file in set(files) - kept:
                    (folder / file).unlink(missing_ok=True)  # the scenes share the volume
            operator.outputs, operator.facts = {}, {}
    write_manifest(record, folder)
    (folder / ".writing" / "findings").mkdir(parents=True)
    (folder / ".writing" / "findings" / "findings.json").write_text("{")


def test_a_killed_run_does_not_ask_the_networks_again(
    done: RunResult, series: Series, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done.folder, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    killed_after(("dicom-reader", "lung-segmentation", "lesion-segmentation"), tmp_path)
    monkeypatch.delattr(carina.operators.segmented, "segment")
    result = run(default(), series, tmp_path)
    assert result.manifest.state is State.DONE and not (tmp_path / ".writing").exists()
    assert len(list((tmp_path / "dicom").glob("*.dcm"))) == 5
    assert (tmp_path / "render" / "volume" / f"{series.uid}.mhd").samefile(tmp_path / "volume" / f"{series.uid}.mhd")
