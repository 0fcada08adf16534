"""Checkpoints that are damaged: named in one line, whatever torch makes of them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from carina.errors import BadConfig  # noqa: E402
from carina.models.weights import read_checkpoint  # noqa: E402
from carina.train.checkpoint import read_checkpoint_file  # noqa: E402

CONTAINERS = {"zip": True, "pickle": False}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_checkpoint_is_named(seed: int, container: str, tmp_path: Path) -> None:
    """Bytes near the start are overwritten; every other file is cut short as well. What is still whole is read."""
    rng = np.random.default_rng(seed)
    file = tmp_path / "model.pt"
    state = {"state_dict": {f"down.{k}.weight": torch.zeros(8, 8) for k in range(3)}, "step": 3}
    torch.save(state, file, _use_new_zipfile_serialization=CONTAINERS[container])
    data = bytearray(file.read_bytes())
    for place in rng.integers(0, min(len(data), 500), 6):
        data[place] = rng.integers(0, 256)
    file.write_bytes(data[: rng.integers(1, len(data))] if seed % 2 else data)
    for read, code in ((read_checkpoint, "weights."), (read_checkpoint_file, "train.checkpoint")):
        with contextlib.suppress(BadConfig):
            read(file)
            continue
        with pytest.raises(BadConfig, match=r"model\.pt: ") as error:
            read(file)
        assert error.value.code.startswith(code)
