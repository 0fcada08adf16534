"""What a trained bundle says of itself: metadata and model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import carina
from carina.train.recipes import LESION_WINDOW_HU, LUNG_WINDOW_HU, Recipe

DATA_SOURCE = (
    "Chest CT of public, de-identified collections: LIDC-IDRI (CC BY 3.0), Lung-PET-CT-Dx (CC BY 4.0), CMB-CRC "
    "(CC BY 4.0), COVID-CT-MD (CC BY 4.0); synthetic lesions and a synthetic chest made by Carina."
)

_SEGMENTATION: dict[str, Any] = {"orientation": "RAS", "spacing_mm": [0.8, 0.8, 5.0]}

TITLES = {
    "lung-ahnet": "Lung segmentation, AH-Net",
    "lesion-segresnet": "COVID-19 lesion segmentation, SegResNet",
    "covid-densenet": "COVID-19 classification, DenseNet121-3D",
}

PURPOSES = {
    "lung-ahnet": "Finds the lungs in chest CT, vessels and disease inside them included; trachea and main bronchi are "
    "not lung.",
    "lesion-segresnet": "Finds opacities as COVID-19 makes them (ground glass, consolidation, crazy paving) in lungs.",
    "covid-densenet": "A demonstration: tells lungs with synthetic disease from lungs without. It has never learnt from"
    " a patient with COVID-19 and can't tell COVID-19 from other pneumonias.",
}

HISTORY = {
    "lung-ahnet": "The shipped weights are those of 960 steps, before hard voxels counted more and patches were centred in "
    "gas (research log, 4), at averaged weights. Stopped by time, not by convergence. Trachea, main bronchi and colon are "
    "partly taken in on some slices, and dense vessels, nodules and consolidation left out.",
    "lesion-segresnet": "Stages of the shipped weights: 1,600 steps on 128 x 128 x 16 patches in lungs, batch 2; 125 and then "
    "115 steps on 224 x 224 x 32 windows, batch 1, up to 90 mm off the lungs, at rates from 4e-4 down. Stopped by time.",
    "covid-densenet": "Stages of the shipped weights: 300 steps with phantoms labelled wrongly (a mistake, see the research "
    "log), 150 on `draw_crop`, 260 with seven crops in ten from `draw_plain_crop`. Stopped by time; far from convergence.",
}

WEAKNESSES = {
    "lung-ahnet": (
        "Its labels were made by a threshold and closing, not by a reader; it shares their mistakes.",
        "Seven patients and a phantom are no population. Every real series measured below was also trained on.",
        "Collapsed lung, masses that reach the pleura and fluid are left out or taken in at random.",
    ),
    "lesion-segresnet": (
        "It has seen synthetic lesions only. No voxel-level truth on patients was at hand: no Dice on patients.",
        "The lungs that held-out synthetic lesions are measured in were trained on (with other lesions).",
        "Other pneumonias, oedema, haemorrhage and scars look like its targets and will be marked.",
        "A single patient with COVID-19 was held out; one patient is an anecdote.",
    ),
    "covid-densenet": (
        "It misses the one held-out patient with COVID-19 (`covidctmd-p002`): for this scan its answer is wrong.",
        "Synthetic disease is easier than disease: the AUC on it says that training began to work, nothing about patients.",
        "Six patients without and none with COVID-19 were seen in training; probabilities are not calibrated.",
        "Published classifiers of this kind fall from 0.95 to 0.85 AUC on other hospitals' scans; expect worse.",
    ),
}


def carina_object(recipe: Recipe) -> dict[str, Any]:
    """The ``carina`` object of the bundle that ``recipe`` makes."""
    z, y, x = recipe.shape
    if recipe.name == "lung-ahnet":
        return _SEGMENTATION | {
            "task": "lung",
            "window_hu": list(LUNG_WINDOW_HU),
            "labels": {"1": "lung"},
            "divisor": 32,
            "original": {"patch": [224, 224, 32], "overlap": 0.25},
            "restore": "linear",
            "components": {"keep": 2, "min_voxels": 5000, "min_share": 0.1},
            "network": dict(recipe.network),
        }
    if recipe.name == "lesion-segresnet":
        return _SEGMENTATION | {
            "task": "lesion",
            "window_hu": list(LESION_WINDOW_HU),
            "labels": {"1": "lesion"},
            "divisor": 8,
            "original": {"patch": [224, 224, 32], "overlap": 0.6},
            "restore": "linear",
            "crop_to_body": True,
            "network": dict(recipe.network),
        }
    return {
        "task": "covid",
        "orientation": "RAS",
        "window_hu": list(LESION_WINDOW_HU),
        "labels": {"0": "non-COVID-19", "1": "COVID-19"},
        "size": [x, y, z],
        "margin_voxels": 5,
        "network": dict(recipe.network),
    }


def metadata(recipe: Recipe, version: str, figures: Mapping[str, float]) -> dict[str, Any]:
    """``metadata.json``: MONAI's fields and the ``carina`` object."""
    import monai
    import numpy
    import torch

    spec = carina_object(recipe)
    classifies = spec["task"] == "covid"
    side = spec["size"] if classifies else [f"{spec['divisor']}*n"] * 3
    names = spec["labels"] if classifies else {"0": "background"} | spec["labels"]
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": version,
        "changelog": {version: "trained on public lungs and synthetic disease"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": numpy.__version__,
        "required_packages_version": {},
        "name": TITLES[recipe.name],
        "task": TITLES[recipe.name],
        "description": PURPOSES[recipe.name],
        "authors": "The Carina authors",
        "copyright": "Copyright (c) The Carina authors",
        "data_source": DATA_SOURCE,
        "data_type": "chest CT, HU",
        "image_classes": "single channel, HU window scaled to [0, 1]",
        "label_classes": ", ".join(f"{k}: {v}" for k, v in names.items()),
        "pred_classes": "logits of two classes",
        "eval_metrics": {name: round(value, 4) for name, value in figures.items()},
        "intended_use": f"{PURPOSES[recipe.name]} {carina.RESEARCH_ONLY}",
        "references": [],
        "network_data_format": {
            "inputs": {"image": _data("image", "hounsfield", side, {"0": "image"})},
            "outputs": {
                "pred": _data("logits", "classification", [2], names)
                if classifies
                else _data("logits", "segmentation", side, names)
            },
        },
        "carina": spec,
    }


def _data(kind: str, format_: str, shape: Sequence[Any], channels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": kind,
        "format": format_,
        "num_channels": len(channels),
        "spatial_shape": list(shape),
        "dtype": "float32",
        "value_range": [0, 1] if kind == "image" else [],
        "is_patch_data": format_ != "classification",
        "channel_def": dict(channels),
    }


def card(
    recipe: Recipe, cases: Sequence[str], steps: int, figures: Mapping[str, float], parity: Mapping[str, float]
) -> str:
    """The model card in Markdown: purpose, data, recipe, every measured figure, weaknesses."""
    settings = asdict(recipe.settings) | {"steps": steps}
    z, y, x = recipe.shape
    lines = [
        f"# {TITLES[recipe.name]}",
        "",
        f"**{carina.RESEARCH_ONLY}**",
        "",
        PURPOSES[recipe.name],
        "",
        "## Data",
        DATA_SOURCE,
        "Attribution: LIDC-IDRI (Armato and others, 2015), Lung-PET-CT-Dx (Li and others, 2020), CMB-CRC (NCI Cancer",
        "Moonshot Biobank), all from The Cancer Imaging Archive; COVID-CT-MD (Afshar and others, 2021).",
        "No image is part of this bundle.",
        "",
        f"Trained on: {', '.join(cases)}. Held out: {', '.join(recipe.leave_out) or 'none'}.",
        "Lung labels are made by `carina/train/lung_labels.py`, disease by `carina/train/lesions.py`, look-alikes",
        "without a label (nodules, fluid, dependent density, breathing, motion, kernel, noise) by `carina/train/distractors.py`.",
        "",
        "## Recipe",
        f"`python -m carina.train {recipe.verb} --data CASES --out FOLDER --steps {steps} --seed {settings['seed']}`",
        "",
        f"Network `{dict(recipe.network)}`, training input {x} x {y} x {z} voxels (x, y, z). AdamW, peak rate"
        f" {settings['peak_rate']:g}, warm-up and cosine, batch {settings['batch']}, {steps} steps, averaged weights"
        f" ({settings['average']:g}), seed {settings['seed']},"
        f" {'bfloat16' if settings['bfloat16'] else 'float32'}, on two shared CPU cores.",
        "Weights are stored as float16 and computed in float32. Largest difference from torch, as a share of the",
        "outputs' range: " + ", ".join(f"{name} {value:.1g}" for name, value in parity.items()) + ".",
        "",
        HISTORY[recipe.name],
        "",
        "## Measured",
        "By `carina.train.evaluate`, with the shipped file, as `carina run` runs it.",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in figures.items()),
        "",
        "## Weaknesses",
        *(f"- {line}" for line in WEAKNESSES[recipe.name]),
        "",
        "Licence of the weights: Apache-2.0. Data keep their own licences.",
        "",
    ]
    return "\n".join(lines)
