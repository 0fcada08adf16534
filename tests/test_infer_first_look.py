"""Two looks: what the first decides, what it leaves to the second, and which bundle it may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from carina.config import Plan
from carina.errors import BadConfig
from carina.infer.runtime import Runtime
from carina.infer.segment import segment
from carina.models.bundle import Bundle
from carina.models.first_look import first_look_of
from carina.volume.volume import Volume
from test_infer_segment import band, chest, dice
from tiny_networks import weightless_bundle

FIRST = {"spacing_mm": [4.0, 4.0, 4.0], "components": {"keep": 2, "min_voxels": 100, "min_share": 0.05}}


def two_looks(folder: Path, *, sha256: str = "", **keys: object) -> Bundle:
    """A bundle that names another beside it as its first look."""
    first = weightless_bundle(folder / "first", **FIRST)
    return weightless_bundle(
        folder / "second", first_look={"bundle": "first", "sha256": sha256 or first.sha256, "sure_mm": 7.0}, **keys
    )


def chest_with_belly() -> tuple[Volume, np.ndarray, np.ndarray]:
    """A chest with gas in the belly that a threshold takes for lung, and a left lung that is dense below."""
    volume, lungs = chest()
    hu, belly = volume.hu.copy(), np.zeros(volume.hu.shape, dtype=bool)
    belly[2:8, 30:50, 40:56] = True
    hu[belly] = -850
    dense = lungs.copy()
    dense[30:], dense[..., :48] = False, False
    hu[dense] = 40
    return Volume(hu=hu, grid=volume.grid, uid="1"), lungs, belly


def knows(truth: np.ndarray) -> Runtime:
    """A first look that is right: it answers by place, of a scan of 3 mm voxels that it sees at 4 mm."""

    def answer(patches: np.ndarray) -> np.ndarray:
        _, _, x, y, z = patches.shape
        at = [
            np.minimum(np.rint(np.arange(n) * 4 / 3).astype(int), m - 1)
            for n, m in zip((z, y, x), truth.shape, strict=True)
        ]
        seen = truth[:, ::-1, ::-1][np.ix_(*at)]
        return np.where(seen, 6.0, -6.0).astype(np.float32).transpose(2, 1, 0)[None, None]

    return answer


@pytest.mark.parametrize("plan", list(Plan))
def test_the_first_look_decides_what_may_be_lung(tmp_path: Path, plan: Plan) -> None:
    volume, lungs, belly = chest_with_belly()
    alone = segment(volume, weightless_bundle(tmp_path / "alone"), band, plan).labels > 0
    both = segment(volume, two_looks(tmp_path), band, plan, first_look=knows(lungs)).labels > 0
    assert alone[belly].mean() > 0.9
    assert not both[belly].any()
    assert dice(alone, lungs) < 0.85
    assert dice(both, lungs) > 0.97


def test_where_lung_holds_air_the_second_look_draws_its_border(tmp_path: Path) -> None:
    volume, lungs = chest()
    shifted = np.roll(lungs, 1, axis=2)
    found = segment(volume, two_looks(tmp_path), band, first_look=knows(shifted)).labels > 0
    assert dice(found, lungs) > 0.98 > dice(shifted, lungs)


def test_a_first_look_that_sees_no_lung_gives_an_empty_mask(tmp_path: Path) -> None:
    volume, lungs = chest()
    for plan in Plan:
        found = segment(volume, two_looks(tmp_path / plan), band, plan, first_look=knows(lungs & False))
        assert found.is_empty


LESION = {"task": "lesion", "labels": {"1": "lesion"}}


def lesion_looks(folder: Path, **rule: float) -> Bundle:
    """A lesion bundle that names another beside it as its first look; what is dark is lesion to both."""
    first = weightless_bundle(folder / "first", **LESION, spacing_mm=[4.0, 4.0, 4.0])
    look = {"bundle": "first", "sha256": first.sha256, **rule}
    return weightless_bundle(folder / "second", **LESION, first_look=look)


@pytest.mark.parametrize("plan", list(Plan))
def test_the_first_look_at_lesions_adds_what_it_is_sure_of(tmp_path: Path, plan: Plan) -> None:
    """The second finds all that is dark; the first is sure of a block of tissue outside the lungs' box."""
    volume, lungs = chest()
    sure = np.zeros_like(lungs)
    sure[4:12, 30:44, 40:56] = True
    assert not (sure & lungs).any()
    alone = segment(volume, weightless_bundle(tmp_path / "alone", **LESION), band, plan).labels > 0

    def answer(patches: np.ndarray) -> np.ndarray:
        """By place: 9 where it is sure, 1, which is not sure enough, in half of the tissue, -9 elsewhere."""
        doubtful = ~lungs & ~sure
        doubtful[: len(lungs) // 2] = False
        here, there = knows(sure)(patches), knows(doubtful)(patches)
        return np.where(here > 0, 9.0, np.where(there > 0, 1.0, -9.0)).astype(np.float32)

    found = segment(volume, lesion_looks(tmp_path, sure=2.0), band, plan, first_look=answer).labels > 0
    assert found[ndimage.binary_erosion(sure, iterations=2)].all()
    far = ~ndimage.binary_dilation(sure, iterations=3)
    assert alone.any()
    assert np.array_equal(found & far, alone & far)


def test_a_first_look_at_lesions_that_is_sure_of_nothing_changes_nothing(tmp_path: Path) -> None:
    volume, lungs = chest()
    alone = segment(volume, weightless_bundle(tmp_path / "alone", **LESION), band).labels
    found = segment(volume, lesion_looks(tmp_path), band, first_look=knows(lungs & False)).labels
    assert np.array_equal(found, alone)


def test_a_score_that_no_network_gives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"first_look sure 1000000000\.0 must lie between -50 and 50"):
        lesion_looks(tmp_path, sure=1e9)


def test_a_first_look_is_of_the_same_task(tmp_path: Path) -> None:
    first = weightless_bundle(tmp_path / "first", **FIRST)
    look = {"bundle": "first", "sha256": first.sha256}
    bundle = weightless_bundle(tmp_path / "second", **LESION, first_look=look)
    with pytest.raises(BadConfig, match=r"expected a bundle of task lesion without .* and its task is lung"):
        first_look_of(bundle)


def test_the_hash_of_a_bundle_covers_its_first_look(tmp_path: Path) -> None:
    bundle = two_looks(tmp_path)
    first = first_look_of(bundle)
    assert first is not None
    assert first.name == "first"
    other = two_looks(tmp_path / "other", sha256="0" * 64)
    assert other.sha256 != bundle.sha256
    with pytest.raises(BadConfig, match=r"first: has the hash \w{12}, second names 000000000000 as its first look"):
        segment(chest()[0], other, band)


def test_a_first_look_needs_none_itself(tmp_path: Path) -> None:
    first = two_looks(tmp_path)
    bundle = weightless_bundle(tmp_path / "third", first_look={"bundle": "second", "sha256": first.sha256})
    with pytest.raises(BadConfig, match=r"third names it as its first look; expected a bundle of task lung without"):
        first_look_of(bundle)


def test_a_first_look_that_is_not_there_is_named(tmp_path: Path) -> None:
    bundle = weightless_bundle(tmp_path / "second", first_look={"bundle": "nowhere", "sha256": "0" * 64})
    with pytest.raises(BadConfig, match="No bundle is called 'nowhere'"):
        first_look_of(bundle)


TWO_LUNGS = {"1": "left lung", "2": "right lung"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"output": "probabilities"}, "expected one label and output logits, and it has 1 and probabilities"),
        ({"labels": TWO_LUNGS, "restore": "nearest"}, "expected one label and output logits, and it has 2"),
    ],
)
def test_a_first_look_whose_answer_would_be_misread_is_refused(
    tmp_path: Path, keys: dict[str, object], words: str
) -> None:
    first = weightless_bundle(tmp_path / "first", **{**FIRST, **keys})
    bundle = weightless_bundle(tmp_path / "second", first_look={"bundle": "first", "sha256": first.sha256})
    with pytest.raises(BadConfig, match=words):
        first_look_of(bundle)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"sure_mm": -5.0}, r"sure_mm -5\.0 must lie above 0"),
        ({"sure_mm": 1e9}, "and 50 at most"),
        ({"labels": TWO_LUNGS, "restore": "nearest"}, "first_look must be null where there is more than one label"),
    ],
)
def test_a_bundle_that_a_first_look_can_not_help_is_refused(
    tmp_path: Path, keys: dict[str, object], words: str
) -> None:
    look = {"bundle": "first", "sha256": "0" * 64, **{key: keys[key] for key in keys if key == "sure_mm"}}
    more = {key: keys[key] for key in keys if key != "sure_mm"}
    with pytest.raises(BadConfig, match=words):
        weightless_bundle(tmp_path / "second", first_look=look, **more)
