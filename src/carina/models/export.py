"""Network to ONNX: float16 storage, float32 arithmetic, dynamic axes, and a parity check.

Initialisers keep their names in the state dict. Large ones are stored as float16 under that name, followed by a Cast;
runtimes fold the Cast when they load the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carina.errors import ModelFailed
from carina.models.class_maps import add_class_maps

if TYPE_CHECKING:
    from torch import nn

OPSET = 17
HALF_FROM = 1024
"""Initialisers with at least this many elements are stored as float16."""
PARITY = 5e-3
"""Largest difference of outputs, relative to their range, that a runtime may show against torch in float32."""


def export_onnx(
    network: nn.Module, path: Path, shape: tuple[int, int, int], *, dynamic: bool = True, half: bool = True
) -> None:
    """Write ``network`` (``(n, 1, x, y, z)`` in) as ONNX, its large weights as float16 if ``half``.

    ``shape`` is that of the example, ``(x, y, z)``. The batch is dynamic, and so are the sides if ``dynamic``.
    The network's own weights are rounded to what is stored, so that torch and the file agree. A classifier that ends
    in a mean over all places has a second output, its class maps (`add_class_maps`).
    """
    import onnx
    import torch

    network = network.eval().float().to(memory_format=torch.contiguous_format)
    with torch.no_grad():
        for value in network.state_dict().values():
            if half and value.is_floating_point() and value.numel() >= HALF_FROM:
                value.copy_(value.half().float())
    axes = {0: "n"} | ({2: "x", 3: "y", 4: "z"} if dynamic else {})
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, *shape),),
        str(path),
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": axes, "scores": axes if dynamic else {0: "n"}},
        opset_version=OPSET,
        do_constant_folding=False,
        keep_initializers_as_inputs=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        dynamo=False,
    )
    model = onnx.load(str(path))
    if half:
        _store_half(model)
    add_class_maps(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _store_half(model: Any) -> None:
    """Replace each large float32 initialiser by a float16 one of the same name and a Cast."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < HALF_FROM:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name))
        casts.append(helper.make_node("Cast", [name], [f"{name}/float"], f"{name}/cast", to=TensorProto.FLOAT))
        for node in model.graph.node:
            for index, wanted in enumerate(node.input):
                if wanted == name:
                    node.input[index] = f"{name}/float"
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def check_parity(network: nn.Module, path: Path, shape: tuple[int, int, int], *, seed: int = 0) -> dict[str, float]:
    """Largest relative difference of ONNX Runtime and OpenVINO against torch, on two random inputs of ``shape``.

    Raises:
        ModelFailed: one of them differs by more than `PARITY`.
    """
    import torch

    inputs = np.random.default_rng(seed).random((2, 1, *shape), dtype=np.float32)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(inputs)).numpy()
    spread = float(np.ptp(expected)) or 1.0
    found = {
        name: float(np.abs(run(path, inputs) - expected).max()) / spread
        for name, run in (("onnxruntime", _onnxruntime), ("openvino", _openvino))
    }
    for name, difference in found.items():
        if not difference <= PARITY:
            raise ModelFailed(
                "export.parity", f"{path.name} in {name} differs from torch by {difference:.2g} of the output's range."
            )
    return found


def _onnxruntime(path: Path, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: inputs})[0], dtype=np.float32)


def _openvino(path: Path, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled([inputs])[0], dtype=np.float32)
