"""Networks whose answers are local: one pass and any windows that overlap by their reach give the same scores."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

from carina.config import Plan
from carina.errors import BadConfig
from carina.infer.segment import segment
from carina.infer.windows import Tiles, Triplet, local_tiles, predict
from carina.models.architecture import divisors, reach
from carina.models.networks import build_network
from carina.train.cards import carina_object
from carina.train.recipe import load_recipe
from carina.volume.arrays import Box, Floats
from carina.volume.grid import Grid
from carina.volume.volume import Volume
from tiny_networks import weightless_bundle

TWO_LEVELS: dict[str, Any] = {"kind": "segresnet", "norm": "constant", "blocks_down": [1, 1], "blocks_up": [1]}
THREE_LEVELS: dict[str, Any] = {**TWO_LEVELS, "blocks_down": [1, 2, 1], "blocks_up": [1, 2]}


def _network(spec: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(3)
    network = build_network(spec)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


def _score(network: torch.nn.Module, window: Floats) -> Floats:
    """The foreground's logit minus the background's, ``(1, x, y, z)``."""
    with torch.no_grad():
        scores = network(torch.from_numpy(np.ascontiguousarray(window))[None, None])[0]
    return np.asarray(scores[1:] - scores[:1], dtype=np.float32)


@pytest.mark.parametrize("spec", [TWO_LEVELS, THREE_LEVELS])
def test_the_reach_is_how_far_a_gradient_comes_and_no_farther(spec: dict[str, Any]) -> None:
    network, far, step = _network(spec), reach(spec), divisors(spec)[0]
    assert far is not None
    middle, found = far + 2 * step - far % step, 0
    for at in range(middle, middle + step):
        line = torch.rand(1, 1, 2 * middle, step, step, requires_grad=True)
        network(line)[0, 1, at].sum().backward()
        assert line.grad is not None
        seen = torch.nonzero(line.grad.abs().amax(dim=(0, 1, 3, 4))).flatten()
        found = max(found, at - int(seen.min()), int(seen.max()) - at)
    assert found == far


def test_group_norms_and_other_networks_have_no_reach() -> None:
    group = {"kind": "segresnet", "blocks_down": [1, 1], "blocks_up": [1]}
    assert [reach(spec) for spec in (group, {**group, "norm": "group"}, {"kind": "ahnet"})] == [None] * 3
    assert reach({"kind": "segresnet", "norm": "constant"}) == 126  # the published sizes


_SIDES = st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60))


@st.composite
def _plans(draw: st.DrawFn) -> tuple[Box, Triplet, Triplet, Triplet, int]:
    shape = draw(_SIDES)
    parts = []
    for size in shape:
        start = draw(st.integers(0, size - 1))
        parts.append(slice(start, draw(st.integers(start + 1, size))))
    far = draw(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 70)))
    step = draw(st.tuples(*[st.sampled_from([1, 2, 8])] * 3))
    return (parts[0], parts[1], parts[2]), shape, far, step, draw(st.integers(500, 100_000))


def _owners(tiles: Tiles, shape: tuple[int, ...]) -> list[tuple[Box, Box]]:
    """Each window in the box, with the part of the box that its answers were put into last."""
    numbers = itertools.count(1)
    put = predict(np.zeros(shape, np.float32), tiles, lambda window: np.full((1, *window.shape), next(numbers), "f4"))
    owners = []
    for number, window in enumerate(tiles, start=1):
        where = np.argwhere(put[0] == number)
        low, high = where.min(axis=0), where.max(axis=0) + 1
        owners.append((window, (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))))
    return owners


def _within(part: slice, whole: slice) -> bool:
    return bool(whole.start <= part.start and part.stop <= whole.stop)


@settings(deadline=None)
@given(_plans())
def test_windows_begin_where_the_coarse_maps_of_the_whole_have_a_voxel(
    plan: tuple[Box, Triplet, Triplet, Triplet, int],
) -> None:
    box, shape, far, step, most = plan
    tiles = local_tiles(box, shape, far, step, most=most)
    for part, side, starts, divisor in zip(tiles.box, tiles.size, tiles.starts, step[::-1], strict=True):
        assert not [n for n in (side, *(part.start + start for start in starts)) if n % divisor]
        assert side <= part.stop - part.start


@settings(deadline=None)
@given(_plans())
def test_every_voxel_is_answered_by_a_window_that_holds_all_it_reaches(
    plan: tuple[Box, Triplet, Triplet, Triplet, int],
) -> None:
    box, shape, far, step, most = plan
    tiles = local_tiles(box, shape, far, step, most=most)
    assert tiles.answered == box and tiles.wanted is not None
    answered = np.zeros([part.stop - part.start for part in tiles.box], dtype=bool)
    for window, owned in _owners(tiles, answered.shape):
        answered[owned] = True
        for axis in range(3):
            corner = tiles.box[axis].start
            low = max(owned[axis].start, tiles.wanted[axis].start)
            high = min(owned[axis].stop, tiles.wanted[axis].stop)
            reached = slice(max(low - far[2 - axis], -corner), min(high + far[2 - axis], shape[axis] - corner))
            assert low >= high or _within(reached, window[axis])
    assert answered.all()


@settings(deadline=None)
@given(_plans())
def test_windows_are_small_where_they_can_be_and_few(plan: tuple[Box, Triplet, Triplet, Triplet, int]) -> None:
    box, shape, far, step, most = plan
    tiles = local_tiles(box, shape, far, step, most=most)
    whole = local_tiles(box, shape, far, step, most=10**9)
    assert len(whole) == 1
    assert len(tiles) == 1 or int(np.prod(whole.size)) > most
    assert int(np.prod(tiles.size)) <= int(np.prod(whole.size))


@pytest.mark.parametrize(
    ("box", "most"),
    [
        ((slice(0, 8), slice(0, 13), slice(0, 79)), 8 * 14 * 60),
        ((slice(3, 7), slice(4, 9), slice(30, 50)), 8 * 14 * 36),
        ((slice(3, 7), slice(4, 9), slice(20, 77)), 1),
    ],
)
def test_one_pass_over_everything_and_windows_agree_voxel_for_voxel(box: Box, most: int) -> None:
    """And a box that is somewhere in it, and a box in pieces as small as can be."""
    network, far = _network(TWO_LEVELS), reach(TWO_LEVELS)
    assert far is not None
    shape = (8, 13, 79)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    everything = np.pad(image, [(0, -size % 2) for size in shape])
    expected = _score(network, everything.T)[0].T[box]
    expected -= (typical := np.median(expected))
    tiles = local_tiles(box, shape, (far, far, far), divisors(TWO_LEVELS), most=most)
    assert len(tiles) > 1
    part = tuple(slice(own.start, own.stop) for own in tiles.box)
    scores = predict(everything[part], tiles, lambda window: _score(network, window))[0][tiles.wanted] - typical
    assert np.array_equal(scores > 0, expected > 0)
    assert np.allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("restore", ["nearest", "linear"])
def test_a_mask_in_the_lungs_box_is_that_of_one_pass_over_the_whole_scan(tmp_path: Path, restore: str) -> None:
    """With means over 9 voxels, zeros beyond the window, for a network: what pads a window's faces would show."""
    spacing = {"spacing_mm": [1.0, 1.0, 3.0], "divisor": 2, "restore": restore, "fast": None}
    local = weightless_bundle(tmp_path / "local", reach=[4, 4, 4], **spacing)
    whole = weightless_bundle(tmp_path / "whole", original={"patch": [210, 180, 40], "overlap": 0}, **spacing)
    rng = np.random.default_rng(1)
    grid = Grid(shape=(40, 60, 70), spacing_mm=(3.0, 3.0, 3.0), origin_mm=(-100.0, -90.0, 10.0))
    hu = np.full(grid.shape, -1000, dtype=np.int16)
    hu[:, 6:54, 6:64] = 40
    inner = (slice(8, 32), slice(14, 46), slice(14, 56))
    for left, right in ((14, 30), (40, 56)):
        hu[8:32, 14:46, left:right] = -850
    hu += rng.integers(-90, 90, grid.shape).astype(np.int16)
    shown: list[tuple[int, ...]] = []

    def runtime(patches: Floats) -> Floats:
        shown.append(patches.shape[2:])
        mean = ndimage.uniform_filter(patches[0, 0], 9, mode="constant")
        return np.asarray(patches - mean, dtype=np.float32)

    volume = Volume(hu=hu, grid=grid, uid="1")
    found, expected = segment(volume, local, runtime).labels, segment(volume, whole, runtime, Plan.ORIGINAL).labels
    assert 0.05 < expected[inner].mean() < 0.95
    assert np.array_equal(found[inner], expected[inner])
    assert shown[-1] == (210, 180, 40) and 2 <= len(shown) <= 4


def test_a_bundle_has_a_reach_where_its_norms_are_constants_only() -> None:
    ours = load_recipe("lesion").stages[-1][1]
    assert carina_object(ours)["reach"] == [48, 48, 32]
    small = msgspec.structs.replace(ours, network={**TWO_LEVELS})
    assert carina_object(small)["reach"] == [12, 12, 12]
    assert "reach" not in carina_object(load_recipe("lesion").stages[0][1])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"reach": [4, 4, -1], "fast": None}, "reach .* 0 or more"),
        ({"reach": [4, 4, 4]}, "reach and fast are two plans"),
        ({"reach": [4, 4, 4], "fast": None, "network": {"kind": "segresnet"}}, "null for a network with group norm"),
    ],
)
def test_a_reach_that_makes_no_sense_is_refused(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        weightless_bundle(tmp_path / "wrong", **keys)
