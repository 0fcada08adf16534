"""Small images, masks and data lists for tests of training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from carina.cases.case import Case
from carina.cases.datalist import DataList, ListedCase
from carina.cases.purpose import Purpose, Targets, Task
from carina.train.settings import Patch, TrainSettings
from carina.volume import Grid, Mask, Volume

SHAPE = (12, 40, 48)
GRID = Grid(shape=SHAPE, spacing_mm=(5.0, 1.6, 1.6), origin_mm=(-30.0, -20.0, 10.0))


def settings(task: str, **changes: object) -> TrainSettings:
    """Settings for tiny patches; keys may be replaced."""
    keys: dict[str, object] = {
        "task": Task(task),
        "name": f"{task}-test",
        "network": {"classes": 2},
        "patches": (Patch(shape=(32, 32, 8)),),
        "window_hu": (-1000.0, 500.0),
        "source": Targets.LABELS,
    }
    return TrainSettings(**(keys | changes))  # type: ignore[arg-type]


def purpose(task: str, **changes: object) -> Purpose:
    """What a training with these settings asks of its list."""
    return settings(task, **changes).purpose


def chest_case(
    name: str, hu: npt.NDArray[np.int16], lung: npt.NDArray[np.uint8], spacing_mm: tuple[float, float, float]
) -> Case:
    """A case at training resolution: arrays ``(z, y, x)`` in RAS order."""
    axes = ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))
    shape = (hu.shape[0], hu.shape[1], hu.shape[2])
    grid = Grid(shape=shape, spacing_mm=spacing_mm, origin_mm=(0.0, 0.0, 0.0), axes=axes)
    mask = Mask(labels=lung, grid=grid, names={1: "lung"}, uid=name)
    return Case(name=name, volume=Volume(hu=hu, grid=grid, uid=name), lung=mask)


def write(array: npt.NDArray[np.generic], path: Path, grid: Grid = GRID) -> str:
    """Write any array as an image, whatever its type, and return the file's name."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(np.array(grid.axes[::-1]).T.ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path.name


def lung_labels() -> npt.NDArray[np.uint8]:
    """Two boxes."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[2:10, 8:32, 6:20] = 1
    labels[2:10, 8:32, 28:42] = 1
    return labels


def lesion_labels() -> npt.NDArray[np.uint8]:
    """A box in the first lung."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[4:8, 20:30, 8:16] = 1
    return labels


def hu(seed: int) -> npt.NDArray[np.int16]:
    """Noisy lungs with a lesion in soft tissue, bone in one corner."""
    voxels = np.full(SHAPE, 40.0)
    voxels[lung_labels() > 0] = -850
    voxels[lesion_labels() > 0] = -400
    voxels[:, 36:, 22:26] = 900
    noisy = voxels + np.random.default_rng(seed).normal(0, 20, SHAPE)
    return np.rint(noisy).astype(np.int16)


def good_list(folder: Path, *, lesions: bool = True) -> DataList:
    """Three patients for training and one for validation, with lung masks, lesion masks and class labels."""
    items = []
    for number in range(4):
        items.append(
            ListedCase(
                image=write(hu(number), folder / f"ct{number}.nii.gz"),
                lung_image=write(lung_labels(), folder / f"lung{number}.nii.gz"),
                label_image=write(lesion_labels(), folder / f"lesion{number}.nii.gz") if lesions else "",
                label=(number % 2,) if lesions else (),
                patient=f"p{number}",
            )
        )
    return DataList(file=folder / "data.json", training=tuple(items[:3]), validation=tuple(items[3:]))
