"""Synthetic cases: a data list of chests with synthetic disease, in listed lungs that are free of it or in phantoms."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from carina.cases.datalist import PARTS, DataList, Item, write_datalist
from carina.cases.prepare import LIST_NAME, split
from carina.cases.purpose import Task
from carina.cases.reading import is_unusable, lesion_of, lung_of
from carina.errors import BadConfig, BadSeries
from carina.synth.chests import Chest, Synthetic, SynthSettings, Truth, phantom_chests, synthesise
from carina.volume.files import read_mask, read_volume, write_mask, write_volume

TRUTH_NAME = "lesions.csv"


def listed_chests(data: DataList) -> list[tuple[str, Item]]:
    """The list's entries with a lung mask and without disease, each with the name of its part.

    Raises:
        BadConfig: there is none.
    """
    found = [
        (part, item)
        for part, _, item in data.entries()
        if lung_of(item, Task.COVID) and not is_unusable(item, Task.COVID) and not lesion_of(item, Task.COVID)
    ]
    if not found:
        raise BadConfig("synth.no-lungs", f"{data.file}: no entry has a lung mask and no disease (label 1).")
    return found


def read_chest(data: DataList, part: str, item: Item) -> Chest:
    """Read one entry of a list.

    Raises:
        BadSeries: a file can't be read, or the lung mask does not lie on the image's voxels.
    """
    volume, lung = read_volume(data.path(item.image)), read_mask(data.path(lung_of(item, Task.COVID)))
    if volume.grid.shape != lung.grid.shape:
        raise BadSeries("mask.grid", f"{item.image}: its lung mask has other voxels than the image; make it again.")
    return Chest(name=item.name, patient=item.group, part=part, volume=volume, lung=lung)


def write_synthetic(
    out: Path, settings: SynthSettings, data: DataList | None = None, progress: Callable[[str], object] | None = None
) -> DataList:
    """Synthesise ``settings.count`` cases in the lungs of ``data``, or in phantoms, and write them with their list.

    Writes images, lesion masks and lung masks as NIfTI, ``data.json``, and ``lesions.csv`` with each lesion's truth.
    Cases stay in the part of the list that their lungs are in.

    Raises:
        BadSeries, BadConfig: lungs can't be read, or ``out`` can't be written.
    """
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    truths: list[tuple[str, Truth]] = []
    for number, chest in _chests(settings, data):
        made = synthesise(chest, settings, np.random.default_rng([settings.seed, number]))
        item = _write(f"synth-{number + 1:04d}", chest, made, out)
        is_held = chest.part == "validation"
        parts["validation" if is_held else "training"].append(item)
        truths += [(item.name, one) for one in made.truth]
        if progress is not None:
            progress(item.name)
    training, validation = (tuple(sorted(parts[part], key=lambda item: item.name)) for part in PARTS)
    written = DataList(file=out / LIST_NAME, training=training, validation=validation)
    written = written if validation else split(written, settings.validation)
    write_datalist(written, written.file)
    _write_truths(out / TRUTH_NAME, truths)
    return written


def _chests(settings: SynthSettings, data: DataList | None) -> Iterator[tuple[int, Chest]]:
    """Number and chest of each case; each listed chest is read once and used for every case that falls to it."""
    if data is None:
        yield from enumerate(phantom_chests(settings))
        return
    listed = listed_chests(data)
    for place, (part, item) in enumerate(listed[: settings.count]):
        chest = read_chest(data, part, item)
        for number in range(place, settings.count, len(listed)):
            yield number, chest


def _write(name: str, chest: Chest, made: Synthetic, out: Path) -> Item:
    """Write one case's files and return its entry."""
    item = Item(
        image=f"images/{name}.nii.gz",
        label_image=f"lesions/{name}.nii.gz",
        lung_image=f"lungs/{name}.nii.gz",
        label=(int(bool(made.truth)),),
        patient=chest.patient,
    )
    write_volume(made.volume, out / item.image)
    write_mask(made.lesion, out / item.label_image)
    write_mask(made.lung, out / item.lung_image)
    return item


def _write_truths(file: Path, truths: list[tuple[str, Truth]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("case", "kind", "size", "lesion_ml", "x_mm", "y_mm", "z_mm"))
        for case, one in sorted(truths, key=lambda pair: pair[0]):
            place = (f"{value:.1f}" for value in one.centre_mm)
            writer.writerow((case, one.kind, one.size, f"{one.lesion_ml:.3f}", *place))
