"""From a data list's entries to cases: which of an entry's masks is which, and cases kept in memory or on disk."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carina.cases.case import IN_PLANE_MM, Case, make_case
from carina.cases.datalist import DataList, Item
from carina.cases.purpose import Purpose, Source, Task
from carina.errors import BadConfig
from carina.volume import Grid
from carina.volume.files import read_grid, read_mask, read_volume

BYTES_PER_VOXEL = {Source.LABELS: 5, Source.SYNTHETIC: 7}
"""An image to learn from labels: four, and one. A case: two for HU, one each for lung, lesion, what is ignored,
enclosed gas and what is around the body."""


def lung_of(item: Item, task: Task) -> str:
    """The listed path of an entry's lung mask, empty where it has none."""
    return item.lung_image or (item.label_image if task in (Task.LUNG, Task.COVID) else "")


def mask_of(item: Item, task: Task) -> str:
    """The listed path of the mask that a training on labels reads: lesions to learn, else the lungs."""
    return item.label_image if task is Task.LESION else lung_of(item, task)


def lesion_of(item: Item, task: Task) -> str:
    """The listed path of an entry's mask of lesions: its ``label_image``, if that is no lung mask."""
    if task is Task.LUNG or item.label_image == item.lung_image:
        return ""
    return item.label_image if item.lung_image or task is Task.LESION else ""


def is_unusable(item: Item, task: Task) -> bool:
    """Whether nothing may be synthesised in these lungs: they show disease, which a classifier would be told is none,
    or whose place is not known."""
    return any(item.label) and (task is Task.COVID or (task is Task.LESION and not lesion_of(item, task)))


def read_case(data: DataList, item: Item, task: Task) -> Case:
    """Read an entry as a case; without a lung mask its lungs are labelled by threshold. An empty mask of lesions, or of
    what is ignored, is none.

    Raises:
        BadSeries: a file can't be read.
    """
    lung, lesion = lung_of(item, task), lesion_of(item, task)
    lesions, ignored = (read_mask(data.path(listed)) if listed else None for listed in (lesion, item.ignore_image))
    return make_case(
        item.name,
        read_volume(data.path(item.image)),
        read_mask(data.path(lung)) if lung else None,
        None if lesions is None or lesions.is_empty else lesions,
        None if ignored is None or ignored.is_empty else ignored,
    )


def read_cases(data: DataList, items: Iterable[Item], purpose: Purpose) -> list[Case]:
    """Read entries as cases: into memory, or, where they would take more than ``cache_mb``, onto disk and mapped.

    Raises:
        BadSeries: a file can't be read.
        BadConfig: the list's folder can't hold the cache.
    """
    wanted = list(items)
    if cache_mb(data, wanted, purpose) <= purpose.cache_mb:
        cases = [read_case(data, item, purpose.task) for item in wanted]
        if purpose.task is Task.LUNG:
            for case in cases:
                _ = case.gas  # now, and not once more in each worker process
        return cases
    return [_mapped(data, item, purpose.task) for item in wanted]


def cache_mb(data: DataList, items: Iterable[Item], purpose: Purpose) -> float:
    """About how much the prepared entries take, in MB; entries that can't be read count nothing."""
    total = 0.0
    for item in items:
        path = data.path(item.image)
        try:
            grid, _ = read_grid(path)
        except Exception:  # noqa: BLE001, the checks say what is wrong with it
            continue
        total += prepared_mb(grid, purpose)
    return total


def prepared_mb(grid: Grid, purpose: Purpose) -> float:
    """How much one prepared image with this grid takes, in MB."""
    if purpose.task is Task.COVID and purpose.source is Source.LABELS:
        return float(np.prod(purpose.crop_shape)) * 4 / 1e6
    z, y, x = grid.extent_mm
    if purpose.source is Source.SYNTHETIC:
        voxels = grid.shape[0] * (y / IN_PLANE_MM) * (x / IN_PLANE_MM)
    elif purpose.spacing_mm is None:
        voxels = float(np.prod(grid.shape))
    else:
        voxels = x * y * z / float(np.prod(purpose.spacing_mm))
    return voxels * BYTES_PER_VOXEL[purpose.source] / 1e6


def cache_folder(data: DataList) -> Path:
    """Where prepared entries are kept on disk: a folder beside the list, which may be deleted at any time."""
    return data.file.parent / f".{data.file.stem}-cache"


def stamp(data: DataList, listed: Iterable[str]) -> str:
    """Words that change when one of the listed files does: path, size and time of change."""
    words = []
    for name in listed:
        if name:
            found = data.path(name).stat()
            words.append(f"{name} {found.st_size} {found.st_mtime_ns}")
    return "\n".join(words)


def _mapped(data: DataList, item: Item, task: Task) -> Case:
    """The case with its arrays mapped from disk, made there first where they are missing."""
    key = task + stamp(data, (item.image, lung_of(item, task), lesion_of(item, task), item.ignore_image))
    folder = cache_folder(data) / f"case-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    if not folder.is_dir():
        _store(read_case(data, item, task), folder, with_air=task is Task.LUNG)
    lesion, ignore = (
        _map(folder / f"{mask}.npy") if (folder / f"{mask}.npy").is_file() else None for mask in ("lesion", "ignore")
    )
    z, y, x = (float(v) for v in np.load(folder / "spacing_mm.npy"))
    case = Case(
        name=item.name,
        hu=_map(folder / "hu.npy"),
        lung=_map(folder / "lung.npy"),
        spacing_mm=(z, y, x),
        lesion=lesion,
        ignore=ignore,
    )
    for name in ("gas", "around"):
        if (folder / f"{name}.npy").is_file():
            vars(case)[name] = _map(folder / f"{name}.npy")
    return case


def _map(file: Path) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(file, mmap_mode="r")
    return array


def _store(case: Case, folder: Path, *, with_air: bool) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {"hu": case.hu, "lung": case.lung, "spacing_mm": np.array(case.spacing_mm)}
    if with_air:
        arrays |= {"gas": case.gas, "around": case.around}
    masks = {"lesion": case.lesion, "ignore": case.ignore}
    arrays |= {name: mask for name, mask in masks.items() if mask is not None}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array)
        try:
            aside.rename(folder)
        except FileExistsError:
            shutil.rmtree(aside)
    except OSError as error:
        raise BadConfig(
            "cache.unwritable", f"{folder.parent}: can't keep prepared cases here ({error.strerror}); raise cache_mb."
        ) from error
