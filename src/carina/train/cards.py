"""What a trained bundle says of itself: metadata and model card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

import carina
from carina.cases.purpose import Targets, Task
from carina.models.architecture import divisors, reach
from carina.models.importing import METADATA_SCHEMA
from carina.models.lung_rules import REACH_MM
from carina.models.validation import Figure, Measured, Validation
from carina.train import configure
from carina.train.settings import TrainSettings
from carina.train.validation import metric_name

TITLES = {
    Task.LUNG: "Lung segmentation",
    Task.LESION: "COVID-19 lesion segmentation",
    Task.COVID: "COVID-19 classification",
}

FIRST_LOOKS = {Task.LUNG: "First look at the lungs", Task.LESION: "First look at COVID-19 lesions"}

LEAST_LUNG_ML = 50
"""What a first look calls a second lung holds this much at least."""

NETWORKS = {"ahnet": "AH-Net", "segresnet": "SegResNet", "densenet121": "DenseNet121-3D"}

PURPOSES = {
    Task.LUNG: "Finds the lungs in chest CT, vessels and disease inside them included; trachea and main bronchi are not "
    "lung.",
    Task.LESION: "Finds opacities as COVID-19 makes them (ground glass, consolidation, crazy paving) in lungs.",
    Task.COVID: "Gives a probability of COVID-19 for a chest CT, from a crop around the lungs.",
}

SYNTHETIC = {
    Task.LUNG: "Lungs with synthetic disease pasted into them; labels as listed or made by `carina/synth/lung_labels.py`.",
    Task.LESION: "Lesions are synthesised in lungs that are free of them: it has seen no patient's lesion.",
    Task.COVID: "A demonstration: lungs with synthetic disease against lungs without. It has not learnt from patients with "
    "COVID-19 and can't tell COVID-19 from other pneumonias; its probabilities are not calibrated.",
}


DIGITS = 4
"""Decimals that ``eval_metrics`` keep."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card says beside the settings.

    ``data`` says what was trained on, ``cases`` is each validation case's Dice or probability at the weights of
    ``steps``, ``metric`` their mean Dice or AUC. ``measured`` are figures of the shipped file, ``parity`` its largest
    differences from torch. ``notes`` is Markdown that goes into the card as it is: provenance, history, weaknesses.
    ``validation`` is what reports print of the network's worth; None: what follows from the other facts.
    """

    steps: int
    data: str
    metric: float | None = None
    cases: Mapping[str, float] = field(default_factory=dict)
    trained_on: Sequence[str] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    parity: Mapping[str, float] = field(default_factory=dict)
    version: str = "0.1.0"
    notes: str = ""
    validation: Validation | None = None


REACH_KEPT = (48, 48, 32)
"""What a bundle with constant norms says of its reach at most, ``(x, y, z)``: convolutions reach farther, but what lies
there has no say that a mask would show (benchmarks/one_pass.py), and would cost five times as much to look at."""


def title(settings: TrainSettings) -> str:
    """What people call the bundle: task and network."""
    kind = str(settings.network.get("kind"))
    task = FIRST_LOOKS[settings.task] if settings.whole_scans else TITLES[settings.task]
    return f"{task}, {NETWORKS.get(kind, kind)}"


def carina_object(settings: TrainSettings) -> dict[str, Any]:
    """The ``carina`` object of the bundle: how its network is fed and read."""
    common: dict[str, Any] = {
        "task": str(settings.task),
        "orientation": settings.orientation,
        "window_hu": list(settings.window_hu),
        "network": dict(settings.network),
    }
    if settings.task is Task.COVID:
        return common | {
            "labels": {"0": "non-COVID-19", "1": "COVID-19"},
            "size": list(settings.patches[0].shape),
            "margin_voxels": settings.margin_voxels,
            "order": settings.order,
        }
    common |= {
        "spacing_mm": list(settings.spacing_mm or ()),
        "labels": {"1": str(settings.task)},
        "divisor": divisors(settings.network)[0],
        "original": {"patch": list(settings.window), "overlap": settings.window_overlap},
        "restore": "linear",
    }
    if settings.whole_scans and settings.task is Task.LESION:
        return common
    if settings.whole_scans:
        voxel_ml = math.prod(common["spacing_mm"]) / 1000
        return common | {"components": {"keep": 2, "min_voxels": round(LEAST_LUNG_ML / voxel_ml), "min_share": 0.05}}
    if (far := reach(settings.network)) is not None:
        common["reach"] = [min(far, kept) for kept in REACH_KEPT]
    if settings.task is Task.LUNG:
        half_slice_mm = common["spacing_mm"][2] / 2
        components = {"keep": 2, "min_voxels": 5000, "min_share": 0.1}
        return common | {"components": components, "border": {"hu": -400.0, "reach_mm": min(half_slice_mm, REACH_MM)}}
    return common | {"crop_to_body": settings.crop_to_body}


def metadata(settings: TrainSettings, facts: Facts) -> dict[str, Any]:
    """``metadata.json``: MONAI's fields and the ``carina`` object."""
    import monai
    import numpy
    import torch

    spec = carina_object(settings)
    spec["validation"] = msgspec.to_builtins(facts.validation or validation_of(settings, facts))
    classifies = settings.task is Task.COVID
    side = spec["size"] if classifies else [f"{spec['divisor']}*n"] * 3
    names = spec["labels"] if classifies else {"0": "background"} | spec["labels"]
    purpose = PURPOSES[settings.task]
    return {
        "schema": METADATA_SCHEMA,
        "version": facts.version,
        "changelog": {facts.version: f"trained for {facts.steps} steps, seed {settings.seed}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": numpy.__version__,
        "required_packages_version": {},
        "name": title(settings),
        "task": title(settings),
        "description": purpose,
        "authors": "The Carina authors",
        "copyright": "Copyright (c) The Carina authors",
        "data_source": facts.data,
        "data_type": "chest CT, HU",
        "image_classes": "single channel, HU window scaled to [0, 1]",
        "label_classes": ", ".join(f"{k}: {v}" for k, v in names.items()),
        "pred_classes": "logits of two classes",
        "eval_metrics": {name: round(float(value), DIGITS) for name, value in _figures(settings, facts).items()},
        "intended_use": f"{purpose} {carina.RESEARCH_ONLY}",
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


def validation_of(settings: TrainSettings, facts: Facts) -> Validation:
    """What a report can say of a network that only its own training has measured."""
    chests = f"{len(facts.trained_on)} chests" if facts.trained_on else "chests"
    name = "AUC" if settings.task is Task.COVID else "Dice"
    metrics = tuple(_metric(settings, facts))
    figures = (
        () if facts.metric is None else (Figure(name=name, value=round(float(facts.metric), DIGITS), metrics=metrics),)
    )
    test = Measured(data="validation cases, by which the weights were chosen", count=len(facts.cases), figures=figures)
    return Validation(
        trained_on=f"synthetic disease in {chests}"
        if settings.source is Targets.SYNTHETIC
        else f"{chests} with labels",
        tests=(test,) if figures else (),
        trained_cases=tuple(facts.trained_on),
    )


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


def _figures(settings: TrainSettings, facts: Facts) -> dict[str, float]:
    return {**_metric(settings, facts), **facts.measured}


def _metric(settings: TrainSettings, facts: Facts) -> dict[str, float]:
    return {} if facts.metric is None else {f"validation {metric_name(settings.task)}": facts.metric}


def model_card(settings: TrainSettings, facts: Facts) -> str:
    """The model card in Markdown: purpose, data, every setting, every figure, notes."""
    parts = [
        f"# {title(settings)}\n\n**{carina.RESEARCH_ONLY}**\n\n{PURPOSES[settings.task]}",
        _data_part(settings, facts),
        _recipe_part(settings, facts),
        _measured_part(settings, facts),
        facts.notes.strip(),
        "Licence of the weights: see `LICENSE`. Data keep their own licences; no image is part of this bundle.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _data_part(settings: TrainSettings, facts: Facts) -> str:
    lines = ["## Data", facts.data]
    if facts.trained_on:
        names = ", ".join(facts.trained_on[:40])
        lines.append(f"Trained on: {names}{', ...' if len(facts.trained_on) > 40 else ''}.")
    if settings.leave_out:
        lines.append(f"Left out: {', '.join(settings.leave_out)}.")
    if settings.source is Targets.SYNTHETIC:
        lines.append(SYNTHETIC[settings.task])
    return "\n".join(lines)


def _recipe_part(settings: TrainSettings, facts: Facts) -> str:
    lines = [
        "## Recipe",
        f"`carina train {settings.task} --settings settings.toml --data LIST --out FOLDER`; these are the weights after "
        f"{facts.steps} steps, seed {settings.seed}. `settings.toml`:",
        f"```toml\n{configure.to_toml(settings).strip()}\n```",
    ]
    if facts.parity:
        found = ", ".join(f"{name} {value:.1g}" for name, value in facts.parity.items())
        lines.append(
            "Large weights are stored as float16 and computed in float32. Largest difference from torch, as a share of the "
            f"outputs' range: {found}."
        )
    return "\n".join(lines)


def _measured_part(settings: TrainSettings, facts: Facts) -> str:
    figures = _figures(settings, facts)
    if not figures:
        return "## Measured\nNothing: there was no validation."
    lines = ["## Measured", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    kind = "probability" if settings.task is Task.COVID else "Dice"
    lines += [f"| validation {kind}, {name} | {value:.4g} |" for name, value in facts.cases.items()]
    chosen = (
        "" if facts.metric is None else "The weights were chosen by the validation figure, which is therefore hopeful."
    )
    return "\n".join([*lines, "", chosen]).rstrip()
