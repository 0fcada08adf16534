"""A bundle that MONAI runs alone: MONAI's own classes for the network, its transforms, its inferer, its evaluator.

``monai_config`` describes a bundle by what Carina does with it; this describes it for a machine that has MONAI and
not Carina. MONAI's way is the original plan: every window over the whole volume. Left out is what MONAI has no class
for: the border rule, and the smallest size of a component.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carina.models.monai_config import preprocessing, sliding_window

CHECKPOINT_FILE = "models/model.pt"
SCRIPT_FILE = "models/model.ts"

MonaiTable = dict[str, Any]


def native_network(network: Mapping[str, Any]) -> MonaiTable | None:
    """The network as an object of MONAI's; None where MONAI has no such class.

    That is so for an AH-Net of another width, and for a SegResNet with constant norms.
    """
    kind, classes = network.get("kind"), network.get("classes", 2)
    common: MonaiTable = {"spatial_dims": 3, "in_channels": 1, "out_channels": classes}
    if kind == "segresnet":
        return common | _segresnet(network) if network.get("norm", "group") == "group" else None
    if kind == "densenet121":
        return {"_target_": "DenseNet121", **common}
    if kind == "ahnet-pyramid":
        keys = {key: network[key] for key in ("psp_block_num", "upsample_mode")}
        return {"_target_": "AHNet", **common, **keys}
    if kind == "ahnet" and network.get("width", 1.0) == 1.0 and network.get("align_corners", True):
        return {"_target_": "AHNet", **common, "psp_block_num": 0, "upsample_mode": "trilinear"}
    return None


def _segresnet(network: Mapping[str, Any]) -> MonaiTable:
    sizes = {key: list(network[key]) for key in ("blocks_down", "blocks_up") if key in network}
    norm = ["GROUP", {"num_groups": network.get("groups", 8)}]
    return {"_target_": "SegResNet", "init_filters": network.get("init_filters", 8), "norm": norm, **sizes}


def native_config(metadata: Mapping[str, Any]) -> MonaiTable:
    """``configs/inference.json`` for ``python -m monai.bundle run --config_file configs/inference.json``.

    Takes ``--image`` (a classifier ``--lung`` too) and ``--output_dir``; a segmentation is written there as
    ``NAME_mask.nii.gz`` on the image's own grid, a classification as ``predictions.csv``.
    """
    spec = metadata["carina"]
    classifies = spec["task"] == "covid"
    network = native_network(spec["network"])
    config: MonaiTable = {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "image": "image.nii.gz",
        **({"lung": "lung.nii.gz"} if classifies else {}),
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": network or f"$torch.jit.load(@bundle_root + '/{SCRIPT_FILE}', map_location=@device)",
        "network": "$@network_def.to(@device)",
        "preprocessing": preprocessing(spec),
        "data": "$[{'image': @image, 'lung': @lung}]" if classifies else "$[{'image': @image}]",
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"} if classifies else sliding_window(spec),
        "handlers": [_loader()] if network else [],
        "evaluator": _evaluator(),
    }
    return config | (_classified() if classifies else _segmented(spec))


def _loader() -> MonaiTable:
    path = f"$@bundle_root + '/{CHECKPOINT_FILE}'"
    return {
        "_target_": "CheckpointLoader",
        "load_path": path,
        "load_dict": {"model": "@network"},
        "map_location": "@device",
    }


def _evaluator() -> MonaiTable:
    return {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
    }


def _segmented(spec: Mapping[str, Any]) -> MonaiTable:
    """Scores to labels on the image's grid, in the order in which the bundle restores them."""
    softmax: MonaiTable = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
    argmax: MonaiTable = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    is_nearest = spec.get("restore", "linear") == "nearest"
    back: MonaiTable = {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": is_nearest,
        "to_tensor": True,
    }
    save: MonaiTable = {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "mask",
        "output_dtype": "$'uint8'",
        "separate_folder": False,
        "resample": False,
    }
    count = (spec.get("components") or {}).get("keep")
    kept = [{"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "num_components": count}] if count else []
    steps = [argmax, *kept, back, save] if is_nearest else [softmax, back, argmax, *kept, save]
    return {"postprocessing": {"_target_": "Compose", "transforms": steps}, "run": ["$@evaluator.run()"]}


def _classified() -> MonaiTable:
    """Probabilities, as a row of a table with the image's name in front."""
    softmax: MonaiTable = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
    saver = {
        "_target_": "ClassificationSaver",
        "output_dir": "@output_dir",
        "filename": "predictions.csv",
        "batch_transform": "$lambda batch: [item['image'].meta for item in batch]",
        "output_transform": "$lambda output: [item['pred'] for item in output]",
    }
    return {
        "postprocessing": {"_target_": "Compose", "transforms": [softmax]},
        "handlers": [_loader(), saver],
        "run": ["$@evaluator.run()"],
    }
