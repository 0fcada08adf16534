"""Somebody else's model becomes a bundle: read, converted to ONNX, compared, tried on a synthetic chest, installed.

Until all of it has succeeded nothing lies where a run would find it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from carina import RESEARCH_ONLY
from carina.errors import BadConfig
from carina.models import parity
from carina.models.architecture import network_spec
from carina.models.bundle import METADATA, Bundle, Covid, load_bundle, parse_metadata, write_bundle
from carina.models.export import export_onnx
from carina.models.foreign import Package, read_package, read_table
from carina.models.formats import onnx_runs, reference_run
from carina.models.parity import NetworkRun
from carina.models.recognise import recognised
from carina.models.triton_repository import read_ports
from carina.models.weights import TORCH_WEIGHTS, load_weights, read_checkpoint
from carina.models.weights_digest import check_digest, write_digest

if TYPE_CHECKING:
    from torch import nn

Trial = Callable[[Bundle], str]
"""Runs a bundle on a synthetic chest and says in a sentence what came out; raises where it fails."""

METADATA_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """An installed bundle: what had to be supposed, how far its file is from its network, what the trial gave."""

    bundle: Bundle
    notes: tuple[str, ...]
    differences: Mapping[str, float]
    trial: str


def import_model(
    path: Path, into: Path, *, name: str = "", card: Path | None = None, trial: Trial | None = None
) -> Imported:
    """Import a MONAI bundle folder, a Clara Train MMAR folder, an ONNX file or a bundle of Carina into ``into``.

    ``name`` is the bundle's name, the path's own where empty. ``card`` is a TOML or JSON file: keys of the object
    ``carina`` (at the top, or in a table ``carina`` beside fields of ``metadata.json``); they go before what the
    package says. Weights keep their float32 values.

    Raises:
        BadConfig: the package or card is wrong or incomplete, or a bundle of this name is there already.
        ModelFailed: the converted network gives something else, or the trial failed.
    """
    name = name or re.sub(r"[^a-z0-9._-]+", "-", (path.stem if path.is_file() else path.absolute().name).lower())
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise BadConfig(
            "import.name", f"{name!r} can't name a bundle: letters, digits, '.', '-' and '_' only (--name)."
        )
    place = into / name
    if place.exists():
        raise BadConfig("import.exists", f"{place} is there already; choose another --name, or remove that folder.")
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into, prefix=".import-") as scratch:
            bundle, notes, expected = _converted(path, Path(scratch) / name, read_table(card) if card else {})
            _check_outputs(bundle)
            differences = parity.differences(expected, onnx_runs(bundle.onnx), parity.probes(bundle))
            tried = trial(bundle) if trial else "not tried"
            _write_card(bundle, path, notes, differences, tried)
            bundle.folder.replace(place)
    except OSError as error:
        raise BadConfig("import.unwritable", f"{into}: can't be written to ({error.strerror}).") from error
    return Imported(bundle=load_bundle(place), notes=notes, differences=differences, trial=tried)


Converted = tuple[Bundle, tuple[str, ...], NetworkRun]
"""A bundle, what had to be supposed, and the network that it came as."""


def _converted(path: Path, folder: Path, card: dict[str, Any]) -> Converted:
    """The bundle of what lies at ``path``, written to ``folder``."""
    fields = {key: value for key, value in card.items() if key != "carina"} if "carina" in card else {}
    keys = card.get("carina", card)
    if (path / METADATA).is_file() and "carina" in (metadata := read_table(path / METADATA)):
        return _ours(path, folder, {**metadata, **fields, "carina": {**metadata["carina"], **keys}})
    package = read_package(path)
    if package.weights.suffix == ".onnx":
        spec, notes = recognised(package, {}, keys)
        bundle = write_bundle(folder, _metadata(package, spec, fields), package.weights, card="", license_text="")
        return bundle, notes, parity.onnxruntime_run(bundle.onnx)
    from carina.models.networks import build_network

    state = read_checkpoint(package.weights)
    network_keys = network_spec(state, package.network, str(package.source))
    spec, notes = recognised(package, network_keys, keys)
    metadata = _metadata(package, spec, fields)
    parse_metadata(folder / METADATA, msgspec.json.encode(metadata))  # what is refused costs no export
    network = build_network(spec["network"])
    load_weights(network, state, package.weights)
    folder.parent.mkdir(parents=True, exist_ok=True)
    onnx = folder.parent / "model.onnx"
    export_onnx(network, onnx, _example(network, spec), dynamic=spec["task"] != "covid", half=False)
    bundle = write_bundle(folder, metadata, onnx, card="", license_text="")
    onnx.unlink()
    return bundle, notes, parity.torch_run(network)


def _ours(path: Path, folder: Path, metadata: Mapping[str, Any]) -> Converted:
    """A bundle that Carina wrote: its configuration is written anew, so no code of it is ever run."""
    source = load_bundle(path)
    bundle = write_bundle(folder, metadata, source.onnx, card="", license_text="")
    if (path / TORCH_WEIGHTS).is_file():
        check_digest(path / TORCH_WEIGHTS)
        shutil.copyfile(path / TORCH_WEIGHTS, folder / TORCH_WEIGHTS)
        write_digest(folder / TORCH_WEIGHTS)
    return bundle, (), reference_run(bundle)[0]


def _example(network: nn.Module, spec: Mapping[str, Any]) -> tuple[int, int, int]:
    """A small shape that the network can be traced at; a classifier is traced at its only one."""
    if spec["task"] == "covid":
        x, y, z = spec["size"]
    else:
        x, y, z = (-(-least // side) * side for least, side in zip(parity.SMALLEST, _divisors(spec), strict=True))
    return x, y, z


def _divisors(spec: Mapping[str, Any]) -> list[int]:
    divisor = spec["divisor"]
    return [divisor] * 3 if isinstance(divisor, int) else list(divisor)


def _metadata(package: Package, spec: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """MONAI's fields: the card's, else the package's, else plain ones."""
    import monai
    import numpy
    import torch

    known = {
        "schema": METADATA_SCHEMA,
        "version": "1.0.0",
        "name": f"Imported: {package.source.resolve().name}",
        "description": f"Imported from a {package.kind}. {RESEARCH_ONLY}",
        "task": f"{spec['task']} in chest CT",
        "authors": "unknown",
        "copyright": "unknown",
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": numpy.__version__,
        "required_packages_version": {},
        "intended_use": RESEARCH_ONLY,
    }
    own = {"network_data_format": _data_format(spec), "carina": spec}
    return {**known, **package.metadata, **own, **fields}


def _data_format(spec: Mapping[str, Any]) -> dict[str, Any]:
    classifies = spec["task"] == "covid"
    sides = [f"{side}*n" for side in _divisors(spec)] if "divisor" in spec else ["*"] * 3
    shape = spec["size"] if classifies else sides
    names = spec["labels"] if classifies else {"0": "background", **spec["labels"]}
    common = {"dtype": "float32", "is_patch_data": not classifies}
    image = {"type": "image", "format": "hounsfield", "num_channels": 1, "spatial_shape": shape, "value_range": [0, 1]}
    scores = {
        "type": spec.get("output", "logits"),
        "format": "classification" if classifies else "segmentation",
        "num_channels": len(names),
        "spatial_shape": [len(names)] if classifies else shape,
        "value_range": [],
    }
    return {
        "inputs": {"image": {**image, **common, "channel_def": {"0": "image"}}},
        "outputs": {"pred": {**scores, **common, "channel_def": dict(names)}},
    }


def _check_outputs(bundle: Bundle) -> None:
    """One score for each class, and for segmentation at each voxel of the window."""
    spec = bundle.carina
    sides = read_ports(bundle.onnx)[0].dims[2:]
    image = parity.probes(bundle)[0]
    if isinstance(spec, Covid):
        wanted: tuple[tuple[int, ...], ...] = ((len(image), len(spec.labels)),)
    else:
        counts = {len(spec.labels) + 1, 1} if len(spec.labels) == 1 else {len(spec.labels) + 1}
        wanted = tuple((len(image), count, *image.shape[2:]) for count in sorted(counts))
        if any(side not in (-1, own) for side, own in zip(sides, spec.original.patch, strict=True)):
            raise BadConfig(
                "import.patch",
                f"{bundle.name}: the network takes windows of {sides} voxels only, original.patch says "
                f"{spec.original.patch}. Correct it in --card.",
            )
    got = parity.onnxruntime_run(bundle.onnx)(image).shape
    if got not in wanted:
        raise BadConfig(
            "import.output",
            f"{bundle.name}: for an input of {image.shape} the network gives {got}, expected "
            f"{' or '.join(map(str, wanted))} for the labels {spec.labels}. Correct labels in --card.",
        )


def _write_card(
    bundle: Bundle, source: Path, notes: tuple[str, ...], differences: Mapping[str, float], tried: str
) -> None:
    """The model card, and the licence that came with the package."""
    figures = ", ".join(f"{name} {value:.1g}" for name, value in differences.items())
    lines = [
        f"# {bundle.title}",
        "",
        f"**{RESEARCH_ONLY}**",
        "",
        bundle.description,
        "",
        f"Imported from `{source.resolve().name}`. Largest difference from the network it came as, as a share of its",
        f"outputs' range: {figures}.",
        f"On a synthetic chest, which is no patient: {tried}.",
        "",
        *(f"- Supposed: {note}." for note in notes),
    ]
    own = next((source / name for name in ("docs/README.md", "docs/Readme.md") if (source / name).is_file()), None)
    if own:
        lines += ["", "## The package's own card", "", own.read_text(encoding="utf-8", errors="replace")]
    bundle.card.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    names = ("LICENSE", "docs/license.txt", "docs/LICENSE", "license.txt")
    found = next((source / name for name in names if (source / name).is_file()), None)
    if found:
        shutil.copyfile(found, bundle.folder / "LICENSE")
    else:
        text = "The licence is that of the package this was imported from; no licence file was found in it.\n"
        (bundle.folder / "LICENSE").write_text(f"{text}{RESEARCH_ONLY}\n", encoding="utf-8")
