"""Segmentation and the plan of windows, with networks whose answers are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from carina.config import Plan
from carina.errors import BadConfig
from carina.infer.components import kept
from carina.infer.regions import find_regions
from carina.infer.segment import segment
from carina.infer.windows import fewest_tiles, predict, published_tiles, reaching_tiles
from carina.models.bundle import Blending, Bundle, Windows
from carina.models.lung_rules import Components
from carina.volume.grid import Grid
from carina.volume.resample import reorient
from carina.volume.volume import Mask, Volume
from tiny_networks import mean_bundle, weightless_bundle

AXIAL = Grid(shape=(60, 80, 96), spacing_mm=(3.0, 3.0, 3.0), origin_mm=(-144.0, -120.0, 10.0))


def chest(grid: Grid = AXIAL, *, left_hu: int = -850, right_hu: int = -850, seed: int = 0) -> tuple[Volume, np.ndarray]:
    """An elliptic body of water with two ellipsoid lungs; the volume and where the lungs are."""
    rng = np.random.default_rng(seed)
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(grid.points_mm(indices), -1, 0)
    z = z - 10 - 90
    hu = np.full(grid.shape, -1000, dtype=np.int16)
    hu[(x / 130) ** 2 + (y / 100) ** 2 < 1] = 40
    left = ((x - 55) / 40) ** 2 + (y / 60) ** 2 + (z / 70) ** 2 < 1
    right = ((x + 55) / 40) ** 2 + (y / 60) ** 2 + (z / 70) ** 2 < 1
    hu[left], hu[right] = left_hu, right_hu
    hu += rng.integers(-20, 20, grid.shape).astype(np.int16)
    return Volume(hu=hu, grid=grid, uid="1.2.3"), left | right


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def band(patches: np.ndarray) -> np.ndarray:
    """A network that knows lung by its brightness: neither air nor tissue."""
    lung = np.minimum(patches - 0.05, 0.5 - patches) * 40
    return 2 * lung


def run(volume: Volume, bundle: Bundle, plan: Plan = Plan.FAST) -> tuple[Mask, int]:
    """The mask, and how many voxels the network was shown."""
    shown = [0]

    def counting(patches: np.ndarray) -> np.ndarray:
        shown[0] += patches.size
        assert patches.min() >= 0 and patches.max() <= 1
        return band(patches)

    return segment(volume, bundle, counting, plan), shown[0]


@pytest.mark.parametrize("restore", ["linear", "nearest"])
def test_fast_finds_the_lungs_at_a_fraction_of_the_cost(tmp_path: Path, restore: str) -> None:
    volume, lungs = chest()
    rule = {"keep": 2, "min_voxels": 5000, "min_share": 0.3}
    bundle = weightless_bundle(tmp_path / "tiny", restore=restore, components=rule)
    fast, few = run(volume, bundle)
    original, many = run(volume, bundle, Plan.ORIGINAL)
    assert dice(fast.labels > 0, lungs) > 0.97
    assert dice(fast.labels > 0, original.labels > 0) > 0.999
    assert few < many / 2
    assert (fast.made_by, fast.uid, dict(fast.names)) == (bundle.made_by, "1.2.3", {1: "lung"})


@pytest.mark.parametrize("codes", ["LPS", "RAI", "PSL"])
@pytest.mark.parametrize("plan", list(Plan))
def test_the_border_rule_puts_the_border_where_the_air_ends(tmp_path: Path, plan: Plan, codes: str) -> None:
    volume, lungs = chest()
    (hu, grid), (truth, _) = (reorient(array, volume.grid, codes) for array in (volume.hu, lungs))
    turned = Volume(hu=np.ascontiguousarray(hu), grid=grid, uid="1")
    keys = {"spacing_mm": [4.0, 4.0, 6.0], "components": {"keep": 2, "min_voxels": 1000, "min_share": 0.3}}
    drawn, _ = run(turned, weightless_bundle(tmp_path / "drawn", **keys), plan)
    keys["border"] = {"hu": -400, "reach_mm": 3.0}
    settled, _ = run(turned, weightless_bundle(tmp_path / "settled", **keys), plan)
    assert dice(drawn.labels > 0, truth) < 0.99 < 0.999 < dice(settled.labels > 0, truth)


def test_the_border_rule_leaves_an_empty_mask_empty(tmp_path: Path) -> None:
    volume, _ = chest(left_hu=40, right_hu=40)
    found, _ = run(volume, weightless_bundle(tmp_path / "tiny", border={}))
    assert not found.labels.any()


def test_the_border_rule_wants_one_label(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"border must be null where there is more than one label; labels are .*left"):
        weightless_bundle(tmp_path / "tiny", border={}, labels={"1": "left", "2": "right"}, restore="nearest")


def test_a_mask_lies_where_the_lungs_are_however_the_volume_lies(tmp_path: Path) -> None:
    volume, _ = chest()
    bundle = weightless_bundle(tmp_path / "tiny")
    straight, _ = run(volume, bundle)
    for codes in ("LPS", "RAI", "PSL", "ILA"):
        hu, grid = reorient(volume.hu, volume.grid, codes)
        turned, _ = run(Volume(hu=np.ascontiguousarray(hu), grid=grid, uid="1"), bundle)
        back, _ = reorient(turned.labels, grid, "LPS")
        assert dice(back > 0, straight.labels > 0) > 0.995, codes


def test_consolidated_and_collapsed_lungs_stay_in_the_box() -> None:
    for left_hu, right_hu in ((0, -850), (-850, 0)):
        volume, lungs = chest(left_hu=left_hu, right_hu=right_hu)
        found = find_regions(*reorient(volume.hu, volume.grid, "RAS")).lungs
        assert found is not None
        view, _ = reorient(lungs, volume.grid, "RAS")
        assert view[found].sum() > 0.99 * lungs.sum()


def test_air_beside_the_body_is_no_lung(tmp_path: Path) -> None:
    """What a network takes for lung beside the arm, where clothes hold the air to -850 HU."""
    volume, lungs = chest()
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in AXIAL.shape), indexing="ij"), axis=-1)
    x, y, _ = np.moveaxis(AXIAL.points_mm(indices), -1, 0)
    beside = ((x / 130) ** 2 + (y / 100) ** 2 > 1.05) & ((x / 130) ** 2 + (y / 100) ** 2 < 1.3) & (x > 0)
    volume.hu[beside] = -850
    bundle = weightless_bundle(tmp_path / "tiny")
    published, _ = run(volume, bundle, Plan.ORIGINAL)
    assert np.count_nonzero(published.labels[beside]) > 0.5 * np.count_nonzero(beside)
    fast, _ = run(volume, bundle)
    assert dice(fast.labels > 0, lungs) > 0.97 and not fast.labels[beside].any()


def test_a_hollow_couch_is_around_the_body_and_lungs_are_not() -> None:
    volume, lungs = chest()
    volume.hu[:, 76:79, 20:76] = -100
    volume.hu[:, 77, 21:75] = -900
    around = find_regions(*reorient(volume.hu, volume.grid, "RAS")).around
    assert around is not None
    view, _ = reorient(lungs, volume.grid, "RAS")
    assert not around[view].any()
    couch, _ = reorient(np.isin(np.arange(80), (76, 77, 78))[None, :, None] & (volume.hu > -2000), volume.grid, "RAS")
    assert around[couch].all()


def test_with_little_enclosed_air_nothing_is_called_outside() -> None:
    volume, _ = chest(left_hu=40)
    volume.hu[30:] = 40
    regions = find_regions(*reorient(volume.hu, volume.grid, "RAS"))
    assert regions.lungs is not None and regions.around is None


def test_windows_that_a_bundle_names_are_all_run(tmp_path: Path) -> None:
    volume, _ = chest()
    patch = {"patch": [16, 16, 16], "overlap": 0.6}
    ours, few = run(volume, weightless_bundle(tmp_path / "ours", original=patch))
    named, many = run(volume, weightless_bundle(tmp_path / "named", original=patch, fast=patch))
    assert few < many and dice(ours.labels > 0, named.labels > 0) > 0.99


def test_a_lung_that_the_field_of_view_cuts_is_kept(tmp_path: Path) -> None:
    volume, lungs = chest()
    cut = Volume(hu=volume.hu[:, :, 20:].copy(), grid=_small((60, 80, 76), AXIAL.spacing_mm), uid="1")
    inside = lungs[:, :, 20:]
    assert np.count_nonzero(inside[:, :, 0]) > 500
    around = find_regions(*reorient(cut.hu, cut.grid, "RAS")).around
    assert around is not None and not around[reorient(inside, cut.grid, "RAS")[0]].any()
    mask, _ = run(cut, weightless_bundle(tmp_path / "tiny"))
    assert dice(mask.labels > 0, inside) > 0.97


def test_what_reaches_the_face_of_the_box_makes_it_grow(tmp_path: Path) -> None:
    """Air in the upper part only; below, lung of -380 HU is no air for the threshold but dark for the network."""
    volume, lungs = chest()
    low = lungs & (np.arange(60)[:, None, None] < 24)
    volume.hu[low] = -380
    bundle = weightless_bundle(tmp_path / "tiny", window_hu=[-1000, 500])
    regions = find_regions(*reorient(volume.hu, volume.grid, "RAS"))
    assert regions.lungs is not None and regions.lungs[0].start >= 22
    mask, _ = run(volume, bundle)
    assert np.count_nonzero(mask.labels[low]) > 0.9 * np.count_nonzero(low)


def test_no_lungs_no_body_and_no_air_are_no_crash(tmp_path: Path) -> None:
    bundle = weightless_bundle(tmp_path / "tiny")
    water = Volume(hu=np.full((20, 30, 40), 40, dtype=np.int16), grid=_small((20, 30, 40)), uid="1")
    assert run(water, bundle)[0].is_empty
    assert run(water, bundle, Plan.ORIGINAL)[0].is_empty
    air = Volume(hu=np.full((20, 30, 40), -1000, dtype=np.int16), grid=_small((20, 30, 40)), uid="1")
    assert run(air, bundle)[0].is_empty


def test_tiny_volumes_are_padded(tmp_path: Path) -> None:
    bundle = weightless_bundle(tmp_path / "tiny")
    hu = np.full((5, 7, 9), 40, dtype=np.int16)
    hu[1:4, 2:5, 3:7] = -900
    volume = Volume(hu=hu, grid=_small(hu.shape, (2.0, 1.0, 1.0)), uid="1")
    for plan in Plan:
        assert np.array_equal(run(volume, bundle, plan)[0].labels > 0, hu < 0)
    one = Volume(hu=hu[:1, :1, :1], grid=_small((1, 1, 1)), uid="1")
    assert run(one, bundle)[0].is_empty


def test_several_labels_are_an_argmax(tmp_path: Path) -> None:
    volume, _ = chest()

    def three(patches: np.ndarray) -> np.ndarray:
        right = np.zeros_like(patches)
        right[:, :, patches.shape[2] // 2 :] = 1
        dark = np.where(patches < 0.5, 1.0, -1.0)
        return np.concatenate([-dark, dark - right, dark + right - 1.5 * (1 - right)], axis=1).astype(np.float32)

    bundle = weightless_bundle(tmp_path / "tiny", labels={"1": "a", "2": "b"}, restore="nearest")
    labels = segment(volume, bundle, three).labels
    assert set(np.unique(labels)) == {0, 1, 2}


def test_the_network_sees_its_own_orientation_and_window(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1200, 200, (16, 32, 32)).astype(np.int16)
    volume = Volume(hu=hu, grid=_small(hu.shape, (2.0, 1.0, 1.0)), uid="1")
    seen: list[np.ndarray] = []

    def looking(patches: np.ndarray) -> np.ndarray:
        seen.append(patches.copy())
        return band(patches)

    segment(volume, weightless_bundle(tmp_path / "tiny", crop_to_body=False), looking, Plan.ORIGINAL)
    (window,) = seen
    shown = np.clip((hu + 1000) / 1000, 0, 1)[:, ::-1, ::-1].transpose(2, 1, 0)
    assert np.allclose(window, shown[None, None], atol=1e-6)


def test_windows_are_averaged() -> None:
    image = np.random.default_rng(0).random((20, 40, 60)).astype(np.float32)
    for blending in Blending:
        windows = Windows(patch=(24, 16, 8), overlap=0.6, blending=blending)
        tiles = published_tiles((slice(0, 20), slice(0, 40), slice(0, 60)), windows)
        assert np.allclose(predict(image, tiles, lambda window: window[None])[0], image, atol=1e-5)


def test_a_classifier_does_not_segment(tmp_path: Path) -> None:
    volume, _ = chest()
    with pytest.raises(ValueError, match="bundle mean does not segment, its task is covid"):
        segment(volume, mean_bundle(tmp_path / "mean"), lambda patches: patches)


def test_progress_counts_windows(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    volume, _ = chest()
    bundle = weightless_bundle(tmp_path / "tiny")
    segment(volume, bundle, band, Plan.ORIGINAL, lambda done, total: told.append((done, total)))
    assert told == [(k + 1, told[0][1]) for k in range(told[0][1])]


@pytest.mark.parametrize("blending", [Blending.CONSTANT, Blending.GAUSSIAN])
def test_windows_end_where_nothing_is_in_doubt(blending: Blending) -> None:
    image = np.random.default_rng(0).random((20, 40, 60)).astype(np.float32)
    whole = slice(0, 20), slice(0, 40), slice(0, 60)
    tiles = published_tiles(whole, Windows(patch=(24, 16, 8), overlap=0.6, blending=blending))
    runs = [0]

    def score(window: np.ndarray, sure: float) -> np.ndarray:
        runs[0] += 1
        return ((window - 0.5) * sure)[None]

    def both(sure: float) -> tuple[np.ndarray, np.ndarray, int]:
        every = predict(image, tiles, lambda window: score(window, sure))
        runs[0] = 0
        return every, predict(image, tiles, lambda window: score(window, sure), doubt=0.03), runs[0]

    every, few, count = both(2000.0)
    assert count < len(tiles) / 2 and np.array_equal(every > 0, few > 0) and few.min() > -2000
    every, few, count = both(0.1)
    assert count == len(tiles) and np.allclose(every, few, atol=1e-5)


def test_components_keep_the_largest_and_a_large_second() -> None:
    mask = np.zeros((40, 40, 40), dtype=bool)
    mask[:20, :20, :20] = True
    mask[25:35, 25:35, 25:35] = True
    mask[0:5, 30:35, 0:5] = True
    rule = Components(keep=2, min_voxels=500, min_share=0.1)
    assert kept(mask, rule).sum() == 8000 + 1000
    assert kept(mask, Components(keep=2, min_voxels=1000, min_share=0.1)).sum() == 8000
    assert kept(mask, Components(keep=2, min_voxels=500, min_share=0.2)).sum() == 8000
    assert kept(mask, Components(keep=3, min_voxels=100, min_share=0.01)).sum() == 9125
    assert kept(mask[:20, :20, :20], rule).sum() == 8000
    assert not kept(np.zeros((3, 3, 3), dtype=bool), rule).any()
    assert kept(mask, None) is mask


def _small(shape: tuple[int, ...], spacing: tuple[float, float, float] = (3.0, 2.0, 2.0)) -> Grid:
    z, y, x = shape
    return Grid(shape=(z, y, x), spacing_mm=spacing, origin_mm=(0.0, 0.0, 0.0))


class TestWindows:
    WINDOWS = Windows(patch=(32, 24, 16), overlap=0.25)

    @pytest.mark.parametrize("box", [(60, 45, 70), (16, 24, 32), (17, 25, 33), (5, 5, 5), (100, 24, 40)])
    def test_published_windows_are_monais(self, box: tuple[int, int, int]) -> None:
        pytest.importorskip("monai")
        from monai.data.utils import dense_patch_slices
        from monai.inferers.utils import _get_scan_interval

        z, y, x = (slice(0, n) for n in box)
        ours = published_tiles((z, y, x), self.WINDOWS)
        size = (16, 24, 32)
        image = tuple(max(n, side) for n, side in zip(box, size, strict=True))
        theirs = dense_patch_slices(image, size, _get_scan_interval(image, size, 3, (0.25,) * 3))
        assert list(ours) == theirs

    @pytest.mark.parametrize("start", [0, 7, 40])
    @pytest.mark.parametrize("length", [1, 8, 15, 16, 17, 30, 33, 61])
    def test_fewest_windows_cover_the_box_in_multiples(self, start: int, length: int) -> None:
        part = slice(start, start + length)
        tiles = fewest_tiles((part, part, part), (101, 101, 101), self.WINDOWS, (8, 8, 8))
        for own, side, starts, patch in zip(tiles.box, tiles.size, tiles.starts, (16, 24, 32), strict=True):
            assert own.start <= part.start and own.stop >= part.stop
            assert own.start >= 0 and own.stop <= 101
            assert side % 8 == 0 and side <= patch
            covered = np.zeros(own.stop - own.start, dtype=int)
            for first in starts:
                covered[first : first + side] += 1
            assert covered.min() >= 1
            assert len(starts) <= 1 or starts[1] - starts[0] <= side - int(0.25 * patch) + 1

    def test_reaching_windows_give_the_scores_of_all_windows(self) -> None:
        image = np.random.default_rng(0).random((70, 90, 110), dtype=np.float32)
        whole, box = tuple(slice(0, n) for n in image.shape), (slice(5, 30), slice(50, 88), slice(40, 44))
        z, y, x = whole

        def score(window: np.ndarray) -> np.ndarray:
            scores: np.ndarray = (window * window.mean())[None]
            return scores

        for windows in (self.WINDOWS, Windows(patch=(32, 24, 16), overlap=0.6, blending=Blending.GAUSSIAN)):
            everything = published_tiles((z, y, x), windows)
            tiles = reaching_tiles(box, image.shape, windows)
            assert len(tiles) < len(everything) / 3
            part = predict(image[tiles.box], tiles, score)[0]
            inside = tuple(slice(b.start - t.start, b.stop - t.start) for b, t in zip(box, tiles.box, strict=True))
            assert np.allclose(part[inside], predict(image, everything, score)[0][box], atol=1e-5)

    def test_thinned_windows_are_published_ones_that_cover_the_box(self) -> None:
        windows = Windows(patch=(224, 224, 32), overlap=0.6)
        box = (slice(8, 67), slice(86, 355), slice(51, 397))
        tiles = reaching_tiles(box, (67, 450, 450), windows, 0.25)
        assert tiles.starts == ((0, 24, 35), (0, 89, 178), (0, 89, 178))
        assert tiles.box == (slice(0, 67), slice(0, 402), slice(0, 402))
        assert reaching_tiles(box, (67, 450, 450), windows, 0.2).starts == ((0, 24, 35), (0, 178), (0, 178))
        for overlap in (0.0, 0.25, 0.5):
            thin = reaching_tiles(box, (67, 450, 450), windows, overlap)
            for own, side, starts, part in zip(thin.box, thin.size, thin.starts, box, strict=True):
                assert own.start <= part.start and own.stop >= part.stop
                assert all(b - a <= side * (1 - overlap) for a, b in itertools.pairwise(starts))

    @pytest.mark.parametrize("blending", list(Blending))
    def test_blending_keeps_what_all_windows_agree_on(self, blending: Blending) -> None:
        image = np.random.default_rng(0).random((40, 50, 60), dtype=np.float32)
        windows = Windows(patch=(32, 24, 16), overlap=0.3, blending=blending)
        whole = (slice(0, 40), slice(0, 50), slice(0, 60))
        for tiles in (published_tiles(whole, windows), fewest_tiles(whole, (40, 50, 60), windows, (1, 1, 1))):
            scores = predict(image, tiles, lambda window: np.stack([window, -window]))
            assert np.allclose(scores, [image, -image], atol=1e-5)

    def test_parity_with_monais_sliding_window(self) -> None:
        torch = pytest.importorskip("torch")
        inferers = pytest.importorskip("monai.inferers")
        image = np.random.default_rng(0).random((40, 50, 60), dtype=np.float32)
        place = np.linspace(0, 1, 16 * 24 * 32, dtype=np.float32).reshape(16, 24, 32)
        whole = (slice(0, 40), slice(0, 50), slice(0, 60))
        for blending in Blending:
            windows = Windows(patch=(32, 24, 16), overlap=0.6, blending=blending)
            ours = predict(image, published_tiles(whole, windows), lambda window: (window + place.T)[None])
            theirs = inferers.sliding_window_inference(
                torch.tensor(image)[None, None],
                (16, 24, 32),
                1,
                lambda window: window + torch.tensor(place),
                overlap=0.6,
                mode=str(blending),
            )
            assert np.allclose(ours[0], theirs[0, 0].numpy(), atol=1e-4), blending
