"""Packages as others write them, with random weights in MONAI's own networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import AHNet, DenseNet121, SegResNet

from carina.volume import Grid, Volume

LUNG_SEED = 2
"""One of those at which the network answers with both classes."""


def stirred(network: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Random weights and statistics, none of them equal or trivial, with both classes in the answer."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point():
                value.add_(0.05 * torch.randn_like(value))
    return network.eval()


def lung_network() -> torch.nn.Module:
    """As published, at full size."""
    torch.manual_seed(LUNG_SEED)
    return stirred(AHNet(spatial_dims=3, in_channels=1, out_channels=2, psp_block_num=0, upsample_mode="trilinear"), 2)


def pyramid_network() -> torch.nn.Module:
    """MONAI's default AH-Net: pyramid pooling, transposed convolutions."""
    torch.manual_seed(LUNG_SEED)
    return stirred(AHNet(spatial_dims=3, in_channels=1, out_channels=2), 2)


def lesion_network() -> torch.nn.Module:
    """As published, at full size."""
    torch.manual_seed(1)
    keys: dict[str, Any] = {"blocks_down": (1, 2, 2, 4), "blocks_up": (1, 1, 1), "init_filters": 8}
    return stirred(SegResNet(spatial_dims=3, in_channels=1, out_channels=2, dropout_prob=0.2, **keys))


def covid_network() -> torch.nn.Module:
    """As published, at full size."""
    torch.manual_seed(1)
    return stirred(DenseNet121(spatial_dims=3, in_channels=1, out_channels=2))


def step(name: str, **args: Any) -> dict[str, Any]:
    """A transform as an MMAR writes it."""
    return {"name": name, "args": args}


def segmentation_steps(low: float, high: float) -> list[dict[str, Any]]:
    return [
        step("LoadImaged", keys=["image"]),
        step("EnsureChannelFirstd", keys=["image"]),
        step("Orientationd", keys=["image"], axcodes="RAS"),
        step("Spacingd", keys=["image"], pixdim=[0.8, 0.8, 5.0], mode="bilinear"),
        step("ScaleIntensityRanged", keys="image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True),
        step("ToTensord", keys=["image"]),
    ]


def write_mmar(
    folder: Path, network: torch.nn.Module | None, model: dict[str, Any], config: dict[str, Any], *, wrap: str = "model"
) -> Path:
    """A Clara Train 4 MMAR: the class in config_train.json, TorchScript named by config_inference.json."""
    (folder / "config").mkdir(parents=True)
    (folder / "models").mkdir()
    train = {"epochs": 10, "learning_rate": 1e-4, "train": {"model": model, "pre_transforms": []}}
    inference = {"amp": True, "model": {"ts_path": "{MMAR_TORCHSCRIPT}"}, **config}
    (folder / "config" / "config_train.json").write_text(json.dumps(train))
    (folder / "config" / "config_inference.json").write_text(json.dumps(inference))
    (folder / "config" / "environment.json").write_text(json.dumps({"MMAR_TORCHSCRIPT": "models/model.ts"}))
    if network is not None:
        state = {f"module.{key}": value for key, value in network.state_dict().items()}
        torch.save({wrap: state, "train_conf": {"epochs": 10}} if wrap else state, folder / "models" / "model.pt")
    return folder


def monai_steps(steps: list[dict[str, Any]]) -> Any:
    """The same transforms, run by MONAI."""
    import monai.transforms

    return monai.transforms.Compose([getattr(monai.transforms, one["name"])(**one["args"]) for one in steps])


def noise_volume(shape: tuple[int, int, int], seed: int = 3) -> Volume:
    """Smooth noise over the range of a chest CT on the networks' grid, ``(z, y, x)``."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), (1, 3, 3))
    hu = (-500 + 600 * noise / noise.std()).clip(-1024, 1500).astype(np.int16)
    grid = Grid(shape=shape, spacing_mm=(5.0, 0.8, 0.8), origin_mm=(-30.0, 20.0, 10.0))
    return Volume(hu=hu, grid=grid, uid="1.2.3")
