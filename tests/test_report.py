"""Overlays lie the right way round, key slices are the telling ones, pages say what was found."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from carina import RESEARCH_ONLY
from carina.dicom.objects import Producer
from carina.dicom.series import Instance, Series, VolumeFile
from carina.errors import BadConfig
from carina.measure.findings import Classification, RatioFindings, RegionFindings
from carina.measure.key_slices import choose
from carina.report.facts import ReportFacts, report_facts
from carina.report.overlay import overlay_image, overlay_png
from carina.report.pages import classification_pdf, ratio_pdf
from carina.report.paint import LESION_RGB, LUNG_RGB
from carina.volume import Grid, Mask, Volume

WHEN = datetime(2026, 1, 2, 3, 4)

MODEL = Producer(
    model_creator="Carina",
    model_name="lesion-segresnet",
    model_version="0.1.0",
    bundle_sha256="4fe1ab09" * 8,
    software_version="0.1.0",
    when=WHEN,
)

STANDARD = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
STORED = {
    "standard": STANDARD,
    "head first in the array": ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    "rows and columns backwards": ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)),
    "sagittal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "rows from left to right": ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}
"""Axes of the array (z, y, x) in LPS."""


def body(axes: tuple[tuple[float, float, float], ...] = STANDARD) -> tuple[Volume, Mask, Mask]:
    """A box of tissue, 240 x 160 x 120 mm (x, y, z), with a lesion in its right, front, upper eighth."""
    size_mm = np.abs(np.array(axes) @ np.array([240.0, 160.0, 120.0]))
    spacing = np.abs(np.array(axes) @ np.array([2.0, 4.0, 5.0]))
    shape = tuple(int(v) for v in np.round(size_mm / spacing))
    first = -(np.array(axes).T @ (np.array(spacing) * (np.array(shape) - 1) / 2))
    grid = Grid(shape=shape, spacing_mm=tuple(spacing), origin_mm=tuple(first), axes=axes)  # type: ignore[arg-type]
    points = grid.points_mm(np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1))
    x, y, z = np.moveaxis(points, -1, 0)
    lesion = (np.abs(x + 80) < 20) & (np.abs(y + 40) < 20) & (np.abs(z - 30) < 20)
    lung = (np.abs(np.abs(x) - 60) < 50) & (np.abs(y) < 70) & (np.abs(z) < 50)
    hu = np.where(lung, -850, 40).astype(np.int16)
    masks = [
        Mask(labels=flags.astype(np.uint8), grid=grid, names={1: name}, uid="1.2.3")
        for flags, name in ((lung, "lungs"), (lesion, "lesion"))
    ]
    return Volume(hu=hu, grid=grid, uid="1.2.3"), masks[0], masks[1]


def near(picture: Image.Image, rgb: tuple[int, int, int]) -> np.ndarray:
    away = np.abs(np.asarray(picture, np.int32) - np.array(rgb)).sum(axis=2)
    return np.argwhere(away < 60)


# Overlays


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(
    ("view", "height_to_width", "place"),
    [
        ("axial", 160 / 240, (1 / 4, 1 / 6)),
        ("coronal", 120 / 240, (1 / 4, 1 / 6)),
        ("sagittal", 120 / 160, (1 / 4, 1 / 4)),
    ],
)
def test_a_view_is_the_same_however_the_voxels_are_stored(
    stored: str, view: str, height_to_width: float, place: tuple[float, float]
) -> None:
    """The patient's right and front are on the left, front and head on top, and millimetres are square."""
    volume, lung, lesion = body(STORED[stored])
    picture = overlay_image(volume, lung, lesion, view=view)
    assert picture.height / picture.width == pytest.approx(height_to_width, abs=0.01)
    rows, columns = near(picture, LESION_RGB).mean(axis=0) / (picture.height, picture.width)
    assert (rows, columns) == pytest.approx(place, abs=0.02)
    assert len(near(picture, LUNG_RGB)) > 100


def test_the_default_slice_shows_most_lesion_else_most_lung_else_the_middle() -> None:
    volume, lung, lesion = body()
    nothing = replace(lesion, labels=np.zeros_like(lesion.labels))
    some = lesion.labels.copy()
    some[17] = 0
    some[17, 5, 5:9] = 1
    many = replace(lesion, labels=some)
    fullest = int(np.argmax(np.count_nonzero(some, axis=(1, 2))))
    assert overlay_png(volume, lung, many) == overlay_png(volume, lung, many, index=fullest)
    assert overlay_png(volume, None, None) == overlay_png(volume, None, None, index=12)
    first_lung = int(np.flatnonzero(lung.labels.any(axis=(1, 2)))[0])
    assert overlay_png(volume, lung, nothing) == overlay_png(volume, lung, nothing, index=first_lung)


def test_an_overlay_is_a_png_and_the_same_each_time() -> None:
    volume, lung, lesion = body()
    data = overlay_png(volume, lung, lesion)
    assert Image.open(io.BytesIO(data)).size == (720, 480)
    assert data == overlay_png(volume, lung, lesion)


def test_an_unknown_view_or_slice_is_refused() -> None:
    volume, lung, lesion = body()
    with pytest.raises(BadConfig, match="'oblique' is not known; use axial, coronal, sagittal"):
        overlay_png(volume, lung, lesion, view="oblique")
    with pytest.raises(BadConfig, match="no axial slice 24; the volume has 0 to 23"):
        overlay_png(volume, lung, lesion, index=24)


# Key slices


def masks(shape: tuple[int, int, int] = (60, 20, 20)) -> tuple[Mask, Mask]:
    grid = Grid(shape=shape, spacing_mm=(2.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0))
    lung, lesion = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    lung[10:50, 2:18, 2:18] = 1
    return (
        Mask(labels=lung, grid=grid, names={1: "lungs"}, uid="u"),
        Mask(labels=lesion, grid=grid, names={1: "lesion"}, uid="u"),
    )


def test_the_largest_lesion_areas_are_chosen_apart_from_each_other() -> None:
    lung, lesion = masks()
    for k, width in ((14, 3), (15, 5), (16, 4), (30, 9), (44, 7)):
        lesion.labels[k, 5:8, 3 : 3 + width] = 1
    chosen = choose(None, lung, lesion, count=3)
    assert [key.index for key in chosen] == [44, 30, 15], "from the head downwards"
    assert all(key.hu is None for key in chosen)
    assert np.count_nonzero(chosen[0].lesion) == 21 and chosen[0].spacing_mm == (1.0, 1.0)


def test_slices_fill_up_where_lesions_are_few_and_spread_where_there_are_none() -> None:
    lung, lesion = masks()
    assert [key.index for key in choose(None, lung, lesion, count=4)] == [45, 35, 25, 15]
    lesion.labels[12, 5, 5] = 1
    indices = [key.index for key in choose(None, lung, lesion, count=4)]
    assert 12 in indices and len(indices) == 4 and indices == sorted(indices, reverse=True)
    nothing = replace(lung, labels=np.zeros_like(lung.labels))
    assert [key.index for key in choose(None, nothing, None, count=3)] == [50, 30, 10]


# Pages


def header() -> Dataset:
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = "Doe^Jane", "P-<1> & ŁЖα山", "ACC-7"
    dataset.StudyDate, dataset.SeriesDescription, dataset.ConvolutionKernel = "20200304", "Chest 2.0", "B60f"
    return dataset


def facts(grid: Grid | None = None, **more: object) -> ReportFacts:
    place = Instance(path=Path("0.dcm"), sop_instance_uid="1.2.3.1", sop_class_uid="1", position_mm=(0.0, 0.0, 0.0))
    series = Series(
        uid="1.2.3",
        study_uid="1.2",
        frame_of_reference_uid="1.4",
        header=header(),
        instances=(place,),
        rows=2,
        columns=2,
        pixel_spacing_mm=(1.0, 1.0),
        slice_axes=STANDARD,
        warnings=("Gantry tilt of 12.0 degrees was corrected by resampling.",),
    )
    return report_facts(series, (MODEL,), grid, **more)  # type: ignore[arg-type]


REGIONS = (
    "lungs",
    "left lung",
    "right lung",
    *(f"{side} lung {third} third" for side in ("left", "right") for third in ("upper", "middle", "lower")),
)


def ratio(lesion_ml: float = 52.0, *, with_hu: bool = True) -> RatioFindings:
    volume, lung, lesion = body()
    if not lesion_ml:
        lesion = replace(lesion, labels=np.zeros_like(lesion.labels))
    regions = tuple(
        RegionFindings(
            region=name,
            lung_ml=3905.4,
            lesion_ml=lesion_ml,
            ratio_percent=lesion_ml / 39.054,
            lung_mean_hu=-836.0 if with_hu else None,
            lesion_mean_hu=-494.0 if with_hu and lesion_ml else None,
        )
        for name in REGIONS
    )
    return RatioFindings(
        uid="1.2.3",
        regions=regions,
        lesion_count=3 if lesion_ml else 0,
        key_slices=choose(volume if with_hu else None, lung, lesion),
        warnings=("1 lesion of 0.20 ml touches no lung.",),
    )


def text_of(pdf: bytes, folder: Path) -> list[str]:
    """The words of each page, as poppler reads them."""
    if shutil.which("pdftotext") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("pdftotext is missing; scripts/test installs poppler-utils")
        pytest.skip("pdftotext is not installed")
    path = folder / "report.pdf"
    path.write_bytes(pdf)
    done = subprocess.run(["pdftotext", "-layout", path, "-"], capture_output=True, check=True)
    assert done.stderr == b""
    return [" ".join(page.split()) for page in done.stdout.decode().split("\f")[:-1]]


def test_every_font_is_in_the_file() -> None:
    pdf = ratio_pdf(ratio(), facts(body()[0].grid))
    fonts = set(re.findall(rb"/BaseFont /([^ ]+) ", pdf))
    assert len(fonts) == 2 and all(b"+SourceSansPro" in name for name in fonts)
    assert pdf.count(b"/FontFile2") == 2


def test_the_ratio_pages_say_what_was_found(tmp_path: Path) -> None:
    pdf = ratio_pdf(ratio(), facts(body()[0].grid))
    pages = text_of(pdf, tmp_path)
    assert len(pages) == 2 and all(RESEARCH_ONLY in page for page in pages)
    first = pages[0]
    assert "1.33 %" in first and "of the lung volume is marked as lesion" in first
    assert "52.0 ml of 3 905 ml; 3 separate lesions, mean \u2013494 HU" in first.replace("\u00a0", " ")
    assert "P-<1> & ŁЖα?" in first and "ACC-7" in first and "2020-03-04" in first and "Chest 2.0" in first
    assert "Jane" not in first and "Doe" not in first
    assert "lesion-segresnet 0.1.0" in first and "4fe1ab094fe1ab09" in first
    assert "Gantry tilt of 12.0 degrees" in first and "touches no lung" in first
    assert [first.count(f"{third} third") for third in ("Upper", "Middle", "Lower")] == [2, 2, 2]
    assert "Page 2 of 2" in pages[1] and "the patient's right (R) is on the left" in pages[1]
    assert len(pdf) < 1_000_000


def test_nothing_found_reads_as_a_result(tmp_path: Path) -> None:
    first = text_of(ratio_pdf(ratio(0.0), facts()), tmp_path)[0].replace("\u00a0", " ")
    assert "No lesion was marked in 3 905 ml of lung" in first
    assert "does not exclude disease" in first and "nan" not in first


def test_no_lung_reads_as_a_result(tmp_path: Path) -> None:
    nothing = tuple(RegionFindings(region=name, lung_ml=0.0, lesion_ml=0.0, ratio_percent=0.0) for name in REGIONS)
    found = RatioFindings(uid="1.2.3", regions=nothing, lesion_count=0)
    assert "No lung was found in this series" in text_of(ratio_pdf(found, facts()), tmp_path)[0]


def test_without_ct_the_pages_show_the_masks_and_no_hu(tmp_path: Path) -> None:
    pages = text_of(ratio_pdf(ratio(with_hu=False), facts()), tmp_path)
    assert "HU" not in " ".join(pages) and "Slices with the largest lesion area" in pages[-1]


def test_the_classification_page_shows_both_probabilities_and_what_they_are_worth(tmp_path: Path) -> None:
    volume, lung, lesion = body()
    found = Classification(
        uid="1.2.3",
        probabilities={"non-COVID-19": 0.169, "COVID-19": 0.831},
        key_slices=choose(volume, lung, lesion, count=3),
    )
    pdf = classification_pdf(found, facts(volume.grid, demonstration="A demonstration: trained on synthetic disease."))
    (page,) = text_of(pdf, tmp_path)
    assert RESEARCH_ONLY in page and "0.831" in page and "0.169" in page
    assert page.index("0.831") < page.index("0.169")
    assert "A demonstration: trained on synthetic disease." in page
    assert "not the chance that this patient has COVID-19" in page
    assert len(pdf) < 1_000_000


def test_a_classification_that_was_not_computed_says_why(tmp_path: Path) -> None:
    found = Classification(uid="1.2.3", probabilities={}, not_computed="No lung was found, so nothing was classified.")
    (page,) = text_of(classification_pdf(found, facts()), tmp_path)
    assert "No lung was found, so nothing was classified." in page and "0.5" not in page


def test_the_same_values_give_the_same_bytes() -> None:
    assert ratio_pdf(ratio(), facts()) == ratio_pdf(ratio(), facts())


def test_a_volume_file_has_facts_without_a_patient(tmp_path: Path) -> None:
    said = report_facts(VolumeFile(path=Path("a.nii.gz"), uid="a"), (MODEL,), warnings=("No DICOM objects.",))
    assert (said.patient_id, said.series_uid, said.made_at) == ("", "a", WHEN)
    assert "No DICOM objects." in text_of(ratio_pdf(ratio(), said), tmp_path)[0]


def test_many_long_warnings_flow_over_pages(tmp_path: Path) -> None:
    many = tuple(f"Warning {k}: " + "something had to be done to this slice " * 6 for k in range(60))
    pages = text_of(ratio_pdf(ratio(), replace(facts(), warnings=many)), tmp_path)
    assert len(pages) > 3 and all(RESEARCH_ONLY in page for page in pages)
    assert f"Page 3 of {len(pages)}" in pages[2]


def test_slices_that_are_taller_than_wide_still_fit(tmp_path: Path) -> None:
    flat = ratio()
    tall = tuple(replace(key, spacing_mm=(key.spacing_mm[0] * 4, key.spacing_mm[1])) for key in flat.key_slices)
    assert len(text_of(ratio_pdf(flat, facts(), tall), tmp_path)) == 2
