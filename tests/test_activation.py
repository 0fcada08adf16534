"""Class activation: the parts add up to the answer, lie where they belong, and get into report and viewer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carina.config import ModelSettings, Precision, RuntimeKind, RuntimeSettings, Settings
from carina.errors import ModelFailed
from carina.infer.activation import explain
from carina.infer.classify import classify, network_input
from carina.infer.runtime import open_network, open_runtime
from carina.measure.findings import SaliencyFindings, SaliencyMethod
from carina.models.bundle import Bundle, Covid, find_bundle
from carina.models.class_maps import CLASS_MAPS, add_class_maps
from carina.models.triton_repository import write_repository
from carina.operators.alone import Alone, find_operator, run_alone
from carina.operators.networks import Networks
from carina.operators.ports import ClassificationPort, MaskPort, SaliencyPort, VolumePort
from carina.pipeline import ports
from carina.report.saliency import _said
from carina.synth.phantom import chest_phantom
from carina.volume.files import read_mask, read_volume
from test_saliency import MIDDLE_MM, STORED, chest, points
from tiny_networks import CLASSIFIER, _bundle, mean_bundle

F32 = RuntimeSettings(precision=Precision.F32, threads=1)
GAIN, BIAS = 8.0, 0.5


def cells_bundle(folder: Path, **keys: Any) -> Bundle:
    """Two logits, 0 and ``GAIN`` times the mean of the image plus ``BIAS``, with class maps of 4 x 4 x 2 places."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[4, 4, 4], strides=[4, 4, 4]),
        helper.make_node("GlobalAveragePool", ["cells"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 16, 16, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [
            numpy_helper.from_array(np.array([[0.0], [GAIN]], dtype=np.float32), "weight"),
            numpy_helper.from_array(np.array([0.0, BIAS], dtype=np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph)
    assert add_class_maps(model) and model.graph.output[1].name == CLASS_MAPS
    return _bundle(helper, model.graph, folder, {**CLASSIFIER, "margin_voxels": 0, **keys})


@pytest.mark.parametrize("kind", [RuntimeKind.OPENVINO, RuntimeKind.ONNXRUNTIME])
def test_a_score_is_the_bias_and_the_mean_of_its_map(kind: RuntimeKind, tmp_path: Path) -> None:
    pytest.importorskip(str(kind))
    network = open_network(cells_bundle(tmp_path / "cells"), RuntimeSettings(kind=kind, precision=Precision.F32))
    images = np.random.default_rng(3).random((3, 1, 16, 16, 8), dtype=np.float32)
    scores, maps = network(images)
    assert maps.shape == (3, 2, 4, 4, 2)
    assert np.allclose(maps.mean(axis=(2, 3, 4)) + np.array([0, BIAS]), scores, atol=1e-5)
    by_hand = GAIN * images[:, 0].reshape(3, 4, 4, 4, 4, 2, 4).mean(axis=(2, 4, 6))
    assert np.allclose(maps[:, 1], by_hand, atol=1e-5) and not maps[:, 0].any()


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("orientation", ["RAS", "LPI"])
def test_parts_lie_where_they_belong_however_the_voxels_lie(stored: str, orientation: str, tmp_path: Path) -> None:
    """What is bright lies on the patient's right; so does what adds most, by the right amount."""
    volume, lung = chest(stored)
    bundle = cells_bundle(tmp_path / "cells", orientation=orientation)
    network = open_network(bundle, F32)
    found = explain(volume, lung, bundle, network)
    assert found.parts is not None
    values, cells = found.parts.values, found.places
    assert cells == (4, 4, 2) and found.parts.unit == "part of the log-odds"
    assert found.parts.quantity == "what the place adds to the log-odds of yes"
    away = points(volume.grid) - np.array(MIDDLE_MM)
    assert (away[values == values.max()][:, 0] < 0).all(), "the patient's right"
    assert values.max() == pytest.approx(GAIN * 0.6 / 32, abs=2e-3), "-400 HU are 0.6, one of 32 places"
    assert values[lung.labels > 0].min() == pytest.approx(GAIN * 0.2 / 32, abs=2e-3)
    assert not values[lung.labels == 0].any()


def test_the_other_class_has_the_same_parts_against_it(tmp_path: Path) -> None:
    for label, sign in ((0, -1), (1, 1)):
        bundle = cells_bundle(tmp_path / str(label), saliency={"label": label})
        found = explain(*chest(), bundle, open_network(bundle, F32))
        assert found.parts is not None and sign * found.parts.values.sum() > 0


def test_the_shipped_classifier_adds_up(data: Path) -> None:
    volume = read_volume(data / "tiny" / "cip_ct64_ct.nii.gz")
    lung = replace(read_mask(data / "tiny" / "cip_ct64_lung.nii.gz"), grid=volume.grid)
    bundle = find_bundle("covid-densenet")
    assert isinstance(bundle.carina, Covid)
    network = open_network(bundle, F32)
    image = network_input(volume, lung, bundle.carina)
    scores, maps = network(np.stack([image, image[::-1]])[:, None])
    rest = scores - maps.mean(axis=(2, 3, 4))
    assert np.allclose(rest[0], rest[1], atol=1e-4), "what is not in the maps is a constant, the bias"
    assert np.array_equal(open_runtime(bundle, F32)(image[None, None]), network(image[None, None])[0])
    found = explain(volume, lung, bundle, network)
    assert found.parts is not None and found.places == maps.shape[2:]
    assert found.probabilities == classify(volume, lung, bundle, open_runtime(bundle, F32))


def test_a_network_without_maps_says_so_and_wrong_maps_fail(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "mean")
    found = explain(*chest(), bundle, open_network(bundle, F32))
    assert found.parts is None and found.probabilities == classify(*chest(), bundle, open_runtime(bundle, F32))
    scores = np.zeros((1, 2), dtype=np.float32)
    with pytest.raises(ModelFailed, match=r"class maps of shape \(1, 3, 2, 2, 2\), expected \(1, 2, x, y, z\)"):
        explain(*chest(), bundle, lambda _: [scores, np.zeros((1, 3, 2, 2, 2), dtype=np.float32)])


def test_only_a_mean_and_one_linear_layer_have_maps(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(mean_bundle(tmp_path / "mean").onnx))
    assert not add_class_maps(model) and len(model.graph.output) == 1


def test_a_served_model_has_both_outputs(tmp_path: Path) -> None:
    place = write_repository(cells_bundle(tmp_path / "cells"), tmp_path / "repository")
    text = (place / "config.pbtxt").read_text()
    assert text.count("output [") == 2 and f'name: "{CLASS_MAPS}"' in text


@pytest.mark.parametrize(
    ("asked", "method", "unit"),
    [
        ({}, SaliencyMethod.ACTIVATION, "part of the log-odds"),
        ({"CARINA_SALIENCY": "on"}, SaliencyMethod.ACTIVATION, "part of the log-odds"),
        ({"CARINA_SALIENCY": "occlusion"}, SaliencyMethod.OCCLUSION, "change of probability"),
    ],
)
def test_one_pass_is_the_default_and_occlusion_is_had_on_request(
    asked: dict[str, str], method: SaliencyMethod, unit: str, tmp_path: Path
) -> None:
    phantom = chest_phantom(shape=(40, 200, 200), lesions=3, seed=5)
    ports.save_value(VolumePort, phantom.volume, tmp_path / "volume")
    ports.save_value(MaskPort, phantom.lung, tmp_path / "lung")
    cells_bundle(tmp_path / "bundles" / "cells")
    settings = Settings(models=ModelSettings(covid="cells", folders=(str(tmp_path / "bundles"),)))
    alone = Alone(
        operator=find_operator("ai-covid-19"),
        inputs={"input": tmp_path / "volume", "label_image": tmp_path / "lung"},
        outputs={"output": tmp_path / "output", "saliency": tmp_path / "saliency"},
        variables=asked,
    )
    run_alone(alone, (settings, Networks(settings)))
    found = ports.load_folder(ClassificationPort, tmp_path / "output").saliency
    assert found is not None and found.method is method
    stored = ports.load_folder(SaliencyPort, tmp_path / "saliency").map
    assert stored is not None and stored.unit == unit


def test_the_report_says_what_is_not_told_apart() -> None:
    found = SaliencyFindings(
        label="COVID-19", lowest=-0.25, highest=1.5, blocks=(3, 3, 1), method=SaliencyMethod.ACTIVATION
    )
    text = _said(found)
    assert "in 3 \u00d7 3 \u00d7 1 places of the box around the lungs" in text
    assert "head and feet are not told apart." in text
    assert "Orange: the place speaks for COVID-19, at most by 1.50; blue: against it, at most by 0.25." in text
    faint = _said(replace(found, lowest=0.0, highest=0.002, blocks=(3, 3, 2)))
    assert "No place changes the log-odds of COVID-19 by more than 0.002." in faint and "told apart" not in faint
