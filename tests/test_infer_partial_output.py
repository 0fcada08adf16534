"""A network that is asked for a part of a window makes its finest maps there alone, and gives the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carina.config import Precision, RuntimeSettings
from carina.infer.mosaic import PartScore
from carina.infer.partial_output import answer_part
from carina.infer.runtime import PartNetwork, open_network, open_runtime, scores_within
from carina.infer.windows import local_tiles, predict
from carina.models.bundle import Bundle, find_bundle
from carina.volume.arrays import Box, Floats
from tiny_networks import weightless_bundle

openvino = pytest.importorskip("openvino")

F32 = RuntimeSettings(precision=Precision.F32)
SHAPE = (1, 1, 48, 40, 24)


@pytest.fixture(scope="module")
def lesion() -> Bundle:
    return find_bundle("lesion-segresnet")


@pytest.fixture(scope="module")
def window() -> Floats:
    return np.random.default_rng(0).random(SHAPE, dtype=np.float32)


@pytest.fixture(scope="module")
def whole(lesion: Bundle, window: Floats) -> Floats:
    return open_runtime(lesion, F32)(window)


@pytest.mark.parametrize(
    "part",
    [
        (slice(0, 48), slice(0, 40), slice(0, 23)),
        (slice(17, 30), slice(3, 21), slice(5, 6)),
        (slice(0, 1), slice(39, 40), slice(0, 24)),
        (slice(1, 47), slice(1, 39), slice(1, 23)),
    ],
)
def test_a_part_is_answered_as_the_whole_answers_it(lesion: Bundle, window: Floats, whole: Floats, part: Box) -> None:
    found = scores_within(open_runtime(lesion, F32), window, part)
    expected = whole[(..., *part)]
    assert found.shape == expected.shape
    assert np.allclose(found, expected, atol=2e-4) and np.abs(expected).max() > 1


def _finest(model: Any) -> int:
    """Voxels of the last 3 x 3 x 3 convolution's map."""
    sides = [
        int(np.prod(list(node.output(0).get_shape())[2:]))
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Convolution" and list(node.input_value(1).get_shape())[2:] == [3, 3, 3]
    ]
    return sides[-1]


def _model(bundle: Bundle) -> Any:
    model = openvino.Core().read_model(bundle.onnx)
    model.reshape(list(SHAPE))
    return model


def test_the_last_maps_are_made_for_the_part_alone(lesion: Bundle) -> None:
    model = _model(lesion)
    assert _finest(model) == 48 * 40 * 24
    assert answer_part(model, (slice(16, 24), slice(16, 24), slice(8, 16)))
    assert _finest(model) == 12**3
    assert list(model.outputs[0].get_shape()) == [1, 2, 8, 8, 8]


def test_another_network_answers_for_the_whole_and_the_part_is_taken_of_it(tmp_path: Path, window: Floats) -> None:
    lung = find_bundle("lung-ahnet")
    assert not answer_part(_model_of(lung), (slice(0, 32), slice(0, 32), slice(0, 16)))
    patch = np.random.default_rng(1).random((1, 1, 64, 64, 32), dtype=np.float32)
    network = open_network(lung, F32)
    assert isinstance(network, PartNetwork)
    part = (slice(3, 40), slice(0, 64), slice(8, 9))
    assert np.allclose(network.run(patch, part)[0], network(patch)[0][(..., *part)], atol=1e-5)
    plain = scores_within(lambda patches: patches * 2, patch, part)
    assert np.array_equal(plain, patch[(..., *part)] * 2)
    assert weightless_bundle(tmp_path / "plain")


def _model_of(bundle: Bundle) -> Any:
    model = openvino.Core().read_model(bundle.onnx)
    model.reshape([1, 1, 64, 64, 32])
    return model


@pytest.mark.parametrize("most", [8 * 14 * 40, 10**9])
def test_windows_are_asked_only_for_what_counts_of_them(most: int) -> None:
    """Of a score that says where it is each voxel gets its own, and no more is asked for than some window needs."""
    shape, box = (8, 14, 90), (slice(2, 7), slice(4, 9), slice(20, 77))
    tiles = local_tiles(box, shape, (6, 6, 6), (2, 2, 2), most=most)
    image = np.arange(np.prod([part.stop - part.start for part in tiles.box]), dtype=np.float32)
    image = image.reshape([part.stop - part.start for part in tiles.box])
    asked: list[Box] = []

    def part_of(patch: Floats, part: Box) -> Floats:
        asked.append(part)
        return patch[None][(slice(None), *part)]

    found = predict(image, tiles, PartScore(part_of))[0]
    assert tiles.wanted is not None and np.array_equal(found[tiles.wanted], image[tiles.wanted])
    assert len(tiles) == len(asked) and (len(tiles) > 1) == (most < 10**9)
    sides = [part.stop - part.start for part in asked[0]]
    assert sides[1:] == [5, 5] and len(set(map(str, asked))) == 1
    assert len(tiles) > 1 or sides[0] == 57
    assert np.array_equal(PartScore(part_of)(image.T)[0], image.T)
