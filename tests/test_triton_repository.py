"""Model repositories: what a server would read, checked with Triton's own schema, and what is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from carina.errors import BadConfig
from carina.models.bundle import find_bundle
from carina.models.served_model import TritonPythonModel
from carina.models.triton_repository import Backend, read_ports, write_repository
from tiny_networks import mean_bundle, threshold_bundle


def config_of(place: Path) -> Any:
    """The model's configuration, parsed by Triton's schema: an unknown key or a wrong type fails."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    return text_format.Parse((place / "config.pbtxt").read_text(), schema.ModelConfig())


@pytest.mark.parametrize("backend", list(Backend))
def test_a_segmentation_network_takes_any_sides_and_batches(tmp_path: Path, backend: Backend) -> None:
    bundle = threshold_bundle(tmp_path / "tiny", served_as="segmentation_ct_lung_v1")
    place = write_repository(bundle, tmp_path / "repository", backend=backend, max_batch=3)
    config = config_of(place)
    assert place == tmp_path / "repository" / "segmentation_ct_lung_v1"
    assert (config.name, config.backend, config.max_batch_size) == (place.name, str(backend), 3)
    source, result = config.input[0], config.output[0]
    assert (source.name, list(source.dims), source.data_type) == ("image", [1, -1, -1, -1], 11)
    assert (result.name, list(result.dims), result.data_type) == ("scores", [2, -1, -1, -1], 11)
    weights = (place / "1" / "model.onnx").read_bytes()
    assert weights == bundle.onnx.read_bytes()
    assert config.parameters["weights_sha256"].string_value == hashlib.sha256(weights).hexdigest()
    assert (place / "1" / "model.py").exists() == (backend is Backend.PYTHON)
    assert "For research use only" in (place / "config.pbtxt").read_text()


def test_a_classifier_gives_a_row(tmp_path: Path) -> None:
    config = config_of(write_repository(mean_bundle(tmp_path / "mean"), tmp_path / "repository"))
    assert list(config.output[0].dims) == [2]


@pytest.mark.parametrize("name", ["lung-ahnet", "lesion-segresnet", "covid-densenet"])
def test_shipped_bundles(tmp_path: Path, name: str) -> None:
    config = config_of(write_repository(find_bundle(name), tmp_path))
    assert (config.name, config.max_batch_size, config.input[0].dims[0], config.output[0].dims[0]) == (name, 8, 1, 2)


def test_a_fixed_batch_axis_is_served_without_batching(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    bundle = threshold_bundle(tmp_path / "tiny")
    model = onnx.load(bundle.onnx)
    for port in (model.graph.input[0], model.graph.output[0]):
        port.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, bundle.onnx)
    config = config_of(write_repository(bundle, tmp_path / "repository"))
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [1, 1, -1, -1, -1])
    assert not config.HasField("dynamic_batching")


def test_writing_again_replaces(tmp_path: Path) -> None:
    bundle = threshold_bundle(tmp_path / "tiny")
    write_repository(bundle, tmp_path / "repository", backend=Backend.PYTHON)
    place = write_repository(bundle, tmp_path / "repository")
    assert [file.name for file in (place / "1").iterdir()] == ["model.onnx"]
    assert config_of(place).backend == "onnxruntime"


def test_broken_weights_are_named(tmp_path: Path) -> None:
    bundle = threshold_bundle(tmp_path / "tiny")
    bundle.onnx.write_bytes(b"no network")
    with pytest.raises(BadConfig, match=r"model\.onnx: the weights can't be loaded"):
        write_repository(bundle, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_other_types_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    bundle = threshold_bundle(tmp_path / "tiny")
    cast = onnx.helper.make_node("Cast", ["scores"], ["half"], to=onnx.TensorProto.FLOAT16)
    model = onnx.load(bundle.onnx)
    model.graph.node.append(cast)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("half", onnx.TensorProto.FLOAT16, None))
    onnx.save(model, bundle.onnx)
    with pytest.raises(BadConfig, match=r"half is TYPE_FP16; input and output must be float32"):
        read_ports(bundle.onnx)


class Tensor:
    """Stands for the backend's tensor: a name and an array that goes over by DLPack."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    @staticmethod
    def from_dlpack(name: str, capsule: object) -> Tensor:
        return Tensor(name, np.from_dlpack(Lent(capsule)).copy())

    def __dlpack__(self, **options: Any) -> object:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Lent:
    def __init__(self, capsule: object) -> None:
        self.capsule = capsule

    def __dlpack__(self, *, stream: None = None, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_served_model_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    """The model file as the Python backend calls it, with each runtime: known scores, and errors as answers."""
    pytest.importorskip(runtime)
    if runtime == "onnxruntime":
        monkeypatch.setitem(sys.modules, "openvino", None)
    backend: Any = ModuleType("triton_python_backend_utils")
    backend.get_input_tensor_by_name = lambda request, name: Tensor(name, request[name])
    backend.Tensor = Tensor
    backend.TritonError = lambda words: words
    backend.InferenceResponse = lambda tensors=(), error=None: (tensors, error)
    monkeypatch.setitem(sys.modules, backend.__name__, backend)
    bundle = threshold_bundle(tmp_path / "tiny")
    place = tmp_path / "repository" / "tiny"
    (place / "1").mkdir(parents=True)
    (place / "1" / "model.onnx").write_bytes(bundle.onnx.read_bytes())
    model = TritonPythonModel()
    parameters = {"precision": {"string_value": "f32"}, "threads": {"string_value": "1"}}
    config = {"input": [{"name": "image"}], "output": [{"name": "scores"}], "parameters": parameters}
    model.initialize({"model_config": json.dumps(config), "model_repository": str(place), "model_version": "1"})
    patches = np.random.default_rng(0).random((2, 1, 4, 5, 6), dtype=np.float32)
    wrong = np.zeros((1, 3, 4, 5, 6), dtype=np.float32)
    (good, none), (nothing, error) = model.execute([{"image": patches}, {"image": wrong}])
    assert none is None and good[0].name == "scores"
    assert np.allclose(good[0].array, np.concatenate([40 * patches - 20, 20 - 40 * patches], axis=1), atol=1e-4)
    assert not nothing and error.startswith("the network failed: ")
