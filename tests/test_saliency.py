"""Saliency: the right place in patient space, the right amount, and how it gets into a run and its report."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

import carina.operators.segmented
from carina.api import Run, open_run
from carina.config import ModelSettings, Settings
from carina.dicom.find import choose_source, find_series
from carina.errors import BadConfig, BadSeries, ModelFailed
from carina.infer.classify import classify, network_input
from carina.infer.runtime import open_runtime
from carina.infer.saliency import block_weights, saliency
from carina.models.bundle import Bundle, Covid
from carina.operators.alone import Alone, find_operator, run_alone
from carina.operators.catalogue import find_definition
from carina.operators.networks import Networks
from carina.operators.ports import ClassificationPort, MaskPort, SaliencyPort, Scene, VolumePort
from carina.operators.table import BUILT_IN
from carina.pipeline import ports
from carina.pipeline.check import check_text
from carina.pipeline.definition import load_definition
from carina.pipeline.run import run_pipeline
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume.files import read_map, read_mask, read_volume
from carina.volume.grid import Axes, Grid
from carina.volume.volume import Mask, Volume
from tiny_networks import CLASSIFIER, _bundle, threshold_bundle

STORED: dict[str, Axes] = {
    "standard": ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    "head first": ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    "rows and columns backwards": ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)),
    "sagittal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
}
"""Axes of the array (z, y, x) in LPS."""

MIDDLE_MM = (-10.0, 5.0, 20.0)
HALF_MM = (36.0, 30.0, 24.0)
"""The lungs' box in patient space, (x, y, z)."""

DULL, BRIGHT = -800, -400
"""HU of three quarters of the lung, and of the rest."""


def corner_bundle(folder: Path, corner: tuple[int, int, int], gain: float = 8.0, **keys: Any) -> Bundle:
    """Two logits: 0, and ``gain`` times the mean of the 4 x 4 x 2 voxels in one corner of the network's input.

    ``corner`` is 0 (first voxels) or -1 (last) along the network's x, y and z.
    """
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weights = np.zeros((16, 16, 8), dtype=np.float32)
    x, y, z = (slice(None, n) if end == 0 else slice(-n, None) for end, n in zip(corner, (4, 4, 2), strict=True))
    weights[x, y, z] = gain / 32
    columns = np.stack([np.zeros(weights.size, np.float32), weights.ravel()], axis=1)
    flatten = helper.make_node("Flatten", ["image"], ["flat"])
    graph = helper.make_graph(
        [flatten, helper.make_node("MatMul", ["flat", "weight"], ["scores"])],
        "corner",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 16, 16, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(columns, "weight")],
    )
    return _bundle(helper, graph, folder, {**CLASSIFIER, "saliency": {"blocks": [2, 2, 2], "batch": 3}, **keys})


def chest(stored: str = "standard") -> tuple[Volume, Mask]:
    """A box of lung, bright on the patient's right, whose HU do not differ along the other axes."""
    axes = STORED[stored]
    size_mm, spacing = np.abs(np.array(axes) @ [120.0, 100.0, 90.0]), np.abs(np.array(axes) @ [2.0, 2.0, 3.0])
    z, y, x = (int(v) for v in np.round(size_mm / spacing))
    first = np.array(MIDDLE_MM) + 4.0 - np.array(axes).T @ (spacing * (np.array([z, y, x]) - 1) / 2)
    grid = Grid(shape=(z, y, x), spacing_mm=tuple(spacing), origin_mm=tuple(first), axes=axes)
    away = points(grid) - np.array(MIDDLE_MM)
    lung = (np.abs(away) < HALF_MM).all(axis=-1)
    bright = away[..., 0] < -HALF_MM[0] / 2
    hu = np.where(lung, np.where(bright, BRIGHT, DULL), 40).astype(np.int16)
    mask = Mask(labels=lung.astype(np.uint8), grid=grid, names={1: "lung"}, uid="1.2")
    return Volume(hu=hu, grid=grid, uid="1.2"), mask


def points(grid: Grid) -> np.ndarray:
    """The patient-space point of each voxel."""
    return grid.points_mm(np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1))


def probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(("orientation", "corner"), [("RAS", (-1, -1, -1)), ("LPI", (0, 0, 0)), ("LAS", (0, -1, -1))])
def test_the_place_that_counts_is_found_however_the_voxels_lie(
    stored: str, orientation: str, corner: tuple[int, int, int], tmp_path: Path
) -> None:
    """The network looks at the patient's right, front, upper corner only; so does the map, by the right amount."""
    volume, lung = chest(stored)
    bundle = corner_bundle(tmp_path / "corner", corner, orientation=orientation, margin_voxels=0)
    found = saliency(volume, lung, bundle, open_runtime(bundle))
    assert found.grid is volume.grid and (found.uid, found.unit) == ("1.2", "change of probability")
    change = probability(8 * (BRIGHT + 1000) / 1000) - probability(8 * (DULL + 1000) / 1000)
    assert found.values.max() == pytest.approx(change, abs=1e-3)
    away = points(volume.grid) - np.array(MIDDLE_MM)
    most = away[found.values == found.values.max()]
    assert (most[:, 0] < 0).all() and (most[:, 1] < 0).all() and (most[:, 2] > 0).all(), "right, anterior, superior"
    assert np.allclose(most[:, 0].min(), away[lung.labels > 0][:, 0].min()), "up to the face of the lungs' box"
    opposite = (away[..., 0] > HALF_MM[0] / 2) | (away[..., 1] > HALF_MM[1] / 2) | (away[..., 2] < -HALF_MM[2] / 2)
    assert not found.values[opposite].any()
    assert not found.values[lung.labels == 0].any(), "0 outside the lungs' box, which has no margin here"


def test_a_network_that_looks_at_nothing_has_no_saliency(tmp_path: Path) -> None:
    bundle = corner_bundle(tmp_path / "blind", (0, 0, 0), gain=0.0)
    assert not saliency(*chest(), bundle, open_runtime(bundle)).values.any()


def test_a_change_upwards_is_negative(tmp_path: Path) -> None:
    bundle = corner_bundle(tmp_path / "corner", (-1, -1, -1), gain=-8.0)
    found = saliency(*chest(), bundle, open_runtime(bundle))
    assert found.values.min() < -0.1 and found.values.max() == 0
    other = corner_bundle(tmp_path / "other", (-1, -1, -1), gain=-8.0, saliency={"label": 0, "blocks": [2, 2, 2]})
    turned = saliency(*chest(), other, open_runtime(other))
    assert np.allclose(turned.values, -found.values, atol=1e-4) and turned.quantity.startswith(
        "fall of the probability of no"
    )


@pytest.mark.parametrize(
    ("shape", "blocks"), [((16, 16, 8), (4, 2, 1)), ((13, 7, 5), (3, 7, 2)), ((96, 96, 32), (4, 4, 4))]
)
def test_the_blocks_add_up_to_everything(shape: tuple[int, int, int], blocks: tuple[int, int, int]) -> None:
    weights = block_weights(shape, blocks, np.arange(np.prod(blocks)))
    assert np.allclose(weights.sum(axis=0), 1, atol=1e-5)
    assert weights.min() >= 0 and np.allclose(weights.max(axis=(1, 2, 3)), 1)


def test_the_map_is_what_hiding_a_block_by_hand_gives(data: Path) -> None:
    """The shipped classifier on a real chest: one block by hand, and the map at its middle."""
    from carina.models.bundle import find_bundle

    volume = read_volume(data / "tiny" / "cip_ct64_ct.nii.gz")
    lung = replace(read_mask(data / "tiny" / "cip_ct64_lung.nii.gz"), grid=volume.grid)
    bundle = find_bundle("covid-densenet")
    spec = bundle.carina
    assert isinstance(spec, Covid)
    spec = Covid(**{name: getattr(spec, name) for name in spec.__struct_fields__} | {"saliency": small_blocks()})
    bundle = replace(bundle, carina=spec)
    runtime = open_runtime(bundle)
    heard: list[tuple[int, int]] = []
    found = saliency(volume, lung, bundle, runtime, lambda done, count: heard.append((done, count)))
    assert heard == [(1, 9), (5, 9), (9, 9)]
    image = network_input(volume, lung, spec)
    low, high = spec.window_hu
    fill = (np.percentile(volume.hu[lung.labels > 0], 25) - low) / (high - low)
    weights = block_weights(image.shape, (2, 2, 2), np.array([7]))[0]
    scores = runtime((image + weights * (fill - image))[None, None].astype(np.float32))[0]
    log_odds = float(scores[1] - scores[0]) / spec.temperature + spec.shifts.get(1, 0.0)
    change = classify(volume, lung, bundle, runtime)["COVID-19"] - probability(log_odds)
    places = np.argwhere(lung.labels > 0)
    first, last = places.min(axis=0) - 5, np.minimum(places.max(axis=0) + 6, lung.labels.shape)
    first = np.maximum(first, 0)
    to_right, to_front, to_head = (bool(v) for v in np.array(volume.grid.axes)[::-1].diagonal() * [-1, -1, 1] > 0)
    z, y, x = (
        int(a + (b - a) * (0.9 if up else 0.1))
        for a, b, up in zip(first, last, (to_head, to_front, to_right), strict=True)
    )
    assert found.values[z, y, x] == pytest.approx(change, abs=2e-3)


def small_blocks() -> Any:
    from carina.models.classifying import Saliency as Spec

    return Spec(blocks=(2, 2, 2), batch=4)


def test_the_network_is_given_full_batches_of_one_shape(tmp_path: Path) -> None:
    bundle = corner_bundle(tmp_path / "corner", (0, 0, 0), saliency={"blocks": [3, 1, 99], "batch": 5})
    runtime, shapes = open_runtime(bundle), []

    def listening(patches: np.ndarray) -> np.ndarray:
        shapes.append(patches.shape)
        return runtime(patches)

    saliency(*chest(), bundle, listening)
    assert [shape[0] for shape in shapes] == [1, 5, 5, 5, 5, 5], "24 blocks: 99 along z are no more than its 8 voxels"


def test_a_network_for_one_input_at_a_time_gives_the_same(tmp_path: Path) -> None:
    bundle = corner_bundle(tmp_path / "corner", (-1, -1, -1))
    runtime = open_runtime(bundle)

    def single(patches: np.ndarray) -> np.ndarray:
        if len(patches) > 1:
            raise ModelFailed("model.failed", "the batch axis is fixed")
        return runtime(patches)

    def forgetful(patches: np.ndarray) -> np.ndarray:
        return runtime(patches)[:1]

    expected = saliency(*chest(), bundle, runtime).values
    assert np.array_equal(saliency(*chest(), bundle, single).values, expected)
    assert np.array_equal(saliency(*chest(), bundle, forgetful).values, expected), "one row for several inputs"
    with pytest.raises(ModelFailed, match=r"gave scores of shape \(1, 3\), expected \(1, 2\): one row for each input"):
        saliency(*chest(), bundle, lambda patches: np.zeros((len(patches), 3), dtype=np.float32))


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    volume, lung = chest()
    nothing = replace(lung, labels=np.zeros_like(lung.labels))
    bundle = corner_bundle(tmp_path / "corner", (0, 0, 0))
    with pytest.raises(BadSeries, match="No lung was found in this series"):
        saliency(volume, nothing, bundle, open_runtime(bundle))
    with pytest.raises(ValueError, match="does not classify, its task is lung"):
        saliency(volume, lung, threshold_bundle(tmp_path / "tiny"), lambda patches: patches)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ({"label": 2}, r"saliency label 2 must be one of \[0, 1\]"),
        ({"blocks": [0, 1, 1]}, r"saliency blocks \(0, 1, 1\) and batch 8 must be at least 1"),
        ({"size": 3}, "contains unknown field `size`"),
    ],
)
def test_a_wrong_key_of_a_bundle_is_named(key: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=words):
        corner_bundle(tmp_path / "wrong", (0, 0, 0), saliency=key)


# In a run


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(40, 200, 200), lesions=3, seed=5)


@pytest.fixture(scope="module")
def folders(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("saliency")
    write_ct_series(phantom.volume, place / "ct")
    ports.save_value(VolumePort, phantom.volume, place / "volume")
    ports.save_value(MaskPort, phantom.lung, place / "lung")
    corner_bundle(place / "bundles" / "corner", (-1, 0, 0), gain=6.0)
    return place


def services(folders: Path) -> tuple[Settings, Networks]:
    settings = Settings(models=ModelSettings(covid="corner", folders=(str(folders / "bundles"),)))
    return settings, Networks(settings)


def alone(name: str, folders: Path, **more: Any) -> list[str]:
    asked = {"inputs": {}, "outputs": {}, "variables": {}} | more
    return run_alone(Alone(operator=find_operator(name), **asked), services(folders))


def classified(folders: Path, out: Path, *outputs: str, **variables: str) -> None:
    inputs = {"input": folders / "volume", "label_image": folders / "lung"}
    alone("ai-covid-19", folders, inputs=inputs, outputs={name: out / name for name in outputs}, variables=variables)


def report(folders: Path, result: Path, out: Path) -> str:
    """The text of the report of a stored classification."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed: apt install poppler-utils")
    alone("dicom-report-writer", folders, inputs={"input": result, "dcm": folders / "ct"}, outputs={"output": out})
    file = out / "report.pdf"
    file.write_bytes(dcmread(out / "classification.dcm").EncapsulatedDocument)
    done = subprocess.run(["pdftotext", "-raw", file, "-"], check=True, capture_output=True, text=True)
    return " ".join(done.stdout.split())


def test_the_report_shows_it_and_says_what_it_means(folders: Path, tmp_path: Path) -> None:
    """A definition that declares the classification only, as the published one does, has the page all the same."""
    classified(folders, tmp_path, "output")
    result = ports.load_folder(ClassificationPort, tmp_path / "output")
    found = result.saliency
    assert found is not None and found.label == "yes" and found.blocks == (2, 2, 2)
    assert len(found.key_slices) == 3 and all(key.saliency is not None for key in found.key_slices)
    assert max(np.abs(key.saliency).max() for key in found.key_slices) == pytest.approx(
        max(found.highest, -found.lowest), abs=1e-6
    )
    text = report(folders, tmp_path / "output", tmp_path / "pdf")
    assert "What the probability depends on" in text
    assert "hidden from the network block by block (2 \u00d7 2 \u00d7 2)" in text
    assert "Orange: the probability of yes falls when the place is hidden, at most by" in text
    assert "change of probability: + is what the place adds to it" in text
    assert "It does not show where disease is, how much of it there is, or whether the number is right" in text
    assert "For research use only. Not for diagnosis." in text


def test_a_report_does_not_make_much_of_next_to_nothing(folders: Path, tmp_path: Path) -> None:
    blind = ModelSettings(covid="blind", folders=(str(tmp_path),))
    corner_bundle(tmp_path / "blind", (0, 0, 0), gain=0.0)
    settings = Settings(models=blind)
    inputs = {"input": folders / "volume", "label_image": folders / "lung"}
    asked = Alone(
        operator=find_operator("ai-covid-19"), inputs=inputs, outputs={"output": tmp_path / "out"}, variables={}
    )
    run_alone(asked, (settings, Networks(settings)))
    text = report(folders, tmp_path / "out", tmp_path / "pdf")
    assert "No block changes the probability of yes by more than 0.001." in text and "Orange" not in text
    assert "\u20130.010" in text and "+0.010" in text, "the colours' scale"


def test_it_can_be_switched_off(folders: Path, tmp_path: Path) -> None:
    classified(folders, tmp_path, "output", "saliency", CARINA_SALIENCY="off")
    assert [path.name for path in (tmp_path / "saliency").iterdir()] == ["not-computed.json"]
    nothing = ports.load_folder(SaliencyPort, tmp_path / "saliency")
    assert nothing.map is None and nothing.not_computed == "The saliency was switched off by CARINA_SALIENCY."
    assert "What the probability depends on" not in report(folders, tmp_path / "output", tmp_path / "pdf")
    with pytest.raises(BadConfig, match="'CARINA_SALIENCY' of 'ai-covid-19' is 'no': expected on or occlusion or off"):
        classified(folders, tmp_path, "output", CARINA_SALIENCY="no")


def test_a_run_writes_the_volume(
    folders: Path, phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = {"lung-ahnet": phantom.lung, "lesion-segresnet": phantom.lesion}
    monkeypatch.setattr(
        carina.operators.segmented, "segment", lambda volume, bundle, *rest: masked(masks[bundle.name], volume)
    )
    monkeypatch.setattr(Networks, "opened", only_the_classifier(Networks.opened))
    source = choose_source(find_series(folders / "ct"))
    definition = load_definition(find_definition("default"))
    for _ in range(2):  # the second start only opens what is there
        run_pipeline(definition, BUILT_IN, inputs={"input": source}, out=tmp_path / "run", services=services(folders))
    run = open_run(tmp_path / "run")
    facts = run.manifest.operators["classification"].facts["saliency"]
    image = tmp_path / "run" / "saliency" / f"{source.uid}.mhd"
    assert "ElementType = MET_FLOAT" in image.read_text()
    stored = read_map(image)
    assert stored.grid.same_place(phantom.volume.grid) and run.saliency.unit == "change of probability"
    assert run.saliency.quantity == "fall of the probability of yes when hidden" and run.saliency.made_by.startswith(
        "corner"
    )
    assert facts["highest"] == pytest.approx(float(stored.values.max()), abs=1e-4) and abs(stored.values).max() > 0
    beside = json.loads(image.with_suffix(".json").read_text())
    assert beside["unit"] == "change of probability" and beside["notice"].startswith("For research use only")
    most = phantom.volume.grid.points_mm(np.argwhere(np.abs(stored.values) == np.abs(stored.values).max())).mean(axis=0)
    middle = phantom.volume.grid.points_mm(np.argwhere(phantom.lung.labels > 0)).mean(axis=0)
    assert most[0] < middle[0] and most[1] > middle[1] and most[2] < middle[2], "right, posterior, inferior"


def masked(mask: Mask, volume: Volume) -> Mask:
    return replace(mask, labels=(mask.labels > 0).astype(np.uint8), names={1: "found"}, uid=volume.uid)


def only_the_classifier(opened: Any) -> Any:
    """The classifier's network only; the others are not asked."""
    return lambda networks, task: opened(networks, task) if task == "covid" else nullcontext(lambda patches: [patches])


def test_a_run_without_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="no MetaImage; this run did not write one"):
        _ = Run(tmp_path).saliency


def test_the_check_knows_the_port(tmp_path: Path) -> None:
    text = find_definition("default").read_text()
    assert check_text(text, "default.yaml", BUILT_IN) == []
    wrong = text.replace("name: classification, path: /input}", "name: saliency, path: /input}")
    (problem,) = check_text(wrong, "wrong.yaml", BUILT_IN)
    assert "'classification' /saliency gives SaliencyPort, but 'classification-report' /input takes" in problem.message


def test_the_scene_has_it_as_a_layer_and_survives_its_folder(folders: Path, tmp_path: Path) -> None:
    classified(folders, tmp_path, "publish")
    scene = ports.load_folder(Scene, tmp_path / "publish")
    assert isinstance(scene.shown, SaliencyPort) and scene.shown.map is not None
    layer = json.loads((tmp_path / "publish" / "saliency.json").read_text())["layer"]
    assert layer["kind"] == "map" and layer["unit"] == "change of probability"
    assert layer["range"][1] == -layer["range"][0] == pytest.approx(float(np.abs(scene.shown.map.values).max()))
    assert scene.colours == {-1: "#0072b2", 1: "#d55e00"}


def test_without_a_lung_there_is_neither_map_nor_layer(folders: Path, phantom: Phantom, tmp_path: Path) -> None:
    ports.save_value(MaskPort, replace(phantom.lung, labels=np.zeros_like(phantom.lung.labels)), tmp_path / "lung")
    outputs = {name: tmp_path / name for name in ("output", "saliency", "publish")}
    inputs = {"input": folders / "volume", "label_image": tmp_path / "lung"}
    warnings = alone("ai-covid-19", folders, inputs=inputs, outputs=outputs)
    assert warnings == ["No lung was found, so there is nothing to classify."]
    assert ports.load_folder(SaliencyPort, tmp_path / "saliency").not_computed == warnings[0]
    scene = ports.load_folder(Scene, tmp_path / "publish")
    assert isinstance(scene.shown, SaliencyPort) and scene.shown.not_computed == warnings[0]
