"""Single slices of a CT and of its masks, without all of their voxels in memory.

A CT that is not packed is read slice by slice from its file, by ordinary reads: a file that becomes shorter meanwhile
is an error of the slice, where a mapped one would end the process. Masks are packed, and are kept as a bit a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from carina.volume.arrays import HU, Flags, Labels
from carina.volume.files import read_volume, read_volume_header
from carina.volume.grid import Grid
from carina.volume.header import Packing, VolumeHeader
from carina.volume.values import HuValues, LabelValues
from carina.volume.volume import Volume
from carina.volume.voxels import read_blocks, read_parts

STRIPE = 32
"""Slices across x that are read at once: each of them takes the whole file, and who asks for one asks for the next."""


class Sliced(Protocol):
    """What has slices: a volume or mask in memory, in a file, or in bits."""

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""

    def plane(self, axis: int, index: int) -> npt.NDArray[Any]:
        """The slice ``index`` along an array axis: the two that remain, in their order. Of a mask, what is marked."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FileVolume:
    """A CT whose slices are read from its file when they are asked for; the same values as ``read_volume`` gives."""

    path: Path
    header: VolumeHeader
    _stripe: dict[int, HU] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return self.header.grid

    def plane(self, axis: int, index: int) -> HU:
        """The slice ``index`` along an array axis, HU.

        Raises:
            BadSeries: the file was cut short or can't be read any more, or its values are no HU.
        """
        planes, rows, columns = self.grid.shape
        size = rows * columns
        if axis == 0:
            return self._read([(index * size, size)], slice(None)).reshape(rows, columns)
        if axis == 1:
            return self._read([(z * size + index * columns, columns) for z in range(planes)], slice(None))
        first = index - index % STRIPE
        stripe = self._stripe.get(first)
        if stripe is None:
            kept = slice(first, min(first + STRIPE, columns))
            stripe = self._read([(z * size, size) for z in range(planes)], kept).reshape(planes, rows, -1)
            self._stripe.clear()
            self._stripe[first] = stripe
        return stripe[:, :, index - first]

    def _read(self, parts: list[tuple[int, int]], kept: slice) -> HU:
        """The kept columns of some parts of the file, each whole rows."""
        columns, values, found = self.grid.shape[2], HuValues(self.path, self.header), []

        def use(_: int, block: npt.NDArray[Any]) -> None:
            found.append(values.taken(block.reshape(-1, columns)[:, kept]))

        read_parts(self.header.voxels, parts, use)
        values.warnings()
        return np.concatenate(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskBits:
    """What a mask marks, whatever the label: a bit a voxel, in the order of the array."""

    bits: Labels
    grid: Grid

    def plane(self, axis: int, index: int) -> Flags:
        """What is marked in the slice ``index`` along an array axis: the two that remain, in their order."""
        _, rows, columns = self.grid.shape
        size = rows * columns
        if axis == 0:
            first = index * size
            bits = np.unpackbits(self.bits[first // 8 : (first + size + 7) // 8])
            return bits[first % 8 :][:size].reshape(rows, columns).view(np.bool_)
        steps = (size, columns, 1)
        down, across = (step * np.arange(self.grid.shape[k]) for k, step in enumerate(steps) if k != axis)
        places = index * steps[axis] + down[:, None] + across
        marked: Flags = ((self.bits[places >> 3] << (places & 7).astype(np.uint8)) & 0x80) > 0
        return marked


def open_volume(path: Path) -> FileVolume | Volume:
    """A CT to be looked at slice by slice; one that is packed is read as a whole.

    Raises:
        BadSeries: as ``read_volume``; whether the values can be a chest CT's is judged only of what is read as a whole.
    """
    header = read_volume_header(path)
    if header.voxels.packing is not Packing.RAW:
        return read_volume(path)
    HuValues(path, header)
    return FileVolume(path=path, header=header)


def read_mask_bits(path: Path) -> MaskBits:
    """What a mask marks.

    Raises:
        BadSeries: as ``read_mask``.
    """
    header, values = read_volume_header(path), LabelValues(path)
    bits = np.zeros((header.voxels.count + 7) // 8, np.uint8)

    def use(first: int, block: npt.NDArray[Any]) -> None:
        labels = values.taken(block)
        if labels.any():
            marked = np.packbits(np.concatenate([np.zeros(first % 8, np.uint8), labels]))
            bits[first // 8 :][: len(marked)] |= marked

    read_blocks(header.voxels, use)
    return MaskBits(bits=bits, grid=header.grid)
