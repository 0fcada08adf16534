"""Which components of a mask a bundle keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.models.lung_rules import Components
from carina.volume.arrays import Box, Marks, bounding_box


def kept(mask: npt.NDArray[np.bool_], rule: Components | None) -> npt.NDArray[np.bool_]:
    """The components of ``mask`` (joined by faces, edges or corners) that the rule keeps; without a rule, all."""
    if rule is None:
        return mask
    box = found_box(mask)
    if box is None:
        return mask
    pieces, count = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    wanted = np.zeros(count + 1, dtype=bool)
    for place, piece in enumerate(np.argsort(sizes)[::-1][: min(rule.keep, count)]):
        wanted[piece] = place == 0 or (sizes[piece] > rule.min_voxels and sizes[piece] > rule.min_share * sizes.max())
    out = np.zeros_like(mask)
    out[box] = wanted[pieces]
    return out


def found_box(labels: Marks) -> Box | None:
    """The box of what is labelled, and one voxel more on each side: a linear border lies between two voxels."""
    return bounding_box(labels, 1)
