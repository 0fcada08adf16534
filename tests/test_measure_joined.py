"""Which marked voxels count: on shapes whose answer is known, on the phantom, and in real chests."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings

from carina.api import read_series
from carina.errors import ModelFailed
from carina.measure.joined import JoinedMasks, join_masks
from carina.measure.ratio import lesion_ratio
from carina.synth.phantom import chest_phantom
from carina.volume import Grid, Mask, Volume
from scenes import scenes

GRID = Grid(shape=(60, 60, 90), spacing_mm=(2.0, 2.0, 2.0), origin_mm=(-89.0, -59.0, 0.0))
LUNG = (slice(20, 50), slice(10, 50), slice(45, 85))
"""60 x 80 x 80 mm; z grows towards the head."""


def mask(*boxes: tuple[slice, ...], label: int = 1) -> Mask:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    for box in boxes:
        labels[box] = label
    return Mask(labels=labels, grid=GRID, names={label: "x"}, uid="1")


def without(one: Mask, *boxes: tuple[slice, ...]) -> Mask:
    labels = one.labels.copy()
    for box in boxes:
        labels[box] = 0
    return replace(one, labels=labels)


def ml(box: tuple[slice, ...]) -> float:
    return float(np.prod([part.stop - part.start for part in box])) * GRID.voxel_ml


def holds(joined: JoinedMasks, box: tuple[slice, ...]) -> bool:
    """Whether the box is lesion, and lung, as a whole; False where none of it is."""
    found = joined.lesion.labels[box] > 0
    assert found.all() or not found.any()
    assert found.all() == bool((joined.lung.labels[box] > 0).all())
    return bool(found.all())


DENT = (slice(30, 40), slice(38, 50), slice(60, 72))
"""24 mm deep from the back of the lung inwards."""


def test_consolidation_that_the_lung_mask_leaves_out_counts_with_the_lung() -> None:
    joined = join_masks(mask(DENT), without(mask(LUNG), DENT))
    assert holds(joined, DENT)
    assert joined.added_ml == pytest.approx(ml(DENT)) and joined.left_out_ml == 0
    assert joined.lung.volume_ml() == pytest.approx(ml(LUNG)) and joined.lesion.warnings == ()


def test_a_gap_of_one_voxel_between_the_two_outlines_does_not_matter() -> None:
    wider = (slice(29, 41), slice(37, 50), slice(59, 73))
    assert holds(join_masks(mask(DENT), without(mask(LUNG), wider)), DENT)
    two = (slice(28, 42), slice(36, 50), slice(58, 74))
    assert not holds(join_masks(mask(DENT), without(mask(LUNG), two)), DENT)


BELOW = (slice(5, 20), slice(20, 35), slice(55, 70))
"""A cube of 30 mm right below the lung: a sixth of its surface touches it."""

WITHIN = (slice(20, 45), slice(15, 40), slice(50, 75))
"""A lesion of 125 ml in the lung, on top of ``BELOW``."""


def test_what_leans_against_the_lung_from_below_is_left_out_and_said() -> None:
    joined = join_masks(mask(BELOW), mask(LUNG))
    assert not holds(joined, BELOW) and joined.added_ml == 0
    assert joined.lesion.warnings == ("27.0 ml marked as lesion lie outside the lungs and were left out.",)
    assert np.array_equal(joined.lung.labels, mask(LUNG).labels)


def test_what_hangs_together_with_a_lesion_in_the_lung_counts_only_within_the_borders_doubt() -> None:
    joined = join_masks(mask(BELOW, WITHIN), mask(LUNG))
    assert holds(joined, WITHIN)
    assert holds(joined, (slice(19, 20), *BELOW[1:])), "3 mm below the mask holds one slice of 2 mm"
    assert not holds(joined, (slice(5, 19), *BELOW[1:]))


def test_the_borders_doubt_is_for_lesions_that_lie_mostly_in_the_lung() -> None:
    little = (slice(20, 22), slice(25, 27), slice(60, 62))
    joined = join_masks(mask(BELOW, little), mask(LUNG))
    assert holds(joined, little) and not holds(joined, BELOW)


@pytest.mark.parametrize(("end", "counts"), [(58, True), (59, False)])
def test_half_of_a_surface_is_enough_and_less_is_not(end: int, *, counts: bool) -> None:
    """A bar from a dent in the back of the lung outwards: 100 faces at its inner end, 40 for each row of its sides.

    Of 18 rows 9 touch (8 in the dent and, across a gap of one voxel, one beyond it): 460 of 920 faces.
    """
    bar = (slice(30, 40), slice(40, end), slice(60, 70))
    lung = without(mask((LUNG[0], slice(10, 48), LUNG[2])), bar)
    assert holds(join_masks(mask(bar), lung), bar) is counts


@pytest.mark.parametrize(("step_mm", "counts"), [(2.0, True), (8.0, False)])
def test_a_surface_is_measured_in_mm_and_not_in_voxels(step_mm: float, *, counts: bool) -> None:
    """A column of 6 slices stands between two lobes: its ends touch, and of its sides the first and last slice."""
    grid = replace(GRID, spacing_mm=(step_mm, 2.0, 2.0))
    between = (slice(30, 36), *LUNG[1:])
    column = (slice(30, 36), slice(25, 35), slice(60, 70))
    lesion, lung = (replace(one, grid=grid) for one in (mask(column), without(mask(LUNG), between)))
    assert holds(join_masks(lesion, lung), column) is counts


def test_the_scans_end_is_no_surface() -> None:
    cut = (slice(52, 60), slice(40, 50), slice(60, 70))
    lung = mask((slice(40, 60), *LUNG[1:]))
    assert holds(join_masks(mask(cut), without(lung, cut)), cut)


def test_a_lesion_far_from_any_lung_or_without_one_is_left_out() -> None:
    far = (slice(5, 10), slice(5, 10), slice(5, 10))
    assert not holds(join_masks(mask(far), mask(LUNG)), far)
    everything = mask(tuple(slice(0, size) for size in GRID.shape))
    joined = join_masks(everything, mask())
    assert joined.lesion.is_empty and joined.lung.is_empty


def test_less_than_the_smallest_lesion_is_not_missed() -> None:
    dot = (slice(5, 7), slice(5, 7), slice(5, 7))
    joined = join_masks(mask(dot), mask(LUNG))
    assert joined.left_out_ml == pytest.approx(0.064) and joined.lesion.warnings == ()


def test_added_voxels_are_labelled_like_the_nearest_lung() -> None:
    right = (LUNG[0], LUNG[1], slice(2, 40))
    both = replace(mask(LUNG), names={1: "left lung", 2: "right lung"})
    labels = both.labels.copy()
    labels[right] = 2
    other_dent = (DENT[0], DENT[1], slice(10, 22))
    lung = without(replace(both, labels=labels), DENT, other_dent)
    joined = join_masks(mask(DENT, other_dent), lung)
    assert (joined.lung.labels[DENT] == 1).all() and (joined.lung.labels[other_dent] == 2).all()
    assert joined.lung.names == both.names


def test_labels_and_warnings_of_the_lesions_stay() -> None:
    lesion = replace(mask(DENT, BELOW, label=3), warnings=("noisy",), made_by="net 1 ab")
    joined = join_masks(lesion, without(mask(LUNG), DENT))
    assert set(np.unique(joined.lesion.labels)) == {0, 3} and joined.lesion.made_by == "net 1 ab"
    assert joined.lesion.warnings[0] == "noisy" and "27.0 ml" in joined.lesion.warnings[1]


def test_other_grids_are_refused() -> None:
    other = replace(GRID, origin_mm=(0.0, 0.0, 0.0))
    with pytest.raises(ModelFailed, match=r"The lesion mask .* and the lung mask .* lie on different grids"):
        join_masks(replace(mask(DENT), grid=other), mask(LUNG))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(scenes())
def test_joined_masks_hold_what_they_must_and_joining_again_changes_nothing(scene: tuple[Mask, Mask, Volume]) -> None:
    lesion, lung, volume = scene
    joined = join_masks(lesion, lung)
    marked, held = lesion.labels > 0, lung.labels > 0
    counted, whole = joined.lesion.labels > 0, joined.lung.labels > 0
    assert not (counted & ~whole).any() and not (counted & ~marked).any()
    assert ((marked & held) <= counted).all() and np.array_equal(whole, held | counted)
    assert np.isclose(joined.added_ml, lung.grid.voxel_ml * (counted & ~held).sum())
    assert np.isclose(joined.left_out_ml, lung.grid.voxel_ml * (marked & ~counted).sum())
    again = join_masks(joined.lesion, joined.lung)
    assert np.array_equal(again.lesion.labels, joined.lesion.labels)
    assert np.array_equal(again.lung.labels, joined.lung.labels)
    assert again.lesion.warnings == joined.lesion.warnings
    assert lesion_ratio(joined.lesion, joined.lung, volume).regions == lesion_ratio(lesion, lung, volume).regions


# --- consolidation and bowel in whole chests ---


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("lesion_rule")


def assert_told_apart(rule: ModuleType, volume: Volume) -> None:
    """Consolidation of 12 ml at the pleura counts; of 75 ml of bowel that hang together with a lesion little does."""
    lung = rule.lungs_by_threshold(volume.hu)
    for kind, halo in (("costal", 0.2), ("posterior", 0.0)):
        sites = [one for one in rule.places(lung, volume.grid, kind, 4) if is_broad(rule, lung, volume.grid, one)]
        shares = rule.counted_shares(rule.consolidation(volume, lung, sites, 18.0, halo))
        assert len(shares) >= 2 and min(shares) > 0.95, (kind, shares)
    sites = rule.places(lung, volume.grid, "base", 2)
    painted = rule.bowel(volume, lung, sites, 26.0, with_lesion=True)
    assert len(sites) == 2 and max(rule.counted_shares(painted)) < 0.15
    assert max(rule.counted_shares(painted, before=True)) == 1.0, "the rule before took it for lung"


def is_broad(rule: ModuleType, lung: np.ndarray, grid: Grid, site: object) -> bool:
    """Whether the lung is no sharp edge at a place, whose loss leaves nothing to touch."""
    around = rule.ball(grid, site.point_mm, 18.0)  # type: ignore[attr-defined]
    return bool(lung[around].mean() > 0.42)


def test_consolidation_and_bowel_are_told_apart_in_the_phantom(rule: ModuleType) -> None:
    volume = chest_phantom(shape=(100, 150, 150), lesions=0, seed=3).volume
    assert_told_apart(rule, volume)


@pytest.mark.parametrize("name", ["lungdx-a0002", "lidc-0001"])
def test_consolidation_and_bowel_are_told_apart_in_real_chests(data: Path, rule: ModuleType, name: str) -> None:
    assert_told_apart(rule, read_series(data / "ct" / name))
