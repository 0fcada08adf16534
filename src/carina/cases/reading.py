"""From listed cases to cases: which of the listed masks is which, and cases kept in memory or on disk."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from carina.cases.case import IN_PLANE_MM, Case, resample_case
from carina.cases.datalist import DataList, ListedCase
from carina.cases.purpose import Purpose, Targets, Task
from carina.errors import BadConfig, BadSeries
from carina.pipeline.json_text import read_json
from carina.volume import Grid, Mask, Volume
from carina.volume.files import read_grid, read_mask, read_volume

PREPARED_BYTES = {Targets.LABELS: 5, Targets.SYNTHETIC: 7}
"""An image to learn from labels: four, and one. A case: two for HU, one each for lung, lesion, what is ignored,
enclosed gas and what is around the body."""

GRID_MM = 0.1
"""A mask's corners lie this near to its image's; NIfTI headers keep places in single precision."""

MASKS = ("lung", "lesion", "ignore")
"""The masks that a case can have."""


def lung_of(listed: ListedCase, task: Task) -> str:
    """The path of a case's lung mask, empty where it has none."""
    return listed.lung_image or (listed.label_image if task in (Task.LUNG, Task.COVID) else "")


def lesion_of(listed: ListedCase, task: Task) -> str:
    """The path of a case's mask of lesions: its ``label_image``, if that is no lung mask."""
    if task is Task.LUNG or listed.label_image == listed.lung_image:
        return ""
    return listed.label_image if listed.lung_image or task is Task.LESION else ""


def paths_of(listed: ListedCase, task: Task) -> Mapping[str, str]:
    """The path of each of `MASKS`, empty where the case has none."""
    return {"lung": lung_of(listed, task), "lesion": lesion_of(listed, task), "ignore": listed.ignore_image}


def is_unusable(listed: ListedCase, task: Task) -> bool:
    """Whether nothing may be synthesised in these lungs: they show disease, which a classifier would be told is none,
    or whose place is not known."""
    return any(listed.label) and (task is Task.COVID or (task is Task.LESION and not lesion_of(listed, task)))


def read_case(data: DataList, listed: ListedCase, task: Task, masks: Collection[str] = MASKS) -> Case:
    """Read a listed case, with those of its masks that are named in ``masks``, on the voxels of its image.

    Raises:
        BadSeries: a file can't be read, or a mask does not lie on the image's voxels.
    """
    volume = read_volume(data.path(listed.image))
    paths = {name: path for name, path in paths_of(listed, task).items() if path and name in masks}
    found = {name: _read_mask(data.path(path), volume) for name, path in paths.items()}
    return Case(name=listed.name, volume=volume, label=listed.label[0] if listed.label else None, **found)


def _read_mask(path: Path, volume: Volume) -> Mask:
    mask, grid = read_mask(path), volume.grid
    if not mask.grid.same_place(grid, tolerance_mm=GRID_MM):
        raise BadSeries(
            "mask.grid",
            f"{path}: holds {mask.grid.shape} voxels from {mask.grid.origin_mm} mm, its image {grid.shape} "
            f"from {grid.origin_mm} mm; expected a mask on the image's grid, resample it first.",
        )
    return mask


def read_cases(data: DataList, listed: Iterable[ListedCase], purpose: Purpose) -> list[Case]:
    """Read cases at training resolution: a share of ``cache_rate`` into memory, the others onto disk.

    Where that share would take more than ``cache_mb``, all are read onto disk.

    Raises:
        BadSeries: a file can't be read, or no lung was found.
        BadConfig: the list's folder can't hold the cache.
    """
    wanted = list(listed)
    kept = round(purpose.cache_rate * len(wanted))
    if cache_mb(data, wanted[:kept], purpose) > purpose.cache_mb:
        kept = 0
    cases = [resample_case(read_case(data, one, purpose.task)) for one in wanted[:kept]]
    if purpose.task is Task.LUNG:
        for case in cases:
            _ = case.gas  # now, and not once more in each worker process
    return cases + [_mapped(data, one, purpose.task) for one in wanted[kept:]]


def cache_mb(data: DataList, listed: Iterable[ListedCase], purpose: Purpose) -> float:
    """About how much the prepared cases take, in MB; those that can't be read count nothing."""
    total = 0.0
    for one in listed:
        path = data.path(one.image)
        try:
            grid, _ = read_grid(path)
        except BadSeries:  # the checks say what is wrong with it
            continue
        total += prepared_mb(grid, purpose)
    return total


def prepared_mb(grid: Grid, purpose: Purpose) -> float:
    """How much one prepared image with this grid takes, in MB."""
    if purpose.task is Task.COVID and purpose.source is Targets.LABELS:
        return float(np.prod(purpose.crop_shape)) * 4 / 1e6
    z, y, x = grid.extent_mm
    if purpose.source is Targets.SYNTHETIC:
        voxels = grid.shape[0] * (y / IN_PLANE_MM) * (x / IN_PLANE_MM)
    elif purpose.spacing_mm is None:
        voxels = float(np.prod(grid.shape))
    else:
        voxels = x * y * z / float(np.prod(purpose.spacing_mm))
    return voxels * PREPARED_BYTES[purpose.source] / 1e6


def cache_folder(data: DataList) -> Path:
    """Where prepared cases are kept on disk: a folder beside the list, which may be deleted at any time."""
    return data.file.parent / f".{data.file.stem}-cache"


def file_stamp(data: DataList, listed: Iterable[str]) -> str:
    """Words that change when one of the listed files does: path, size and time of change."""
    words = []
    for name in listed:
        if name:
            found = data.path(name).stat()
            words.append(f"{name} {found.st_size} {found.st_mtime_ns}")
    return "\n".join(words)


def _mapped(data: DataList, listed: ListedCase, task: Task) -> Case:
    """The case at training resolution with its arrays mapped from disk, made there first where they are missing."""
    key = task + file_stamp(data, (listed.image, *paths_of(listed, task).values()))
    folder = cache_folder(data) / f"case-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    if not folder.is_dir():
        _store(resample_case(read_case(data, listed, task)), folder, with_air=task is Task.LUNG)
    grid = read_json((folder / "grid.json").read_bytes(), Grid)
    masks = {
        name: Mask(labels=_map(folder / f"{name}.npy"), grid=grid, names={1: name}, uid=listed.name)
        for name in MASKS
        if (folder / f"{name}.npy").is_file()
    }
    volume = Volume(hu=_map(folder / "hu.npy"), grid=grid, uid=listed.name)
    case = Case(name=listed.name, volume=volume, label=listed.label[0] if listed.label else None, **masks)
    for name in ("gas", "around"):
        if (folder / f"{name}.npy").is_file():
            vars(case)[name] = _map(folder / f"{name}.npy")
    return case


def _map(file: Path) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(file, mmap_mode="r")
    return array


def _store(case: Case, folder: Path, *, with_air: bool) -> None:
    masks = {name: getattr(case, name) for name in MASKS}
    arrays = {"hu": case.hu} | {name: mask.labels for name, mask in masks.items() if mask is not None}
    if with_air:
        arrays |= {"gas": case.gas, "around": case.around}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array)
        (aside / "grid.json").write_bytes(msgspec.json.encode(case.volume.grid))
        try:
            aside.rename(folder)
        except FileExistsError:
            shutil.rmtree(aside)
    except OSError as error:
        raise BadConfig(
            "cache.unwritable", f"{folder.parent}: can't keep prepared cases here ({error.strerror}); raise cache_mb."
        ) from error
