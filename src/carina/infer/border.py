"""Where the lung ends: HU decide the border of a mask that a coarser network grid has drawn.

Masks are kept 64 voxels of a row to a word, so that growing them by a voxel takes a few shifts of 1/64 of the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from carina.models.lung_rules import Border

_Bits = npt.NDArray[np.uint64]
"""A mask ``(z, y, x / 64)``; bit ``i`` of a word is its voxel ``i`` along x."""


def border_moved(
    mask: npt.NDArray[np.bool_], hu: npt.NDArray[np.int16], spacing_mm: Sequence[float], rule: Border
) -> npt.NDArray[np.bool_]:
    """``mask`` with its border moved by up to ``rule.reach_mm`` to where the lungs' air ends in ``hu``.

    Both arrays are ``(z, y, x)``, spacing likewise. Air that joins the mask within the reach becomes lung. Tissue at
    the mask's border, up to the reach deep, is wall and leaves it, but for what lies within twice the reach of
    something thicker: that is a consolidation, and stays with its pleura. Deeper inside and farther outside nothing
    changes.
    """
    steps = [round(rule.reach_mm / side) for side in spacing_mm]
    air, inside, outside = _packed(hu < rule.hu), _packed(mask), _packed(~mask)
    tissue = inside & ~air
    rim = _reached(outside, tissue, steps) & inside
    thick = _opened(tissue & ~rim, inside | outside)
    rim &= ~_reached(thick, tissue, [2 * most for most in steps])
    return _unpacked(_reached(inside & ~rim, air, steps), mask.shape[2])


def _reached(seeds: _Bits, through: _Bits, steps: Sequence[int]) -> _Bits:
    """``seeds`` and what of ``through`` they reach by at most ``steps`` voxels along each axis, face to face."""
    for step in range(max(steps)):
        seeds = seeds | _grown(seeds, [step < most for most in steps]) & through
    return seeds


def _opened(bits: _Bits, everything: _Bits) -> _Bits:
    """What of ``bits`` holds a voxel and its six neighbours; beyond ``everything``, the array, all may go on."""
    axes = (True, True, True)
    return _grown(bits & ~_grown(everything & ~bits, axes), axes) & bits


def _grown(bits: _Bits, axes: Sequence[bool]) -> _Bits:
    """``bits`` and their neighbours by a face along the axes ``(z, y, x)`` that are wanted."""
    out = bits.copy()
    if axes[0]:
        out[1:] |= bits[:-1]
        out[:-1] |= bits[1:]
    if axes[1]:
        out[:, 1:] |= bits[:, :-1]
        out[:, :-1] |= bits[:, 1:]
    if axes[2]:
        one, last = np.uint64(1), np.uint64(63)
        out |= bits << one | bits >> one
        out[..., 1:] |= bits[..., :-1] >> last
        out[..., :-1] |= bits[..., 1:] << last
    return out


def _packed(mask: npt.NDArray[np.bool_]) -> _Bits:
    padded = np.zeros((*mask.shape[:2], -(-mask.shape[2] // 64) * 8), dtype=np.uint8)
    found = np.packbits(mask, axis=2, bitorder="little")
    padded[..., : found.shape[2]] = found
    return padded.view("<u8").astype(np.uint64, copy=False)


def _unpacked(bits: _Bits, width: int) -> npt.NDArray[np.bool_]:
    as_bytes = bits.astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(as_bytes, axis=2, count=width, bitorder="little").view(np.bool_)
