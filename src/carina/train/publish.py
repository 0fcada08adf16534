"""From trained weights to a bundle: ONNX, parity with torch, measured figures, card."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from carina.cases.purpose import Task
from carina.models.bundle import Bundle, write_bundle
from carina.models.export import check_parity, export_onnx
from carina.train.cards import Facts, metadata, model_card
from carina.train.settings import TrainSettings

__all__ = ["Facts", "publish"]

Measure = Callable[[Bundle], Mapping[str, float]]
"""Figures of a bundle, by name."""


def publish(
    network: nn.Module, settings: TrainSettings, facts: Facts, folder: Path, *, measure: Measure | None = None
) -> Bundle:
    """Write the bundle ``folder/NAME`` of a trained network, which is rounded to what is stored.

    ``measure`` is given the bundle before it has a card; what it finds goes into card and metadata.

    Raises:
        ModelFailed: a runtime's output differs from torch's.
    """
    shape = settings.patches[0].shape
    with tempfile.TemporaryDirectory() as scratch:
        onnx = Path(scratch) / "model.onnx"
        export_onnx(network, onnx, shape, dynamic=settings.task is not Task.COVID)
        facts = replace(facts, parity=check_parity(network, onnx, shape))
        if measure:
            bare = write_bundle(Path(scratch) / settings.name, metadata(settings, facts), onnx, card="not measured")
            facts = replace(facts, measured={**facts.measured, **measure(bare)})
        return write_bundle(folder / settings.name, metadata(settings, facts), onnx, card=model_card(settings, facts))
