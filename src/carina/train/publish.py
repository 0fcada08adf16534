"""From a checkpoint to a bundle: averaged weights, ONNX, parity, measured figures, card."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from carina.models.bundle import Bundle, write_bundle
from carina.models.export import check_parity, export_onnx
from carina.models.networks import build_network
from carina.train.cards import card, metadata
from carina.train.data import Case
from carina.train.evaluate import Figures, evaluate_covid, evaluate_lesion, evaluate_lung
from carina.train.fit import FitSettings, load_averaged, settle_norms
from carina.train.recipes import Recipe


def publish(
    recipe: Recipe,
    checkpoint: Path,
    cases: Sequence[Case],
    folder: Path,
    *,
    slices_csv: Mapping[str, Path],
    version: str = "0.1.0",
) -> Bundle:
    """Write the bundle of ``recipe`` to ``folder`` and measure it on ``cases`` (held-out ones included).

    Raises:
        ModelFailed: a runtime's output differs from torch's.
    """
    trained = [case for case in cases if case.name not in recipe.leave_out]
    settings: FitSettings = recipe.settings
    network = load_averaged(build_network(recipe.network), checkpoint)
    network = settle_norms(network, recipe.drawer(trained), settings)
    steps = int(torch.load(checkpoint, weights_only=True)["step"])
    z, y, x = recipe.shape
    with tempfile.TemporaryDirectory() as scratch:
        onnx = Path(scratch) / "model.onnx"
        export_onnx(network, onnx, (x, y, z), dynamic=recipe.verb != "covid")
        parity = check_parity(network, onnx, (x, y, z))
        unmeasured = write_bundle(Path(scratch) / recipe.name, metadata(recipe, version, {}), onnx, card="not measured")
        figures = _evaluate(recipe, unmeasured, cases, slices_csv)
        text = card(recipe, [case.name for case in trained], steps, figures, parity)
        return write_bundle(folder / recipe.name, metadata(recipe, version, figures), onnx, card=text)


def _evaluate(recipe: Recipe, bundle: Bundle, cases: Sequence[Case], slices_csv: Mapping[str, Path]) -> Figures:
    if recipe.verb == "lung":
        return evaluate_lung(bundle, cases)
    if recipe.verb == "lesion":
        return evaluate_lesion(bundle, cases, slices_csv)
    return evaluate_covid(bundle, cases)
