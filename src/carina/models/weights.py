"""Weights, in and out: a bundle's network as torch has it, and checkpoints that others wrote.

Nothing here unpickles objects: checkpoints are read by ``torch.load(weights_only=True)``, and of a TorchScript file
only the tensors are taken.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carina.errors import BadConfig
from carina.models.bundle import Bundle, load_bundle
from carina.models.weights_digest import check_digest

if TYPE_CHECKING:
    from torch import Tensor, nn

TORCH_WEIGHTS = Path("models/model.pt")
"""A state dictionary, read instead of the ONNX file where a bundle has one."""

WRAPPERS = ("model", "state_dict", "network", "net", "model_state_dict")
"""Keys that a checkpoint's state dictionary may lie under."""

DAMAGED_CHECKPOINT = (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, struct.error)
"""What ``torch.load`` raises on a file that is damaged or none of its own, beside ``pickle.UnpicklingError``."""

_SHOWN = 4


def load_network(folder: str | Path) -> nn.Module:
    """The trained network of the bundle in ``folder``: what ``network_def`` of ``configs/inference.json`` calls.

    Raises:
        BadConfig: as ``trained_network``.
    """
    return trained_network(load_bundle(Path(folder)))


def trained_network(bundle: Bundle) -> nn.Module:
    """The torch network of the bundle's ``network`` specification, with its weights, in evaluation mode.

    Raises:
        BadConfig: the bundle has no such specification, or the weights don't fit it.
    """
    from carina.models.networks import build_network

    if not bundle.carina.network:
        raise BadConfig(
            "network.none",
            f"{bundle.folder}: its metadata names no carina.network, so it can't be built in torch; only its ONNX file "
            "can be run.",
        )
    network = build_network(bundle.carina.network)
    checkpoint = bundle.folder / TORCH_WEIGHTS
    if checkpoint.is_file():
        load_weights(network, read_checkpoint(checkpoint), checkpoint)
    else:
        load_weights(network, read_onnx(bundle.onnx), bundle.onnx)
    return network.eval()


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Put ``state`` into ``network``, every key of it and no other; counters of batches may be missing.

    Raises:
        BadConfig: keys are missing, left over or of another shape; the message names them and ``source``.
    """
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in wanted]
    shapes = [
        f"{key} {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted.keys() & state.keys()
        if state[key].shape != wanted[key].shape
    ]
    said = [_listed("missing", missing), _listed("not of this network", unknown), _listed("wrong shape", shapes)]
    if any(said):
        kind = type(network).__name__
        raise BadConfig(
            "weights.keys",
            f"{source}: the weights don't fit {kind}: {'; '.join(filter(None, said))}. "
            "Give the checkpoint of this network, or correct the network's description.",
        )
    network.load_state_dict({**wanted, **state})


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what}: {', '.join(sorted(names)[:_SHOWN])}{more}"


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The state dictionary in a ``.pt`` file, or the tensors of a TorchScript file, by their keys in MONAI today.

    Takes it out of a wrapping key (``WRAPPERS``), takes off the ``module.`` that data-parallel training puts before
    each key, and names DenseNet's layers as MONAI does since 0.5.

    Raises:
        BadConfig: the file can't be read without unpickling objects, holds no state dictionary, or is not what the
            digest beside it says.
    """
    check_digest(file)
    found = _scripted(file) if file.suffix == ".ts" else _loaded(file)
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found or not all(_is_tensor(value) for value in found.values()):
        raise BadConfig(
            "weights.none",
            f"{file}: holds no state dictionary; expected tensors by name, bare or under one of {', '.join(WRAPPERS)}.",
        )
    return {_today(str(key)): value for key, value in found.items()}


def _loaded(file: Path) -> Any:
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadConfig(
            "weights.objects",
            f"{file}: holds more than tensors and plain values, and Carina unpickles no objects. Save its state "
            "dictionary alone: torch.save(network.state_dict(), file).",
        ) from error
    except DAMAGED_CHECKPOINT as error:
        raise BadConfig(
            "weights.unreadable", f"{file}: can't be read as a torch checkpoint ({_first(error)})."
        ) from error


def _scripted(file: Path) -> Any:
    import torch

    try:
        return dict(torch.jit.load(str(file), map_location="cpu").state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        raise BadConfig("weights.unreadable", f"{file}: can't be read as TorchScript ({_first(error)}).") from error


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _first(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _today(key: str) -> str:
    key = key.removeprefix("module.")
    return re.sub(r"(denseblock\d+\.denselayer\d+)\.(norm|relu|conv)", r"\1.layers.\2", key)


def read_onnx(file: Path) -> dict[str, Tensor]:
    """The weights in an ONNX file that Carina wrote, by their names in the state dictionary, as float32.

    Raises:
        BadConfig: the file can't be read.
    """
    import onnx
    import torch
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import numpy_helper

    try:
        model = onnx.load(str(file))
    except (OSError, DecodeError) as error:
        raise BadConfig("weights.unreadable", f"{file}: can't be read as ONNX ({_first(error)}).") from error
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:  # of several equal weights the exporter keeps one, and a node for each other
        source = node.input[0].removesuffix("/float") if node.op_type == "Identity" else ""
        if source in values:
            values[node.output[0]] = values[source]
    return {name: torch.from_numpy(value.astype("float32")) for name, value in values.items()}
