"""Reading slices: truth from a field that is linear in patient space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from carina.dicom.find import choose, find_series
from carina.dicom.geometry import mask_on_source, source_grid_indices
from carina.dicom.read import read_volume
from carina.dicom.rules import Prefer, Rules
from carina.dicom.series import Series
from carina.errors import BadSeries, ModelFailed
from carina.volume import Grid, Mask, Volume
from reading_slices import AXIAL, COLUMNS, PIXEL_MM, ROWS, SERIES_UID, ct_slice, linear_hu, save, write_series

ANY = Rules(min_slices=2, plane="any", min_matrix=8, prefer=Prefer(coverage_mm=0.0))
EVEN = [2.5 * k for k in range(12)]


def series_of(folder: Path, rules: Rules = ANY) -> Series:
    source = choose(find_series(folder, rules), rules)
    assert isinstance(source, Series)
    return source


def refusal(path: Path, rules: Rules = ANY) -> BadSeries:
    with pytest.raises(BadSeries) as caught:
        choose(find_series(path, rules), rules)
    assert "Secret" not in caught.value.message
    return caught.value


def voxel_points(grid: Grid) -> np.ndarray:
    return grid.points_mm(np.stack(np.mgrid[tuple(slice(n) for n in grid.shape)], axis=-1))


def assert_linear(volume: Volume, *, inside: Any = (slice(None),) * 3, within_hu: float = 0.51) -> None:
    """Every voxel's value is the field's at the place where its grid says it lies."""
    wanted = linear_hu(voxel_points(volume.grid))
    assert np.abs(volume.hu - wanted)[inside].max() <= within_hu


def test_order_comes_from_positions_and_spacing_not_from_thickness(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    volume = read_volume(series_of(tmp_path))
    assert volume.grid.shape == (12, ROWS, COLUMNS)
    assert volume.grid.spacing_mm == (2.5, *PIXEL_MM)
    assert volume.grid.origin_mm == (-20.0, -10.0, 100.0)
    assert volume.warnings == () and volume.uid == SERIES_UID
    assert_linear(volume)


def test_descending_table_gives_the_same_volume(tmp_path: Path) -> None:
    write_series(tmp_path / "up", EVEN)
    write_series(tmp_path / "down", EVEN[::-1])
    up, down = (read_volume(series_of(tmp_path / name)) for name in ("up", "down"))
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
    volume = read_volume(series_of(tmp_path))
    assert_linear(volume)
    axes = np.array(volume.grid.axes)
    assert np.allclose(axes @ axes.T, np.eye(3)) and np.isclose(np.linalg.det(axes[::-1]), 1.0)


@pytest.mark.parametrize("degrees", [14.0, -20.0])
def test_gantry_tilt_is_undone_by_moving_slices_in_their_plane(tmp_path: Path, degrees: float) -> None:
    angle = np.radians(degrees)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(-np.sin(angle)))
    write_series(tmp_path, EVEN, orientation=orientation, GantryDetectorTilt=degrees)
    series = series_of(tmp_path)
    volume = read_volume(series)
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
    volume = read_volume(series_of(tmp_path))
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
    volume = read_volume(series)
    assert "vary from 2.10 to 2.90 mm" in volume.warnings[0]
    assert_linear(volume, within_hu=1.01)
    assert mask_on_source(full_mask(volume), series).all()


def test_rounded_positions_are_even(tmp_path: Path) -> None:
    write_series(tmp_path, [round(k * 2.0 / 3.0, 2) for k in range(15)])
    volume = read_volume(series_of(tmp_path))
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
    volume = read_volume(series_of(tmp_path))
    assert "1 file(s) were bit-for-bit copies" in volume.warnings[0]
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
        assert_linear(read_volume(one.source))


def test_a_localizer_inside_a_series_is_set_apart(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    save(ct_slice((0, 0, 0), 50, (0, 1, 0, 0, 0, -1), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "loc")
    found = find_series(tmp_path, ANY)
    assert [one.slices for one in found] == [12, 1]
    assert found[1].error is not None and found[1].error.code == "series.localizer"
    assert_linear(read_volume(choose(found, ANY)))


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
    assert "none of its 1 files is DICOM" in refusal(tmp_path).message


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
    assert_linear(read_volume(first))


def test_empty_series_study_and_frame_uids_are_derived(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN, SeriesInstanceUID="", StudyInstanceUID="", FrameOfReferenceUID="")
    series = series_of(tmp_path)
    assert series.uid == series_of(tmp_path).uid != series.study_uid
    assert len(series.warnings) == 3 and "Series Instance UID is empty" in series.warnings[0]


@pytest.mark.parametrize("emptied", ["Modality", "SOPClassUID"])
def test_an_emptied_kind_follows_from_the_other(tmp_path: Path, emptied: str) -> None:
    write_series(tmp_path, EVEN, **{emptied: ""})
    series = series_of(tmp_path)
    assert series.instances[0].sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert_linear(read_volume(series))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, None])
def test_files_without_meta_information_are_read(tmp_path: Path, syntax: str | None) -> None:
    for file in write_series(tmp_path, EVEN):
        dataset = dcmread(file)
        is_implicit = syntax is not None
        dataset = rebuilt(dataset)
        del dataset.file_meta
        dataset.save_as(file, implicit_vr=is_implicit, little_endian=True, enforce_file_format=False)
        assert file.read_bytes()[128:132] != b"DICM"
    assert_linear(read_volume(series_of(tmp_path)))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_native_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    for file in write_series(tmp_path, EVEN):
        dataset = dcmread(file)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset = rebuilt(dataset)
        dataset.save_as(file, enforce_file_format=True)
    assert_linear(read_volume(series_of(tmp_path)))


def rebuilt(dataset: Dataset) -> Dataset:
    """The same elements without memory of the encoding they were read in."""
    fresh = Dataset()
    fresh.file_meta = dataset.file_meta
    fresh.update({element.tag: element for element in dataset})
    return fresh


def test_an_unknown_transfer_syntax_is_refused_by_name(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import MPEG2MPML

    for file in write_series(tmp_path, EVEN):
        dataset = dcmread(file)
        dataset.file_meta.TransferSyntaxUID = MPEG2MPML
        dataset.PixelData = encapsulate([b"\x00\x00\x01\xb3" + bytes(60)])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(file, enforce_file_format=True)
    with pytest.raises(BadSeries, match="no decoder for transfer syntax MPEG2 Main Profile") as caught:
        read_volume(series_of(tmp_path))
    assert caught.value.code == "series.transfer-syntax"


@pytest.mark.parametrize(
    ("stored", "changes", "hu"),
    [
        (np.full((ROWS, COLUMNS), 100, "<u2"), {"RescaleSlope": 0.5, "RescaleIntercept": -10.25}, 40),
        (np.full((ROWS, COLUMNS), -300, "<i2"), {"PixelRepresentation": 1, "RescaleIntercept": 0}, -300),
        (np.full((ROWS, COLUMNS), 0xF7D0, "<u2"), {"BitsStored": 12, "HighBit": 11}, 2000 - 1024),
        (np.full((ROWS, COLUMNS), 0x7D0F, "<u2"), {"BitsStored": 12, "HighBit": 15}, 2000 - 1024),
        (
            np.full((ROWS, COLUMNS), 0x0ED4, "<u2"),
            {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1, "RescaleIntercept": 0},
            -300,
        ),
        (np.full((ROWS, COLUMNS), 60000, "<u2"), {}, 32767),
        (np.full((ROWS, COLUMNS), -2000, "<i2"), {"PixelRepresentation": 1}, -1024),
        (np.full((ROWS, COLUMNS), 5000, "<u2"), {"PixelPaddingValue": 5000}, -1024),
        (np.full((ROWS, COLUMNS), 77, "u1"), {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, 77 - 1024),
    ],
)
def test_stored_values_become_hu(tmp_path: Path, stored: np.ndarray, changes: dict[str, Any], hu: int) -> None:
    write_series(tmp_path, EVEN, PixelData=stored.tobytes(), **changes)
    volume = read_volume(series_of(tmp_path))
    assert volume.hu.min() == volume.hu.max() == hu


def test_rescale_is_that_of_each_slice(tmp_path: Path) -> None:
    for k, height in enumerate(EVEN):
        write_series(tmp_path, [height], prefix=str(k), RescaleSlope=1 + k, PixelData=bytes([10, 0]) * (ROWS * COLUMNS))
    volume = read_volume(series_of(tmp_path))
    assert volume.hu[:, 0, 0].tolist() == [10 * (1 + k) - 1024 for k in range(12)]
    assert "known in steps of 12 only" in volume.warnings[-1]


def full_mask(volume: Volume) -> Mask:
    return Mask(labels=np.ones(volume.grid.shape, np.uint8), grid=volume.grid, names={1: "all"}, uid=volume.uid)


def test_a_mask_on_even_slices_is_put_back_unchanged(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    series = series_of(tmp_path)
    labels = np.random.default_rng(0).integers(0, 3, (12, ROWS, COLUMNS)).astype(np.uint8)
    mask = Mask(labels=labels, grid=read_volume(series).grid, names={1: "a", 2: "b"}, uid=series.uid)
    assert np.array_equal(mask_on_source(mask, series), labels)


def test_a_mask_on_tilted_slices_is_put_back_where_it_lies(tmp_path: Path) -> None:
    angle = np.radians(18.0)
    write_series(tmp_path, EVEN, orientation=(1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle))))
    series = series_of(tmp_path)
    grid = read_volume(series).grid
    edge = 114.3
    labels = (voxel_points(grid)[..., 2] > edge).astype(np.uint8)
    back = mask_on_source(Mask(labels=labels, grid=grid, names={1: "above"}, uid=series.uid), series)
    rows = np.arange(ROWS)[None, :, None] * PIXEL_MM[0] * np.sin(angle)
    heights = np.array([i.position_mm[2] for i in series.instances])[:, None, None] + rows
    heights = np.broadcast_to(heights, back.shape)
    sure = np.abs(heights - edge) > PIXEL_MM[0]
    assert np.array_equal(back[sure], (heights > edge)[sure].astype(np.uint8))


def test_a_turned_mask_is_not_put_back(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    series = series_of(tmp_path)
    grid = Grid(shape=(2, 2, 2), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), axes=((0, 0, 1), (1, 0, 0), (0, 1, 0)))
    mask = Mask(labels=np.zeros((2, 2, 2), np.uint8), grid=grid, names={}, uid="x")
    with pytest.raises(ModelFailed, match="turned against the source slices"):
        mask_on_source(mask, series)


def enhanced(heights: Sequence[float], **shared: Any) -> Dataset:
    """An Enhanced CT object whose geometry is in its functional groups only, frames out of order."""
    slices = [ct_slice((-20.0, -10.0, 100.0 + h), k + 1) for k, h in enumerate(heights)]
    dataset = slices[0]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(dataset, keyword)
    dataset.NumberOfFrames = len(slices)
    common, measures, orientation, values = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = list(PIXEL_MM)
    orientation.ImageOrientationPatient = list(AXIAL)
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    for keyword, value in shared.items():
        setattr(values, keyword, value)
    common.PixelMeasuresSequence, common.PlaneOrientationSequence = [measures], [orientation]
    common.PixelValueTransformationSequence = [values]
    dataset.SharedFunctionalGroupsSequence = [common]
    frames = []
    for height in heights:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = [-20.0, -10.0, 100.0 + height]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = b"".join(one.PixelData for one in slices)
    return dataset


def test_enhanced_multi_frame_ct(tmp_path: Path) -> None:
    save(enhanced(EVEN[::2] + EVEN[1::2]), tmp_path / "enhanced")
    series = series_of(tmp_path)
    assert [instance.frame for instance in series.instances] == [1, 7, 2, 8, 3, 9, 4, 10, 5, 11, 6, 12]
    assert len({instance.sop_instance_uid for instance in series.instances}) == 1
    assert_linear(read_volume(series))


def test_enhanced_ct_with_other_units_or_a_gap(tmp_path: Path) -> None:
    save(enhanced(EVEN, RescaleType="US"), tmp_path / "units" / "a")
    assert "a frame 1: Rescale Type is US, expected HU" in refusal(tmp_path / "units").message
    save(enhanced([*EVEN, 99.0]), tmp_path / "gap" / "a")
    assert "71.50 mm between a frame 12 (at 127.50 mm) and a frame 13" in refusal(tmp_path / "gap").message


def test_progress_counts_every_slice(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    calls: list[tuple[int, int]] = []
    read_volume(series_of(tmp_path), lambda done, of: calls.append((done, of)), threads=2)
    assert calls == [(k + 1, 12) for k in range(12)]
