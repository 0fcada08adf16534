"""A bundle as an entry of a Triton model repository: ``NAME/config.pbtxt``, ``NAME/1/model.onnx``.

Layout and keys are those of Triton's model repository and model configuration (model_config.proto). The model's name
is the bundle's ``served_as``; the parameter ``weights_sha256`` tells a client which weights are served.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from carina import RESEARCH_ONLY
from carina.errors import BadConfig
from carina.models import served_model
from carina.models.bundle import Bundle
from carina.models.class_maps import used_outputs
from carina.models.weights_digest import weights_sha256

WEIGHTS_PARAMETER = "weights_sha256"
"""The model config's parameter that holds the SHA-256 of the ONNX file."""


class Backend(StrEnum):
    """What runs the network inside Triton.

    ``onnxruntime`` is the backend of the usual containers, on GPU or CPU. ``python`` runs the same ONNX file by
    OpenVINO or ONNX Runtime in the server's Python, where there is no other backend.
    """

    ONNXRUNTIME = "onnxruntime"
    PYTHON = "python"


@dataclass(frozen=True, kw_only=True)
class TensorPort:
    """An input or output of a network: name, Triton's name of its type, and its sides (-1: any)."""

    name: str
    data_type: str
    dims: tuple[int, ...]


def write_repository(
    bundle: Bundle, folder: Path, *, backend: Backend = Backend.ONNXRUNTIME, max_batch: int = 8
) -> Path:
    """Write the bundle as the model ``served_as`` into the repository ``folder``, replacing an older one of that name.

    ``max_batch`` is the most patches that one request, or several that the server joins, may hold; a network whose
    batch axis is fixed is served as it is, without batching. Gives the model's folder.

    Raises:
        BadConfig: the weights can't be read, or are no network of float32 inputs and outputs.
    """
    source, *results = read_ports(bundle.onnx)
    place = folder / bundle.served_as
    version = place / "1"
    shutil.rmtree(version, ignore_errors=True)
    version.mkdir(parents=True)
    shutil.copyfile(bundle.onnx, version / "model.onnx")
    if backend is Backend.PYTHON:
        shutil.copyfile(served_model.__file__, version / "model.py")
    batch = max_batch if all(port.dims[0] == -1 for port in (source, *results)) else 0
    (place / "config.pbtxt").write_text(_config(bundle, source, results, backend, batch), encoding="utf-8")
    return place


def read_ports(onnx: Path) -> list[TensorPort]:
    """The first input and the used outputs of an ONNX file, read by OpenVINO; the dims include the batch axis.

    Raises:
        BadConfig: the file can't be read, or its input or an output is not float32.
    """
    import openvino

    try:
        model = openvino.Core().read_model(onnx)
    except RuntimeError as error:
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
        raise BadConfig("bundle.weights", f"{onnx}: the weights can't be loaded ({' '.join(last)}).") from error
    outputs = [_port(output) for output in model.outputs]
    ports = [_port(model.inputs[0]), *(outputs[k] for k in used_outputs([port.name for port in outputs]))]
    for port in ports:
        if port.data_type != "TYPE_FP32":
            raise BadConfig(
                "bundle.weights", f"{onnx}: {port.name} is {port.data_type}; input and output must be float32."
            )
    return ports


def _port(node: Any) -> TensorPort:
    dims = tuple(-1 if side.is_dynamic else side.get_length() for side in node.get_partial_shape())
    kind = {"f32": "FP32", "f16": "FP16", "f64": "FP64"}.get(
        node.get_element_type().get_type_name(), node.get_element_type().get_type_name().upper()
    )
    return TensorPort(name=node.get_any_name() if node.get_names() else "", data_type=f"TYPE_{kind}", dims=dims)


def _config(bundle: Bundle, source: TensorPort, results: Sequence[TensorPort], backend: Backend, batch: int) -> str:
    """The text of ``config.pbtxt``. With batching, Triton's dims leave the batch axis out."""
    parameters = {WEIGHTS_PARAMETER: weights_sha256(bundle.onnx), "made_by": bundle.made_by}
    if backend is Backend.PYTHON:
        parameters |= {"precision": "f32", "threads": "0"}
        running = "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    else:
        running = "dynamic_batching { }\n" if batch > 1 else ""
    return "".join(
        [
            f"# {bundle.title}, {bundle.made_by}. {RESEARCH_ONLY}\n",
            f'name: "{bundle.served_as}"\n',
            f'backend: "{backend}"\n',
            f"max_batch_size: {batch}\n",
            _block("input", source, batch),
            *(_block("output", result, batch) for result in results),
            running,
            *(
                f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
                for key, value in parameters.items()
            ),
        ]
    )


def _block(word: str, port: TensorPort, batch: int) -> str:
    dims = port.dims[1:] if batch else port.dims
    return f'{word} [ {{ name: "{port.name}" data_type: {port.data_type} dims: {list(dims)} }} ]\n'
