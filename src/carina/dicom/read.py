"""A source to a volume: slices are decoded in parallel, straight into the volume's voxels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carina.dicom.decode import PixelFile, open_pixels
from carina.dicom.geometry import VolumePlan, plan_volume
from carina.dicom.series import Instance, Series, Source, VolumeFile
from carina.dicom.tilt import place_slice
from carina.errors import BadSeries
from carina.volume.files import read_volume
from carina.volume.plausible import MOST_STEP_HU, check_hu, step_hu
from carina.volume.values import SCALE_BOTTOM_HU
from carina.volume.volume import Volume

ReadProgress = Callable[[int, int], None]
"""Called with (slices done, slices in all)."""

MAX_THREADS = 8

MOST_CLIPPED = 0.05
"""A slice of which less lies at the bottom of the scale has no values far below it."""


def read_source(source: Source, progress: ReadProgress | None = None, *, threads: int = 0) -> Volume:
    """Read the voxels of a series or of a volume file.

    A series' volume lies in its slices' own plane, first slice lowest along the normal; a tilt or a small unevenness
    is resampled, and the volume's warnings say so. HU below -1024 and padding become -1024.

    Args:
        source: what ``find.choose_source`` gave.
        progress: called after each slice with (done, all).
        threads: how many slices are decoded at once; 0 means one for each core.

    Raises:
        BadSeries: pixel data is missing, damaged or has no decoder, or the values are no HU of a chest.
    """
    if isinstance(source, VolumeFile):
        return read_volume(source.path)
    return _read_series(source, progress, threads)


def _read_series(series: Series, progress: ReadProgress | None, threads: int) -> Volume:
    plan = plan_volume(series)
    name = f"series {series.uid}"
    shape = (len(series.instances), *plan.grid.shape[1:])
    try:
        slices = np.empty(shape, np.int16)
    except MemoryError as error:
        raise BadSeries("series.memory", f"a volume of {shape} voxels does not fit into memory.") from error
    _decode(series, plan, slices, progress, threads or min(MAX_THREADS, os.cpu_count() or 1))
    check_hu(slices, name, origin="series", unclipped=_unclipped(series, slices))
    _check_rescales(series.instances, slices)
    voxels = slices if plan.is_even else _even(slices, plan)
    return Volume(hu=voxels, grid=plan.grid, uid=series.uid, warnings=series.warnings)


def _check_rescales(instances: Sequence[Instance], slices: npt.NDArray[np.int16]) -> None:
    """Each slice has a rescale of its own; where it differs from its neighbour's, tissue must stay what it is.

    Raises:
        BadSeries: ``series.no-hu``, it does not: the number is lost or wrong in some of the slices.
    """
    for k, (before, after) in enumerate(pairwise(instances), start=1):
        step = step_hu(slices[k - 1], slices[k]) if before.rescale != after.rescale else 0.0
        if abs(step) > MOST_STEP_HU:
            raise BadSeries(
                "series.no-hu",
                f"soft tissue leaps by {step:.0f} HU from {before.path.name}, whose Rescale Slope and Intercept are "
                f"{before.rescale}, to {after.path.name}, where they are {after.rescale}; correct them, or take the "
                "series from the scanner or PACS again.",
            )


def _unclipped(series: Series, slices: npt.NDArray[np.int16]) -> npt.NDArray[Any] | None:
    """The middle slice's values before they were clipped, where many were: padding, or an intercept applied twice."""
    k = len(slices) // 2
    instance = series.instances[k]
    is_clipped = np.count_nonzero(slices[k] == SCALE_BOTTOM_HU) > MOST_CLIPPED * slices[k].size
    if not is_clipped or instance.frame is not None:
        return None
    return open_pixels(instance.path).unclipped(None).ravel()


def _decode(
    series: Series, plan: VolumePlan, slices: npt.NDArray[np.int16], progress: ReadProgress | None, threads: int
) -> None:
    shared = _multi_frame_files(series)
    done = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        jobs = [
            pool.submit(_decode_slice, instance, shared, plan, k, slices[k])
            for k, instance in enumerate(series.instances)
        ]
        try:
            for job in as_completed(jobs):
                job.result()
                done += 1
                if progress is not None:
                    progress(done, len(jobs))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _multi_frame_files(series: Series) -> dict[Path, PixelFile]:
    """Files that hold several slices, opened once."""
    uses = Counter(instance.path for instance in series.instances)
    return {path: open_pixels(path) for path, count in uses.items() if count > 1}


def _decode_slice(
    instance: Instance, shared: dict[Path, PixelFile], plan: VolumePlan, k: int, out: npt.NDArray[np.int16]
) -> None:
    pixels = shared.get(instance.path) or open_pixels(instance.path)
    if not plan.is_sheared:
        pixels.hu(instance.frame, out)
        return
    hu = np.empty((pixels.layout.rows, pixels.layout.columns), np.int16)
    pixels.hu(instance.frame, hu)
    place_slice(hu, out, float(plan.rows_down[k]), float(plan.columns_right[k]))


def _even(slices: npt.NDArray[np.int16], plan: VolumePlan) -> npt.NDArray[np.int16]:
    """Slices at uneven places, interpolated linearly along the normal onto the grid's even ones."""
    wanted = np.arange(plan.grid.shape[0]) * plan.grid.spacing_mm[0]
    after = np.clip(np.searchsorted(plan.along_mm, wanted), 1, len(plan.along_mm) - 1)
    before = after - 1
    weight = (wanted - plan.along_mm[before]) / (plan.along_mm[after] - plan.along_mm[before])
    out = np.empty(plan.grid.shape, np.int16)
    for k, w in enumerate(np.clip(weight, 0.0, 1.0)):
        low, high = slices[before[k]].astype(np.float32), slices[after[k]].astype(np.float32)
        out[k] = np.rint(low + np.float32(w) * (high - low))
    return out
