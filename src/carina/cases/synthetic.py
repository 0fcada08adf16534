"""Synthetic cases: a data list of chests with synthetic disease, in listed lungs that are free of it or in phantoms."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carina.cases.datalist import PARTS, DataList, ListedCase, write_datalist
from carina.cases.prepare import LIST_NAME, split
from carina.cases.purpose import Task
from carina.cases.reading import is_unusable, lesion_of, lung_of, read_case
from carina.errors import BadConfig
from carina.synth.chests import Chest, DrawnTruth, Synthetic, SynthSettings, phantom_chests, synthesise
from carina.volume.files import write_mask, write_volume

TRUTH_NAME = "lesions.csv"


def healthy_cases(data: DataList) -> list[tuple[str, ListedCase]]:
    """The list's cases with a lung mask and without disease, each with the name of its part.

    Raises:
        BadConfig: there is none.
    """
    found = [
        (part, listed)
        for part, _, listed in data.numbered()
        if lung_of(listed, Task.COVID) and not is_unusable(listed, Task.COVID) and not lesion_of(listed, Task.COVID)
    ]
    if not found:
        raise BadConfig("synth.no-lungs", f"{data.file}: no case has a lung mask and no disease (label 1).")
    return found


def read_chest(data: DataList, listed: ListedCase) -> Chest:
    """Read the image and the lungs of a listed case that has a lung mask.

    Raises:
        BadSeries: a file can't be read, or the lung mask does not lie on the image's voxels.
    """
    case = read_case(data, listed, Task.COVID, ("lung",))
    assert case.lung is not None
    return Chest(name=case.name, volume=case.volume, lung=case.lung)


def write_synthetic(
    out: Path, settings: SynthSettings, data: DataList | None = None, progress: Callable[[str], object] | None = None
) -> DataList:
    """Synthesise ``settings.count`` cases in the lungs of ``data``, or in phantoms, and write them with their list.

    Writes images, lesion masks and lung masks as NIfTI, ``data.json``, and ``lesions.csv`` with each lesion's truth.
    Cases stay in the part of the list that their lungs are in.

    Raises:
        BadSeries, BadConfig: lungs can't be read, or ``out`` can't be written.
    """
    parts: dict[str, list[ListedCase]] = {part: [] for part in PARTS}
    truths: list[tuple[str, DrawnTruth]] = []
    for host in _hosts(settings, data):
        made = synthesise(host.chest, settings, np.random.default_rng([settings.seed, host.number]))
        written = _write(host, made, out)
        parts[host.part].append(written)
        truths += [(written.name, one) for one in made.truth]
        if progress is not None:
            progress(written.name)
    training, validation = (tuple(sorted(parts[part], key=lambda listed: listed.name)) for part in PARTS)
    made_list = DataList(file=out / LIST_NAME, training=training, validation=validation)
    made_list = made_list if validation else split(made_list, settings.validation)
    write_datalist(made_list, made_list.file)
    _write_truths(out / TRUTH_NAME, truths)
    return made_list


@dataclass(frozen=True, kw_only=True, eq=False)
class _Host:
    """A chest that takes disease: for the case of which number, whose it is, and its part of the list."""

    number: int
    chest: Chest
    patient: str
    part: str


def _hosts(settings: SynthSettings, data: DataList | None) -> Iterator[_Host]:
    """The chest of each case; each listed chest is read once and used for every case that falls to it."""
    if data is None:
        for number, chest in enumerate(phantom_chests(settings)):
            yield _Host(number=number, chest=chest, patient=chest.name, part="training")
        return
    healthy = healthy_cases(data)
    for first, (part, listed) in enumerate(healthy[: settings.count]):
        chest = read_chest(data, listed)
        for number in range(first, settings.count, len(healthy)):
            yield _Host(number=number, chest=chest, patient=listed.group, part=part)


def _write(host: _Host, made: Synthetic, out: Path) -> ListedCase:
    """Write one case's files and return how it is listed."""
    name = f"synth-{host.number + 1:04d}"
    listed = ListedCase(
        image=f"images/{name}.nii.gz",
        label_image=f"lesions/{name}.nii.gz",
        lung_image=f"lungs/{name}.nii.gz",
        label=(int(bool(made.truth)),),
        patient=host.patient,
    )
    write_volume(made.volume, out / listed.image)
    write_mask(made.lesion, out / listed.label_image)
    write_mask(made.lung, out / listed.lung_image)
    return listed


def _write_truths(file: Path, truths: list[tuple[str, DrawnTruth]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("case", "kind", "size", "lesion_ml", "x_mm", "y_mm", "z_mm"))
        for case, one in sorted(truths, key=lambda pair: pair[0]):
            place = (f"{value:.1f}" for value in one.centre_mm)
            writer.writerow((case, one.kind, one.size, f"{one.lesion_ml:.3f}", *place))
