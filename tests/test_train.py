"""Training parts: lesions, labels, patches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

from carina.cases.case import Case, resample_case  # noqa: E402
from carina.cases.crops import draw_plain_crop  # noqa: E402
from carina.cases.sampling import bend  # noqa: E402
from carina.errors import BadSeries  # noqa: E402
from carina.measure.agreement import dice  # noqa: E402
from carina.synth import distractors, lesions  # noqa: E402
from carina.synth.lung_labels import label_lungs  # noqa: E402
from carina.synth.phantom import chest_phantom  # noqa: E402
from carina.train.patches import (  # noqa: E402
    OUTSIDE_HU,
    PICTURE_SHIFT_HU,
    Cut,
    Drawn,
    _with_borrowed,
    centre_in,
    cut,
    draw_disease,
    draw_lesion_patch,
    draw_lung_patch,
    repeat_slice,
)

SPACING_MM = (5.0, 1.6, 1.6)


@pytest.fixture(scope="module")
def healthy() -> Case:
    phantom = chest_phantom(shape=(64, 240, 240), lesions=0, seed=7)
    return resample_case(Case(name="phantom", volume=phantom.volume, lung=phantom.lung))


def _box_lung() -> tuple[np.ndarray, np.ndarray]:
    hu = np.full((16, 64, 64), 40.0, dtype=np.float32)
    lung = np.zeros(hu.shape, dtype=bool)
    lung[2:14, 8:56, 8:56] = True
    hu[lung] = -870.0
    hu[5:11, 30:33, 8:56] = 40.0
    return hu, lung


@pytest.mark.parametrize("kind", lesions.Kind)
def test_lesions_stay_in_the_lung_and_are_the_same_for_one_seed(kind: lesions.Kind) -> None:
    hu, lung = _box_lung()
    results = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        drawn = lesions.draw_lesions(lung, SPACING_MM, rng, count=3, kind=kind)
        results.append(lesions.paste(hu, lung, SPACING_MM, drawn, rng))
    (first, mask), (second, again) = results
    assert mask.any() and not mask[~lung].any()
    assert np.array_equal(first, second) and np.array_equal(mask, again)
    assert np.array_equal(first[~lung], hu[~lung])
    air = mask & (hu < -800)
    assert first[air].mean() > hu[air].mean() + 80


def test_vessels_stay_visible_in_ground_glass_and_vanish_in_consolidation() -> None:
    hu, lung = _box_lung()
    contrast = {}
    for kind in (lesions.Kind.GROUND_GLASS, lesions.Kind.CONSOLIDATION):
        drawn = lesions._draw((8.0, 31.0, 31.0), kind, lesions.RADII_MM, np.random.default_rng(0))
        lesion = dataclasses.replace(drawn, radii_mm=(30.0, 30.0, 30.0), fraction=0.3)
        if kind is lesions.Kind.CONSOLIDATION:
            lesion = dataclasses.replace(lesion, fraction=1.0, texture=0.0)
        out, mask = lesions.paste(hu, lung, SPACING_MM, [lesion], np.random.default_rng(3))
        vessel = mask & (hu > 0)
        contrast[kind] = float(np.median(out[vessel]) - np.median(out[mask & (hu < -800)]))
    assert contrast[lesions.Kind.GROUND_GLASS] > 400
    assert contrast[lesions.Kind.CONSOLIDATION] < 100


def test_no_lung_gives_no_lesion() -> None:
    assert lesions.draw_lesions(np.zeros((4, 8, 8), dtype=bool), SPACING_MM, np.random.default_rng(0), count=3) == []


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.0), (0.6, 0.45, 0.75), (1.0, 1.0, 1.0)])
def test_as_many_consolidations_hold_no_air_as_is_asked(share: float, low: float, high: float) -> None:
    _, lung = _box_lung()
    rng = np.random.default_rng(3)
    drawn = lesions.draw_lesions(lung, SPACING_MM, rng, count=400)
    airless = lesions.without_air(drawn, share, rng)
    solid = [one.kind is lesions.Kind.CONSOLIDATION for one in drawn]
    assert (
        low <= np.mean([one.fraction == 1.0 for one, is_solid in zip(airless, solid, strict=True) if is_solid]) <= high
    )
    assert [one for one, is_solid in zip(airless, solid, strict=True) if not is_solid] == [
        one for one, is_solid in zip(drawn, solid, strict=True) if not is_solid
    ]


def largest_mm3(patches: list[list[lesions.DrawnLesion]]) -> float:
    """The largest product of a lesion's three radii."""
    return max(float(np.prod(lesion.radii_mm)) for patch in patches for lesion in patch)


@pytest.fixture(scope="module")
def drawn() -> list[list[lesions.DrawnLesion]]:
    """The lesions of a hundred patches."""
    _, lung = _box_lung()
    return [draw_disease(lung, np.random.default_rng(seed)) for seed in range(100)]


def test_patches_of_many_small_lesions_are_common(drawn: list[list[lesions.DrawnLesion]]) -> None:
    many = [patch for patch in drawn if len(patch) > 4]
    assert 15 < len(many) < 40
    assert largest_mm3(many) < 15.0**3 < 30.0**3 < largest_mm3(drawn)


def test_patches_of_one_kind_are_common(drawn: list[list[lesions.DrawnLesion]]) -> None:
    several = [{lesion.kind for lesion in patch} for patch in drawn if len(patch) > 2]
    alone = [kinds for kinds in several if len(kinds) == 1]
    assert 0.35 < len(alone) / len(several) < 0.75
    assert set().union(*alone) == set(lesions.Kind)


def test_fluid_lies_behind_and_is_no_air() -> None:
    hu, lung = _box_lung()
    out, fluid = distractors.effusion(hu, lung, SPACING_MM, np.random.default_rng(1))
    rows = np.flatnonzero(fluid.any(axis=(0, 2)))
    assert rows[0] == 8 and rows[-1] < 40
    assert -60 < float(np.median(out[fluid])) < 60


@pytest.fixture(scope="module")
def labelled(healthy: Case) -> list[npt.NDArray[np.bool_]]:
    """The lungs that are found in the phantom, of an even and of an odd number of rows and columns."""
    return [label_lungs(healthy.hu[:, odd:, odd:], healthy.spacing_mm) > 0 for odd in (0, 1)]


def test_labels_of_a_phantom_are_its_lungs_without_trachea_and_bowel(
    healthy: Case, labelled: list[npt.NDArray[np.bool_]]
) -> None:
    found, lung = labelled[0], healthy.lungs > 0
    assert dice(found, lung) > 0.93
    assert found[lung].mean() > 0.93
    assert np.count_nonzero(found & ~lung & (healthy.hu < -700)) < 0.01 * np.count_nonzero(lung)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("odd", [0, 1])
def test_labels_lie_where_the_lungs_are(
    healthy: Case, labelled: list[npt.NDArray[np.bool_]], axis: int, odd: int
) -> None:
    """A voxel to one side fits as badly as a voxel to the other."""
    found, lung = labelled[odd], healthy.lungs[:, odd:, odd:] > 0
    below, above = (dice(np.roll(found, shift, axis), lung) for shift in (-1, 1))
    assert abs(below - above) < 0.004
    assert max(below, above) < dice(found, lung)


def test_labels_of_water_are_refused() -> None:
    with pytest.raises(BadSeries, match="a lung has 300 or more"):
        label_lungs(np.zeros((8, 64, 64), dtype=np.int16), (5.0, 1.6, 1.6))


def test_patches_depend_on_the_generator_only(healthy: Case) -> None:
    for draw in (draw_lesion_patch, draw_lung_patch):
        first, second, other = (draw([healthy], (8, 48, 64), np.random.default_rng(s)) for s in (1, 1, 2))
        assert first.hu.shape == first.truth.shape == (8, 48, 64)
        assert np.array_equal(first.hu, second.hu) and np.array_equal(first.truth, second.truth)
        assert not np.array_equal(first.hu, other.hu)


def _slices(depth: int = 12) -> Drawn:
    """Each slice of its own HU; three of them with disease, the others without anything."""
    rng = np.random.default_rng(0)
    hu = (np.arange(depth)[:, None, None] * 10.0 + rng.uniform(0, 1, (depth, 8, 8))).astype(np.float32)
    masks = np.zeros((3, depth, 8, 8), dtype=bool)
    masks[:, 4:7] = rng.random((3, 3, 8, 8)) < 0.5
    return Drawn(hu=hu, truth=masks[0], hard=masks[1], ignored=masks[2])


def repeated_level(one: Drawn, drawn: Drawn, kept: npt.NDArray[np.intp]) -> int:
    """The slice that is repeated, by its masks, which are all those of one level."""
    (level,) = [k for k in (4, 5, 6) if np.array_equal(one.truth[kept[0]], drawn.truth[k])]
    for new, old in ((one.truth, drawn.truth), (one.hard, drawn.hard), (one.ignored, drawn.ignored)):
        assert np.array_equal(new[kept], np.broadcast_to(old[level], (len(kept), 8, 8)))
    return level


def test_a_repeated_slice_is_one_with_disease_with_its_masks_and_air_around_it() -> None:
    drawn, counts, shifts = _slices(), [], []
    for seed in range(60):
        one = repeat_slice(drawn, np.random.default_rng(seed))
        kept = np.flatnonzero((one.hu > -1000).any(axis=(1, 2)))
        shift = one.hu[kept] - drawn.hu[repeated_level(one, drawn, kept)]  # one for all, 0 where it is no picture
        assert np.ptp(shift) < 1e-3
        outside = np.setdiff1d(np.arange(12), kept)
        assert (one.hu[outside] == OUTSIDE_HU).all() and not (one.truth | one.hard | one.ignored)[outside].any()
        assert abs(kept[0] - (11 - kept[-1])) <= 1
        counts.append(len(kept))
        shifts.append(float(abs(shift.mean())))
    assert set(counts) <= set(range(2, 13)) and len(set(counts)) > 7 and 20 < counts.count(12) < 45
    assert max(shifts) <= PICTURE_SHIFT_HU and 15 < sum(shift < 1e-3 for shift in shifts) < 45


def test_two_in_five_patches_repeat_a_slice_and_some_are_mostly_ill(healthy: Case) -> None:
    drawn = [draw_lesion_patch([healthy], (8, 48, 64), np.random.default_rng(seed)) for seed in range(150)]
    repeated = [one for one in drawn if any(np.array_equal(a, b) for a, b in pairwise(one.hu))]
    assert 45 < len(repeated) < 76
    ill = [np.count_nonzero(one.truth) / one.truth.size for one in drawn]
    assert sum(share > 0.4 for share in ill) > 5


def test_hard_for_lesions_is_the_dense_of_the_lungs_ill_or_not(healthy: Case) -> None:
    drawn = [draw_lesion_patch([healthy], (8, 48, 64), np.random.default_rng(seed)) for seed in range(30)]
    for ill in (True, False):
        hard = np.concatenate([one.hu[one.hard & (one.truth == ill)] for one in drawn])
        assert hard.size > 100 and np.median(hard) > -150
    soft = np.concatenate([one.hu[one.truth & ~one.hard] for one in drawn])
    assert np.median(soft) < -350


def test_what_is_ignored_moves_with_its_patch(healthy: Case) -> None:
    """Where all of the lungs is ignored, so is every lesion, since lesions are drawn into lungs."""
    case = dataclasses.replace(healthy, ignore=healthy.lung)
    drawn = [draw_lesion_patch([case], (8, 48, 64), np.random.default_rng(seed)) for seed in range(6)]
    assert any(one.truth.any() for one in drawn)
    assert not any((one.truth & ~one.ignored).any() for one in drawn)
    assert not any(draw_lesion_patch([healthy], (8, 48, 64), np.random.default_rng(1)).ignored.ravel())


def test_a_patch_bends_but_never_folds() -> None:
    for seed in range(40):
        moved = bend((224, 224), (0.8, 0.8), np.random.default_rng(seed))
        assert moved.shape == (2, 224, 224)
        steps = np.diff(moved[0], axis=0), np.diff(moved[1], axis=1)
        assert max(np.abs(step).max() for step in steps) < 0.8


@pytest.mark.parametrize("change", [distractors.contrast, distractors.vessels])
def test_other_vessels_leave_the_lung_as_it_is(change: Callable[..., np.ndarray]) -> None:
    hu = np.full((3, 9, 9), -850, dtype=np.float32)
    hu[:, 4, 2:7] = 60
    changed = [change(hu, np.random.default_rng(seed)) for seed in range(12)]
    assert all(np.array_equal(one[:, :2], hu[:, :2]) for one in changed)
    assert any(not np.array_equal(one, hu) for one in changed)


def test_borrowed_vessels_lie_where_both_chests_have_lung() -> None:
    here, there = np.zeros((2, 5, 40, 40), dtype=bool)
    here[:, 5:35, 5:30], there[:, 5:35, 10:35] = True, True
    hu, other = np.full((2, *here.shape), 40, dtype=np.float32)
    hu[here], other[there] = -850, -870
    other[2, 20] = 60  # a vessel across
    out = distractors.borrowed(hu, here, other, there)
    added = out != hu
    assert added.any() and not added[~(here & there)].any()
    assert np.all(out[added] == 60) and set(np.argwhere(added)[:, 1]) == {20}
    assert np.argwhere(added)[:, 2].min() > 10  # the other chest's outline is left out


def test_what_is_ignored_lends_no_vessels(healthy: Case) -> None:
    unknown = dataclasses.replace(healthy, ignore=healthy.lung)
    drawn = [draw_patch(healthy, seed) for seed in range(4)]
    lent = [_with_borrowed(one.hu, one.lung, [healthy], np.random.default_rng(n)) for n, one in enumerate(drawn)]
    kept = [_with_borrowed(one.hu, one.lung, [unknown], np.random.default_rng(n)) for n, one in enumerate(drawn)]
    assert any(not np.array_equal(new, one.hu) for new, one in zip(lent, drawn, strict=True))
    assert all(np.array_equal(new, one.hu) for new, one in zip(kept, drawn, strict=True))


def draw_patch(case: Case, seed: int) -> Cut:
    rng = np.random.default_rng(seed)
    return cut(case, centre_in(case.lungs, rng), (8, 64, 64), rng)


def test_ill_crops_are_denser_than_healthy_ones(healthy: Case) -> None:
    diseased = dataclasses.replace(healthy, lesion=healthy.lung)
    drawn = [draw_plain_crop([healthy, diseased], (16, 48, 48), np.random.default_rng(n)) for n in range(16)]
    density = {
        ill: [float(np.clip(one.hu, -1000, 0).mean()) for one in drawn if one.ill is ill] for ill in (True, False)
    }
    assert np.mean(density[True]) > np.mean(density[False]) + 5
