"""Lungs told apart, lesion to lung ratio, key slices and tables, on shapes whose answers are known."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from carina.errors import ModelFailed
from carina.measure.findings import Classification, RatioFindings, RegionFindings
from carina.measure.lungs import split_lungs
from carina.measure.ratio import lesion_ratio
from carina.measure.table import findings_json, findings_rows
from carina.measure.texts import plain_ml_text
from carina.synth.phantom import Phantom, chest_phantom
from carina.volume import Grid, Mask, Volume
from carina.volume.header import triple

SHAPE, SPACING = (60, 50, 80), (4.0, 4.0, 4.0)
GRID = Grid(shape=SHAPE, spacing_mm=SPACING, origin_mm=(-158.0, -98.0, 10.0))
# Array x grows to the patient's left: the right lung comes first.
RIGHT_BOX = (slice(10, 40), slice(10, 40), slice(8, 34))
LEFT_BOX = (slice(10, 40), slice(10, 40), slice(46, 72))


def mask(*boxes: tuple[slice, ...], grid: Grid = GRID, made_by: str = "") -> Mask:
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for box in boxes:
        labels[box] = 1
    return Mask(labels=labels, grid=grid, names={1: "lung"}, uid="1.2.3", made_by=made_by)


def region(findings: RatioFindings, name: str) -> RegionFindings:
    return next(one for one in findings.regions if one.region == name)


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return chest_phantom(shape=(80, 160, 160), lesions=4, seed=8)


def unsided(lung: Mask) -> Mask:
    return replace(lung, labels=(lung.labels > 0).astype(np.uint8), names={1: "lung"})


# --- left and right ---


def test_left_is_one_and_right_is_two() -> None:
    sides = split_lungs(mask(LEFT_BOX, RIGHT_BOX)).labels
    assert (sides[LEFT_BOX] == 1).all()
    assert (sides[RIGHT_BOX] == 2).all()
    assert np.count_nonzero(sides) == 2 * 30 * 30 * 26


@pytest.mark.parametrize("order", list(permutations((0, 1, 2))))
@pytest.mark.parametrize("flips", list(product((False, True), repeat=3)))
def test_sides_are_the_patients_in_every_voxel_orientation(
    order: tuple[int, int, int], flips: tuple[bool, bool, bool], chest: Phantom
) -> None:
    grid = chest.lung.grid
    labels = chest.lung.labels
    axes, origin = list(grid.axes), np.array(grid.origin_mm)
    for axis, flip in enumerate(flips):
        if flip:
            labels = np.flip(labels, axis)
            origin = origin + np.array(axes[axis]) * grid.spacing_mm[axis] * (grid.shape[axis] - 1)
            axes[axis] = triple(-np.array(axes[axis]))
    expected = np.ascontiguousarray(labels.transpose(order))
    z, y, x = order
    turned = Grid(
        shape=(grid.shape[z], grid.shape[y], grid.shape[x]),
        spacing_mm=triple([grid.spacing_mm[axis] for axis in order]),
        origin_mm=triple(origin),
        axes=(axes[z], axes[y], axes[x]),
    )
    given = Mask(labels=(expected > 0).astype(np.uint8), grid=turned, names={1: "lung"}, uid="1.2")
    assert np.array_equal(split_lungs(given).labels, expected)


def test_touching_lungs_are_parted_where_they_touch() -> None:
    bridge = (slice(20, 34), slice(12, 16), slice(34, 46))
    sides = split_lungs(mask(LEFT_BOX, RIGHT_BOX, bridge)).labels
    assert (sides[LEFT_BOX] == 1).all()
    assert (sides[RIGHT_BOX] == 2).all()
    across = sides[25, 14, 34:46]
    assert set(across[:5]) == {2} and set(across[-5:]) == {1}


def test_lungs_that_no_erosion_parts_are_cut_in_the_middle() -> None:
    merged = (slice(10, 40), slice(10, 40), slice(8, 72))
    sides = split_lungs(mask(merged)).labels[merged]
    left, right = np.count_nonzero(sides == 1), np.count_nonzero(sides == 2)
    assert left + right == sides.size
    assert left == pytest.approx(right, rel=0.1)
    assert (sides[:, :, :15] == 2).all() and (sides[:, :, -15:] == 1).all()


def test_a_junction_line_closed_by_a_lung_mask_is_opened_again(chest: Phantom) -> None:
    points = chest.lung.grid.points_mm(np.argwhere(chest.lung.labels == 0))
    near = (np.abs(points[:, 0]) < 10) & (points[:, 1] < -45) & (points[:, 1] > -75) & (np.abs(points[:, 2] - 30) < 50)
    labels = (chest.lung.labels > 0).astype(np.uint8)
    labels[tuple(np.argwhere(chest.lung.labels == 0)[near].T)] = 1
    sides = split_lungs(replace(unsided(chest.lung), labels=labels)).labels
    for side in (1, 2):
        own = np.count_nonzero(chest.lung.labels == side)
        assert np.count_nonzero((sides == side) & (chest.lung.labels == side)) / own > 0.995


@pytest.mark.parametrize(("box", "label"), [(LEFT_BOX, 1), (RIGHT_BOX, 2)])
def test_one_lung_alone_has_the_side_it_lies_on(box: tuple[slice, ...], label: int) -> None:
    assert set(np.unique(split_lungs(mask(box)).labels)) == {0, label}


def test_one_lung_in_two_pieces_stays_one_lung() -> None:
    upper, lower = (slice(26, 40), slice(10, 40), slice(46, 72)), (slice(10, 22), slice(10, 40), slice(46, 66))
    assert set(np.unique(split_lungs(mask(upper, lower)).labels)) == {0, 1}


def test_small_pieces_go_to_the_nearer_lung() -> None:
    crumb = (slice(42, 44), slice(20, 22), slice(30, 32))
    assert (split_lungs(mask(LEFT_BOX, RIGHT_BOX, crumb)).labels[crumb] == 2).all()


def test_no_lung_stays_no_lung() -> None:
    assert split_lungs(mask()).is_empty


def test_a_single_voxel_is_enough() -> None:
    lone = (slice(7, 8), slice(33, 34), slice(71, 72))
    assert split_lungs(mask(lone)).labels[lone].item() == 1


# --- ratio ---


def test_the_phantoms_truth_is_found(chest: Phantom) -> None:
    found = lesion_ratio(chest.lesion, unsided(chest.lung), chest.volume)
    whole = found.regions[0]
    assert whole.region == "lungs"
    assert whole.lung_ml == pytest.approx(chest.truth.lung_ml)
    assert whole.lesion_ml == pytest.approx(chest.truth.lesion_ml)
    assert whole.ratio_percent == pytest.approx(chest.truth.ratio_percent)
    assert region(found, "left lung").lung_ml == pytest.approx(chest.truth.left_lung_ml)
    assert region(found, "right lung").lung_ml == pytest.approx(chest.truth.right_lung_ml)
    assert whole.lung_mean_hu == pytest.approx(chest.volume.hu[chest.lung.labels > 0].mean())
    assert whole.lesion_mean_hu == pytest.approx(chest.volume.hu[chest.lesion.labels > 0].mean())
    assert found.warnings == ()


def test_regions_add_up(chest: Phantom) -> None:
    found = lesion_ratio(chest.lesion, chest.lung)
    assert len(found.regions) == 9
    for side in ("left lung", "right lung"):
        thirds = [region(found, f"{side} {third} third") for third in ("upper", "middle", "lower")]
        assert sum(one.lung_ml for one in thirds) == pytest.approx(region(found, side).lung_ml)
        assert sum(one.lesion_ml for one in thirds) == pytest.approx(region(found, side).lesion_ml)
    assert found.regions[0].lung_mean_hu is None


@pytest.mark.parametrize("head_first", [False, True])
def test_thirds_are_of_each_lungs_height_from_the_patients_feet(*, head_first: bool) -> None:
    grid = GRID
    if head_first:
        grid = replace(GRID, axes=((0.0, 0.0, -1.0), *GRID.axes[1:]))
    low_end = (slice(10, 20), slice(10, 40), slice(46, 72))
    found = lesion_ratio(mask(low_end, grid=grid), mask(LEFT_BOX, RIGHT_BOX, grid=grid))
    full, empty = ("upper", "lower") if head_first else ("lower", "upper")
    assert region(found, f"left lung {full} third").ratio_percent == pytest.approx(100)
    assert region(found, "left lung middle third").ratio_percent == 0
    assert region(found, f"left lung {empty} third").lesion_ml == 0
    assert region(found, "left lung").ratio_percent == pytest.approx(100 / 3)
    assert region(found, "right lung").ratio_percent == 0
    assert region(found, "lungs").lung_ml == pytest.approx(2 * 30 * 30 * 26 * 0.064)


def test_a_lesion_that_the_lung_mask_missed_is_added_to_the_lung() -> None:
    dent = (slice(20, 25), slice(36, 40), slice(50, 55))
    lung = mask(LEFT_BOX, RIGHT_BOX)
    lung.labels[dent] = 0
    found = lesion_ratio(mask(dent), lung)
    assert region(found, "left lung").lung_ml == pytest.approx(30 * 30 * 26 * 0.064)
    assert region(found, "left lung").lesion_ml == pytest.approx(5 * 4 * 5 * 0.064)
    assert found.lesion_count == 1


def test_what_is_marked_outside_the_lungs_does_not_count_and_is_said() -> None:
    mostly_out = (slice(30, 35), slice(38, 44), slice(50, 55))  # 2 of 6 rows
    elsewhere = (slice(50, 54), slice(20, 24), slice(20, 24))
    found = lesion_ratio(mask(mostly_out, elsewhere), mask(LEFT_BOX, RIGHT_BOX))
    assert found.regions[0].lesion_ml == pytest.approx(5 * 2 * 5 * 0.064)
    assert found.lesion_count == 1
    lost_ml = (5 * 4 * 5 + 4 * 4 * 4) * 0.064
    assert found.warnings == (f"{plain_ml_text(lost_ml)} ml marked as lesion lie outside the lungs and were left out.",)


def test_a_lesion_that_is_cut_in_two_is_counted_as_two() -> None:
    across = (slice(20, 23), slice(20, 23), slice(32, 50))  # from the right lung's edge into the left lung
    assert lesion_ratio(mask(across), mask(LEFT_BOX, RIGHT_BOX)).lesion_count == 2


def test_the_ratio_never_exceeds_a_hundred_percent() -> None:
    grown = (slice(8, 42), slice(8, 42), slice(44, 74))
    assert lesion_ratio(mask(grown), mask(LEFT_BOX)).regions[0].ratio_percent == pytest.approx(100)


def test_tiny_lesions_are_measured_but_not_counted() -> None:
    tiny, real = (slice(20, 21), slice(20, 21), slice(50, 51)), (slice(30, 32), slice(30, 32), slice(60, 61))
    found = lesion_ratio(mask(tiny, real), mask(LEFT_BOX))
    assert found.lesion_count == 1
    assert found.regions[0].lesion_ml == pytest.approx(5 * 0.064)


def test_lesions_that_share_a_corner_are_one() -> None:
    a, b = (slice(20, 22), slice(20, 22), slice(50, 52)), (slice(22, 24), slice(22, 24), slice(52, 54))
    assert lesion_ratio(mask(a, b), mask(LEFT_BOX)).lesion_count == 1


def test_nothing_found_is_a_finding() -> None:
    found = lesion_ratio(mask(), mask(LEFT_BOX, RIGHT_BOX))
    assert (found.regions[0].lesion_ml, found.regions[0].ratio_percent, found.lesion_count) == (0, 0, 0)
    assert found.regions[0].lesion_mean_hu is None
    assert len(found.key_slices) == 6


def test_no_lung_is_said() -> None:
    found = lesion_ratio(mask(LEFT_BOX), mask())
    assert found.warnings == (
        "1498 ml marked as lesion lie outside the lungs and were left out.",
        "No lung was found, so there is no ratio.",
    )
    assert all(one.lung_ml == one.lesion_ml == one.ratio_percent == 0 for one in found.regions)
    assert len(found.regions) == 9


def test_a_missing_lung_has_no_volume() -> None:
    found = lesion_ratio(mask(), mask(RIGHT_BOX))
    assert region(found, "left lung").lung_ml == 0
    assert region(found, "left lung upper third").lung_ml == 0
    assert region(found, "right lung").lung_ml == region(found, "lungs").lung_ml > 0


def test_an_oblique_grid_is_measured_in_patient_space() -> None:
    angle = np.deg2rad(30)
    turned = replace(
        GRID, axes=((0.0, -np.sin(angle), np.cos(angle)), (0.0, np.cos(angle), np.sin(angle)), (1.0, 0.0, 0.0))
    )
    found = lesion_ratio(mask(grid=turned), mask(LEFT_BOX, RIGHT_BOX, grid=turned))
    points = turned.points_mm(np.argwhere(mask(LEFT_BOX, grid=turned).labels))[:, 2]
    half = 2.0 * (np.cos(angle) + np.sin(angle))
    low, high = points.min() - half, points.max() + half
    upper = np.count_nonzero(points >= low + (high - low) * 2 / 3) * 0.064
    assert region(found, "left lung upper third").lung_ml == pytest.approx(upper)


def test_different_grids_are_refused_with_both_described() -> None:
    other = replace(GRID, spacing_mm=(4.0, 4.0, 2.0))
    with pytest.raises(
        ModelFailed, match=r"lesion mask \(60 x 50 x 80 voxels of 4 x 4 x 2 mm.*lung mask \(60 x"
    ) as hit:
        lesion_ratio(mask(grid=other), mask(LEFT_BOX))
    assert hit.value.code == "measure.grids"
    ct = Volume(hu=np.zeros(SHAPE, dtype=np.int16), grid=replace(GRID, origin_mm=(0.0, 0.0, 0.0)), uid="1")
    with pytest.raises(ModelFailed, match=r"The CT .*from \(0, 0, 0\) mm.* lie on different grids"):
        lesion_ratio(mask(), mask(LEFT_BOX), ct)


def test_makers_are_passed_on() -> None:
    found = lesion_ratio(mask(made_by="lesion-net 1 ab"), mask(LEFT_BOX, made_by="lung-net 2 cd"))
    assert found.made_by == ("lesion-net 1 ab", "lung-net 2 cd")


# --- key slices ---


def test_key_slices_show_the_largest_lesions_from_the_head_down() -> None:
    small, large = (slice(14, 15), slice(20, 24), slice(50, 54)), (slice(30, 31), slice(20, 30), slice(50, 60))
    hu = np.arange(np.prod(SHAPE), dtype=np.int64).reshape(SHAPE).astype(np.int16)
    volume = Volume(hu=hu, grid=GRID, uid="1.2.3")
    slices = lesion_ratio(mask(small, large), mask(LEFT_BOX, RIGHT_BOX), volume).key_slices
    assert {30, 14} <= {one.index for one in slices}
    assert slices[0].index == 30, "from the head downwards"
    assert slices[0].hu is not None and np.array_equal(slices[0].hu, hu[30])
    assert slices[0].lesion.sum() == 100
    assert slices[0].lung.sum() == 2 * 30 * 26
    assert slices[0].spacing_mm == (4.0, 4.0)


# --- tables ---


def test_rows_have_units_in_their_names_and_one_row_per_region(chest: Phantom) -> None:
    ratio = lesion_ratio(chest.lesion, chest.lung, chest.volume)
    covid = Classification(uid="1.2", probabilities={"non-COVID-19": 0.25, "COVID-19": 0.75})
    rows = findings_rows(ratio, covid)
    assert [row["region"] for row in rows] == [one.region for one in ratio.regions]
    assert len({tuple(row) for row in rows}) == 1, "every row has the same columns"
    assert rows[0]["lung_ml"] == round(ratio.regions[0].lung_ml, 3)
    assert rows[0]["probability COVID-19"] == 0.75
    assert rows[1]["probability COVID-19"] is None
    assert rows[0]["lesion_count"] == ratio.lesion_count


def test_json_says_everything(chest: Phantom) -> None:
    ratio = lesion_ratio(chest.lesion, chest.lung, chest.volume)
    absent = Classification(uid="1.2", probabilities={}, not_computed="No lung was found.")
    value = json.loads(json.dumps(findings_json(ratio, absent)))
    assert len(value["volume_ratio"]["regions"]) == 9
    assert value["volume_ratio"]["key_slices"] == [one.index for one in ratio.key_slices]
    assert value["classification"]["not_computed"] == "No lung was found."
