"""Does a file give what the network gives that it was made from? Random inputs through both, differences counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carina.errors import ModelFailed
from carina.models.bundle import Bundle, Covid, Segmentation
from carina.models.triton_repository import read_ports
from carina.volume.arrays import Floats

if TYPE_CHECKING:
    from torch import nn

NetworkRun = Callable[[Floats], Floats]

LIMIT = 1e-3
"""Largest difference in float32 arithmetic, as a share of the range of the reference's outputs."""

SMALLEST = (32, 48, 16)
"""A window of at least this many voxels ``(x, y, z)`` is compared, and one twice as long in x."""


def probes(bundle: Bundle, seed: int = 0) -> list[Floats]:
    """Random inputs ``(n, 1, x, y, z)`` in 0 .. 1 that the bundle's network takes: two sizes where its sides are free.

    Where the number of images is free, the first input holds two, the other, which is larger, one.

    Raises:
        BadConfig: the weights can't be read.
    """
    batch, _, *sides = read_ports(bundle.onnx)[0].dims
    spec = bundle.carina
    shapes = [spec.size] if isinstance(spec, Covid) else _windows(spec, sides)
    rng = np.random.default_rng(seed)
    counts = (2, 1) if batch == -1 else (batch, batch)
    return [rng.random((count, 1, *shape), dtype=np.float32) for count, shape in zip(counts, shapes, strict=False)]


def _windows(spec: Segmentation, sides: Sequence[int]) -> list[tuple[int, int, int]]:
    free = [-(-least // divisor) * divisor for least, divisor in zip(SMALLEST, spec.divisors, strict=True)]
    longer = [2 * free[0], *free[1:]]
    found = []
    for wanted in (free, longer) if -1 in sides else (free,):
        x, y, z = (want if side == -1 else side for want, side in zip(wanted, sides, strict=True))
        found.append((x, y, z))
    return found


def differences(expected: NetworkRun, runs: Mapping[str, NetworkRun], inputs: Sequence[Floats]) -> dict[str, float]:
    """For each of ``runs``, the largest difference from ``expected`` as a share of the range of its outputs.

    Raises:
        ModelFailed: one differs by more than ``LIMIT``, or in shape.
    """
    found = dict.fromkeys(runs, 0.0)
    for image in inputs:
        wanted = expected(image)
        spread = float(np.ptp(wanted)) or 1.0
        for name, run in runs.items():
            got = run(image)
            if got.shape != wanted.shape:
                raise ModelFailed("export.parity", f"{name} gives shape {got.shape}, the network {wanted.shape}.")
            found[name] = max(found[name], float(np.abs(got - wanted).max()) / spread)
    for name, difference in found.items():
        if not difference <= LIMIT:
            raise ModelFailed(
                "export.parity",
                f"{name} differs from the network by {difference:.2g} of its outputs' range, not at most {LIMIT:g}.",
            )
    return found


def torch_run(network: nn.Module) -> NetworkRun:
    """A torch network (or TorchScript module) as a function of arrays."""
    import torch

    def run(image: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(image)).numpy(), dtype=np.float32)

    return run


def onnxruntime_run(file: Path) -> NetworkRun:
    """ONNX Runtime on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: np.asarray(session.run(None, {name: image})[0], dtype=np.float32)


def openvino_run(file: Path) -> NetworkRun:
    """OpenVINO on the processor, in float32; ``file`` is ONNX or OpenVINO's XML."""
    import openvino

    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: np.array(compiled([image])[0], dtype=np.float32)
