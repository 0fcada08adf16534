"""A written Segmentation, read back by code that knows nothing of the writer and compared with the mask.

The commonest complaint about such systems is a mask that is flipped or out of order in the PACS; no object leaves
before this has looked at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from carina.dicom.geometry import mask_on_source
from carina.dicom.series import Series
from carina.errors import ModelFailed
from carina.volume.arrays import Doubles, Labels
from carina.volume.volume import Mask

CENTROID_MM = 0.05
"""How far a segment's centroid may lie from the mask's where no resampling stands between them."""

SAMPLES = 64
"""Labelled pixels of each frame that are looked up in the mask."""

AGREEING = 0.98
"""Part of the sampled pixels that must be labelled in the mask where slices were resampled."""

_Counts = npt.NDArray[np.int64]


@dataclass(kw_only=True, eq=False)
class _Tally:
    """What was read of one segment."""

    count: int = 0
    sum_mm: Doubles = field(default_factory=lambda: np.zeros(3))
    samples_mm: list[Doubles] = field(default_factory=list)


def merged_labels(labels: Labels, mask: Mask, count: int) -> Labels:
    """Labels as segment numbers 1 to ``count``: the mask's values in order, or all as 1 where ``count`` is 1.

    Raises:
        ModelFailed: a voxel has a value that ``mask.names`` doesn't know.
    """
    values = sorted(mask.names)
    unknown = 255
    table = np.full(256, unknown, np.uint8)
    table[0] = 0
    for number, value in enumerate(values, 1):
        table[value] = number if count > 1 else 1
    if values == list(range(1, count + 1)) and (not labels.size or labels.max() <= count):
        return labels
    merged: Labels = table[labels]
    if labels.size and merged.max() == unknown:
        raise ModelFailed("seg.labels", f"the mask holds a label without a name; known are {dict(mask.names)}.")
    return merged


def check_geometry(dataset: Dataset, mask: Mask, series: Series) -> None:
    """Compare a Segmentation's own frames and positions with the mask: count, centroid and place of each segment.

    Raises:
        ModelFailed: they differ; the message gives the segment, both numbers and the distance in mm.
    """
    on_source = mask_on_source(mask, series)
    numbers = [int(item.SegmentNumber) for item in dataset.SegmentSequence]
    numbers = [number for number in numbers if number > 0]
    expected = merged_labels(on_source, mask, len(numbers))
    resampled = on_source is not mask.labels
    tallies = {number: _Tally() for number in numbers}
    for number, pixels, first, right, down in _frames(dataset):
        if number not in tallies:
            raise _mismatch(number, "it is not described in the Segment Sequence")
        _count(tallies[number], pixels, first, right, down)
    for number, tally in tallies.items():
        by_row, by_column = _sums(expected, number)
        _compare_count(number, tally, int(by_row.sum()))
        if tally.count:
            _compare_centroid(number, tally, by_row, by_column, series)
            _compare_samples(number, tally, mask, count=len(numbers), resampled=resampled)


def segment_volumes_ml(dataset: Dataset) -> dict[int, float]:
    """The volume of each segment in ml, counted in the object's own frames: voxels, times pixel area and slice step."""
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    voxel_ml = float(np.prod([*map(float, measures.PixelSpacing), float(measures.SpacingBetweenSlices)])) / 1000
    counts = {int(item.SegmentNumber): 0 for item in dataset.SegmentSequence}
    for number, pixels, *_ in _frames(dataset):
        counts[number] = counts.get(number, 0) + int(np.count_nonzero(pixels))
    return {number: count * voxel_ml for number, count in counts.items()}


def _frames(dataset: Dataset) -> Iterator[tuple[int, npt.NDArray[np.bool_], Doubles, Doubles, Doubles]]:
    """For each frame and segment in it: number, pixels ``(rows, columns)``, first pixel's centre, steps in mm."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    packed = int(dataset.BitsAllocated) == 1
    for k, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        orientation = _group(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient
        spacing = _group(groups, shared, "PixelMeasuresSequence").PixelSpacing
        first = np.array([float(v) for v in _group(groups, shared, "PlanePositionSequence").ImagePositionPatient])
        cosines = np.array([float(v) for v in orientation])
        right, down = cosines[:3] * float(spacing[1]), cosines[3:] * float(spacing[0])
        if packed:
            number = int(_group(groups, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            yield number, _bits(dataset.PixelData, k, rows, columns), first, right, down
        else:
            frame = np.frombuffer(dataset.PixelData, np.uint8, rows * columns, k * rows * columns).reshape(
                rows, columns
            )
            for number in np.unique(frame[frame > 0]):
                yield int(number), frame == number, first, right, down


def _group(groups: Dataset, shared: Dataset, keyword: str) -> Dataset:
    found: Dataset = (groups if keyword in groups else shared)[keyword].value[0]
    return found


def _bits(data: bytes, frame: int, rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """One frame of packed bits: frames follow each other without padding, low bit first (PS3.5 8.1.1)."""
    start = frame * rows * columns
    skip = start % 8
    size = (skip + rows * columns + 7) // 8
    bits = np.unpackbits(np.frombuffer(data, np.uint8, size, start // 8), bitorder="little")
    return bits[skip : skip + rows * columns].reshape(rows, columns).astype(bool)


def _count(tally: _Tally, pixels: npt.NDArray[np.bool_], first: Doubles, right: Doubles, down: Doubles) -> None:
    places = np.flatnonzero(pixels)
    if not places.size:
        return
    row, column = np.divmod(places, pixels.shape[1])
    tally.count += places.size
    tally.sum_mm += places.size * first + float(row.sum()) * down + float(column.sum()) * right
    some = np.linspace(0, places.size - 1, min(SAMPLES, places.size)).astype(np.intp)
    tally.samples_mm.append(first + row[some, None] * down + column[some, None] * right)


def _sums(labels: Labels, number: int) -> tuple[_Counts, _Counts]:
    """How many voxels a segment has in each row, ``(slices, rows)``, and in each column of all slices together."""
    by_row, by_column = np.zeros(labels.shape[:2], np.int64), np.zeros(labels.shape[2], np.int64)
    for index, plane in enumerate(labels):
        own = plane == number
        by_row[index] = np.count_nonzero(own, axis=1)
        by_column += np.count_nonzero(own, axis=0)
    return by_row, by_column


def _compare_count(number: int, tally: _Tally, count: int) -> None:
    if count != tally.count:
        raise _mismatch(number, f"it holds {tally.count} pixels where the mask has {count}")


def _compare_centroid(number: int, tally: _Tally, by_row: _Counts, by_column: _Counts, series: Series) -> None:
    """The mask's centroid comes from the source slices' positions as they were read, not from the object."""
    down = np.array(series.slice_axes[1]) * series.pixel_spacing_mm[0]
    right = np.array(series.slice_axes[2]) * series.pixel_spacing_mm[1]
    by_slice = by_row.sum(axis=1)
    positions = np.array([instance.position_mm for instance in series.instances])
    total = by_slice @ positions + float(by_row.sum(axis=0) @ np.arange(series.rows)) * down
    total = total + float(by_column @ np.arange(series.columns)) * right
    away = float(np.linalg.norm(total - tally.sum_mm)) / tally.count
    if away > CENTROID_MM:
        raise _mismatch(number, f"its centroid lies {away:.2f} mm from the mask's")


def _compare_samples(number: int, tally: _Tally, mask: Mask, *, count: int, resampled: bool) -> None:
    """Pixels of every frame, looked up in the mask's own grid: this also sees a symmetric body that is flipped."""
    indices = np.floor(mask.grid.indices(np.concatenate(tally.samples_mm)) + 0.5).astype(np.intp)
    inside = ((indices >= 0) & (indices < np.array(mask.grid.shape))).all(axis=1)
    z, y, x = indices[inside].T
    found = merged_labels(mask.labels[z, y, x][None, None], mask, count)[0, 0] == number
    part = float(np.count_nonzero(found)) / len(indices)
    if part < (AGREEING if resampled else 1.0):
        raise _mismatch(number, f"only {100 * part:.1f} % of the pixels looked up are labelled in the mask")


def _mismatch(number: int, what: str) -> ModelFailed:
    return ModelFailed(
        "seg.geometry", f"segment {number} of the written Segmentation is not the mask: {what}; it must not be sent."
    )
