"""Training cases: a chest CT with its lung labels at training resolution.

Arrays are ``(z, y, x)`` with z towards superior, y towards anterior and x towards the right of the patient (the
array order of RAS); ``to_network`` gives the ``(n, 1, x, y, z)`` that the networks take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.infer.regions import sides_reached
from carina.synth.fields import ORIENTATION
from carina.synth.lung_labels import label_lungs
from carina.volume import Grid, Mask, Volume
from carina.volume.resample import reorient, reoriented, resample

IN_PLANE_MM = 0.8
"""In-plane spacing of the segmentation networks' input (their model cards)."""
SLICE_MM = 5.0
"""Slice spacing of the segmentation networks' input (their model cards)."""

DENSE_HU = -250.0
"""Above: soft tissue, or lesions without much air."""

_CROSS = ndimage.generate_binary_structure(2, 1)[None]

HU = npt.NDArray[np.int16]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One training case.

    ``hu`` is ``(z, y, x)`` int16, RAS order, 0.8 mm in-plane and the source's own slice spacing; ``lung`` is uint8
    0 or 1 on the same voxels; ``spacing_mm`` is ``(z, y, x)``. ``lesion`` (uint8, 0 or 1) is there where the truth is
    known (phantoms); None means that the lungs are free of what the networks are to find. ``ignore`` (likewise) marks
    where that is not known, and nothing is to be learnt.
    """

    name: str
    hu: HU
    lung: Labels
    spacing_mm: tuple[float, float, float]
    lesion: Labels | None = None
    ignore: Labels | None = None

    @cached_property
    def gas(self) -> Labels:
        """Gas that the body encloses outside the lungs (airways, bowel): uint8, 0 or 1, on the same voxels."""
        gas = ~(self.around > 0) & (self.hu < -600) & (self.lung == 0)
        return np.asarray(ndimage.binary_opening(gas, _CROSS), dtype=np.uint8)

    @cached_property
    def dense(self) -> Labels:
        """What is dense in the lungs, vessels mostly, above all at the hila: uint8, 0 or 1, on the same voxels."""
        return ((self.lung > 0) & (self.hu > DENSE_HU)).astype(np.uint8)

    @cached_property
    def around(self) -> Labels:
        """What lies around the body, slice by slice (air, clothes, the couch): uint8, 0 or 1, on the same voxels."""
        tissue, _ = ndimage.label(ndimage.binary_opening(self.hu > -300))
        sizes = np.bincount(tissue.ravel())
        sizes[0] = 0
        return (sides_reached(tissue != sizes.argmax()) > 0).astype(np.uint8)


def make_case(
    name: str, volume: Volume, lung: Mask | None = None, lesion: Mask | None = None, ignore: Mask | None = None
) -> Case:
    """Bring a CT and its masks (on its grid, any orientation; above 0 counts) to training resolution.

    Without ``lung`` the lungs are labelled by `label_lungs`.

    Raises:
        BadSeries: no lung was found.
    """
    array, grid = reorient(volume.hu, volume.grid, ORIENTATION)
    spacing = (float(grid.spacing_mm[0]), IN_PLANE_MM, IN_PLANE_MM)
    hu = np.rint(_in_plane(np.clip(array, -1024, 3071), grid)).astype(np.int16)
    return Case(
        name=name,
        hu=hu,
        lung=label_lungs(hu, spacing) if lung is None else _labels(lung),
        spacing_mm=spacing,
        lesion=None if lesion is None else _labels(lesion),
        ignore=None if ignore is None else _labels(ignore),
    )


def native_labels(labels: Labels, volume: Volume) -> Labels:
    """Labels of a case made from ``volume`` on the voxels of that volume, in its orientation."""
    grid = reoriented(volume.grid, ORIENTATION)
    zoom = [n / m for n, m in zip(grid.shape, labels.shape, strict=True)]
    fine = np.stack([ndimage.zoom(s.astype(np.float32), zoom[1:], order=1) > 0.5 for s in labels])
    return np.asarray(resample(fine.astype(np.uint8), grid, volume.grid, order=0), dtype=np.uint8)


def _labels(mask: Mask) -> Labels:
    array, grid = reorient(mask.labels, mask.grid, ORIENTATION)
    return (_in_plane(array > 0, grid) >= 0.5).astype(np.uint8)


def _in_plane(array: npt.NDArray[np.generic], grid: Grid) -> npt.NDArray[np.float32]:
    """Each slice at 0.8 mm, linear, its first and last pixels in place."""
    zoom = (grid.spacing_mm[1] / IN_PLANE_MM, grid.spacing_mm[2] / IN_PLANE_MM)
    return np.stack([ndimage.zoom(plane.astype(np.float32), zoom, order=1) for plane in array])


def to_slices(case: Case, slice_mm: float = SLICE_MM) -> tuple[HU, Labels]:
    """The whole case at ``slice_mm`` (linear between slices, as at inference): HU and lung labels, ``(z, y, x)``."""
    count = max(1, int(np.floor((case.hu.shape[0] - 1) * case.spacing_mm[0] / slice_mm)) + 1)
    at = np.arange(count) * slice_mm / case.spacing_mm[0]
    low = np.minimum(at.astype(int), case.hu.shape[0] - 1)
    high = np.minimum(low + 1, case.hu.shape[0] - 1)
    part = (at - low)[:, None, None]
    hu = case.hu[low] * (1 - part) + case.hu[high] * part
    lung = case.lung[low] * (1 - part) + case.lung[high] * part
    return np.rint(hu).astype(np.int16), (lung >= 0.5).astype(np.uint8)


def scale(hu: npt.NDArray[np.generic], window_hu: tuple[float, float]) -> npt.NDArray[np.float32]:
    """HU to [0, 1] over ``window_hu``, clipped, float32."""
    low, high = window_hu
    scaled: npt.NDArray[np.float32] = np.clip((hu.astype(np.float32) - low) / (high - low), 0.0, 1.0)
    return scaled


def to_network(arrays: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """Stack ``(z, y, x)`` arrays to the networks' ``(n, 1, x, y, z)``."""
    return np.stack([a.transpose(2, 1, 0)[None] for a in arrays])
