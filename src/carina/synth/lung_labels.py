"""Lung labels for CT without annotations: air in the body, less the airways, closed over vessels and nodules.

The procedure, on a grid of about 1.6 mm in-plane:

1. body: HU above -500, opened, largest component per slice, holes filled;
2. air: smoothed HU below -400 inside the body;
3. airways: grown from the trachea at the top of the body at rising thresholds, stopped before it leaks into lung; what
   is wider than a lobar bronchus (trachea, main bronchi) goes, with its wall;
4. lungs: the largest and second largest remaining component (bowel and stomach gas are neither);
5. each slice closed by 8 mm, small holes filled, each lung closed in three dimensions by 5 mm: vessels, bronchi and
   nodules at the pleura belong to the lung; the central airways are cut out again.

A threshold can't see consolidated lung. These labels are looked at one by one; what failed is written down in the
research log. Arrays are ``(z, y, x)`` in RAS order.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.errors import BadSeries
from carina.measure.airways import grow_core, trachea_seeds
from carina.volume.arrays import Flags, marked_box

LUNG_BELOW_HU = -400.0
"""Lung and its ground-glass parts are below this; vessels, walls and consolidation are not."""

MARGIN_VOXELS = 5

PLANE_RADIUS_MM = 8.0
"""How wide a gap of a lung is closed within a slice, to each side."""


def label_lungs(hu: npt.NDArray[np.int16], spacing_mm: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    """Label lungs, 0 or 1, on the voxels of ``hu`` (``(z, y, x)``, RAS order); ``spacing_mm`` is ``(z, y, x)``.

    Raises:
        BadSeries: no air-filled region inside the body is as large as a lung.
    """
    small = _halved(hu)
    spacing = (spacing_mm[0], 2 * spacing_mm[1], 2 * spacing_mm[2])
    body = _body(small)
    air = (ndimage.gaussian_filter(small, (0, 0.6, 0.6)) < LUNG_BELOW_HU) & body
    airway = _airway(small, air, spacing)
    central = _wide_part(airway, spacing)
    lungs = _two_largest(
        air & ~_dilate(central, 2.0, spacing) & ~_dilate(airway & ~_deep(air, spacing), 1.0, spacing), spacing
    )
    closed = np.zeros_like(air)
    for lung in lungs:
        closed |= _close(lung, spacing)
    closed &= ~_dilate(central, 2.4, spacing) & body
    closed = ndimage.binary_opening(closed, _disk(1))
    fine = ndimage.zoom(closed.astype(np.float32), (1, 2, 2), order=1, mode="nearest", grid_mode=True)
    return (fine[:, : hu.shape[1], : hu.shape[2]] > 0.5).astype(np.uint8)


def _halved(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Means of 2 x 2 voxels in the plane: each lies in the middle of its four, and so does its label later."""
    even = np.pad(hu, [(0, 0), *((0, n % 2) for n in hu.shape[1:])], mode="edge").astype(np.float32)
    z, y, x = even.shape
    halved: npt.NDArray[np.float32] = even.reshape(z, y // 2, 2, x // 2, 2).mean(axis=(2, 4))
    return halved


def _body(hu: npt.NDArray[np.float32]) -> Flags:
    """The body without the table: per slice the largest opened component, holes filled."""
    body = np.zeros(hu.shape, dtype=bool)
    for z, plane in enumerate(hu):
        labels, count = ndimage.label(ndimage.binary_opening(plane > -500, _disk(3)[0]))
        if count:
            largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
            body[z] = ndimage.binary_fill_holes(ndimage.binary_closing(labels == largest, _disk(4)[0]))
    return body


def _airway(hu: npt.NDArray[np.float32], air: Flags, spacing_mm: tuple[float, float, float]) -> Flags:
    """Trachea and bronchi: the largest lumen connected with the trachea that did not leak."""
    seeds = trachea_seeds(air, spacing_mm)
    return grow_core(ndimage.gaussian_filter(hu, (0, 0.5, 0.5)), air, seeds, spacing_mm).flags


def _wide_part(airway: Flags, spacing_mm: tuple[float, float, float]) -> Flags:
    """The part of the airway at least 7 mm wide in the axial plane: trachea and main bronchi."""
    opened = ndimage.binary_opening(airway, _disk(max(1, round(3.2 / spacing_mm[1]))))
    return ndimage.binary_dilation(opened, _disk(1), iterations=2, mask=airway)


def _deep(air: Flags, spacing_mm: tuple[float, float, float]) -> Flags:
    """Air that lies inside the lung rather than at its hilum: what survives closing and eroding by 10 mm."""
    filled = ndimage.binary_closing(air, _disk(3))
    return np.stack([ndimage.distance_transform_edt(p, sampling=spacing_mm[1:]) > 10 for p in filled])


def _two_largest(air: Flags, spacing_mm: tuple[float, float, float]) -> list[Flags]:
    """The two lungs, or both in one component where they touch."""
    labels, _ = ndimage.label(ndimage.binary_opening(air, _disk(1)))
    sizes = np.bincount(labels.ravel()).astype(float) * float(np.prod(spacing_mm)) / 1000.0
    sizes[0] = 0
    order = np.argsort(sizes)[::-1]
    if sizes[order[0]] < 300:
        raise BadSeries(
            "lungs.none", f"The largest air-filled region holds {sizes[order[0]]:.0f} ml; a lung has 300 or more."
        )
    return [labels == i for i in order[:2] if sizes[i] > 0.1 * sizes[order[0]]]


def _close(lung: Flags, spacing_mm: tuple[float, float, float]) -> Flags:
    """Close one lung over vessels, bronchi and nodules at the pleura; what is closed lies in the lung's box."""
    box = marked_box(lung)
    pads = [max(12, math.ceil(PLANE_RADIUS_MM / mm) + 4) for mm in spacing_mm]
    closed = np.pad(lung[box], [(pad, pad) for pad in pads])
    for z in range(pads[0], closed.shape[0] - pads[0]):
        if closed[z].any():
            plane = _closed_plane(closed[z], PLANE_RADIUS_MM, spacing_mm[1:])
            closed[z] = _small_holes_filled(plane, spacing_mm[1:])
    grown = ndimage.distance_transform_edt(~closed, sampling=spacing_mm) <= 5.0
    shrunk = ndimage.distance_transform_edt(grown, sampling=spacing_mm) > 5.0
    whole = np.zeros_like(lung)
    inside = tuple(slice(pad, -pad) for pad in pads)
    whole[box] = ndimage.binary_fill_holes(closed | shrunk)[inside]
    return whole


def _closed_plane(plane: Flags, radius_mm: float, spacing_mm: tuple[float, ...]) -> Flags:
    grown = ndimage.distance_transform_edt(~plane, sampling=spacing_mm) <= radius_mm
    closed: Flags = ndimage.distance_transform_edt(grown, sampling=spacing_mm) > radius_mm
    return closed | plane


def _small_holes_filled(plane: Flags, spacing_mm: tuple[float, ...]) -> Flags:
    """Fill holes under 700 mm2; a larger one is the dome of the diaphragm or the heart."""
    holes, _ = ndimage.label(ndimage.binary_fill_holes(plane) & ~plane)
    area = np.bincount(holes.ravel()) * spacing_mm[0] * spacing_mm[1]
    filled: Flags = plane | ((area < 700)[holes] & (holes > 0))
    return filled


def _dilate(mask: Flags, radius_mm: float, spacing_mm: tuple[float, float, float]) -> Flags:
    """Dilate within each slice by ``radius_mm``."""
    steps = max(1, round(radius_mm / spacing_mm[1]))
    return ndimage.binary_dilation(mask, _disk(1), iterations=steps)


def _disk(radius: int) -> Flags:
    """A flat structuring element of ``radius`` voxels, ``(1, 2r+1, 2r+1)``."""
    axis = np.arange(-radius, radius + 1)
    return (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2 + 0.5)[None]
