"""Examples from a data list's own labels, by MONAI's transforms; the deterministic ones are done once and cached.

MONAI's arrays are ``(1, x, y, z)``: a case becomes that when it is read, and an example ``(z, y, x)`` when it leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import monai.transforms as mt
import msgspec
import numpy as np
import numpy.typing as npt
import torch
from monai.data import CacheDataset, MetaTensor, PersistentDataset

from carina.cases.datalist import DataList, ListedCase
from carina.cases.purpose import Task
from carina.cases.reading import cache_folder, cache_mb, file_stamp, paths_of, read_case
from carina.cases.sampling import Shape
from carina.train.examples import Example, NamedExample
from carina.train.settings import Augment, TrainSettings
from carina.volume import Grid

BODY_HU = -500.0
CENTRES = 20_000
"""Voxels kept of each image as possible centres of patches, foreground and background."""

Tensors = dict[str, Any]


class LabelledSource:
    """Patches or crops of the list's images with their labels.

    Prepared images are kept in memory where they fit into ``cache_mb``, else on disk beside the list.
    """

    def __init__(self, data: DataList, settings: TrainSettings) -> None:
        self.settings = settings
        self.classes = sorted({case.label for case in data.training})
        self.listed = data.training
        self.training = _dataset(data, data.training, settings, centres=settings.task is not Task.COVID)
        self.held = _dataset(data, data.validation, settings, centres=False)
        self.names = [case.name for case in data.validation]
        self._random: dict[Shape, mt.Compose] = {}

    def draw(self, rng: np.random.Generator, shape: Shape) -> Example:
        """A random patch of a random image, or for classification a crop of a random image of a random class."""
        if shape not in self._random:
            self._random[shape] = _random(self.settings, shape[::-1])
        change = self._random[shape]
        change.set_random_state(seed=int(rng.integers(2**31)))
        prepared = self.training[self._choose(rng)]
        changed = change({key: prepared[key] for key in prepared})
        return _example(changed[0] if isinstance(changed, list) else changed)

    def validation(self) -> Iterator[NamedExample]:
        """Each validation image, whole."""
        for name, prepared in zip(self.names, self.held, strict=True):
            yield name, *_example(prepared)

    def _choose(self, rng: np.random.Generator) -> int:
        if self.settings.task is not Task.COVID:
            return int(rng.integers(len(self.listed)))
        label = self.classes[int(rng.integers(len(self.classes)))]
        alike = [n for n, case in enumerate(self.listed) if case.label == label]
        return alike[int(rng.integers(len(alike)))]


def _example(prepared: Mapping[str, Any]) -> Example:
    image = np.asarray(prepared["image"], dtype=np.float32)[0].transpose()
    label = np.asarray(prepared["label"], dtype=np.int64)
    return np.clip(image, 0.0, 1.0), label[0].transpose() if label.ndim == 4 else label.reshape(())


def _dataset(data: DataList, listed: Sequence[ListedCase], settings: TrainSettings, *, centres: bool) -> Any:
    """The prepared cases: all in memory, or on disk."""
    entries = [_entry(data, one, settings) for one in listed]
    steps = _prepare_covid(data, settings) if settings.task is Task.COVID else _prepare_masks(data, settings)
    if centres:
        steps += [_largest_patch_fits(settings), _Centres()]
    prepare = mt.Compose([*steps, mt.EnsureTyped(keys=("image", "label"), track_meta=False)])
    wanted_mb = settings.cache_rate * cache_mb(data, data.training + data.validation, settings.purpose)
    if 0 < wanted_mb <= settings.cache_mb:
        return CacheDataset(entries, prepare, cache_rate=settings.cache_rate, num_workers=2, progress=False)
    return PersistentDataset(entries, prepare, cache_dir=cache_folder(data) / _key(settings, centres=centres))


def _entry(data: DataList, listed: ListedCase, settings: TrainSettings) -> Tensors:
    """What MONAI reads a case from; the stamp has it read again when a file has changed."""
    mask = paths_of(listed, settings.task)[settings.purpose.mask]
    return {"listed": listed, "stamp": file_stamp(data, (listed.image, mask))}


def _key(settings: TrainSettings, *, centres: bool) -> str:
    """A name for what the preparation depends on."""
    facts = (
        settings.task,
        settings.orientation,
        settings.spacing_mm,
        settings.window_hu,
        settings.crop_to_body,
        settings.order,
        settings.margin_voxels,
        [patch.shape for patch in settings.patches],
        centres,
    )
    return "labels-" + hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:24]


class _Read(mt.Transform):
    """Read a case as every part of Carina does; image and mask become MONAI's tensors ``(1, x, y, z)``."""

    def __init__(self, data: DataList, settings: TrainSettings) -> None:
        self.data, self.task, self.mask = data, settings.task, settings.purpose.mask

    def __call__(self, entry: Tensors) -> Tensors:
        case = read_case(self.data, entry["listed"], self.task, (self.mask,))
        mask = case.lung if self.mask == "lung" else case.lesion
        assert mask is not None, f"{case.name}: the checks passed a case without its mask"
        image = _tensor(case.hu.astype(np.float32), case.volume.grid)
        return {"image": image, "mask": _tensor(mask.labels, mask.grid), "label": case.label}


def _tensor(array: npt.NDArray[Any], grid: Grid) -> MetaTensor:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine[:, [2, 1, 0, 3]]
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)))[None], affine=affine)


def _prepare_masks(data: DataList, settings: TrainSettings) -> list[Callable[[Any], Any]]:
    """Read, orient, space, window and perhaps crop to the body; the mask becomes the label."""
    keys = ("image", "label")
    low, high = settings.window_hu
    steps: list[Callable[[Any], Any]] = [_Read(data, settings), _MaskIsLabel()]
    if settings.orientation:
        steps.append(mt.Orientationd(keys=keys, axcodes=settings.orientation, labels=None))
    if settings.spacing_mm is not None:
        steps.append(mt.Spacingd(keys=keys, pixdim=settings.spacing_mm, mode=("bilinear", "nearest")))
    steps.append(_window(low, high))
    if settings.crop_to_body:
        steps.append(
            mt.CropForegroundd(
                keys=keys, source_key="image", select_fn=_Above((BODY_HU - low) / (high - low)), allow_smaller=True
            )
        )
    return [*steps, mt.CastToTyped(keys="label", dtype=torch.uint8)]


def _prepare_covid(data: DataList, settings: TrainSettings) -> list[Callable[[Any], Any]]:
    """Read, orient, crop to the lungs' box and resize; windowed before (``default``) or after (``naturecomm``)."""
    keys = ("image", "mask")
    window = _window(*settings.window_hu)
    crop = [
        mt.CropForegroundd(keys="image", source_key="mask", margin=settings.margin_voxels, allow_smaller=True),
        mt.Resized(keys="image", spatial_size=settings.patches[0].shape, mode="trilinear"),
    ]
    steps = [window, *crop] if settings.order == "default" else [*crop, window]
    orient = mt.Orientationd(keys=keys, axcodes=settings.orientation or "RAS", labels=None)
    return [_Read(data, settings), orient, *steps, mt.DeleteItemsd(keys="mask")]


def _window(low: float, high: float) -> mt.ScaleIntensityRanged:
    return mt.ScaleIntensityRanged(keys="image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)


def _largest_patch_fits(settings: TrainSettings) -> mt.SpatialPadd:
    shape = np.max([patch.shape for patch in settings.patches], axis=0).tolist()
    return mt.SpatialPadd(keys=("image", "label"), spatial_size=shape)


class _MaskIsLabel(mt.Transform):
    def __call__(self, entry: Tensors) -> Tensors:
        return {"image": entry["image"], "label": entry["mask"]}


class _Above:
    """Whether a value is above a level; an object, since functions within functions can't be sent to workers."""

    def __init__(self, level: float) -> None:
        self.level = level

    def __call__(self, image: Any) -> Any:
        return image > self.level


class _Centres(mt.Transform):
    """Foreground and background voxels, `CENTRES` of each at most: all of them would take more room than the image."""

    def __call__(self, entry: Tensors) -> Tensors:
        flat = np.asarray(entry["label"]).ravel() > 0
        rng = np.random.default_rng(0)
        for key, inside in (("foreground", flat), ("background", ~flat)):
            at = np.flatnonzero(inside)
            chosen = at if len(at) <= CENTRES else at[rng.integers(0, len(at), CENTRES)]
            entry = {**entry, key: torch.from_numpy(chosen.astype(np.int64))}
        return entry


def _random(settings: TrainSettings, shape: Shape) -> mt.Compose:
    if settings.task is Task.COVID:
        return mt.Compose(_changes(settings.augment, shape, ("image",)))
    crop = mt.RandCropByPosNegLabeld(
        keys=("image", "label"),
        label_key="label",
        spatial_size=shape,
        pos=settings.positive,
        neg=1.0 - settings.positive,
        num_samples=1,
        fg_indices_key="foreground",
        bg_indices_key="background",
    )
    return mt.Compose([crop, *_changes(settings.augment, shape, ("image", "label"))])


def _changes(augment: Augment, shape: Shape, keys: tuple[str, ...]) -> list[Callable[[Any], Any]]:
    """The random changes that have a chance above 0; masks take the nearest voxel."""
    modes = ("bilinear", "nearest")[: len(keys)]
    changes = [
        (augment.flip, [mt.RandFlipd(keys, prob=augment.flip, spatial_axis=axis) for axis in range(3)]),
        (
            augment.rotate,
            [
                mt.RandRotated(
                    keys,
                    range_z=float(np.deg2rad(augment.rotate_degrees)),
                    prob=augment.rotate,
                    mode=modes,
                    padding_mode="border",
                )
            ],
        ),
        (augment.rot90 * (shape[0] == shape[1]), [mt.RandRotate90d(keys, prob=augment.rot90, spatial_axes=(0, 1))]),
        (
            augment.zoom,
            [
                mt.RandZoomd(
                    keys,
                    prob=augment.zoom,
                    min_zoom=augment.zoom_range[0],
                    max_zoom=augment.zoom_range[1],
                    mode=("trilinear", "nearest-exact")[: len(keys)],
                )
            ],
        ),
        (augment.shift, [mt.RandShiftIntensityd("image", offsets=augment.shift_by, prob=augment.shift)]),
        (augment.gamma, [mt.RandAdjustContrastd("image", gamma=augment.gamma_range, prob=augment.gamma)]),
        (augment.noise, [mt.RandGaussianNoised("image", std=augment.noise_sd, prob=augment.noise)]),
    ]
    return [step for chance, steps in changes if chance > 0 for step in steps]
