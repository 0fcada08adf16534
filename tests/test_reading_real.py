"""Real CT series and hard cases: each ends with the right volume or the right refusal."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from carina.dicom.decode import open_pixels
from carina.dicom.find import choose_source, find_series
from carina.dicom.geometry import mask_on_source, source_grid_indices
from carina.dicom.read import read_source
from carina.dicom.rules import Prefer, Rules
from carina.dicom.series import Series
from carina.errors import BadSeries
from carina.volume import Mask

CHESTS = {
    "lidc-0001": (133, 0.703, 2.5, 3071),
    "lidc-0314": (92, 0.781, 3.0, 1956),
    "lungdx-a0001": (64, 0.842, 5.0, 2976),
    "lungdx-a0002": (30, 0.646, 8.0, 1904),
    "cmbcrc-01068": (100, 0.898, 2.5, 3071),
    "covidctmd-normal001": (154, 0.635, 2.0, 1679),
    "covidctmd-p002": (133, 0.604, 2.0, 1470),
}

REFUSED = {
    "duplicate-position": ("series.duplicate", "001.dcm and 002.dcm (at 61.50 mm)"),
    "missing-slice": ("series.gap", "10.00 mm between IM-0001-0009-0001.dcm (at 28.11 mm) and IM-0001-0010-0001.dcm"),
    "gantry-tilt-phantom": ("series.gap", "18.97 mm between I20 (at 701.39 mm) and I100 (at 720.36 mm)"),
    "gantry-tilt-4-slices": ("series.few-slices", "it has 4 slices, at least 10 expected"),
    "localizer": ("series.localizer", "Image Type ORIGINAL\\PRIMARY\\LOCALIZER"),
    "enhanced-multiframe": ("series.no-hu", "eCT_Supplemental.dcm frame 1: Rescale Type is US, expected HU"),
    "transfer-syntaxes": ("series.none-fits", "none of 3 series can be used"),
    "transfer-syntaxes/original.dcm": ("series.few-slices", "it has 1 slice"),
    "transfer-syntaxes/no-pixel-data.dcm": ("series.modality", "Modality is SR, expected CT"),
    "transfer-syntaxes/no-pixel-spacing.dcm": ("series.modality", "Pixel Spacing (0028,0030) is missing"),
}

LARGEST_ERROR_HU = {
    "1.2.840.10008.1.2.4.50": 64,
    "1.2.840.10008.1.2.4.51": 36,
    "1.2.840.10008.1.2.4.53": 36,
    "1.2.840.10008.1.2.4.55": 36,
    "1.2.840.10008.1.2.4.81": 1,
    "1.2.840.10008.1.2.4.91": 5,
}
"""Transfer syntaxes with loss, and how far they are from the original; every other must equal it."""

LENIENT = Rules(min_slices=2, prefer=Prefer(coverage_mm=0.0))


def test_the_tables_here_name_every_folder(data: Path) -> None:
    assert {folder.name for folder in (data / "ct").iterdir()} == set(CHESTS)
    assert {folder.name for folder in (data / "reader").iterdir()} == {name.split("/")[0] for name in REFUSED}


@pytest.mark.parametrize("name", CHESTS)
def test_a_chest_is_read_as_another_reader_reads_it(data: Path, name: str) -> None:
    import SimpleITK as sitk  # noqa: N813

    slices, pixel_mm, step_mm, highest_hu = CHESTS[name]
    (found,) = find_series(data / "ct" / name)
    assert found.taken and found.plane == "axial" and found.source is not None
    volume = read_source(found.source)
    assert volume.grid.shape == (slices, 512, 512)
    assert np.allclose(volume.grid.spacing_mm, (step_mm, pixel_mm, pixel_mm), atol=6e-4)
    assert volume.grid.axes == ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    assert volume.hu.min() in (-1024, -1000) and volume.hu.max() == highest_hu
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(data / "ct" / name)))
    image = reader.Execute()
    assert np.abs(np.clip(sitk.GetArrayViewFromImage(image), -1024, None) - volume.hu).max() == 0
    assert np.allclose(image.GetOrigin(), volume.grid.origin_mm, atol=1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_a_hard_case_is_refused_for_the_right_reason(data: Path, name: str) -> None:
    with pytest.raises(BadSeries) as caught:
        choose_source(find_series(data / "reader" / name))
    code, words = REFUSED[name]
    assert caught.value.code == code
    assert words in caught.value.message


def test_every_transfer_syntax_decodes_to_the_original(data: Path) -> None:
    folder = data / "reader" / "transfer-syntaxes"
    original = np.empty((512, 512), np.int16)
    open_pixels(folder / "original.dcm").hu(None, original)
    seen = set()
    for file in folder.glob("*-1.2.840.*.dcm"):
        pixels, hu = open_pixels(file), np.empty((512, 512), np.int16)
        pixels.hu(None, hu)
        syntax = pixels.opened.transfer_syntax
        seen.add(syntax)
        worst = int(np.abs(hu.astype(int) - original).max())
        assert worst <= LARGEST_ERROR_HU.get(syntax, 0), file.name
        assert np.abs(hu.astype(int) - original).mean() < 14
    assert len(seen) == 15


@pytest.mark.parametrize(("name", "degrees"), [("gantry-tilt-4-slices", 14.0), ("gantry-tilt-phantom", 18.5)])
def test_a_tilted_gantry_is_corrected(data: Path, tmp_path: Path, name: str, degrees: float) -> None:
    for file in (data / "reader" / name).iterdir():
        if file.name not in ("I10", "I20"):
            shutil.copy(file, tmp_path)
    series = choose_source(find_series(tmp_path, LENIENT), LENIENT)
    assert isinstance(series, Series)
    volume = read_source(series)
    assert any(f"Gantry tilt of {degrees:.1f} degrees" in warning for warning in volume.warnings)
    for k, (_, y, _) in enumerate(source_grid_indices(series, volume.grid)):
        source = np.empty((512, 512), np.int16)
        open_pixels(series.instances[k].path).hu(None, source)
        low = int(np.floor(y + 1e-6))
        part = y - low
        moved = (1 - part) * source[1:] + part * source[:-1]
        assert np.abs(volume.hu[k, low + 1 : low + 512] - moved).max() <= 0.51
    full = Mask(labels=np.ones(volume.grid.shape, np.uint8), grid=volume.grid, names={1: "all"}, uid=volume.uid)
    assert mask_on_source(full, series).all()


def test_the_best_of_all_chests_is_taken_and_the_others_told_why(data: Path) -> None:
    found = find_series(data / "ct")
    assert len(found) == 7 and [one.taken for one in found] == [True, *[False] * 6]
    assert all("is taken instead" in one.reason for one in found[1:])


def test_a_chest_in_a_volume_file(data: Path) -> None:
    found = find_series(data / "tiny")
    volume = read_source(choose_source(found))
    assert volume.uid == "cip_ct64_ct" and volume.grid.shape == (79, 64, 64)
    assert found[1].error is not None and found[1].error.code == "file.no-hu"
