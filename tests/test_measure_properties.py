"""What must hold for any masks, however odd, against the definitions written out."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from carina.measure.agreement import dice, hausdorff95_mm, surface_dice
from carina.measure.findings import RatioFindings
from carina.measure.joined import join_masks
from carina.measure.lungs import split_lungs
from carina.measure.ratio import lesion_ratio
from carina.volume import Mask, Volume
from scenes import scenes


def total_ml(result: RatioFindings, parts: str) -> tuple[float, float]:
    """Lung and lesion of all regions whose name ends so."""
    regions = [one for one in result.regions if one.region.endswith(parts)]
    return sum(one.lung_ml for one in regions), sum(one.lesion_ml for one in regions)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scenes())
def test_the_ratio_is_that_of_its_definition(scene: tuple[Mask, Mask, Volume]) -> None:
    lesion, lung, volume = scene
    joined = join_masks(lesion, lung)
    whole, counted = joined.lung.labels > 0, joined.lesion.labels > 0
    result = lesion_ratio(lesion, lung, volume)
    first = result.regions[0]
    expected = (whole.sum() * lung.grid.voxel_ml, counted.sum() * lung.grid.voxel_ml)
    assert np.allclose((first.lung_ml, first.lesion_ml), expected)
    assert 0 <= first.ratio_percent <= 100
    if whole.any():
        assert first.lung_mean_hu is not None and np.isclose(first.lung_mean_hu, volume.hu[whole].mean())
    told = any(one.region.endswith("third") for one in result.regions)
    for parts in (" lung", "third") if told else (" lung",):
        assert np.allclose(total_ml(result, parts), (first.lung_ml, first.lesion_ml)), parts


@settings(max_examples=40, deadline=None, derandomize=True)
@given(scenes())
def test_splitting_gives_every_lung_voxel_one_side(scene: tuple[Mask, Mask, Volume]) -> None:
    lung = scene[1]
    assert np.array_equal(split_lungs(lung).labels > 0, lung.labels > 0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(scenes())
def test_agreement_has_no_direction(scene: tuple[Mask, Mask, Volume]) -> None:
    a, b, spacing = scene[0].labels, scene[1].labels, scene[0].grid.spacing_mm
    assert dice(a, b) == dice(b, a)
    assert hausdorff95_mm(a, b, spacing) == hausdorff95_mm(b, a, spacing) >= 0
    assert 0 <= surface_dice(a, b, spacing) == surface_dice(b, a, spacing) <= 1
    assert (dice(a, a), surface_dice(a, a, spacing), hausdorff95_mm(a, a, spacing)) == (1, 1, 0)
