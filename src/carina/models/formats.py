"""A bundle's network in the formats of others, each compared with the network it was trained as."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from carina.errors import BadConfig
from carina.models import parity
from carina.models.bundle import METADATA, Bundle, load_bundle
from carina.models.monai_native import CHECKPOINT_FILE, SCRIPT_FILE, native_config, native_network
from carina.models.parity import NetworkRun
from carina.models.triton_repository import Backend, write_repository
from carina.models.verify import INFERENCE_CONFIG
from carina.models.weights import trained_network
from carina.models.weights_digest import write_digest
from carina.pipeline.json_text import read_json

if TYPE_CHECKING:
    import torch
    from torch import nn


class Format(StrEnum):
    """What a network can be exported to.

    ``onnx`` is the bundle's own file; ``monai`` is a bundle that MONAI runs without Carina; ``openvino`` is OpenVINO's
    XML with its weights; ``torchscript`` is a traced module with MONAI's metadata in it; ``triton`` is a model
    repository for the server's ONNX Runtime backend, ``triton-python`` one for its Python backend.
    """

    ONNX = "onnx"
    MONAI = "monai"
    OPENVINO = "openvino"
    TORCHSCRIPT = "torchscript"
    TRITON = "triton"
    TRITON_PYTHON = "triton-python"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how far it is from ``against``: largest difference as a share of the outputs' range."""

    path: Path
    against: str
    differences: Mapping[str, float]


def export_bundle(bundle: Bundle, form: Format, folder: Path) -> Exported:
    """Write the bundle's network as ``form`` into ``folder`` and compare it with the torch network.

    A bundle whose network is not specified (imported as ONNX) is compared with its ONNX file, in ONNX Runtime.

    Raises:
        BadConfig: the format needs the torch network and the bundle has none, or the folder can't be written to.
        ModelFailed: what was written gives something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path, runs = FORM_WRITERS[form](bundle, folder)
    except OSError as error:
        raise BadConfig("export.unwritable", f"{folder}: can't be written to ({error.strerror}).") from error
    expected, against = reference_run(bundle)
    return Exported(path=path, against=against, differences=parity.differences(expected, runs, parity.probes(bundle)))


def reference_run(bundle: Bundle) -> tuple[NetworkRun, str]:
    """What a bundle's files are compared with, and its name.

    Raises:
        BadConfig: the weights don't fit the bundle's network.
    """
    if bundle.carina.network:
        return parity.torch_run(trained_network(bundle)), "torch"
    return parity.onnxruntime_run(bundle.onnx), "its ONNX file"


def bundle_parity(bundle: Bundle) -> Exported:
    """Compare the bundle's own file, in both runtimes, with its torch network.

    Raises:
        BadConfig: the weights don't fit the bundle's network.
        ModelFailed: a runtime gives something else.
    """
    expected, against = reference_run(bundle)
    found = parity.differences(expected, onnx_runs(bundle.onnx), parity.probes(bundle))
    return Exported(path=bundle.onnx, against=against, differences=found)


WrittenForm = tuple[Path, dict[str, NetworkRun]]


def onnx_runs(file: Path) -> dict[str, NetworkRun]:
    """An ONNX file in both runtimes."""
    return {"onnxruntime": parity.onnxruntime_run(file), "openvino": parity.openvino_run(file)}


def _onnx(bundle: Bundle, folder: Path) -> WrittenForm:
    path = folder / f"{bundle.name}.onnx"
    shutil.copyfile(bundle.onnx, path)
    write_digest(path)
    return path, onnx_runs(path)


def _monai(bundle: Bundle, folder: Path) -> WrittenForm:
    """The bundle as it is, with weights and a configuration that need MONAI alone."""
    import torch

    network = trained_network(bundle)
    path = folder / bundle.name
    shutil.copytree(bundle.folder, path, dirs_exist_ok=True)
    metadata = read_json((path / METADATA).read_bytes())
    (path / INFERENCE_CONFIG).write_text(json.dumps(native_config(metadata), indent=2) + "\n", encoding="utf-8")
    if native_network(bundle.carina.network):
        torch.save({"model": network.state_dict()}, path / CHECKPOINT_FILE)
        write_digest(path / CHECKPOINT_FILE)
        return path, {"model.pt": parity.torch_run(trained_network(load_bundle(path)))}
    torch.jit.save(_traced(bundle, network), str(path / SCRIPT_FILE))
    write_digest(path / SCRIPT_FILE)
    return path, {"model.ts": parity.torch_run(torch.jit.load(str(path / SCRIPT_FILE)))}


def _traced(bundle: Bundle, network: nn.Module) -> torch.jit.ScriptModule:
    import torch

    example = torch.zeros(parity.probes(bundle)[0].shape)
    traced: torch.jit.ScriptModule = torch.jit.trace(network, example, check_trace=False)
    return traced


def _openvino(bundle: Bundle, folder: Path) -> WrittenForm:
    import openvino

    path = folder / f"{bundle.name}.xml"
    openvino.save_model(openvino.convert_model(bundle.onnx), path, compress_to_fp16=False)
    write_digest(path.with_suffix(".bin"))
    return path, {"openvino": parity.openvino_run(path)}


def _torchscript(bundle: Bundle, folder: Path) -> WrittenForm:
    import torch
    from monai.data import save_net_with_metadata

    path = folder / f"{bundle.name}.ts"
    traced = _traced(bundle, trained_network(bundle))
    save_net_with_metadata(traced, str(path), meta_values=read_json((bundle.folder / METADATA).read_bytes()))
    write_digest(path)
    return path, {"torchscript": parity.torch_run(torch.jit.load(str(path)))}


def _triton(bundle: Bundle, folder: Path, backend: Backend = Backend.ONNXRUNTIME) -> WrittenForm:
    path = write_repository(bundle, folder, backend=backend)
    return path, {"model.onnx of the repository": parity.onnxruntime_run(path / "1" / "model.onnx")}


FORM_WRITERS: dict[Format, Callable[[Bundle, Path], WrittenForm]] = {
    Format.ONNX: _onnx,
    Format.MONAI: _monai,
    Format.OPENVINO: _openvino,
    Format.TORCHSCRIPT: _torchscript,
    Format.TRITON: _triton,
    Format.TRITON_PYTHON: partial(_triton, backend=Backend.PYTHON),
}
