"""Scores of windows put side by side, each from the one window that has all that it depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from carina.volume.arrays import Box, Floats


@dataclass(frozen=True)
class PartScore:
    """How windows are scored by a network that is asked only for what counts: ``part(window, box)``, ``(x, y, z)``."""

    part: Callable[[Floats, Box], Floats]

    def __call__(self, window: Floats) -> Floats:
        """The scores of a whole window."""
        x, y, z = (slice(0, side) for side in window.shape)
        return self.part(window, (x, y, z))


def beyond_rim(start: int, side: int, size: int, rim: int) -> tuple[int, int]:
    """From where to where a window's answers count along an axis of ``size`` voxels: a rim within faces that cut it."""
    return start + (rim if start > 0 else 0), start + side - (rim if start + side < size else 0)


class Mosaic:
    """Scores put side by side, in the networks' order: of each window what lies further inside than ``rim``.

    At the faces of the whole there is no window that would know more, so that nothing is left out there. ``counted`` is
    what is wanted of any window, in voxels of it; rim and parts are ``(z, y, x)``. What nobody wants is ``unseen``.
    """

    def __init__(self, shape: tuple[int, ...], rim: tuple[int, int, int], counted: Box, unseen: float) -> None:
        self.shape, self.rim, self.counted, self.unseen = shape, rim[::-1], counted, unseen
        self.total: Floats = np.zeros((0, *shape), dtype=np.float32)

    def look(self, window: Box, image: Floats, score: Callable[[Floats], Floats]) -> None:
        """Put in the scores of a window of ``image``, which is ``(x, y, z)``."""
        z, y, x = window
        if isinstance(score, PartScore):
            self._put(window, score.part(image[x, y, z], self.counted[::-1]), self.counted)
        else:
            scores = score(image[x, y, z])
            self._put(
                window, scores, (slice(0, z.stop - z.start), slice(0, y.stop - y.start), slice(0, x.stop - x.start))
            )

    def _put(self, window: Box, scores: Floats, given: Box) -> None:
        if not len(self.total):
            self.total = np.full((len(scores), *self.shape), self.unseen, dtype=np.float32)
        here, there = [], []
        for own, size, rim, shown in zip(window[::-1], self.shape, self.rim, given[::-1], strict=True):
            low, high = beyond_rim(own.start, own.stop - own.start, size, rim)
            first, last = max(low, own.start + shown.start), min(high, own.start + shown.stop)
            here.append(slice(first, last))
            there.append(slice(first - own.start - shown.start, last - own.start - shown.start))
        self.total[(slice(None), *here)] = scores[(slice(None), *there)]

    def mean(self) -> Floats:
        """Each voxel's scores."""
        return self.total
