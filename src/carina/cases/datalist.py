"""Data lists: the JSON files that name a training's images, masks and labels, in the form of Clara's and MONAI's lists.

``{"training": [{"image": "a.nii.gz", "label_image": "a-mask.nii.gz", "label": [0]}, ...], "validation": [...]}``.
For segmentation ``label_image`` is the mask to learn; where it is absent, ``label`` may be its path, as in lists of the
Medical Segmentation Decathlon. For classification ``label`` is the class and ``label_image`` the lung mask. A case
may have both masks: then ``lung_image`` is that of the lungs, for every task, and ``label_image`` that of the lesions.
``ignore_image`` marks where nothing is known, so that nothing is learnt there: lung around a tumour, say.
Paths are relative to the list's folder, or absolute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from carina.errors import BadConfig
from carina.pipeline.json_text import read_json
from carina.volume.files import volume_name

PARTS = ("training", "validation")

DESCRIPTIVE = frozenset(
    {"name", "description", "reference", "licence", "license", "release", "tensorImageSize", "modality", "labels"}
    | {"numTraining", "numValidation", "numTest", "numTesting", "test", "testing"}
)
"""Keys beside the two lists that other tools write and that no training needs."""


class ListedCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One case of a list: paths, relative to the list's folder or absolute, empty where there is none.

    ``label`` holds the class number, or nothing. Cases of one ``patient`` never come to lie in different folds;
    where it is empty, each image is a patient of its own.
    """

    image: str
    label_image: str = ""
    lung_image: str = ""
    ignore_image: str = ""
    label: tuple[int, ...] = ()
    patient: str = ""

    @property
    def name(self) -> str:
        """The image's file name without its suffix: how reports and ``leave_out`` call this case."""
        return volume_name(Path(self.image))

    @property
    def group(self) -> str:
        """The patient, or the image where no patient is given."""
        return self.patient or self.image


@dataclass(frozen=True, kw_only=True)
class DataList:
    """A data list as read from ``file``."""

    file: Path
    training: tuple[ListedCase, ...]
    validation: tuple[ListedCase, ...] = ()

    def path(self, listed: str) -> Path:
        """Where a listed path lies."""
        return self.file.parent / listed

    def numbered(self) -> Iterator[tuple[str, int, ListedCase]]:
        """Each case with its part's name and its number in it, from 1."""
        for part in PARTS:
            for number, case in enumerate(getattr(self, part), start=1):
                yield part, number, case


def read_datalist(file: Path) -> DataList:
    """Read a data list.

    Raises:
        BadConfig: the file is missing or no JSON, or a case has an unknown key or a value of the wrong kind.
    """
    try:
        content = read_json(file.read_bytes())
    except OSError as error:
        raise BadConfig(
            "datalist.missing", f"{file}: can't be read ({error.strerror}); expected a data list."
        ) from error
    except ValueError as error:
        raise BadConfig("datalist.json", f"{file}: is no JSON ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        raise BadConfig("datalist.form", f'{file}: expected {{"training": [...], "validation": [...]}}.')
    unknown = sorted(set(content) - set(PARTS) - DESCRIPTIVE)
    if unknown:
        raise BadConfig("datalist.key", f"{file}: unknown key {unknown[0]!r}; expected {' and '.join(PARTS)}.")
    training, validation = (_listed(file, part, content.get(part, [])) for part in PARTS)
    return DataList(file=file, training=training, validation=validation)


def write_datalist(data: DataList, file: Path) -> None:
    """Write ``data`` as JSON; paths stay as they are listed.

    Raises:
        BadConfig: the place can't be written.
    """
    content = {part: msgspec.to_builtins(getattr(data, part)) for part in PARTS}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadConfig("output.unwritable", f"{file}: can't be written ({error.strerror}).") from error


def with_fold(data: DataList, folds: int, fold: int) -> DataList:
    """Pool the list and take part ``fold`` (from 0) of ``folds`` for validation, patient by patient.

    Patients are dealt out like cards, those with a higher class label first, in an order that depends on their names
    alone: the same list gives the same folds, and classes spread evenly.

    Raises:
        BadConfig: there is no such fold, or fewer patients than folds.
    """
    if not (folds > 1 and 0 <= fold < folds):
        raise BadConfig("folds.range", f"fold {fold} of {folds}: expected 2 folds or more, and a fold from 0 on.")
    pool = data.training + data.validation
    label: dict[str, int] = {}
    for case in pool:
        label[case.group] = max(label.get(case.group, 0), *case.label, 0)
    if len(label) < folds:
        raise BadConfig("folds.few", f"{data.file}: holds {len(label)} patients, too few for {folds} folds.")
    dealt = sorted(label, key=lambda group: (-label[group], hashlib.sha256(group.encode()).hexdigest()))
    held = set(dealt[fold::folds])
    return replace(
        data,
        training=tuple(case for case in pool if case.group not in held),
        validation=tuple(case for case in pool if case.group in held),
    )


def without(data: DataList, names: Iterable[str]) -> DataList:
    """The list without the cases whose name or patient is one of ``names``, in either part."""
    dropped = set(names)
    training, validation = (
        tuple(case for case in getattr(data, part) if not {case.name, case.patient} & dropped) for part in PARTS
    )
    return replace(data, training=training, validation=validation)


def _listed(file: Path, part: str, cases: Any) -> tuple[ListedCase, ...]:
    if not isinstance(cases, list):
        raise BadConfig("datalist.form", f"{file}: {part} is no list of cases.")
    return tuple(_listed_case(f"{file}, case {number} of {part}", given) for number, given in enumerate(cases, start=1))


def _listed_case(where: str, given: Any) -> ListedCase:
    if not isinstance(given, dict):
        raise BadConfig("datalist.entry", f"{where}: expected an object with image and label_image.")
    unknown = sorted(set(given) - set(ListedCase.__struct_fields__))
    if unknown:
        known = ", ".join(ListedCase.__struct_fields__)
        raise BadConfig("datalist.key", f"{where}: unknown key {unknown[0]!r}; known are {known}.")
    values = dict(given)
    label = values.get("label", ())
    if isinstance(label, str) and "label_image" not in values:
        values["label_image"] = values.pop("label")
    elif isinstance(label, int):
        values["label"] = (label,)
    try:
        case = msgspec.convert(values, ListedCase)
    except msgspec.ValidationError as error:
        raise BadConfig("datalist.entry", f"{where}: {error}.") from error
    if not case.image:
        raise BadConfig("datalist.entry", f"{where}: image is empty; expected a path.")
    return case
