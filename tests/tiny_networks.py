"""Bundles with networks of a few weights, whose answers are known by arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from carina.models.bundle import Bundle, write_bundle

SEGMENTATION: dict[str, Any] = {
    "task": "lung",
    "orientation": "RAS",
    "spacing_mm": [1.0, 1.0, 2.0],
    "window_hu": [-1000, 0],
    "labels": {"1": "lung"},
    "divisor": 8,
    "original": {"patch": [32, 32, 16], "overlap": 0.25},
    "fast": {"patch": [32, 32, 16], "overlap": 0.1},
}
CLASSIFIER: dict[str, Any] = {
    "task": "covid",
    "orientation": "RAS",
    "window_hu": [-1000, 0],
    "labels": {"0": "no", "1": "yes"},
    "size": [16, 16, 8],
}
FACTS: dict[str, Any] = {
    "version": "0.1.0",
    "name": "A tiny one",
    "description": "For tests.",
    "network_data_format": {},
}


def weightless_bundle(folder: Path, **keys: Any) -> Bundle:
    """A segmentation bundle for tests that bring their own network as a function."""
    return _written(folder, {**SEGMENTATION, **keys}, b"no weights")


def threshold_bundle(folder: Path, **keys: Any) -> Bundle:
    """Foreground where the windowed image (0 to 1) is below 0.5: dark voxels."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    np = pytest.importorskip("numpy")
    weight = np.array([40.0, -40.0], dtype=np.float32).reshape(2, 1, 1, 1, 1)
    bias = np.array([-20.0, 20.0], dtype=np.float32)
    nodes = [helper.make_node("Conv", ["image", "weight", "bias"], ["scores"])]
    graph = helper.make_graph(
        nodes,
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "x", "y", "z"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2, "x", "y", "z"])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    return _bundle(helper, graph, folder, {**SEGMENTATION, **keys})


def mean_bundle(folder: Path, **keys: Any) -> Bundle:
    """Two logits: 0, and four times the mean of the windowed image."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    np = pytest.importorskip("numpy")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "x", "y", "z"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.array([[0.0, 4.0]], dtype=np.float32), "weight")],
    )
    return _bundle(helper, graph, folder, {**CLASSIFIER, **keys})


def tiny_environment(folder: Path, *, ill_hu: int = -500) -> dict[str, str]:
    """A bundle for each task, as variables of the environment: for tests that are not about what networks find.

    Lungs are what is darker than -500 HU, lesions what is darker than ``ill_hu``: at -865 many pieces of a phantom's.
    On a coarse grid a whole run takes a quarter of the processor time that it takes on `SEGMENTATION`'s.
    """
    patch = [64, 64, 32]
    coarse = {
        "spacing_mm": [2.0, 2.0, 4.0],
        "original": {"patch": patch, "overlap": 0.25},
        "fast": {"patch": patch, "overlap": 0.1},
    }
    threshold_bundle(folder / "lungs", **coarse)
    window = {"window_hu": [2 * ill_hu, 0]}
    threshold_bundle(folder / "lesions", task="lesion", labels={"1": "lesion"}, **coarse, **window)
    mean_bundle(folder / "covid")
    names = {"CARINA_MODELS_LUNG": "lungs", "CARINA_MODELS_LESION": "lesions", "CARINA_MODELS_COVID": "covid"}
    return {"CARINA_MODELS_FOLDERS": str(folder), **names}


def _bundle(helper: Any, graph: Any, folder: Path, keys: dict[str, Any]) -> Bundle:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return _written(folder, keys, model.SerializeToString())


def _written(folder: Path, keys: dict[str, Any], weights: bytes) -> Bundle:
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f"{folder.name}.onnx"
    file.write_bytes(weights)
    return write_bundle(folder, {**FACTS, "carina": keys}, file, card="# A tiny one\nFor research use only.")
