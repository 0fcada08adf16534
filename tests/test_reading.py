"""Reading slices: truth from a field that is linear in patient space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ImplicitVRLittleEndian,
)

from carina.dicom.find import choose_source, find_series
from carina.dicom.geometry import mask_on_source, source_grid_indices
from carina.dicom.read import read_source
from reading_slices import (
    ANY,
    COLUMNS,
    EVEN,
    PIXEL_MM,
    ROWS,
    SERIES_UID,
    assert_linear,
    ct_slice,
    full_mask,
    rebuilt,
    refusal,
    save,
    series_of,
    write_series,
)


def test_order_comes_from_positions_and_spacing_not_from_thickness(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    volume = read_source(series_of(tmp_path))
    assert volume.grid.shape == (12, ROWS, COLUMNS)
    assert volume.grid.spacing_mm == (2.5, *PIXEL_MM)
    assert volume.grid.origin_mm == (-20.0, -10.0, 100.0)
    assert volume.warnings == () and volume.uid == SERIES_UID
    assert_linear(volume)


def test_descending_table_gives_the_same_volume(tmp_path: Path) -> None:
    write_series(tmp_path / "up", EVEN)
    write_series(tmp_path / "down", EVEN[::-1])
    up, down = (read_source(series_of(tmp_path / name)) for name in ("up", "down"))
    assert up.grid == down.grid
    assert np.array_equal(up.hu, down.hu)


@pytest.mark.parametrize(
    ("orientation", "step"),
    [
        ((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
        ((1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
        ((1.0, 0.0, 0.0, 0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
        ((0.0, 1.0, 0.0, 0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
        ((0.8, 0.6, 0.0, -0.6, 0.8, 0.0), (0.0, 0.0, 1.0)),
    ],
)
def test_every_orientation_lands_where_the_header_says(
    tmp_path: Path, orientation: Sequence[float], step: Sequence[float]
) -> None:
    write_series(tmp_path, EVEN, step=step, orientation=orientation)
    volume = read_source(series_of(tmp_path))
    assert_linear(volume)
    axes = np.array(volume.grid.axes)
    assert np.allclose(axes @ axes.T, np.eye(3)) and np.isclose(np.linalg.det(axes[::-1]), 1.0)


@pytest.mark.parametrize("degrees", [14.0, -20.0])
def test_gantry_tilt_is_undone_by_moving_slices_in_their_plane(tmp_path: Path, degrees: float) -> None:
    angle = np.radians(degrees)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(-np.sin(angle)))
    write_series(tmp_path, EVEN, orientation=orientation, GantryDetectorTilt=degrees)
    series = series_of(tmp_path)
    volume = read_source(series)
    assert f"Gantry tilt of {abs(degrees):.1f} degrees" in volume.warnings[0]
    assert np.isclose(volume.grid.spacing_mm[0], 2.5 * np.cos(angle))
    extra = int(np.ceil(EVEN[-1] * abs(np.sin(angle)) / PIXEL_MM[0]))
    assert volume.grid.shape == (12, ROWS + extra, COLUMNS)
    for k, (z, y, x) in enumerate(source_grid_indices(series, volume.grid)):
        assert np.isclose(z, k) and np.isclose(x, 0, atol=1e-6)
        assert_linear(
            volume, inside=(slice(k, k + 1), slice(int(np.ceil(y)), int(y) + ROWS - 1), slice(None)), within_hu=1.01
        )
    assert (volume.hu == -1024).any()


def test_stated_tilt_without_tilted_positions_is_not_believed(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN, GantryDetectorTilt=12.0)
    volume = read_source(series_of(tmp_path))
    assert "says 12 degrees, the slice positions 0.0" in volume.warnings[0]
    assert_linear(volume)


def test_slices_beside_the_line_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    save(ct_slice((-12.0, -10.0, 100.0 + EVEN[5]), 6), tmp_path / "035")
    error = refusal(tmp_path)
    assert error.code == "series.shifted" and "035 lies 8.00 mm beside the line" in error.message


def test_small_unevenness_is_evened_with_a_warning(tmp_path: Path) -> None:
    uneven = [h + (0.4 if k % 3 == 1 else 0.0) for k, h in enumerate(EVEN)]
    write_series(tmp_path, uneven)
    series = series_of(tmp_path)
    volume = read_source(series)
    assert "vary from 2.10 to 2.90 mm" in volume.warnings[0]
    assert_linear(volume, within_hu=1.01)
    assert mask_on_source(full_mask(volume), series).all()


def test_rounded_positions_are_even(tmp_path: Path) -> None:
    write_series(tmp_path, [round(k * 2.0 / 3.0, 2) for k in range(15)])
    volume = read_source(series_of(tmp_path))
    assert volume.warnings == () and volume.grid.shape[0] == 15
    assert np.isclose(volume.grid.spacing_mm[0], 2.0 / 3.0, atol=1e-3)


def test_a_gap_is_refused_by_its_slices_and_distances(tmp_path: Path) -> None:
    write_series(tmp_path, [h for k, h in enumerate(EVEN) if k not in (5, 6)])
    error = refusal(tmp_path)
    assert error.code == "series.gap"
    assert "7.50 mm between 028 (at 110.00 mm) and 035 (at 117.50 mm), where 2.50 mm is usual" in error.message


def test_large_unevenness_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, [0, 2.5, 5.0, 7.5, 10.9, 12.5, 15.0])
    error = refusal(tmp_path)
    assert error.code == "series.uneven" and "3.40 mm between 021 (at 107.50 mm)" in error.message


def test_duplicate_positions_without_explanation_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    other = ct_slice((-20.0, -10.0, 100.0), 90)
    other.PixelData = bytes(len(other.PixelData))
    save(other, tmp_path / "again")
    error = refusal(tmp_path)
    assert error.code == "series.duplicate" and "000 and again (at 100.00 mm)" in error.message


def test_copies_of_files_are_left_out(tmp_path: Path) -> None:
    files = write_series(tmp_path, EVEN)
    (tmp_path / "copy").write_bytes(files[3].read_bytes())
    volume = read_source(series_of(tmp_path))
    assert "1 file(s) hold slices that others hold as well" in volume.warnings[0]
    assert_linear(volume)


@pytest.mark.parametrize(
    ("keyword", "values"),
    [("AcquisitionNumber", (1, 2)), ("ConvolutionKernel", ("B30f", "B70f")), ("KVP", (140.0, 80.0))],
)
def test_several_acquisitions_under_one_uid_are_told_apart(tmp_path: Path, keyword: str, values: Any) -> None:
    for value in values:
        write_series(tmp_path / str(value), EVEN, **{keyword: value, "SOPInstanceUID": ""})
    found = find_series(tmp_path, ANY)
    assert [one.part for one in found] == [f"{keyword} {v}" for v in values] and found[0].taken
    for one in found:
        assert one.source is not None
        assert_linear(read_source(one.source))


def test_a_localizer_inside_a_series_is_set_apart(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    save(ct_slice((0, 0, 0), 50, (0, 1, 0, 0, 0, -1), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "loc")
    found = find_series(tmp_path, ANY)
    assert [one.slices for one in found] == [12, 1]
    assert found[1].error is not None and found[1].error.code == "series.localizer"
    assert_linear(read_source(choose_source(found, ANY)))


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"Modality": "MR"}, "series.modality", "Modality is MR, expected CT"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "series.localizer", "it is a localizer"),
        ({"RescaleSlope": None}, "series.no-hu", "no Rescale Slope (0028,1053) and Intercept"),
        ({"RescaleType": "OD"}, "series.no-hu", "Rescale Type is OD, expected HU"),
        ({"PixelSpacing": None}, "series.no-spacing", "Pixel Spacing (0028,0030) is missing"),
        ({"ImagePositionPatient": None}, "series.no-position", "Image Position (Patient) (0020,0032) is missing"),
        ({"ImageOrientationPatient": None}, "series.no-position", "(0020,0037) is missing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "series.orientation", "no pair of orthogonal unit vectors"),
        ({"PixelData": None}, "series.no-pixels", "it has no pixel data"),
        ({"PixelData": bytes(100)}, "series.truncated", "its pixel data has 100 of 960 bytes"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "series.truncated", "of 2880 bytes"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "series.photometric", "PALETTE COLOR"),
    ],
)
def test_what_is_missing_or_wrong_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], code: str, words: str
) -> None:
    write_series(tmp_path, EVEN, **changes)
    error = refusal(tmp_path)
    assert (error.code, words in error.message) == (code, True), error.message


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    file = write_series(tmp_path, [0.0])[0]
    assert refusal(file).code == "series.few-slices"
    assert "it has 1 slice; a volume needs several" in refusal(file).message


def test_a_file_cut_short_on_its_way_is_named(tmp_path: Path) -> None:
    files = write_series(tmp_path, EVEN)
    files[4].write_bytes(files[4].read_bytes()[:-300])
    error = refusal(tmp_path)
    assert error.code == "series.truncated" and "028: it is truncated: its pixel data has 660 of 960" in error.message


@pytest.mark.parametrize("size", [300, 500, 640, 700])
def test_a_file_cut_short_in_its_header_is_not_lost_in_silence(tmp_path: Path, size: int) -> None:
    files = write_series(tmp_path, EVEN)
    files[0].write_bytes(files[0].read_bytes()[:size])
    found = find_series(tmp_path, ANY)
    told = [*(one.reason for one in found if not one.taken), *(w for one in found for w in one.warnings)]
    assert any("000:" in words for words in told)
    taken = next((one for one in found if one.taken), None)
    assert taken is None or "slices are missing at its end" in taken.warnings[-1]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(200), b"plain text, " * 50])
def test_what_is_no_dicom_is_said_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "picture.png").write_bytes(content)
    assert "picture.png: neither DICOM nor a volume file" in refusal(tmp_path / "picture.png").message
    assert "its only file is neither DICOM nor a volume file" in refusal(tmp_path).message


def test_empty_and_absent_folders(tmp_path: Path) -> None:
    assert "the folder is empty" in refusal(tmp_path).message
    assert refusal(tmp_path / "nowhere").code == "series.no-path"


@pytest.mark.parametrize("uid", ["", "2.25.77"])
def test_empty_or_repeated_instance_uids_are_replaced_the_same_way_each_time(tmp_path: Path, uid: str) -> None:
    write_series(tmp_path, EVEN, SOPInstanceUID=uid)
    first, second = series_of(tmp_path), series_of(tmp_path)
    uids = [instance.sop_instance_uid for instance in first.instances]
    assert len(set(uids)) == 12 and all(u.startswith("2.25.") and len(u) <= 64 for u in uids)
    assert uids == [instance.sop_instance_uid for instance in second.instances]
    assert "12 of 12 slices have an empty or repeated SOP Instance UID" in first.warnings[0]
    assert_linear(read_source(first))


def test_empty_series_study_and_frame_uids_are_derived(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN, SeriesInstanceUID="", StudyInstanceUID="", FrameOfReferenceUID="")
    series = series_of(tmp_path)
    assert series.uid == series_of(tmp_path).uid != series.study_uid
    assert len(series.warnings) == 3 and "Series Instance UID is empty" in series.warnings[0]


@pytest.mark.parametrize("emptied", ["Modality", "SOPClassUID"])
def test_an_emptied_kind_follows_from_the_other(tmp_path: Path, emptied: str) -> None:
    changes: dict[str, Any] = {emptied: ""}
    write_series(tmp_path, EVEN, **changes)
    series = series_of(tmp_path)
    assert series.instances[0].sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert_linear(read_source(series))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, None])
def test_files_without_meta_information_are_read(tmp_path: Path, syntax: str | None) -> None:
    for file in write_series(tmp_path, EVEN):
        dataset: Dataset = dcmread(file)
        is_implicit = syntax is not None
        dataset = rebuilt(dataset)
        del dataset.file_meta
        dataset.save_as(file, implicit_vr=is_implicit, little_endian=True, enforce_file_format=False)
        assert file.read_bytes()[128:132] != b"DICM"
    assert_linear(read_source(series_of(tmp_path)))
