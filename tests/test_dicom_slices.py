"""Series of one object a slice, derived CT and colour: right side up, valid, and read back by others."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

from carina import RESEARCH_ONLY
from carina.dicom.find import choose_source, find_series
from carina.dicom.geometry import plan_volume
from carina.dicom.instances import SliceSeries, colour_slices, mask_slices, volume_slices
from carina.dicom.objects import save_object
from carina.dicom.read import read_source
from carina.dicom.series import Series
from carina.report.colour import colour_plane, side_letters
from carina.report.paint import WINDOW_HU
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from carina.testing.pacs import memory_pacs, orthanc, orthanc_program, send
from carina.volume import Mask, Volume
from carina.volume.header import triple
from dicom_objects_samples import (
    PRODUCER,
    SHAPE,
    errors_of,
    full_header,
    make_mask,
    make_series,
    rounded,
    run,
    tool,
    truth,
)


def gradient(k: int) -> np.ndarray:
    """A picture that no turn or mirror leaves as it is."""
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    return np.stack([rows * 5, columns * 4, np.full_like(rows, 10 * k)], axis=2).astype(np.uint8)


def volume_of(series: Series) -> Volume:
    grid = plan_volume(series).grid
    hu = (np.arange(np.prod(grid.shape), dtype=np.int64) % 4000 - 1024).astype(np.int16).reshape(grid.shape)
    return Volume(hu=hu, grid=grid, uid=series.uid)


def made(kind: str, series: Series) -> SliceSeries:
    match kind:
        case "mask":
            return mask_slices(make_mask(series), series, PRODUCER)
        case "volume":
            return volume_slices(volume_of(series), series, PRODUCER)
        case _:
            return colour_slices(gradient, series, PRODUCER, description="CT with a gradient", digest="d")


KINDS = ("mask", "volume", "colour")


def written(objects: SliceSeries, folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [save_object(dataset, folder / f"{name}.dcm") for name, dataset in objects.items()]


# Geometry


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("frames", [False, True])
def test_itk_reads_a_mask_back_where_it_lies_in_the_patient(tmp_path: Path, *, flipped: bool, frames: bool) -> None:
    series = make_series(flipped=flipped, frames=frames)
    mask = make_mask(series)
    written(mask_slices(mask, series, PRODUCER), tmp_path / "out")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "out")))
    image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    turn = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    for label in mask.names:
        where = np.argwhere(array == label)[:, ::-1] @ turn.T + np.array(image.GetOrigin())
        assert np.array_equal(rounded(where), truth(mask, label)), label


AXES = st.permutations([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])


def turned(series: Series, axes: list[tuple[float, float, float]], signs: tuple[float, float, float]) -> Series:
    """The same series with other axes, slices still in steps of 2.5 mm along their normal."""
    slices, rows, columns = (triple(sign * np.array(axis)) for sign, axis in zip(signs, axes, strict=True))
    first = np.array([-30.0, 40.0, -50.0])
    instances = tuple(
        replace(one, position_mm=triple(first + 2.5 * k * np.array(slices))) for k, one in enumerate(series.instances)
    )
    return replace(series, instances=instances, slice_axes=(slices, rows, columns))


@settings(max_examples=40, deadline=None)
@given(axes=AXES, signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3), kind=st.sampled_from(["mask", "volume"]))
def test_every_stored_value_is_the_grids_at_that_place(
    axes: list[tuple[float, float, float]], signs: tuple[float, float, float], kind: str
) -> None:
    """By the object's own plane alone: position + column * right + row * down, looked up in the grid."""
    series = turned(make_series(), axes, signs)
    image = make_mask(series) if kind == "mask" else volume_of(series)
    values = image.labels if isinstance(image, Mask) else image.hu
    pixels = np.array([[3, 5], [30, 40], [39, 51], [10, 8]])
    for dataset in made(kind, series).values():
        right, down = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
        spacing = np.array(dataset.PixelSpacing, float)
        points = np.array(dataset.ImagePositionPatient, float) + (pixels * spacing) @ np.stack([down, right])
        z, y, x = np.rint(image.grid.indices(points)).astype(int).T
        stored = np.frombuffer(dataset.PixelData, "<u2" if kind == "mask" else "<i2").reshape(SHAPE[1:])
        assert np.array_equal(stored[tuple(pixels.T)], values[z, y, x])


@pytest.mark.parametrize("kind", KINDS)
def test_slices_keep_plane_and_frame_of_reference_and_name_their_source(kind: str) -> None:
    series = make_series()
    objects = list(made(kind, series).values())
    for dataset, source in zip(objects, series.instances, strict=True):
        assert tuple(dataset.ImagePositionPatient) == pytest.approx(source.position_mm)
        assert tuple(dataset.PixelSpacing) == series.pixel_spacing_mm and float(dataset.SliceThickness) == 2.5
        assert (dataset.FrameOfReferenceUID, dataset.StudyInstanceUID) == ("1.2.3.5", "1.2.3")
        (reference,) = dataset.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.sop_instance_uid
        assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == series.uid
        assert (dataset.Rows, dataset.Columns) == SHAPE[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_slices_are_one_series_of_different_objects(kind: str) -> None:
    objects = list(made(kind, make_series()).values())
    assert [int(one.InstanceNumber) for one in objects] == list(range(1, SHAPE[0] + 1))
    assert len({one.SeriesInstanceUID for one in objects}) == 1
    assert len({one.SOPInstanceUID for one in objects}) == SHAPE[0]


def test_a_multi_frame_source_is_named_by_its_frame() -> None:
    objects = list(made("mask", make_series(frames=True)).values())
    assert [int(one.SourceImageSequence[0].ReferencedFrameNumber) for one in objects] == list(range(1, SHAPE[0] + 1))


def test_a_resampled_volume_lies_on_its_own_slices_and_names_the_source_slices_beside_them() -> None:
    """Uneven slices become even ones: no new slice claims to be an old one that lies elsewhere."""
    series = make_series()
    heights = -300.0 + 2.5 * np.arange(SHAPE[0]) + np.where(np.arange(SHAPE[0]) % 2, 0.2, 0.0)
    moved = tuple(
        replace(one, position_mm=(*one.position_mm[:2], float(z)))
        for one, z in zip(series.instances, heights, strict=True)
    )
    series = replace(series, instances=moved)
    volume = volume_of(series)
    objects = list(volume_slices(volume, series, PRODUCER).values())
    assert len(objects) == volume.grid.shape[0]
    for k, dataset in enumerate(objects):
        z = float(dataset.ImagePositionPatient[2])
        assert z == pytest.approx(float(volume.grid.points_mm((k, 0, 0))[2]))
        named = {str(item.ReferencedSOPInstanceUID) for item in dataset.SourceImageSequence}
        beside = [one for one in moved if abs(one.position_mm[2] - z) < volume.grid.spacing_mm[0]]
        assert 1 <= len(named) <= 2 and named <= {one.sop_instance_uid for one in beside}


def test_a_mask_of_a_tilted_series_comes_back_to_its_slices(tmp_path: Path) -> None:
    phantom = chest_phantom(shape=(40, 200, 200), seed=2)
    write_ct_series(phantom.volume, tmp_path, settings=SeriesSettings(tilt_degrees=12.0))
    series = choose_source(find_series(tmp_path))
    assert isinstance(series, Series)
    volume = read_source(series)
    labels = (volume.hu < -500).astype(np.uint8)
    mask = Mask(labels=labels, grid=volume.grid, names={1: "air"}, uid=volume.uid)
    for dataset, source in zip(mask_slices(mask, series, PRODUCER).values(), series.instances, strict=True):
        original = dcmread(source.path)
        assert np.allclose(dataset.ImagePositionPatient, original.ImagePositionPatient, atol=1e-3)
        assert np.allclose(dataset.ImageOrientationPatient, original.ImageOrientationPatient, atol=1e-6)
        air = original.pixel_array + float(original.RescaleIntercept) < -500
        assert np.mean(air == (labels_of(dataset) > 0)) > 0.98


def labels_of(dataset: Dataset) -> np.ndarray:
    return np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)


# What the objects say


@pytest.mark.parametrize("kind", KINDS)
def test_every_slice_says_what_it_is_and_who_made_it(kind: str) -> None:
    for dataset in made(kind, make_series()).values():
        assert list(dataset.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert dataset.SOPClassUID == (SecondaryCaptureImageStorage if kind == "colour" else CTImageStorage)
        assert dataset.Modality == "CT" and dataset.BurnedInAnnotation == "NO"
        assert dataset.ImageComments == RESEARCH_ONLY and dataset.ContentQualification == "RESEARCH"
        assert dataset.SeriesDescription.startswith("RESEARCH ONLY - ")
        assert "lung-ahnet 0.1.0 (bundle sha256 abababababababab)" in dataset.DerivationDescription
        assert dataset.DerivationDescription.endswith(RESEARCH_ONLY)
        assert dataset.PatientName == "Doe^Jane" and dataset.PatientID == "P-1"


def test_labels_have_no_unit_and_a_window_that_shows_them() -> None:
    dataset = next(iter(made("mask", make_series()).values()))
    assert (dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType) == (1, 0, "US")
    assert (float(dataset.WindowCenter), float(dataset.WindowWidth)) == (1.0, 2.0)
    assert "0 none, 1 left lung, 2 right lung" in dataset.DerivationDescription
    volume = next(iter(made("volume", make_series()).values()))
    assert volume.RescaleType == "HU" and volume.PixelRepresentation == 1


def test_uids_follow_from_what_is_shown() -> None:
    series = make_series()
    mask = make_mask(series)
    once, again = (mask_slices(mask, series, PRODUCER) for _ in range(2))
    assert [one.SOPInstanceUID for one in once.values()] == [one.SOPInstanceUID for one in again.values()]
    other = mask_slices(make_mask(series, two=False), series, PRODUCER)
    colour = made("colour", series)
    assert len({once.uid, other.uid, colour.uid, made("volume", series).uid}) == 4
    assert not {one.SOPInstanceUID for one in once.values()} & {one.SOPInstanceUID for one in other.values()}


def test_a_slice_is_made_when_it_is_asked_for_and_not_kept() -> None:
    asked: list[int] = []

    def picture(k: int) -> np.ndarray:
        asked.append(k)
        return gradient(k)

    objects = colour_slices(picture, make_series(), PRODUCER, description="d", digest="d")
    assert len(objects) == SHAPE[0] and list(objects)[:2] == ["overlay-0001", "overlay-0002"] and asked == []
    assert objects["overlay-0003"].InstanceNumber == 3 and objects["overlay-0003"] is not objects["overlay-0003"]
    assert asked == [2, 2, 2]
    for name in ("overlay-0013", "overlay-0000", "lung-0001", "overlay-x", ""):
        with pytest.raises(KeyError):
            objects[name]


def test_once_lossy_is_always_lossy() -> None:
    header = full_header()
    header.LossyImageCompression, header.LossyImageCompressionRatio = "01", 10.0
    header.LossyImageCompressionMethod = "ISO_10918_1"
    for kind in KINDS:
        dataset = next(iter(made(kind, make_series(header)).values()))
        assert dataset.LossyImageCompression == "01" and dataset.LossyImageCompressionMethod == "ISO_10918_1"
        assert next(iter(made(kind, make_series()).values())).LossyImageCompression == "00"


@pytest.mark.parametrize(("flipped", "sides"), [(False, ["L", "P"]), (True, ["R", "A"])])
def test_a_colour_slice_says_where_its_rows_and_columns_lead(*, flipped: bool, sides: list[str]) -> None:
    """For a PACS that does not look for a plane in a secondary capture."""
    dataset = next(iter(made("colour", make_series(flipped=flipped)).values()))
    assert list(dataset.PatientOrientation) == sides


# Colour


def test_a_colour_slice_is_the_ct_with_what_was_marked_and_the_notice() -> None:
    hu = np.full((256, 256), -850, np.int16)
    nothing = np.zeros(hu.shape, np.bool_)
    lung, lesion = nothing.copy(), nothing.copy()
    lung[60:200, 30:120] = True
    lesion[150:180, 40:70] = True
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    bare = colour_plane(hu, nothing, nothing, axes)
    shown = colour_plane(hu, lung, lesion, axes)
    assert shown.shape == (256, 256, 3) and shown.dtype == np.uint8
    low, high = WINDOW_HU
    grey = round((-850 - low) / (high - low) * 255)
    assert np.array_equal(np.unique(bare[40:100]), [grey])
    changed = np.argwhere((shown != bare).any(axis=2))
    assert changed.min(axis=0).tolist() == [60, 30] and changed.max(axis=0).tolist() == [199, 119]
    red, _green, blue = shown[165, 55].astype(int)
    assert red > blue + 40, "the lesion is filled in orange"
    assert np.array_equal(shown[100, 80], bare[100, 80]), "the lung is outlined, not filled"
    assert np.ptp(bare[:20].astype(int)) > 100, "the notice stands at the top"


@pytest.mark.parametrize("side", [24, 64, 100, 512, 1024])
def test_the_notice_stays_inside_the_picture(side: int) -> None:
    hu = np.full((side, side), -1350, np.int16)
    nothing = np.zeros(hu.shape, np.bool_)
    picture = colour_plane(hu, nothing, nothing, ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))
    ink = picture[: side // 3].max(axis=2) > 120
    assert ink.any()
    if side >= 200:
        assert not ink[:, :2].any() and not ink[:, -2:].any()


def test_letters_name_the_patients_sides() -> None:
    assert side_letters((1.0, 0.0, 0.0)) == ("R", "L")
    assert side_letters((-1.0, 0.0, 0.0)) == ("L", "R")
    assert side_letters((0.1, 0.99, 0.0)) == ("A", "P")
    assert side_letters((0.0, 0.0, -1.0)) == ("S", "I")


# Others read them


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["full", "empty header", "multi-frame", "flipped", "CHEST", "LUNG", "THORAX"])
def test_dciodvfy_finds_no_error(kind: str, source: str, tmp_path: Path) -> None:
    header = Dataset() if source == "empty header" else full_header()
    if source.isupper():
        header.BodyPartExamined, header.KVP, header.ConvolutionKernel = source, 120, "B60f"
        header.PatientPosition = "HFS"
    series = make_series(header, frames=source == "multi-frame", flipped=source == "flipped")
    paths = written(made(kind, series), tmp_path / "out")
    for path in (paths[0], paths[-1]):
        assert errors_of(path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_dcmtk_and_pydicom_read_the_same_pixels(kind: str, tmp_path: Path) -> None:
    path = written(made(kind, make_series()), tmp_path / "out")[3]
    pixels = dcmread(path).pixel_array
    assert "W: " not in run(tool("dcmdump"), path)
    if kind == "colour":
        assert np.array_equal(pixels, gradient(3))
        run(tool("dcm2pnm"), "+on", path, tmp_path / "out.png")
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.png"))), gradient(3))
    else:
        expected = make_mask(make_series()).labels[3] if kind == "mask" else volume_of(make_series()).hu[3]
        assert np.array_equal(pixels, expected)
        run(tool("dcm2pnm"), "+Wm", "+on", path, tmp_path / "out.png")


def test_a_pacs_takes_them_and_gives_them_back(tmp_path: Path) -> None:
    program = orthanc_program()
    if program is None and os.environ.get("CI") == "true":
        pytest.fail("Orthanc is missing; scripts/test installs it")
    with orthanc() if program else memory_pacs() as pacs:
        for kind in KINDS:
            objects = [dataset for _, dataset in zip(range(3), made(kind, make_series()).values(), strict=False)]
            assert send(pacs, objects) == (0, 0, 0)
            for dataset in objects:
                (tmp_path / "back.dcm").write_bytes(pacs.fetch(str(dataset.SOPInstanceUID)))
                back = dcmread(tmp_path / "back.dcm", force=True)
                assert back.PixelData == dataset.PixelData and back.SeriesInstanceUID == dataset.SeriesInstanceUID
                assert back.ImagePositionPatient == dataset.ImagePositionPatient


def test_the_rules_still_take_the_ct_beside_its_derived_series(tmp_path: Path) -> None:
    """A study that comes back with Carina's own series in it is analysed from the CT again."""
    phantom = chest_phantom(shape=(40, 200, 200), seed=2)
    write_ct_series(phantom.volume, tmp_path / "ct")
    series = choose_source(find_series(tmp_path))
    assert isinstance(series, Series)
    volume = read_source(series)
    written(mask_slices(replace(phantom.lung, grid=volume.grid), series, PRODUCER), tmp_path / "mask")
    written(volume_slices(volume, series, PRODUCER), tmp_path / "volume")

    def picture(k: int) -> np.ndarray:
        return np.zeros((series.rows, series.columns, 3), np.uint8)

    written(colour_slices(picture, series, PRODUCER, description="d", digest="d"), tmp_path / "colour")
    assert choose_source(find_series(tmp_path)).uid == series.uid
