"""Figures for the model cards: each bundle run as a user runs it, on cases at training resolution and on unseen
synthetic disease."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from carina.cases.case import Case, scale, to_network
from carina.cases.crops import crop, draw_crop, draw_other
from carina.config import RuntimeSettings
from carina.evaluate.synthetic import candidates, dice_by_lesion, dice_of_size, place
from carina.infer.runtime import Runtime, open_runtime
from carina.infer.segment import segment
from carina.measure.agreement import SURFACE_TOLERANCE_MM, auc, auc_over_patients, dice, surface_dice
from carina.models.bundle import Bundle, Covid
from carina.synth import lesions
from carina.synth.lesions import Size
from carina.synth.pneumonias import Pneumonia
from carina.volume.arrays import Flags

UNSEEN_SEED = 900_000
"""Synthetic disease drawn from here on was never drawn in training."""

BASELINE_HU = (-750.0, -300.0)
"""The baseline without a network: every voxel of the lung in this HU window is called a lesion."""

PASTED_CASES = 3
"""Lungs are also measured with consolidation pasted into this many cases, where nothing else is asked for."""

SYNTHETIC_CASES = 2
"""Dice on synthetic lesions is the mean over this many cases, where none are named."""

FEWEST_CHESTS = 5
"""Over fewer, an interval says nothing."""

Figures = dict[str, float]

Scores = npt.NDArray[np.float64]


def marked_in(case: Case, bundle: Bundle, runtime: Runtime, hu: npt.NDArray[np.generic] | None = None) -> Flags:
    """What the bundle marks in a case, or in other HU on its voxels; on the case's voxels, in their order."""
    volume = case.volume
    if hu is not None:
        volume = dataclasses.replace(volume, hu=np.clip(np.rint(hu), -1024, 3071).astype(np.int16))
    return np.asarray(segment(volume, bundle, runtime).labels > 0)


def evaluate_lung(bundle: Bundle, cases: Sequence[Case], *, pasted: int = PASTED_CASES) -> Figures:
    """Dice and surface Dice (2 mm) with the lung labels, for each case, and with consolidation in the first ones.

    ``gas taken in`` are the ml of airway and bowel gas that count as lung.
    """
    runtime = open_runtime(bundle, RuntimeSettings(threads=2))
    surface = f"surface dice {SURFACE_TOLERANCE_MM:g} mm"
    figures: Figures = {}
    for case in cases:
        truth = case.lungs > 0
        found = marked_in(case, bundle, runtime)
        figures[f"dice {case.name}"] = dice(found, truth)
        figures[f"{surface} {case.name}"] = surface_dice(found, truth, case.spacing_mm)
        taken = np.count_nonzero(found & (case.gas > 0))
        figures[f"gas taken in, ml {case.name}"] = taken * float(np.prod(case.spacing_mm)) / 1000
    for case in cases[:pasted]:
        truth = case.lungs > 0
        rng = np.random.default_rng(UNSEEN_SEED)
        hu, mask = _with_lesions(case, lesions.Kind.CONSOLIDATION, rng)
        found = marked_in(case, bundle, runtime, hu)
        figures[f"dice with pasted consolidation {case.name}"] = dice(found, truth)
        figures[f"{surface} with pasted consolidation {case.name}"] = surface_dice(found, truth, case.spacing_mm)
        figures[f"pasted consolidation kept as lung {case.name}"] = float(found[mask].mean()) if mask.any() else 1.0
    return figures


def evaluate_lesion(
    bundle: Bundle, cases: Sequence[Case], slices_csv: Mapping[str, Path], *, unseen: Sequence[str] = ()
) -> Figures:
    """Lesion ratio in percent for each case; slice AUC where a radiologist marked slices; Dice on synthetic lesions.

    A slice AUC has no interval: the slices are of one patient.

    ``slices_csv`` gives, by case name, a table with the columns ``slice_from_top`` (from 1) and ``infection``. The
    HU-window baseline is measured in the same run. ``unseen`` names the cases whose lungs take the synthetic lesions
    (those that the network has not seen); by default the first ones without disease.

    Raises:
        ValueError: a case of ``unseen`` is not among ``cases``.
    """
    clean = _clean(cases, slices_csv, unseen)
    runtime = open_runtime(bundle, RuntimeSettings(threads=2))
    figures: Figures = {}
    for case in cases:
        lung = case.lungs > 0
        whole = marked_in(case, bundle, runtime)
        found = whole & lung
        window = (case.hu > BASELINE_HU[0]) & (case.hu < BASELINE_HU[1]) & lung
        outside = float(np.count_nonzero(whole & ~lung) * np.prod(case.spacing_mm)) / 1000
        figures[f"outside the lungs, ml {case.name}"] = outside
        figures[f"ratio percent {case.name}"] = 100.0 * float(found.sum()) / float(lung.sum())
        figures[f"ratio percent, HU window {case.name}"] = 100.0 * float(window.sum()) / float(lung.sum())
        if case.lesion is not None:
            figures[f"dice with truth {case.name}"] = dice(found, case.lesion.labels > 0)
        if case.name in slices_csv:
            marked = marked_slices(slices_csv[case.name])
            for name, mask in (("slice auc", found), ("slice auc, HU window", window)):
                figures[f"{name} {case.name}"] = auc(mask.sum(axis=(1, 2))[::-1], marked).auc
    return figures | synthetic_dice(bundle, runtime, clean)


def _clean(cases: Sequence[Case], slices_csv: Mapping[str, Path], unseen: Sequence[str]) -> list[Case]:
    missing = set(unseen) - {case.name for case in cases}
    if missing:
        raise ValueError(f"{sorted(missing)} are not among the cases {[case.name for case in cases]}")
    if unseen:
        return [case for case in cases if case.name in unseen]
    return [case for case in cases if case.lesion is None and case.name not in slices_csv][:SYNTHETIC_CASES]


def marked_slices(path: Path) -> npt.NDArray[np.bool_]:
    """Whether infection was marked, for each slice from the top."""
    with path.open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["slice_from_top"]))
    return np.array([row["infection"] == "1" for row in rows])


def _with_lesions(case: Case, kind: lesions.Kind, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], Flags]:
    lung = case.lungs > 0
    drawn = lesions.draw_lesions(lung, case.spacing_mm, rng, count=5, kind=kind)
    return lesions.paste(case.hu.astype(np.float32), lung, case.spacing_mm, drawn, rng)


def synthetic_dice(bundle: Bundle, runtime: Runtime, cases: Sequence[Case]) -> Figures:
    """Dice on unseen synthetic lesions by kind and size class: over the whole lungs, and as the mean of each lesion's.

    One pass per kind and case: lesions of all classes are pasted at once, each in a place of its own, and a class is
    measured without the places of the others. Over the whole lungs, everything else that is marked counts against the
    network; by lesion, only what lies around it. A kind's own figure is the mean over its classes; a class that no
    lung of ``cases`` has room for has no figure.
    """
    figures: Figures = {}
    for kind in lesions.Kind:
        whole: dict[Size, list[float]] = {}
        each: dict[Size, list[float]] = {}
        for number, case in enumerate(cases):
            rng = np.random.default_rng([UNSEEN_SEED, number])
            placed = place(case, candidates(case, kind, rng), rng)
            found = marked_in(case, bundle, runtime, placed.hu) & (case.lungs > 0)
            for size in set(placed.sizes):
                whole.setdefault(size, []).append(dice_of_size(found, placed, size, case.spacing_mm))
                each.setdefault(size, []).extend(dice_by_lesion(found, placed, size, case.spacing_mm))
        for size in (size for size in Size if size in whole):
            figures[f"dice synthetic {kind} {size}"] = float(np.mean(whole[size]))
            figures[f"dice synthetic {kind} {size}, by lesion"] = float(np.mean(each[size]))
        if whole:
            figures[f"dice synthetic {kind}"] = float(np.mean([np.mean(values) for values in whole.values()]))
    return figures


def evaluate_covid(bundle: Bundle, cases: Sequence[Case], *, crops: int = 120) -> Figures:
    """Probability of COVID-19 for each case, and AUC, sensitivity and specificity on unseen synthetic crops.

    Beside them the AUC against other pneumonias, as many crops for all kinds together, and how many of each are taken
    for COVID-19. Chests take turns; an AUC's interval is over chests, and is left out where there are fewer than
    `FEWEST_CHESTS`.
    """
    spec = bundle.carina
    if not isinstance(spec, Covid):
        raise ValueError(f"bundle {bundle.name} does not classify")
    runtime = open_runtime(bundle, RuntimeSettings(threads=2))
    shape = spec.size[::-1]

    def probability(hu: npt.NDArray[np.float32]) -> float:
        logits = runtime(to_network([scale(hu, spec.window_hu)]))[0].astype(float)
        return float(1 / (1 + np.exp(logits[0] - logits[1])))

    figures = {f"probability {case.name}": probability(crop(case, shape).hu) for case in cases}
    healthy = [dataclasses.replace(case, lesion=None) for case in cases if case.lesion is None]
    drawn = [draw_crop([_turn(healthy, n)], shape, np.random.default_rng([UNSEEN_SEED, n])) for n in range(crops)]
    whose = np.arange(crops) % len(healthy)
    scores = np.array([probability(one.hu) for one in drawn])
    ill = np.array([one.ill for one in drawn])
    figures |= _area("auc synthetic", scores, ill, whose)
    figures |= {
        "sensitivity synthetic": float((scores[ill] > 0.5).mean()),
        "specificity synthetic": float((scores[~ill] <= 0.5).mean()),
    }

    def other(kind: Pneumonia, n: int, rng: np.random.Generator) -> float:
        return probability(draw_other([_turn(healthy, n)], shape, rng, kind).hu)

    return figures | _against_others(scores[ill], whose[ill], other, len(healthy))


def _turn(cases: Sequence[Case], number: int) -> Case:
    return cases[number % len(cases)]


def _area(name: str, scores: Scores, positive: Flags, whose: npt.NDArray[np.int_]) -> Figures:
    """An AUC by name, with an interval where there are chests enough for one."""
    if np.unique(whose).size < FEWEST_CHESTS:
        return {name: auc(scores, positive).auc}
    found = auc_over_patients(scores, positive, whose, np.random.default_rng(UNSEEN_SEED))
    return {name: found.auc, f"{name}, 95 % low": found.low, f"{name}, 95 % high": found.high}


def _against_others(
    covid: Scores,
    whose: npt.NDArray[np.int_],
    other: Callable[[Pneumonia, int, np.random.Generator], float],
    chests: int,
) -> Figures:
    """How well probabilities of drawn COVID-19 are told from those of as many other pneumonias of all kinds."""
    each = -(-len(covid) // len(Pneumonia))
    found = {
        kind: np.array([other(kind, n, np.random.default_rng([UNSEEN_SEED, number, n])) for n in range(each)])
        for number, kind in enumerate(Pneumonia)
    }
    apart = np.concatenate([covid, *found.values()])
    of_chests = np.concatenate([whose, *[np.arange(each) % chests for _ in found]])
    figures = {f"taken for COVID-19, {kind}": float((scores > 0.5).mean()) for kind, scores in found.items()}
    return figures | _area("auc against other pneumonias", apart, np.arange(len(apart)) < len(covid), of_chests)
