"""The model file of Triton's Python backend: it runs the ONNX file beside it, by OpenVINO or else ONNX Runtime.

`triton_repository.write_repository` copies this file into a model repository as ``1/model.py``; it imports nothing of
Carina, so a server needs only NumPy and one of the two runtimes. The parameters ``precision`` (OpenVINO's
``INFERENCE_PRECISION_HINT``, empty for its own choice) and ``threads`` (0: every core) of the model's config are read.
For research use only. Not for diagnosis.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.float32]
_Run = Callable[[_Array], list[_Array]]
_USED = b"used_dltensor"


class TritonPythonModel:
    """What the Python backend asks for: the network is loaded in ``initialize`` and run in ``execute``."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network; an error here is what the server gives as the reason why the model is not ready."""
        config = json.loads(args["model_config"])
        self.input = config["input"][0]["name"]
        self.outputs = [one["name"] for one in config["output"]]
        given = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.run = _opened(file, given.get("precision", ""), int(given.get("threads", "0")), self.outputs)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; one that fails is answered with its error, and the others are answered."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        import triton_python_backend_utils as triton  # type: ignore[import-not-found]

        try:
            patches = np.from_dlpack(triton.get_input_tensor_by_name(request, self.input))
            found = self.run(np.ascontiguousarray(patches, dtype=np.float32))
            pairs = zip(self.outputs, found, strict=True)
            return triton.InferenceResponse([_lent(triton.Tensor, name, array) for name, array in pairs])
        except Exception as error:  # noqa: BLE001 - the server's edge: whatever it was, the client is told
            return triton.InferenceResponse(error=triton.TritonError(f"the network failed: {error}"))


def _lent(tensor: Any, name: str, scores: _Array) -> Any:
    """The answer by DLPack, for some builds of the backend read NumPy 2's arrays as empty.

    The backend marks the capsule as used by a word of its own; by the standard's, NumPy stays out of the log.
    """
    capsule = scores.__dlpack__()
    answer = tensor.from_dlpack(name, capsule)
    ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), _USED)
    return answer


def _opened(file: Path, precision: str, threads: int, outputs: list[str]) -> _Run:
    try:
        import openvino
    except ImportError:
        return _by_onnxruntime(file, threads, outputs)
    return _by_openvino((openvino.Core(), file), precision, threads, outputs)


def _by_openvino(source: tuple[Any, Path], precision: str, threads: int, outputs: list[str]) -> _Run:
    core, file = source
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if precision:
        properties["INFERENCE_PRECISION_HINT"] = precision
    if threads:
        properties["INFERENCE_NUM_THREADS"] = threads
    model = core.read_model(file)
    compiled: dict[tuple[int, ...], Any] = {}

    def run(patches: _Array) -> list[_Array]:
        """One compiled network at a time: static shapes run faster, and the old one's memory is given back."""
        if patches.shape not in compiled:
            compiled.clear()
            fixed = model.clone()
            fixed.reshape(list(patches.shape))
            compiled[patches.shape] = core.compile_model(fixed, "CPU", properties).create_infer_request()
        request = compiled[patches.shape]
        request.infer([patches], share_inputs=True)
        return [np.array(request.get_tensor(name).data, dtype=np.float32) for name in outputs]

    return run


def _by_onnxruntime(file: Path, threads: int, outputs: list[str]) -> _Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=onnxruntime.get_available_providers())
    name = session.get_inputs()[0].name

    def run(patches: _Array) -> list[_Array]:
        return [np.asarray(one, dtype=np.float32) for one in session.run(outputs, {name: patches})]

    return run
