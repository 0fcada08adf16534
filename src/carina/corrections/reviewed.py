"""Runs whose masks readers have looked at: how network and reader agree, and the data list for training."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date
from pathlib import Path

import msgspec
import numpy as np
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from carina.api.compared import scanned_on
from carina.api.result import Run
from carina.cases.datalist import DataList, ListedCase
from carina.corrections.decisions import DecisionRecord, decision_on
from carina.corrections.finish import SEG_NAMES, finished_folder, finished_of
from carina.corrections.masks import CORRECTIONS, MaskName, masks_made
from carina.corrections.standing import Decision, ReaderDecision, decision_fields
from carina.errors import BadConfig, unwritable
from carina.pipeline.folder import MANIFEST
from carina.pipeline.places import write_whole
from carina.volume.arrays import Doubles
from carina.volume.files import volume_name


class Reviewed(ReaderDecision, frozen=True, kw_only=True):
    """What holds for one mask of one run. Of a rejected mask there is no volume, no Dice and no ``mask_image``.

    ``case`` and ``patient`` are what a data list and a training's reports call it by, ``run`` is the folder.
    ``network_ml`` and ``reader_ml`` are what each marked; an accepted mask of the network agrees fully with itself.
    """

    case: str
    patient: str
    run: str
    study_date: date | None
    image: str
    mask_image: str
    layer: MaskName
    network_ml: float
    reader_ml: float | None
    dice: float | None

    @property
    def difference_ml(self) -> float | None:
        """What the network marked more than the reader."""
        return None if self.reader_ml is None else self.network_ml - self.reader_ml


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Network and readers over many runs, for one of the masks; of none that agree in any way, the rest is None.

    ``counts`` are of masks as they stand (`ReaderDecision`), each counted once.
    ``mean_ml`` is the mean difference of volumes, network minus reader; 95 % of the differences lie between
    ``lowest_ml`` and ``highest_ml`` where they are normally distributed (Bland and Altman 1986), None for one alone.
    """

    layer: MaskName
    counts: dict[str, int]
    median_dice: float | None = None
    mean_ml: float | None = None
    lowest_ml: float | None = None
    highest_ml: float | None = None


_SPREAD = 1.96


def runs_below(paths: Iterable[Path]) -> list[Path]:
    """Runs that readers have looked at, at or below some paths: a run, a cohort's folder, a node's.

    Raises:
        BadConfig: ``cases.none``, a path holds no run with a reader's decision.
    """
    found: dict[Path, None] = {}
    for path in paths:
        below = sorted(one.parent for depth in ("", "*/", "*/*/") for one in path.glob(f"{depth}{CORRECTIONS}"))
        runs = [one for one in below if (one / MANIFEST).is_file()]
        if not runs:
            raise BadConfig("cases.none", f"{path}: holds no run whose masks a reader has looked at (carina view RUN).")
        found |= dict.fromkeys(runs)
    return list(found)


def reviewed(folder: Path) -> Iterator[Reviewed]:
    """What readers decided about the masks of a run.

    Raises:
        BadConfig: ``corrections.damaged``.
    """
    run = Run(folder)
    for layer in masks_made(run):
        said = decision_on(run, layer)
        if said is not None:
            yield _reviewed(run, said)


def _reviewed(run: Run, said: DecisionRecord) -> Reviewed:
    """A decision with what it is about."""
    folder, image = run.folder, _image(run.folder)
    done = finished_of(folder, said.layer)
    is_rejected = said.decision is Decision.REJECTED
    agreed = done[-1].dice if done else 1.0
    return Reviewed(
        case=volume_name(image) if image else folder.name,
        patient=_patient(run),
        run=str(folder.resolve()),
        study_date=scanned_on(run),
        image=str(image or ""),
        mask_image="" if is_rejected else str(_mask_file(folder, said.layer).resolve()),
        layer=said.layer,
        **decision_fields(said),
        network_ml=done[-1].network_ml if done else said.marked_ml,
        reader_ml=None if is_rejected else said.marked_ml,
        dice=None if is_rejected else agreed,
    )


def agreement(rows: Sequence[Reviewed], layer: MaskName) -> Agreement:
    """How network and readers agree about one of the masks."""
    own = [one for one in rows if one.layer is layer]
    stand = [one.standing for one in own]
    counts = {decision.value: stand.count(decision) for decision in Decision}
    agreeing = [(one.dice, one.difference_ml) for one in own if one.decision is not Decision.REJECTED]
    if not agreeing:
        return Agreement(layer=layer, counts=counts)
    dices, differences = np.array(agreeing, np.float64).T
    lowest, highest = _limits(differences)
    return Agreement(
        layer=layer,
        counts=counts,
        median_dice=float(np.median(dices)),
        mean_ml=float(differences.mean()),
        lowest_ml=lowest,
        highest_ml=highest,
    )


def _limits(differences: Doubles) -> tuple[float, float] | tuple[None, None]:
    if len(differences) < 2:
        return None, None
    mean, spread = float(differences.mean()), _SPREAD * float(differences.std(ddof=1))
    return mean - spread, mean + spread


def reviewed_list(folders: Sequence[Path], file: Path) -> DataList:
    """A data list of what readers accepted or corrected: the CT, and each mask that holds; nothing that was rejected.

    A mask that nobody looked at is left out, as is a run of which none is left. Cases of one patient are told by a
    digest of Patient ID and its issuer, or where no object has one by the study.
    """
    cases = (case for folder in folders if (case := _listed(folder)) is not None)
    return DataList(file=file, training=tuple(cases))


def _listed(folder: Path) -> ListedCase | None:
    run = Run(folder)
    masks = {
        layer: str(_mask_file(folder, layer).resolve())
        for layer in masks_made(run)
        if (said := decision_on(run, layer)) and said.decision is not Decision.REJECTED
    }
    image = _image(folder)
    if not masks or image is None:
        return None
    return ListedCase(
        image=str(image),
        label_image=masks.get(MaskName.LESION, ""),
        lung_image=masks.get(MaskName.LUNG, ""),
        patient=_patient(run),
    )


def _image(folder: Path) -> Path | None:
    """The CT of a run."""
    volumes = sorted((folder / "volume").glob("*.mhd"))
    return volumes[0].resolve() if volumes else None


def _mask_file(folder: Path, layer: MaskName) -> Path:
    done = finished_of(folder, layer)
    place = finished_folder(folder, layer, done[-1].number) / "mask" if done else folder / layer
    return next(iter(sorted(place.glob("*.mhd"))))


def _patient(run: Run) -> str:
    study = str(run.manifest.inputs.get("study_uid", ""))
    for name in SEG_NAMES.values():
        path = run.folder / "dicom" / f"{name}.dcm"
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=["PatientID", "IssuerOfPatientID"])
        except (OSError, InvalidDicomError):
            continue
        if header.get("PatientID"):
            study = f"{header.PatientID}\n{header.get('IssuerOfPatientID', '')}"
            break
    return hashlib.sha256(study.encode()).hexdigest()[:16] if study else ""


REVIEWED_COLUMNS = (
    *("case", "patient", "run", "study_date", "mask"),
    *("decision", "correction", "reason", "reader", "painters", "finisher", "decided_at"),
    *("network_ml", "reader_ml", "network_minus_reader_ml", "dice", "image", "mask_image"),
)
"""Of the table of masks that readers looked at; ``case``, ``patient`` and ``image`` are those of the data list."""


def write_reviewed(rows: Sequence[Reviewed], file: Path) -> None:
    """The rows as CSV, with the differences; the file's folder is made.

    Raises:
        BadConfig: the place can't be written.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, REVIEWED_COLUMNS)
    table.writeheader()
    for row in rows:
        told = msgspec.to_builtins(row)
        told |= {"mask": told.pop("layer"), "decided_at": f"{row.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        told["painters"] = "; ".join(row.painters)
        del told["at"]
        figures = {"network_ml": row.network_ml, "reader_ml": row.reader_ml, "dice": row.dice}
        figures |= {"network_minus_reader_ml": row.difference_ml}
        table.writerow(told | {name: "" if value is None else round(value, 3) for name, value in figures.items()})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, text.getvalue().encode())
    except OSError as error:
        raise unwritable(error, file) from error
