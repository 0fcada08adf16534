"""The box of what is marked, against the one that is found voxel by voxel."""

import numpy as np
import pytest

from carina.volume.arrays import bounding_box, grown_box, marked_box

SHAPE = (7, 9, 11)


@pytest.mark.parametrize("margin", [0, 1, 5, 20])
@pytest.mark.parametrize("kind", [np.bool_, np.uint8])
def test_the_box_holds_every_marked_voxel_and_no_more(margin: int, kind: type[np.generic]) -> None:
    rng = np.random.default_rng(margin)
    for _ in range(20):
        marks = np.zeros(SHAPE, dtype=kind)
        places = rng.integers(0, SHAPE, (rng.integers(1, 4), 3))
        marks[tuple(places.T)] = 1
        low, high = np.maximum(places.min(0) - margin, 0), np.minimum(places.max(0) + 1 + margin, SHAPE)
        expected = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        assert bounding_box(marks, margin) == marked_box(marks, margin) == expected
        turned = marks[::-1, :, ::-1].transpose(2, 0, 1)
        assert bounding_box(turned) == bounding_box(np.ascontiguousarray(turned))


def test_nothing_marked_has_no_box() -> None:
    marks = np.zeros(SHAPE, dtype=np.uint8)
    assert bounding_box(marks) is None and bounding_box(marks, 3) is None
    with pytest.raises(ValueError, match=r"shape \(7, 9, 11\) has no box of what is marked"):
        marked_box(marks)


def test_a_box_grows_on_either_side_and_ends_where_the_array_does() -> None:
    box = (slice(2, 3), slice(0, 9), slice(5, 6))
    assert grown_box(box, [1, 2, 7], SHAPE) == (slice(1, 4), slice(0, 9), slice(0, 11))
    assert grown_box(box, 0, SHAPE) == box
