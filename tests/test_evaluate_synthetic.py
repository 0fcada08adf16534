"""Figures for the cards: synthetic lesions of each size class lie where they should, and Dice is measured on them."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from carina.cases.case import Case
from carina.evaluate import card_figures
from carina.evaluate.synthetic import Placed, candidates, dice_by_lesion, dice_of_size, place
from carina.synth import lesions
from carina.synth.lesions import Size
from data_lists import chest_case
from tiny_networks import mean_bundle, threshold_bundle

SPACING = (4.0, 1.6, 1.6)
LIMITS_ML = {Size.SMALL: (0.1, 1.0), Size.MEDIUM: (1.0, 10.0), Size.LARGE: (10.0, 100.0)}


@pytest.fixture(scope="module")
def chest() -> Case:
    """Two ellipsoid lungs in water."""
    shape = (50, 110, 170)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    lung = np.zeros(shape, dtype=np.uint8)
    for middle in (45, 125):
        inside = ((z - 25) / 23) ** 2 + ((y - 55) / 42) ** 2 + ((x - middle) / 34) ** 2 < 1
        lung[inside] = 1
    return chest_case("chest", np.where(lung, -850, 40).astype(np.int16), lung, SPACING)


KINDS = (lesions.Kind.GROUND_GLASS, lesions.Kind.CONSOLIDATION)


@pytest.fixture(scope="module")
def placed(chest: Case) -> dict[lesions.Kind, Placed]:
    return {
        kind: place(chest, candidates(chest, kind, np.random.default_rng(1)), np.random.default_rng(2))
        for kind in KINDS
    }


def gap_mm(a: tuple[slice, ...], b: tuple[slice, ...]) -> float:
    """How far two boxes lie apart along the axis where they are farthest apart."""
    boxes = zip(a, b, SPACING, strict=True)
    return float(max(max(p.start - q.stop, q.start - p.stop) * step for p, q, step in boxes))


def test_lesions_have_the_volumes_of_their_class_and_keep_apart(
    chest: Case, placed: dict[lesions.Kind, Placed]
) -> None:
    voxel_ml = float(np.prod(SPACING)) / 1000
    for one in placed.values():
        volumes = np.bincount(one.numbers.ravel())[1:] * voxel_ml
        assert len(volumes) == len(one.boxes) == len(one.sizes)
        assert all(one.sizes.count(size) >= few for size, few in zip(Size, (10, 5, 2), strict=True))
        for volume, size in zip(volumes, one.sizes, strict=True):
            low, high = LIMITS_ML[size]
            assert low <= volume < high
        assert not (one.numbers[chest.lungs == 0]).any()
        assert min(gap_mm(a, b) for a, b in combinations(one.boxes, 2)) >= 8


def test_a_lesion_is_denser_than_lung_and_nothing_else_changed(placed: dict[lesions.Kind, Placed], chest: Case) -> None:
    for one in placed.values():
        inside = one.numbers > 0
        assert one.hu[inside].mean() > chest.hu[inside].mean() + 60
        assert np.array_equal(one.hu[chest.lungs == 0], chest.hu[chest.lungs == 0])


def test_lesions_follow_from_the_seed(chest: Case) -> None:
    drawn = candidates(chest, lesions.Kind.MIXED, np.random.default_rng(4))
    first, again = (place(chest, drawn, np.random.default_rng(5), sizes=[Size.MEDIUM]) for _ in range(2))
    assert np.array_equal(first.hu, again.hu) and np.array_equal(first.numbers, again.numbers)
    assert set(first.sizes) == {Size.MEDIUM}


def test_dice_by_lesion_takes_each_by_itself(placed: dict[lesions.Kind, Placed]) -> None:
    one = placed[lesions.Kind.CONSOLIDATION]
    medium = [number for number, size in enumerate(one.sizes, start=1) if size is Size.MEDIUM]
    found = one.numbers > 0
    assert dice_by_lesion(found, one, Size.MEDIUM, SPACING) == [1.0] * len(medium)
    only = one.numbers == medium[1]
    assert dice_by_lesion(only, one, Size.MEDIUM, SPACING) == [float(n == medium[1]) for n in medium]
    found[0, 0, 0] = True
    assert dice_by_lesion(found, one, Size.MEDIUM, SPACING) == [1.0] * len(medium)


def test_dice_of_a_class_counts_all_but_the_places_of_the_others(placed: dict[lesions.Kind, Placed]) -> None:
    one = placed[lesions.Kind.CONSOLIDATION]
    found = one.numbers > 0
    assert [dice_of_size(found, one, size, SPACING) for size in Size] == [1, 1, 1]
    is_small = np.isin(one.numbers, [n for n, size in enumerate(one.sizes, start=1) if size is Size.SMALL])
    small, other = int(is_small.sum()), (one.numbers > 0) & ~is_small
    assert dice_of_size(other, one, Size.SMALL, SPACING) == 0
    found[:2] = True
    wrong = 2 * found.shape[1] * found.shape[2]
    assert not one.numbers[:2].any()
    assert dice_of_size(found, one, Size.SMALL, SPACING) == pytest.approx(2 * small / (2 * small + wrong), rel=0.1)


def dense_lung(threshold_hu: float, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A network that marks everything in the lung above a HU value; which cases it was shown."""
    shown: list[str] = []

    def marked_in(case: Case, bundle: object, runtime: object, hu: npt.NDArray[Any] | None = None) -> object:
        shown.append(case.name)
        return ((case.hu if hu is None else hu) > threshold_hu) & (case.lungs > 0)

    monkeypatch.setattr(card_figures, "marked_in", marked_in)
    return shown


def test_every_kind_and_class_has_a_figure(chest: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_lung(-790.0, monkeypatch)
    figures = card_figures.synthetic_dice(None, None, [chest])  # type: ignore[arg-type]
    for kind in lesions.Kind:
        sizes = [figures[f"dice synthetic {kind} {size}"] for size in Size]
        assert figures[f"dice synthetic {kind}"] == pytest.approx(np.mean(sizes))
        assert all(0 < figures[f"dice synthetic {kind} {size}, by lesion"] <= 1 for size in Size)
    assert figures["dice synthetic consolidation large"] > 0.8


def test_lesions_are_put_where_the_network_has_not_been(
    chest: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [dataclasses.replace(chest, name=name) for name in ("a", "b", "c")]
    shown = dense_lung(-790.0, monkeypatch)
    monkeypatch.setattr(card_figures, "candidates", lambda case, kind, rng: [])
    monkeypatch.setattr(card_figures, "synthetic_dice", lambda bundle, runtime, clean: {c.name: 1.0 for c in clean})
    bundle = threshold_bundle(tmp_path / "tiny", task="lesion")
    figures = card_figures.evaluate_lesion(bundle, cases, {}, unseen=["b"])
    assert figures["b"] == 1.0 and not {"a", "c"} & set(figures)
    assert figures["ratio percent a"] == 0 and shown == ["a", "b", "c"]
    assert {"a", "b"} <= set(card_figures.evaluate_lesion(bundle, cases, {}))
    with pytest.raises(ValueError, match=r"\['d'\] are not among the cases \['a', 'b', 'c'\]"):
        card_figures.evaluate_lesion(bundle, cases, {}, unseen=["d"])


def test_lung_figures_have_a_surface(chest: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_figures, "marked_in", lambda case, *_: case.lungs > 0)
    figures = card_figures.evaluate_lung(threshold_bundle(tmp_path / "tiny"), [chest])
    assert figures["dice chest"] == figures["surface dice 2 mm chest"] == 1
    assert figures["surface dice 2 mm with pasted consolidation chest"] == 1


@pytest.mark.parametrize("name", ["auc synthetic", "auc against other pneumonias"])
def test_the_classifiers_areas_have_an_interval_only_over_several_chests(
    name: str, chest: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = mean_bundle(tmp_path / "tiny")
    one = card_figures.evaluate_covid(bundle, [chest], crops=12)
    assert 0 <= one[name] <= 1 and not [key for key in one if "95 %" in key]
    monkeypatch.setattr(card_figures, "FEWEST_CHESTS", 2)
    two = card_figures.evaluate_covid(bundle, [chest, dataclasses.replace(chest, name="other")], crops=12)
    assert 0 <= two[f"{name}, 95 % low"] <= two[name] <= two[f"{name}, 95 % high"] <= 1
