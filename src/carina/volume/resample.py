"""Reorienting and resampling between grids, one axis at a time.

Grids whose axes are parallel (in any order, in either direction) are resampled separably, slice by slice: the only
large arrays are the input and the output. The sampling positions are those of MONAI's ``Spacing`` with its defaults:
the first voxels of both grids coincide, and beyond the border the border's voxel counts.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.volume.arrays import Box
from carina.volume.grid import Axes, Grid, Triple

PARALLEL = 0.9999
"""Axes are parallel when the cosine between them is at least this (0.8 degrees)."""

KEPT_SPACING = 1e-3
"""A wanted spacing that differs by less than this from the grid's own, in mm, leaves that axis as it is."""

_LETTERS: dict[str, Triple] = {
    "L": (1.0, 0.0, 0.0),
    "R": (-1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}


def reoriented(grid: Grid, codes: str) -> Grid:
    """The same voxels seen along other axes; an oblique grid keeps its axes and takes the nearest order of them.

    ``codes`` are the directions that the index grows to along ``x, y, z`` (``RAS``), as a bundle writes them;
    the result is ``(z, y, x)`` as every grid here.
    """
    wanted = np.array([_LETTERS[letter] for letter in reversed(codes)])
    cosines = wanted @ np.array(grid.axes).T
    order = max(itertools.permutations(range(3)), key=lambda p: sum(abs(cosines[i, p[i]]) for i in range(3)))
    corner = np.zeros(3)
    axes: list[Triple] = []
    for row, source in enumerate(order):
        sign = 1.0 if cosines[row, source] >= 0 else -1.0
        corner[source] = 0 if sign > 0 else grid.shape[source] - 1
        x, y, z = (sign * c for c in grid.axes[source])
        axes.append((x, y, z))
    return Grid(
        shape=_three(int(grid.shape[source]) for source in order),
        spacing_mm=_three(float(grid.spacing_mm[source]) for source in order),
        origin_mm=_three(float(v) for v in grid.points_mm(corner)),
        axes=(axes[0], axes[1], axes[2]),
    )


def reorient(array: npt.NDArray[Any], grid: Grid, codes: str) -> tuple[npt.NDArray[Any], Grid]:
    """A view of ``array`` along the axes that ``codes`` ask for (see ``reoriented``), and its grid."""
    target = reoriented(grid, codes)
    order, signs = _match(grid.axes, target.axes)
    view = array.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    return view, target


def respaced(grid: Grid, spacing_mm: Triple) -> Grid:
    """The grid with another spacing, ``(z, y, x)`` mm, first voxel in place; shape as MONAI's ``Spacing`` rounds it."""
    spacing = [
        have if abs(have - want) <= KEPT_SPACING else want
        for have, want in zip(grid.spacing_mm, spacing_mm, strict=True)
    ]
    shape = [
        int(np.round((n - 1) * have / want + 1.0))
        for n, have, want in zip(grid.shape, grid.spacing_mm, spacing, strict=True)
    ]
    return replace(grid, shape=_three(shape), spacing_mm=_three(spacing))


def cropped(grid: Grid, box: Box) -> Grid:
    """The grid of a part of it; the box must lie within."""
    starts = [part.start for part in box]
    return replace(
        grid,
        shape=_three(part.stop - part.start for part in box),
        origin_mm=_three(float(v) for v in grid.points_mm(starts)),
    )


def resample(
    array: npt.NDArray[Any],
    source: Grid,
    target: Grid,
    order: Literal[0, 1] = 1,
    *,
    clip: tuple[float, float] | None = None,
    threads: int = 0,
) -> npt.NDArray[Any]:
    """Sample ``array`` on ``source`` at the voxels of ``target``.

    ``order`` 1 interpolates linearly and gives float32, 0 takes the nearest voxel and keeps the type. ``clip`` is the
    range that values are limited to before they are interpolated: only the planes that are needed are copied for it.
    Where the grids are rotated against each other, scipy's general interpolation does the same, more slowly.
    """
    if array.shape != source.shape:
        raise ValueError(f"voxels have shape {array.shape}, their grid {source.shape}")
    if not parallel(source, target):
        return _rotated(array if clip is None else _clipped(array, clip), source, target, order)
    if order == 0:
        view, indices = _positions(array, source, target)
        picked: npt.NDArray[Any] = view[np.ix_(*(np.rint(index).astype(np.intp) for index in indices))]
        return picked
    result = np.empty(target.shape, dtype=np.float32)

    def store(index: int, plane: npt.NDArray[np.float32]) -> None:
        result[index] = plane

    each_slice(array, source, target, store, clip=clip, threads=threads)
    return result


def above(
    array: npt.NDArray[Any], source: Grid, target: Grid, threshold: float, *, threads: int = 0
) -> npt.NDArray[np.bool_]:
    """Where linear interpolation of ``array`` at the voxels of ``target`` exceeds ``threshold``; slice by slice."""
    if not parallel(source, target):
        outside: npt.NDArray[np.bool_] = _rotated(array, source, target, 1) > threshold
        return outside
    result = np.empty(target.shape, dtype=np.bool_)

    def store(index: int, plane: npt.NDArray[np.float32]) -> None:
        np.greater(plane, threshold, out=result[index])

    each_slice(array, source, target, store, threads=threads)
    return result


def each_slice(
    array: npt.NDArray[Any],
    source: Grid,
    target: Grid,
    use: Callable[[int, npt.NDArray[np.float32]], None],
    *,
    clip: tuple[float, float] | None = None,
    threads: int = 0,
) -> None:
    """Give ``use`` each slice of ``array``, limited to ``clip``, interpolated linearly on ``target``, parallel to it.

    ``use(index, plane)`` is called from several threads, once for each index; ``plane`` is float32 ``(y, x)`` and only
    valid during the call.
    """
    view, (z, y, x) = _positions(array, source, target)
    plan = _Plan(view, _Axis.at(z), _Axis.at(y), _Axis.at(x), clip)
    count = threads or os.cpu_count() or 1
    parts = [part for part in np.array_split(np.arange(len(z)), count) if len(part)]

    def work(part: npt.NDArray[np.intp]) -> None:
        for index, plane in plan.planes(part):
            use(index, plane)

    if len(parts) < 2:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(work, parts))


def parallel(source: Grid, target: Grid) -> bool:
    """Whether the axes of both grids are parallel, in any order and either direction."""
    cosines = np.abs(np.array(target.axes) @ np.array(source.axes).T)
    return bool((cosines.max(axis=1) >= PARALLEL).all()) and sorted(cosines.argmax(axis=1)) == [0, 1, 2]


@dataclass(frozen=True)
class _Axis:
    """Where to sample along one axis: between voxel ``lower`` and the next one, ``weight`` of the way."""

    lower: npt.NDArray[np.intp]
    weight: npt.NDArray[np.float32]

    @classmethod
    def at(cls, index: npt.NDArray[np.float64]) -> _Axis:
        lower = np.floor(index).astype(np.intp)
        weight = (index - lower).astype(np.float32)
        return cls(lower, weight)

    @property
    def upper(self) -> npt.NDArray[np.intp]:
        """The next voxel, or the same where it has no weight (so that the last voxel has a next one)."""
        return np.asarray(self.lower + (self.weight > 0), dtype=np.intp)


@dataclass(frozen=True)
class _Plan:
    array: npt.NDArray[Any]
    z: _Axis
    y: _Axis
    x: _Axis
    clip: tuple[float, float] | None

    def planes(self, part: npt.NDArray[np.intp]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """The slices of ``part``. Fewer slices out than in: blend along z first; else interpolate each plane once."""
        lower, upper, weight = self.z.lower[part], self.z.upper[part], self.z.weight[part]
        if len(np.union1d(lower, upper)) > len(part):
            for index, a, b, w in zip(part, lower, upper, weight, strict=True):
                yield int(index), self._in_plane(_blend(self._plane(a), self._plane(b), w))
            return
        done: dict[int, npt.NDArray[np.float32]] = {}
        for index, a, b, w in zip(part, lower, upper, weight, strict=True):
            done = {k: done[k] if k in done else self._in_plane(self._plane(k)) for k in (int(a), int(b))}
            yield int(index), _blend(done[int(a)], done[int(b)], w)

    def _plane(self, index: int) -> npt.NDArray[Any]:
        plane: npt.NDArray[Any] = self.array[index]
        return plane if self.clip is None else _clipped(plane, self.clip)

    def _in_plane(self, plane: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        rows = np.asarray(plane, dtype=np.float32)
        weight = self.y.weight[:, None]
        rows = rows[self.y.lower] * (1 - weight) + rows[self.y.upper] * weight
        weight = self.x.weight
        columns = rows.take(self.x.lower, axis=1) * (1 - weight)
        columns += rows.take(self.x.upper, axis=1) * weight
        return np.asarray(columns, dtype=np.float32)


def _clipped(array: npt.NDArray[Any], limits: tuple[float, float]) -> npt.NDArray[np.float32]:
    clipped: npt.NDArray[np.float32] = np.clip(array, *limits, dtype=np.float32)
    return clipped


def _blend(a: npt.NDArray[Any], b: npt.NDArray[Any], weight: np.float32) -> npt.NDArray[np.float32]:
    if weight == 0:
        return np.asarray(a, dtype=np.float32)
    blended: npt.NDArray[np.float32] = np.multiply(a, 1 - weight, dtype=np.float32)
    blended += np.multiply(b, weight, dtype=np.float32)
    return blended


def _match(source: Axes, target: Axes) -> tuple[tuple[int, int, int], list[int]]:
    """For each target axis, the source axis that runs along it, and +1 or -1."""
    cosines = np.array(target) @ np.array(source).T
    order = [int(k) for k in np.abs(cosines).argmax(axis=1)]
    return _three(order), [1 if cosines[row, k] >= 0 else -1 for row, k in enumerate(order)]


def _positions(
    array: npt.NDArray[Any], source: Grid, target: Grid
) -> tuple[npt.NDArray[Any], list[npt.NDArray[np.float64]]]:
    """``array`` in the target's order of axes, and along each the fractional indices to sample at, kept inside."""
    order, signs = _match(source.axes, target.axes)
    first = source.indices(target.origin_mm)
    indices = []
    for axis, (k, sign) in enumerate(zip(order, signs, strict=True)):
        step = sign * target.spacing_mm[axis] / source.spacing_mm[k]
        index = first[k] + step * np.arange(target.shape[axis], dtype=np.float64)
        near = np.rint(index)
        index = np.where(np.abs(index - near) < 1e-6, near, index)
        indices.append(np.clip(index, 0, source.shape[k] - 1))
    return array.transpose(order), indices


def _rotated(array: npt.NDArray[Any], source: Grid, target: Grid, order: Literal[0, 1]) -> npt.NDArray[Any]:
    matrix = np.linalg.inv(source.affine) @ target.affine
    moved = np.empty(target.shape, dtype=np.float32 if order else array.dtype)
    ndimage.affine_transform(
        array, matrix[:3, :3], matrix[:3, 3], output_shape=target.shape, output=moved, order=order, mode="nearest"
    )
    return moved


def _three(values: Any) -> Any:
    a, b, c = values
    return (a, b, c)
