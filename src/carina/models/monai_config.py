"""``configs/inference.json``: how MONAI's own tools run a bundle, derived from its metadata.

``network_def`` is the trained network; ``preprocessing`` and ``inferer`` say in MONAI's words what ``carina`` says, for
other MONAI programs; ``run`` does all of it by Carina. Nothing is built that is not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def inference_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What ``python -m monai.bundle run --config_file configs/inference.json`` reads in a bundle's folder.

    A segmentation bundle takes ``--input`` and ``--output`` (volume files); a classifier writes JSON, and takes the
    lung mask from ``--lung``, or finds it by the lung bundle that ships with Carina where that is empty.
    """
    spec = metadata["carina"]
    classifies = spec["task"] == "covid"
    config: dict[str, Any] = {
        "imports": [
            "$from pathlib import Path",
            f"$from carina.infer.on_files import {'classify_file' if classifies else 'infer_file'}",
            "$from carina.models.bundle import load_bundle",
        ],
        "bundle_root": ".",
        "input": "input.nii.gz",
        "output": "output.json" if classifies else "output.nii.gz",
        "bundle": "$load_bundle(Path(@bundle_root))",
    }
    if spec.get("network"):
        config["network_def"] = {"_target_": "carina.models.weights.load_network", "folder": "@bundle_root"}
    arguments = "@bundle, Path(@input), Path(@output)"
    if classifies:
        config["lung"] = ""
        config["run"] = [f"$classify_file({arguments}, @lung)"]
        config["inferer"] = {"_target_": "SimpleInferer"}
    else:
        config["run"] = [f"$infer_file({arguments})"]
        config["inferer"] = sliding_window(spec)
    config["preprocessing"] = preprocessing(spec)
    return config


def sliding_window(spec: Mapping[str, Any]) -> dict[str, Any]:
    """MONAI's inferer with the windows of the publication."""
    original = spec["original"]
    return {
        "_target_": "SlidingWindowInferer",
        "roi_size": original["patch"],
        "overlap": original["overlap"],
        "mode": original.get("blending", "constant"),
    }


def preprocessing(spec: Mapping[str, Any]) -> dict[str, Any]:
    """MONAI's transforms from files to what the network takes."""
    return {"_target_": "Compose", "transforms": _crop(spec) if spec["task"] == "covid" else _whole(spec)}


def _whole(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    spaced = {"_target_": "Spacingd", "keys": "image", "pixdim": spec["spacing_mm"], "mode": "bilinear"}
    return [*_loaded("image", spec), spaced, _windowed(spec)]


def _crop(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    margin = spec.get("margin_voxels", 5)
    cut = [
        {"_target_": "CropForegroundd", "keys": "image", "source_key": "lung", "margin": margin},
        {"_target_": "Resized", "keys": "image", "spatial_size": spec["size"], "mode": "trilinear"},
    ]
    window = _windowed(spec)
    steps = [*cut, window] if spec.get("order") == "naturecomm" else [window, *cut]
    return [*_loaded(["image", "lung"], spec), *steps]


def _loaded(keys: str | list[str], spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"_target_": "LoadImaged", "keys": keys},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
        {"_target_": "Orientationd", "keys": keys, "axcodes": spec["orientation"]},
    ]


def _windowed(spec: Mapping[str, Any]) -> dict[str, Any]:
    low, high = spec["window_hu"]
    limits = {"a_min": low, "a_max": high, "b_min": 0.0, "b_max": 1.0, "clip": True}
    return {"_target_": "ScaleIntensityRanged", "keys": "image", **limits}
