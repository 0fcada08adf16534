"""A case: one image with its masks and label, as training and evaluation see it.

Arrays are ``(z, y, x)`` here and wherever a case goes; only what hands them to a network turns them to ``(x, y, z)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.infer.regions import sides_reached
from carina.synth.fields import ORIENTATION
from carina.synth.lung_labels import label_lungs
from carina.volume import Grid, Mask, Volume
from carina.volume.arrays import HU, Labels
from carina.volume.grid import Triple
from carina.volume.resample import reorient, reoriented, resample

IN_PLANE_MM = 0.8
"""In-plane spacing of the segmentation networks' input (their model cards)."""
SLICE_MM = 5.0
"""Slice spacing of the segmentation networks' input (their model cards)."""

DENSE_LUNG_HU = -250.0
"""Above: soft tissue, or lesions without much air."""

_CROSS = ndimage.generate_binary_structure(2, 1)[None]

Voxel = TypeVar("Voxel", bound=np.generic)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One image with its masks and label.

    The masks lie on the volume's voxels; None means that the case comes without one. In ``ignore`` it is not known
    what is there, so that nothing is learnt from it. ``label`` is the class, None where none is given.
    """

    name: str
    volume: Volume
    lung: Mask | None = None
    lesion: Mask | None = None
    ignore: Mask | None = None
    label: int | None = None

    @property
    def hu(self) -> HU:
        """Voxels ``(z, y, x)``, int16, Hounsfield units."""
        return self.volume.hu

    @property
    def spacing_mm(self) -> Triple:
        """Of the voxels, ``(z, y, x)``."""
        return self.volume.grid.spacing_mm

    @property
    def lungs(self) -> Labels:
        """The lung labels: uint8, above 0 in the lungs.

        Raises:
            ValueError: the case comes without a lung mask.
        """
        if self.lung is None:
            raise ValueError(f"case {self.name} has no lung mask; resample_case labels the lungs")
        return self.lung.labels

    @cached_property
    def gas(self) -> Labels:
        """Gas that the body encloses outside the lungs (airways, bowel): uint8, 0 or 1, on the same voxels."""
        gas = ~(self.around > 0) & (self.hu < -600) & (self.lungs == 0)
        return np.asarray(ndimage.binary_opening(gas, _CROSS), dtype=np.uint8)

    @cached_property
    def dense(self) -> Labels:
        """What is dense in the lungs, vessels mostly, above all at the hila: uint8, 0 or 1, on the same voxels."""
        return ((self.lungs > 0) & (self.hu > DENSE_LUNG_HU)).astype(np.uint8)

    @cached_property
    def around(self) -> Labels:
        """What lies around the body, slice by slice (air, clothes, the couch): uint8, 0 or 1, on the same voxels."""
        tissue, _ = ndimage.label(ndimage.binary_opening(self.hu > -300))
        sizes = np.bincount(tissue.ravel())
        sizes[0] = 0
        return (sides_reached(tissue != sizes.argmax()) > 0).astype(np.uint8)


def resample_case(case: Case) -> Case:
    """The case at training resolution: RAS order, 0.8 mm in the plane, its own slices; masks are 0 or 1.

    Without a lung mask the lungs are labelled by `label_lungs`. An empty mask of lesions, or of what is to be ignored,
    is none.

    Raises:
        BadSeries: no lung was found.
    """
    array, source = reorient(case.hu, case.volume.grid, ORIENTATION)
    hu = np.rint(_in_plane(np.clip(array, -1024, 3071), source)).astype(np.int16)
    spacing_mm = (float(source.spacing_mm[0]), IN_PLANE_MM, IN_PLANE_MM)
    grid = replace(source, shape=(hu.shape[0], hu.shape[1], hu.shape[2]), spacing_mm=spacing_mm)
    if case.lung is None:
        lung = Mask(labels=label_lungs(hu, spacing_mm), grid=grid, names={1: "lung"}, uid=case.volume.uid)
    else:
        lung = _resampled(case.lung, grid)
    lesion, ignore = (
        None if mask is None or mask.is_empty else _resampled(mask, grid) for mask in (case.lesion, case.ignore)
    )
    volume = Volume(hu=hu, grid=grid, uid=case.volume.uid)
    return replace(case, volume=volume, lung=lung, lesion=lesion, ignore=ignore)


def native_labels(labels: Labels, volume: Volume) -> Labels:
    """Labels of a case made from ``volume`` on the voxels of that volume, in its orientation."""
    grid = reoriented(volume.grid, ORIENTATION)
    zoom = [n / m for n, m in zip(grid.shape, labels.shape, strict=True)]
    fine = np.stack([ndimage.zoom(s.astype(np.float32), zoom[1:], order=1) > 0.5 for s in labels])
    return np.asarray(resample(fine.astype(np.uint8), grid, volume.grid, order=0), dtype=np.uint8)


def at_slices(array: npt.NDArray[np.generic], from_mm: float, to_mm: float = SLICE_MM) -> npt.NDArray[np.float64]:
    """``array`` ``(z, y, x)`` with slices ``to_mm`` apart, ``from_mm`` before; linear between them, as at inference."""
    count = max(1, int(np.floor((array.shape[0] - 1) * from_mm / to_mm)) + 1)
    at = np.arange(count) * to_mm / from_mm
    low = np.minimum(at.astype(int), array.shape[0] - 1)
    high = np.minimum(low + 1, array.shape[0] - 1)
    part = (at - low)[:, None, None]
    mixed: npt.NDArray[np.float64] = array[low] * (1 - part) + array[high] * part
    return mixed


def scale(hu: npt.NDArray[np.generic], window_hu: tuple[float, float]) -> npt.NDArray[np.float32]:
    """HU to [0, 1] over ``window_hu``, clipped, float32."""
    low, high = window_hu
    scaled: npt.NDArray[np.float32] = np.clip((hu.astype(np.float32) - low) / (high - low), 0.0, 1.0)
    return scaled


def to_network(arrays: Sequence[npt.NDArray[Voxel]]) -> npt.NDArray[Voxel]:
    """A network's door: ``(z, y, x)`` arrays stacked to its input, ``(n, 1, x, y, z)``."""
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 2, 1)[:, None])


def _resampled(mask: Mask, grid: Grid) -> Mask:
    """The mask on a case's grid at training resolution, 1 where at least half of a voxel is labelled."""
    array, source = reorient(mask.labels, mask.grid, ORIENTATION)
    labels = (_in_plane(array > 0, source) >= 0.5).astype(np.uint8)
    return Mask(labels=labels, grid=grid, names={1: mask.names.get(1, "marked")}, uid=mask.uid)


def _in_plane(array: npt.NDArray[np.generic], grid: Grid) -> npt.NDArray[np.float32]:
    """Each slice at 0.8 mm, linear, its first and last pixels in place."""
    zoom = (grid.spacing_mm[1] / IN_PLANE_MM, grid.spacing_mm[2] / IN_PLANE_MM)
    return np.stack([ndimage.zoom(plane.astype(np.float32), zoom, order=1) for plane in array])
