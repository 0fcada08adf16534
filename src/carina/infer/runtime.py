"""Runtimes: what runs a network. A runtime is one function, an array of patches in, an array of scores out.

Where a network has further outputs, `open_network` gives them all; a runtime is its first.

The table ``OPENERS`` has an entry for every ``RuntimeKind``; one contract test runs over it. Nothing here reaches the
network but the Triton runtime, and that only its endpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from carina.config import Precision, RuntimeKind, RuntimeSettings
from carina.errors import BadConfig, ModelFailed
from carina.infer.partial_output import answer_part
from carina.infer.triton import open_triton
from carina.models.bundle import Bundle, Lesion, Lung, NetworkOutput
from carina.models.class_maps import used_outputs
from carina.volume.arrays import Box, Floats

Runtime = Callable[[Floats], Floats]
"""Float32 patches ``(n, 1, x, y, z)`` to float32 scores ``(n, classes, x, y, z)``, or ``(n, classes)``.

Segmentation of two classes with logits has one channel: the foreground's logit minus the background's.
"""

Outputs = Callable[[Floats], Sequence[Floats]]
"""Patches to everything that the network gives for them: scores first, then (of a classifier) class maps."""


def open_runtime(bundle: Bundle, settings: RuntimeSettings | None = None) -> Runtime:
    """Get the bundle's network ready to run. The function may be called from any thread.

    Raises:
        BadConfig: as ``open_network``. The returned function raises ``ModelFailed`` where a run fails.
    """
    return first_of(open_network(bundle, settings))


@dataclass(frozen=True)
class PartNetwork:
    """A network that can answer for a part ``(x, y, z)`` of its patches alone, with less work: ``run(patches, part)``.

    Without a part it gives all that it has.
    """

    run: Callable[[Floats, Box | None], Sequence[Floats]]

    def __call__(self, patches: Floats) -> Sequence[Floats]:
        """Everything that the network gives for whole patches."""
        return self.run(patches, None)


@dataclass(frozen=True)
class _FirstOf:
    network: Outputs

    def __call__(self, patches: Floats) -> Floats:
        return self.network(patches)[0]


def first_of(network: Outputs) -> Runtime:
    """The scores alone."""
    return _FirstOf(network)


def scores_within(runtime: Runtime, patches: Floats, part: Box) -> Floats:
    """The scores of a part ``(x, y, z)`` of patches, with no more work than that needs where the runtime can tell."""
    whole = all(one == slice(0, side) for one, side in zip(part, patches.shape[2:], strict=True))
    if not whole and isinstance(runtime, _FirstOf) and isinstance(runtime.network, PartNetwork):
        return runtime.network.run(patches, part)[0]
    return runtime(patches)[(slice(None), slice(None), *part)]


def open_network(bundle: Bundle, settings: RuntimeSettings | None = None) -> Outputs:
    """As ``open_runtime``, with all outputs of the network.

    Raises:
        BadConfig: the runtime's package is not installed, its endpoint is away, not ready or lacks the model, or the
            weights can't be loaded. The returned function raises ``ModelFailed`` where a run fails.
    """
    settings = with_precision(settings or RuntimeSettings())
    run = OPENERS[settings.kind](bundle, settings)

    two = has_two_logits(bundle)

    def checked(patches: Floats, part: Box | None = None) -> Sequence[Floats]:
        patches = np.ascontiguousarray(patches, dtype=np.float32)
        scores, *more = run.run(patches, part) if isinstance(run, PartNetwork) else run(patches)
        if two and scores.shape[1] == 2:
            scores = scores[:, 1:] - scores[:, :1]
        if not all(np.isfinite(one).all() for one in (scores, *more)):
            raise ModelFailed(
                "model.not-finite",
                f"Bundle {bundle.name}: the network gave scores that are no finite numbers; "
                f"try runtime.precision f32 (now {settings.precision}).",
            )
        return scores, *more

    return PartNetwork(checked) if isinstance(run, PartNetwork) else checked


def with_precision(settings: RuntimeSettings) -> RuntimeSettings:
    """The settings with the arithmetic that ``auto`` stands for on this machine.

    Results carry it: the same series on a processor with and on one without bfloat16 gives two different masks.
    """
    if settings.precision is not Precision.AUTO:
        return settings
    precision = Precision.F32
    if settings.kind is RuntimeKind.OPENVINO:
        openvino = _openvino()
        chosen = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
        precision = Precision.BF16 if chosen == openvino.Type.bf16 else Precision.F32
    return msgspec.structs.replace(settings, precision=precision)


def has_two_logits(bundle: Bundle) -> bool:
    """Whether the bundle's network tells one label from the background by two logits."""
    spec = bundle.carina
    return isinstance(spec, Lung | Lesion) and spec.output is NetworkOutput.LOGITS and len(spec.labels) == 1


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise _not_installed("openvino", "openvino") from error
    return openvino


def _open_openvino(bundle: Bundle, settings: RuntimeSettings) -> Outputs:
    core = _openvino().Core()
    properties: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
    }
    properties["INFERENCE_PRECISION_HINT"] = settings.precision.value
    if settings.threads:
        properties["INFERENCE_NUM_THREADS"] = settings.threads
    try:
        model = core.read_model(bundle.onnx)
        if has_two_logits(bundle):
            model = _with_difference(model)
    except RuntimeError as error:
        raise _bad_weights(bundle, error) from error
    used = used_outputs([output.get_any_name() if output.get_names() else "" for output in model.outputs])
    compiled: dict[tuple[Any, ...], tuple[Any, bool]] = {}
    lock = threading.Lock()

    def request_for(shape: tuple[int, ...], part: Box | None) -> tuple[Any, bool]:
        """One compiled network at a time: static shapes run faster, and the old one's memory is given back.

        And whether it answers for the part alone.
        """
        key = (shape, *((one.start, one.stop) for one in part or ()))
        if key not in compiled:
            compiled.clear()
            fixed = model.clone()
            fixed.reshape(list(shape))
            is_narrow = part is not None and len(fixed.outputs) == 1 and answer_part(fixed, part)
            request = core.compile_model(fixed, "CPU", properties).create_infer_request()
            compiled[key] = request, is_narrow
        return compiled[key]

    def run(patches: Floats, part: Box | None) -> Sequence[Floats]:
        with lock:
            try:
                request, is_narrow = request_for(patches.shape, part)
                request.infer([patches], share_inputs=True)
                seen = (slice(None), slice(None), *part) if part and not is_narrow else ...
                tensors = (request.get_output_tensor(number) for number in used)
                return [np.array(tensor.data[seen], dtype=np.float32) for tensor in tensors]
            except RuntimeError as error:
                raise _failed(bundle, patches, error) from error

    return PartNetwork(run)


def _with_difference(model: Any) -> Any:
    """The model with one output channel: the difference of its two logits is taken where they are, before any copy."""
    openvino = _openvino()
    scores = model.get_results()[0].input_value(0)
    if scores.get_partial_shape()[1] != 2:
        return model
    sides = scores.get_partial_shape().rank.get_length() - 2
    weight = np.array([-1, 1], dtype=np.float32).reshape(1, 2, *[1] * sides)
    ops = openvino.opset13
    difference = ops.convolution(scores, ops.constant(weight), [1] * sides, [0] * sides, [0] * sides, [1] * sides)
    return openvino.Model([difference], model.get_parameters(), model.get_friendly_name())


def _open_onnxruntime(bundle: Bundle, settings: RuntimeSettings) -> Outputs:
    try:
        import onnxruntime
    except ImportError as error:
        raise _not_installed("onnxruntime", "'carina-ct[onnxruntime]' or onnxruntime-gpu") from error
    wanted = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 3
    failures = _failures_of_onnxruntime()
    try:
        session = onnxruntime.InferenceSession(str(bundle.onnx), options, providers=providers)
    except failures as error:
        raise _bad_weights(bundle, error) from error
    name, given = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]
    used = [given[number] for number in used_outputs(given)]

    def run(patches: Floats) -> Sequence[Floats]:
        try:
            return [np.asarray(one, dtype=np.float32) for one in session.run(used, {name: patches})]
        except failures as error:
            raise _failed(bundle, patches, error) from error

    return run


def _failures_of_onnxruntime() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: a class for each of its statuses, and none that they have in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as library

    statuses = [kind for kind in vars(library).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (RuntimeError, ValueError, *statuses)


def _not_installed(package: str, install: str) -> BadConfig:
    return BadConfig(
        "runtime.not-installed",
        f"The runtime needs the package {package}, which is not installed: pip install {install}, "
        "or choose another runtime.kind.",
    )


def _bad_weights(bundle: Bundle, error: Exception) -> BadConfig:
    words = f"{bundle.onnx}: the weights can't be loaded ({_first_line(error)})"
    how = "expected a whole ONNX file; put the bundle's own back or import it again, then run again what failed of it"
    return BadConfig("bundle.weights", f"{words}: {how}.")


def _failed(bundle: Bundle, patches: Floats, error: Exception) -> ModelFailed:
    return ModelFailed(
        "model.failed", f"Bundle {bundle.name}: the network failed on patches {patches.shape} ({_first_line(error)})."
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


OPENERS: dict[RuntimeKind, Callable[[Bundle, RuntimeSettings], Outputs]] = {
    RuntimeKind.OPENVINO: _open_openvino,
    RuntimeKind.ONNXRUNTIME: _open_onnxruntime,
    RuntimeKind.TRITON: open_triton,
}
