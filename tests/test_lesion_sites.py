"""Lesions one by one: their volumes add up, their places are theirs, whatever way the voxels are stored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from carina.measure.joined import SMALLEST_LESION_ML, join_masks
from carina.measure.lesion_sites import lesion_sites
from carina.measure.ratio import lesion_ratio
from carina.measure.table import findings_json
from carina.operators.stored_findings import StoredRatio
from carina.synth.phantom import PhantomLesion, chest_phantom
from carina.volume import Mask, Volume
from carina.volume.resample import reorient
from scenes import scenes

SMALL_LEFT = PhantomLesion(centre_mm=(85.0, 60.0, -90.0), radii_mm=(9.0, 9.0, 9.0))
LARGE_RIGHT = PhantomLesion(centre_mm=(-75.0, 40.0, 60.0), radii_mm=(18.0, 18.0, 18.0))


@pytest.mark.parametrize("codes", ["LPS", "RAS", "ARI", "SLP"])
def test_the_largest_comes_first_and_lies_where_it_was_painted(codes: str) -> None:
    phantom = chest_phantom(shape=(64, 96, 96), lesions=[SMALL_LEFT, LARGE_RIGHT])
    lung, lesion = (
        Mask(labels=np.ascontiguousarray(labels), grid=grid, names=mask.names, uid="1")
        for mask in (phantom.lung, phantom.lesion)
        for labels, grid in [reorient(mask.labels, mask.grid, codes)]
    )
    first, second = lesion_sites(lesion, replace(lung, labels=(lung.labels > 0).astype(np.uint8), names={1: "lung"}))
    assert (first.number, first.region) == (1, "right lung upper third")
    assert (second.number, second.region) == (2, "left lung lower third")
    for site, painted, truth in zip(
        (first, second), (LARGE_RIGHT, SMALL_LEFT), reversed(phantom.truth.lesions), strict=True
    ):
        assert site.lesion_ml == pytest.approx(truth.lesion_ml)
        assert lesion.labels[site.index]
        assert np.linalg.norm(lesion.grid.points_mm(site.index) - painted.centre_mm) < 12


@settings(max_examples=60)
@given(scenes())
def test_sites_are_the_lesions_that_are_counted(scene: tuple[Mask, Mask, Volume]) -> None:
    lesion, lung, volume = scene
    ratio = lesion_ratio(lesion, lung, volume)
    joined = join_masks(lesion, lung)
    sites = lesion_sites(joined.lesion, joined.lung)
    assert len(sites) == ratio.lesion_count
    assert [site.number for site in sites] == list(range(1, len(sites) + 1))
    volumes = [site.lesion_ml for site in sites]
    assert volumes == sorted(volumes, reverse=True)
    assert all(one >= SMALLEST_LESION_ML for one in volumes)
    assert sum(volumes) <= ratio.regions[0].lesion_ml + 1e-9
    known = {region.region for region in ratio.regions}
    assert all(joined.lesion.labels[site.index] and site.region in known for site in sites)


def test_a_run_stores_its_lesions_and_one_of_an_earlier_version_has_them_measured_again(tmp_path: Path) -> None:
    phantom = chest_phantom(shape=(64, 96, 96), lesions=[SMALL_LEFT, LARGE_RIGHT])
    ratio = lesion_ratio(phantom.lesion, phantom.lung, phantom.volume)
    files = StoredRatio.save(ratio, tmp_path, lambda _: ())
    assert StoredRatio.load(files).lesions == ratio.lesions == lesion_sites(phantom.lesion, phantom.lung)
    (tmp_path / "volume-ratio.json").write_text(
        json.dumps({k: v for k, v in json.loads(files[0].read_text()).items() if k != "lesions"})
    )
    assert StoredRatio.load(files).lesions == ()
    table: Any = findings_json(ratio)["volume_ratio"]
    assert [(one["number"], one["region"], one["lesion_ml"]) for one in table["lesions"]] == [
        (site.number, site.region, round(site.lesion_ml, 3)) for site in ratio.lesions
    ]
