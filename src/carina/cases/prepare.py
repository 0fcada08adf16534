"""From folders of DICOM to a data list: images as NIfTI, lungs labelled, every label pictured so that it is looked at.

Lungs are labelled by `lung_labels`, a procedure of thresholds: it can't see consolidated lung, and it can fail. What
it refuses is left out and named; what it gets wrong only a look at the pictures tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from carina.cases.case import Case, native_labels, resample_case
from carina.cases.datalist import DataList, ListedCase, with_fold, write_datalist
from carina.dicom.find import Found, find_series, judge, name_of
from carina.dicom.read import read_source
from carina.dicom.rules import load_rules
from carina.dicom.series import VolumeFile
from carina.dicom.validity import valid_value
from carina.errors import BadConfig, BadSeries
from carina.report.overlay import layout, overlay_image
from carina.synth.chests import LUNG_NAMES
from carina.volume import Mask, Volume
from carina.volume.files import write_mask, write_volume

LIST_NAME = "data.json"

LUNG_TILE_PX = 400
AXIAL, CORONAL = 8, 4
"""Slices of each view on a case's sheet, four to a row."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How a list is made.

    ``ill`` names cases that show the disease: they get label 1, all others 0; without it nothing gets a label.
    ``validation`` is the share of patients for validation. ``sheets`` writes a picture of each case's lungs.
    """

    ill: tuple[str, ...] = ()
    validation: float = 0.2
    sheets: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The written list, and a sentence for each study that is not in it."""

    data: DataList
    failures: tuple[str, ...]


def prepare(
    source: Path, out: Path, settings: PrepareSettings, progress: Callable[[str], object] | None = None
) -> Prepared:
    """Make a data list of the best series of each study, and of each volume file, below ``source``.

    Writes ``images/NAME.nii.gz``, ``lungs/NAME.nii.gz``, perhaps ``sheets/NAME.png``, and ``data.json`` into ``out``;
    ``progress`` hears each name once its files are there. Studies that can't be used are named among the failures.

    Raises:
        BadSeries: nothing below ``source`` can be used.
        BadConfig: ``out`` can't be written, or ``settings`` name what is not there.
    """
    listed: list[ListedCase] = []
    failures: list[str] = []
    named = _named(source, _best_of_each(source, failures))
    unknown = sorted(set(settings.ill) - {name for name, _ in named})
    if unknown:
        known = ", ".join(name for name, _ in named) or "none"
        raise BadConfig("prepare.unknown", f"{unknown[0]!r} is no case; there are {known}.")
    for name, found in named:
        try:
            made = _prepared(name, found, out, settings)
        except BadSeries as error:
            failures.append(f"{name}: {error.message}")
            continue
        listed.append(made)
        if progress is not None:
            progress(name)
    if not listed:
        raise BadSeries("series.none-fits", f"{source}: no series can be used: {' '.join(failures)}")
    data = split(DataList(file=out / LIST_NAME, training=_told_apart(listed)), settings.validation)
    write_datalist(data, data.file)
    return Prepared(data=data, failures=tuple(failures))


def split(data: DataList, share: float) -> DataList:
    """About ``share`` of the patients for validation, at least one and never all; 0, or one patient only: none."""
    patients = len({case.group for case in data.training + data.validation})
    folds = min(patients, round(1 / share)) if share > 0 else 0
    return with_fold(data, folds, 0) if folds > 1 else data


def lung_sheet(volume: Volume, lung: Mask, title: str) -> Image.Image:
    """Axial and coronal slices with the lungs outlined, to be looked at."""
    tiles: list[Image.Image] = []
    for view, count in (("axial", AXIAL), ("coronal", CORONAL)):
        normal = layout(volume.grid, view).normal
        filled = np.flatnonzero(lung.labels.any(axis=tuple(k for k in range(3) if k != normal)))
        tiles += [overlay_image(volume, lung, None, index, view) for index in _spread(filled, count)]
    return montage(tiles, 4, LUNG_TILE_PX, title)


def montage(tiles: Sequence[Image.Image], columns: int, tile_px: int, title: str = "") -> Image.Image:
    """Pictures side by side, each fitted into a square of ``tile_px``, under a line of words."""
    head = 28 if title else 0
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * tile_px, rows * tile_px + head))
    for number, tile in enumerate(tiles):
        small = tile.copy()
        small.thumbnail((tile_px - 2, tile_px - 2))
        row, column = divmod(number, columns)
        sheet.paste(small, (column * tile_px, row * tile_px + head))
    if title:
        ImageDraw.Draw(sheet).text((8, 4), title, font=ImageFont.load_default(16), fill=(235, 235, 235))
    return sheet


def _spread(values: npt.NDArray[np.intp], count: int) -> list[int]:
    """``count`` of the values, evenly spread and away from both ends."""
    at = (np.arange(count) + 0.5) / count * len(values)
    return [int(values[int(place)]) for place in at]


def _best_of_each(source: Path, failures: list[str]) -> Iterator[Found]:
    """The taken series of each study and every volume file that can be used; the others are named."""
    rules = load_rules()
    groups: dict[str, list[Found]] = {}
    for found in find_series(source, rules):
        own = isinstance(found.source, VolumeFile) or not found.study_uid
        groups.setdefault(str(found.path) if own else found.study_uid, []).append(found)
    for group in groups.values():
        judged = judge(group, rules)
        taken = next((one for one in judged if one.taken), None)
        if taken is not None:
            yield taken
        else:
            failures += [f"{_inside(source, one)}: {one.reason.removeprefix(f'{name_of(one)}: ')}" for one in judged]


def _inside(source: Path, found: Found) -> Path:
    """Where something lies below ``source``; its name where it lies elsewhere."""
    return found.path.relative_to(source) if found.path.is_relative_to(source) else Path(found.path.name)


def _named(source: Path, chosen: Iterable[Found]) -> list[tuple[str, Found]]:
    """Each with a name of its own: its folder below ``source``, or its file; sorted, so that the order is no chance."""
    named: dict[str, Found] = {}
    for found in sorted(chosen, key=lambda one: (str(one.path), one.uid)):
        inside = _inside(source, found)
        if isinstance(found.source, VolumeFile):
            base = found.source.uid
        else:
            base = inside.parts[0] if inside.parts else source.resolve().name
        name, number = base, 1
        while name in named:
            number += 1
            name = f"{base}-{number}"
        named[name] = found
    return list(named.items())


def _prepared(name: str, found: Found, out: Path, settings: PrepareSettings) -> ListedCase:
    """Write one case's files and return how it is listed."""
    if found.source is None:
        raise BadSeries("series.unreadable", f"{found.path.name}: can't be read.")
    volume = read_source(found.source)
    labels = native_labels(resample_case(Case(name=name, volume=volume)).lungs, volume)
    lung = Mask(labels=labels, grid=volume.grid, names=LUNG_NAMES, uid=volume.uid)
    image_file, lung_file = f"images/{name}.nii.gz", f"lungs/{name}.nii.gz"
    write_volume(volume, out / image_file)
    write_mask(lung, out / lung_file)
    if settings.sheets:
        folder = out / "sheets"
        folder.mkdir(parents=True, exist_ok=True)
        lung_sheet(volume, lung, f"{name}: lungs {lung.volume_ml():.0f} ml").save(folder / f"{name}.png")
    label = (int(name in settings.ill),) if settings.ill else ()
    return ListedCase(image=image_file, lung_image=lung_file, label=label, patient=_patient(found) or name)


def _patient(found: Found) -> str:
    """A word for the patient that does not tell who it is, empty where the series does not say."""
    if found.source is None or isinstance(found.source, VolumeFile):
        return ""
    given = valid_value(found.source.header, "PatientID")
    return hashlib.sha256(given.encode()).hexdigest()[:12] if given else ""


def _told_apart(cases: Sequence[ListedCase]) -> tuple[ListedCase, ...]:
    """The cases with the case's name for the patient where all series carry one Patient ID: then it tells nothing."""
    if len(cases) > 1 and len({case.patient for case in cases}) == 1:
        return tuple(msgspec.structs.replace(case, patient=case.name) for case in cases)
    return tuple(cases)
