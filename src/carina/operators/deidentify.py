"""deidentify: the series without its patient, for whatever comes after it."""

from __future__ import annotations

import csv
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import Dataset

from carina.config import SHORTEST_KEY, Settings
from carina.dicom.confidentiality import Profile, Retained
from carina.dicom.decode import open_pixels
from carina.dicom.deidentify import check_drawn, deidentified
from carina.dicom.find import find_series, handed_source
from carina.dicom.objects import save_object
from carina.dicom.objects_header import study_uid
from carina.dicom.patients import are_several, patients_of
from carina.dicom.pseudonyms import Pseudonyms
from carina.dicom.series import Series
from carina.dicom.series_uids import give_uids, instance_digest, series_uids
from carina.dicom.whole_file import read_whole
from carina.errors import BadConfig, BadSeries
from carina.operators.ports import DicomObjects, SourcePort
from carina.pipeline.json_text import as_json
from carina.pipeline.operator import Context, Operator, Setting

MAP_FILE = "deidentification-map.csv"
"""In the run's folder, readable by the node's user alone; it is no result and goes nowhere."""

BEFORE_NAMED = 0.8
"""How much of the work is done when every instance is written, and what the series says is known."""


class Deidentified(NamedTuple):
    """The series for other operators, and its instances as objects to send."""

    source: SourcePort
    dicom: DicomObjects


class _Written(NamedTuple):
    """An instance under a UID that only the one it had decides."""

    file: Path
    original: str
    digest: str


def deidentify(
    source: SourcePort, *, retained: frozenset[Retained] = frozenset(), settings: Settings, context: Context
) -> Deidentified:
    """Take the patient out of a CT series, by the Basic Profile of DICOM PS3.15 with options.

    What is put after this operator, in place of the input, sees a series with other UIDs and no name: so do its
    results. Without its key (``[deidentify] key``) nobody finds the patient again; the map in the run's folder tells.

    Raises:
        BadConfig: the settings have no key.
        BadSeries: text may be drawn in the pixels, this is no DICOM series, or it is of several patients.
    """
    if not isinstance(source, Series):
        raise BadSeries("deidentify.no-dicom", "a volume file has no DICOM attributes: there is nothing to take out.")
    key = settings.deidentify.key
    if len(key.strip()) < SHORTEST_KEY:
        words = f"has {len(key.strip())} characters; pseudonyms follow from it, so give one of {SHORTEST_KEY} or more"
        raise BadConfig("deidentify.key", f"deidentify.key: {words}, secret and always the same.")
    pseudonyms = Pseudonyms(key.encode(), _patient(source), tuple(sorted(retained)))
    folder = Path(tempfile.mkdtemp(prefix=".deidentify-", dir=context.folder))
    written = list(_write(source, folder, Profile(retained), pseudonyms, context))
    files = [one.file for one in written]
    _write_map(pseudonyms, _give_uids(source.uid, written, pseudonyms, context), context.folder / MAP_FILE)
    context.record("files", [MAP_FILE])
    context.record("retained", sorted(retained))
    made = handed_source(find_series(folder, most_voxels=settings.limits.voxels))
    weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    return Deidentified(made, DicomObjects(objects=Instances(files, made)))


class Instances(Mapping[str, Dataset]):
    """Instances read from their files when they are asked for; the files last as long as the series does."""

    def __init__(self, files: list[Path], series: SourcePort) -> None:
        self._files, self._series = {file.stem: file for file in files}, series

    def __getitem__(self, name: str) -> Dataset:
        return read_whole(self._files[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _patient(series: Series) -> str:
    """What tells one patient from another: the ID with its issuer, or, where there is none, the study.

    It is that of the slices that name anybody, whichever is first; where each names another, as an anonymiser leaves
    them, none is the patient's.

    Raises:
        BadSeries: they are several patients' slices.
    """
    patients = list(patients_of(series.files))
    named = [file for file, patient in zip(series.files, patients, strict=True) if patient]
    number = len(set(patients) - {""})
    if are_several(patients):
        words = "slices of {number} patients are in it: give each one's a folder, and de-identify them one by one."
        raise BadSeries("deidentify.patients", words.format(number=number))
    if number > 1:
        return study_uid(series)
    header = read_whole(named[0], stop_before_pixels=True) if named else series.header
    found = str(header.get("PatientID") or "").strip()
    issuer = str(header.get("IssuerOfPatientID") or "").strip()
    return f"{issuer}\\{found}" if found else study_uid(series)


def _write(
    series: Series, folder: Path, profile: Profile, pseudonyms: Pseudonyms, context: Context
) -> Iterator[_Written]:
    uids = {instance.path: instance.sop_instance_uid for instance in series.instances if instance.frame in (None, 1)}
    for number, path in enumerate(series.files, start=1):
        header = read_whole(path, stop_before_pixels=True)
        check_drawn(header, f"slice {number}")
        pixels = open_pixels(path)
        frames = np.stack([pixels.stored(frame + 1) for frame in range(len(pixels.slices))])
        header.SOPInstanceUID = uids.get(path) or header.get("SOPInstanceUID", path.name)
        header.SeriesInstanceUID, header.StudyInstanceUID = series.uid, study_uid(series)
        made = deidentified(header, frames, profile, pseudonyms)
        file = save_object(made, folder / f"ct-{number:05}.dcm")
        yield _Written(file, str(header.SOPInstanceUID), instance_digest(made))
        context.progress(number / len(series.files) * BEFORE_NAMED)


def _give_uids(uid: str, written: Sequence[_Written], pseudonyms: Pseudonyms, context: Context) -> frozenset[str]:
    """Give series and instances the UIDs of what they say; gives every UID that is in them then."""
    originals, digests = [uid, *(one.original for one in written)], [one.digest for one in written]
    uids, standing = series_uids(originals, digests, pseudonyms), set[str]()
    for number, one in enumerate(written, start=1):
        made = read_whole(one.file)
        standing.update(give_uids(made, uids))
        save_object(made, one.file)
        context.progress(BEFORE_NAMED + number / len(written) * (1 - BEFORE_NAMED))
    return frozenset(standing)


def _write_map(pseudonyms: Pseudonyms, standing: frozenset[str], file: Path) -> None:
    file.unlink(missing_ok=True)
    file.touch(0o600, exist_ok=False)
    with file.open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(("kind", "original", "replacement"))
        rows = sorted((kind, original, new) for new, (kind, original) in pseudonyms.used.items())
        writer.writerows(row for row in rows if row[0] != "uid" or row[2] in standing)


def _options(text: str) -> frozenset[Retained]:
    """``dates,patient``: the options of the profile.

    Raises:
        ValueError: one isn't known.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in set(Retained)]
    if unknown:
        raise ValueError(f"expected some of {', '.join(Retained)}, with commas, not {as_json(unknown[0]).decode()}")
    return frozenset(map(Retained, words))


OPERATOR = Operator(
    name="deidentify",
    images=("carina/deidentify",),
    function=deidentify,
    inputs={"/input": "source"},
    outputs={"/output": "source", "/dicom": "dicom"},
    places={"/output": "deidentified", "/dicom": "dicom/ct"},
    replaces_input="/output",
    variables={
        "CARINA_RETAIN": Setting(
            parameter="retained",
            read=_options,
            meaning="options of the profile: dates, device, patient, descriptors, with commas",
        )
    },
)
