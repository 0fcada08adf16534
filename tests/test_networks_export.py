"""Export: the file gives what torch gives, in both runtimes, and keeps its names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
onnx = pytest.importorskip("onnx", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

from carina.errors import ModelFailed  # noqa: E402
from carina.models.export import check_parity, export_onnx  # noqa: E402
from carina.models.networks import COVID_NETWORK, LESION_NETWORK, build_network  # noqa: E402

CASES = {
    "ahnet": ({"kind": "ahnet", "width": 0.125}, (32, 32, 32), True),
    "segresnet": (LESION_NETWORK, (32, 48, 16), True),
    "densenet": (COVID_NETWORK, (64, 64, 32), False),
}


@pytest.mark.parametrize("name", CASES)
def test_parity_at_the_exported_shape_and_at_another(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    spec, shape, dynamic = CASES[name]
    network = build_network(spec)
    for parameter in network.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    path = tmp_path / "model.onnx"
    export_onnx(network, path, shape, dynamic=dynamic)
    check_parity(network, path, shape)
    if dynamic:
        check_parity(network, path, (shape[0] * 2, shape[1], shape[2] * 2))
    stored = {t.name: t for t in onnx.load(str(path)).graph.initializer}
    weights = {k for k, v in network.state_dict().items() if v.is_floating_point() and "running" not in k}
    assert weights <= set(stored)
    assert path.stat().st_size < 2.3 * sum(p.numel() for p in network.parameters()) + 400_000


def test_a_wrong_file_is_told(tmp_path: Path) -> None:
    small = {"kind": "segresnet", "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "groups": 4}
    network = build_network(small)
    path = tmp_path / "model.onnx"
    export_onnx(network, path, (32, 32, 32))
    with torch.no_grad():
        next(network.parameters()).add_(np.float32(1.0))
    with pytest.raises(ModelFailed, match="differs from torch"):
        check_parity(network, path, (32, 32, 32))
