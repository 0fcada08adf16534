"""Series, masks, findings and validators that the tests of written objects share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from carina.dicom.objects import Producer, save_object
from carina.dicom.series import Instance, Series
from carina.dicom.sr import Makers
from carina.measure.findings import RatioFindings, RegionFindings
from carina.volume import Grid, Mask

PRODUCER = Producer(
    model_creator="Carina",
    model_name="lung-ahnet",
    model_version="0.1.0",
    bundle_sha256="ab" * 32,
    software_version="0.1.0",
    when=datetime(2026, 1, 2, 3, 4, 5),
)

LESION_PRODUCER = replace(PRODUCER, model_name="lesion-segresnet", model_version="0.2.0", bundle_sha256="cd" * 32)

CLASSIFIER = replace(PRODUCER, model_name="covid-densenet", model_version="0.3.0", bundle_sha256="ef" * 32)

MAKERS = Makers(lung=PRODUCER, lesion=LESION_PRODUCER, classifier=CLASSIFIER)

SHAPE = (12, 40, 52)
"""Slices, rows, columns; 40 x 52 bits end within a byte, so frames are packed across byte borders."""

REGIONS = ("lungs", "left lung", "right lung", "left lung upper third", "right lung lower third")


def tool(name: str) -> str:
    """A validator's path; without it the test skips, except in CI, where it must be there."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing; scripts/test installs it")
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def errors_of(path: Path) -> list[str]:
    done = subprocess.run([tool("dciodvfy"), "-new", path], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert said, "dciodvfy said nothing"
    return [line for line in said if line.startswith("Error")]


def make_series(header: Dataset | None = None, *, frames: bool = False, flipped: bool = False) -> Series:
    """A series without pixels; ``flipped`` has rows towards the front and columns towards the right of the patient."""
    sign = -1.0 if flipped else 1.0
    instances = tuple(
        Instance(
            path=Path(f"{k}.dcm"),
            sop_instance_uid="1.2.3.4.100" if frames else f"1.2.3.4.{k + 1}",
            sop_class_uid=EnhancedCTImageStorage if frames else CTImageStorage,
            position_mm=(-17.5 * sign, -21.25 * sign, -300.0 + 2.5 * k),
            frame=k + 1 if frames else None,
        )
        for k in range(SHAPE[0])
    )
    return Series(
        uid="1.2.3.4",
        study_uid="1.2.3",
        frame_of_reference_uid="1.2.3.5",
        header=header if header is not None else full_header(),
        instances=instances,
        rows=SHAPE[1],
        columns=SHAPE[2],
        pixel_spacing_mm=(0.75, 0.7),
        slice_axes=((0.0, 0.0, 1.0), (0.0, sign, 0.0), (sign, 0.0, 0.0)),
    )


def full_header() -> Dataset:
    header = Dataset()
    header.PatientName, header.PatientID = "Doe^Jane", "P-1"
    header.PatientBirthDate, header.PatientSex, header.PatientAge = "19500102", "F", "070Y"
    header.StudyDate, header.StudyTime, header.StudyID, header.AccessionNumber = "20200304", "101112", "S1", "A1"
    header.ReferringPhysicianName = "Roe^Richard"
    header.StudyDescription, header.SeriesDescription = "CT chest", "lung"
    return header


def make_mask(series: Series, *, empty: bool = False, two: bool = True) -> Mask:
    labels = np.zeros(SHAPE, np.uint8)
    if not empty:
        labels[2:9, 5:30, 3:20] = 1
        labels[4:8, 7:33, 30:49] = 2 if two else 1
        labels[6, 10, 10] = 0
    grid = Grid(
        shape=SHAPE,
        spacing_mm=(2.5, *series.pixel_spacing_mm),
        origin_mm=series.instances[0].position_mm,
        axes=series.slice_axes,
    )
    names = {1: "left lung", 2: "right lung"} if two else {1: "COVID-19 lesion"}
    return Mask(labels=labels, grid=grid, names=names, uid=series.uid)


def make_ratio(lesion_ml: float) -> RatioFindings:
    regions = tuple(
        RegionFindings(
            region=name,
            lung_ml=4000.0,
            lesion_ml=lesion_ml,
            ratio_percent=lesion_ml / 40,
            lung_mean_hu=-812.5,
            lesion_mean_hu=-450.25 if lesion_ml else None,
        )
        for name in REGIONS
    )
    return RatioFindings(uid="1.2.3.4", regions=regions, lesion_count=3 if lesion_ml else 0)


def saved(dataset: Dataset, folder: Path, name: str = "object.dcm") -> Path:
    return save_object(dataset, folder / name)


def pdf_bytes() -> bytes:
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas("", invariant=1)
    canvas.drawString(100, 700, "A report")
    data = bytes(canvas.getpdfdata())
    return data if len(data) % 2 else data + b"\n"


def placed(path: Path, folder: Path) -> dict[int, np.ndarray]:
    """Each segment as dcmqi reads it: the sorted centres of its voxels in mm, ``(voxels, 3)`` LPS."""
    folder.mkdir()
    run(tool("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd")
    found = {}
    for file in sorted(folder.glob("*.nrrd")):
        image = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(image)
        where = np.argwhere(array > 0)[:, ::-1]
        turn = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        found[int(file.stem)] = rounded(where @ turn.T + np.array(image.GetOrigin()))
    return found


def rounded(points_mm: np.ndarray) -> np.ndarray:
    rows = np.round(points_mm, 2) + 0.0
    return rows[np.lexsort(rows.T)]


def truth(mask: Mask, label: int) -> np.ndarray:
    return rounded(mask.grid.points_mm(np.argwhere(mask.labels == label)))


def evidence_of(report: Dataset) -> set[str]:
    """SOP instance UIDs of everything that a report lists as its evidence."""
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
