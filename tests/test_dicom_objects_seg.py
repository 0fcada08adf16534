"""Segmentations, judged by validators and readers that are not ours, and by the check before they leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage

from carina.dicom.find import choose_source, find_series
from carina.dicom.pdf import encapsulated_pdf
from carina.dicom.read import read_source
from carina.dicom.seg import check_geometry, segmentation
from carina.dicom.series import Series
from carina.dicom.sr import measurements
from carina.errors import BadConfig, ModelFailed
from carina.testing.dicom import SeriesSettings, write_ct_series
from carina.volume import Grid, Mask, Volume
from dicom_objects_samples import (
    MAKERS,
    PRODUCER,
    SHAPE,
    errors_of,
    make_mask,
    make_ratio,
    make_series,
    pdf_bytes,
    placed,
    run,
    saved,
    tool,
    truth,
)

# Segmentation


@pytest.mark.parametrize("flipped", [False, True])
def test_a_segmentation_is_valid_and_dcmqi_finds_its_voxels_in_their_place(tmp_path: Path, flipped: bool) -> None:  # noqa: FBT001
    series = make_series(flipped=flipped)
    mask = make_mask(series)
    dataset = segmentation(mask, series, PRODUCER)
    check_geometry(dataset, mask, series)
    path = saved(dataset, tmp_path)
    assert errors_of(path) == []
    found = placed(path, tmp_path / "itk")
    assert set(found) == {1, 2}
    for label in (1, 2):
        np.testing.assert_allclose(found[label], truth(mask, label), atol=0.02)


def test_a_segmentation_says_what_it_is_and_where_it_comes_from() -> None:
    series = make_series()
    dataset = segmentation(make_mask(series), series, PRODUCER)
    assert (dataset.StudyInstanceUID, dataset.FrameOfReferenceUID) == ("1.2.3", "1.2.3.5")
    assert (dataset.PatientID, str(dataset.PatientName)) == ("P-1", "Doe^Jane")
    assert (dataset.Rows, dataset.Columns) == SHAPE[1:]
    assert dataset.SeriesInstanceUID != series.uid
    assert "RESEARCH ONLY" in dataset.SeriesDescription and dataset.ContentQualification == "RESEARCH"
    uids = {item.ReferencedSOPInstanceUID for item in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == series.uid
    assert uids == {instance.sop_instance_uid for instance in series.instances}
    assert dataset.NumberOfFrames == 7 + 4, "slices without a label have no frame"


def test_each_segment_says_which_side_it_is_and_who_made_it() -> None:
    series = make_series()
    left, right = segmentation(make_mask(series), series, PRODUCER).SegmentSequence
    assert left.SegmentLabel == "left lung" and left.SegmentedPropertyTypeCodeSequence[0].CodeValue == "39607008"
    sides = [
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeValue
        for item in (left, right)
    ]
    assert sides == ["7771000", "24028007"]
    algorithm = left.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lung-ahnet", "0.1.0")
    assert "ab" * 32 in algorithm.AlgorithmParameters


def test_each_frame_refers_to_its_own_slice() -> None:
    series = make_series()
    by_uid = {instance.sop_instance_uid: instance.position_mm for instance in series.instances}
    for item in segmentation(make_mask(series), series, PRODUCER).PerFrameFunctionalGroupsSequence:
        uid = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(
            [float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient], by_uid[uid], atol=1e-4
        )


def test_a_multi_frame_source_is_referred_to_once_and_by_frame(tmp_path: Path) -> None:
    series = make_series(frames=True)
    mask = make_mask(series)
    dataset = segmentation(mask, series, PRODUCER)
    check_geometry(dataset, mask, series)
    (source,) = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert (source.ReferencedSOPInstanceUID, source.ReferencedSOPClassUID) == ("1.2.3.4.100", EnhancedCTImageStorage)
    for item in dataset.PerFrameFunctionalGroupsSequence:
        frame = item.DerivationImageSequence[0].SourceImageSequence[0]
        z = float(item.PlanePositionSequence[0].ImagePositionPatient[2])
        assert frame.ReferencedSOPInstanceUID == "1.2.3.4.100"
        assert frame.ReferencedFrameNumber == round((z + 300.0) / 2.5) + 1
    assert errors_of(saved(dataset, tmp_path)) == []


def test_an_empty_mask_gives_a_valid_object_in_which_nothing_is_found(tmp_path: Path) -> None:
    series = make_series()
    mask = make_mask(series, empty=True, two=False)
    dataset = segmentation(mask, series, PRODUCER)
    check_geometry(dataset, mask, series)
    assert dataset.NumberOfFrames == 1 and not any(dataset.PixelData)
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == SHAPE[0]
    path = saved(dataset, tmp_path)
    assert errors_of(path) == []
    assert placed(path, tmp_path / "itk")[1].size == 0


def test_label_texts_of_the_pipeline_definition_are_taken() -> None:
    series = make_series()
    (lung,) = segmentation(make_mask(series), series, PRODUCER, ["Lung-seg"]).SegmentSequence
    assert lung.SegmentLabel == "Lung-seg" and lung.SegmentedPropertyTypeCodeSequence[0].CodeValue == "39607008"
    lesion = make_mask(series, two=False)
    dataset = segmentation(lesion, series, PRODUCER, ["GroundGlass-seg"])
    assert dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Ground glass opacity"
    assert dataset.SegmentSequence[0].AnatomicRegionSequence[0].CodeMeaning == "Lung"


def test_one_text_merges_the_labels_of_a_mask() -> None:
    series = make_series()
    mask = make_mask(series)
    dataset = segmentation(mask, series, PRODUCER, ["Lung-seg"])
    check_geometry(dataset, mask, series)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8))
    assert np.count_nonzero(bits) == np.count_nonzero(mask.labels)


def test_values_that_are_not_counted_from_one_are_segments_in_their_order() -> None:
    series = make_series()
    mask = make_mask(series)
    sparse = replace(mask, labels=mask.labels * np.uint8(3), names={3: "left lung", 6: "right lung"})
    dataset = segmentation(sparse, series, PRODUCER)
    assert dataset.PixelData == segmentation(mask, series, PRODUCER).PixelData
    check_geometry(dataset, mask, series)


def test_a_wrong_number_of_texts_is_refused() -> None:
    series = make_series()
    with pytest.raises(BadConfig, match=r"3 segment labels .* for a mask with 2"):
        segmentation(make_mask(series), series, PRODUCER, ["a", "b", "c"])


def test_an_unnamed_label_is_refused() -> None:
    series = make_series()
    mask = replace(make_mask(series), names={1: "left lung"})
    with pytest.raises(ModelFailed, match="a label without a name"):
        segmentation(mask, series, PRODUCER)


def test_a_label_map_holds_the_same(tmp_path: Path) -> None:
    series = make_series()
    mask = make_mask(series)
    dataset = segmentation(mask, series, PRODUCER, kind="LABELMAP")
    check_geometry(dataset, mask, series)
    pixels = dcmread(saved(dataset, tmp_path)).pixel_array
    np.testing.assert_array_equal(pixels[::-1], mask.labels[2:9])
    with pytest.raises(BadConfig, match="'FRACTIONAL' is not known"):
        segmentation(mask, series, PRODUCER, kind="FRACTIONAL")


# The check before an object leaves


def swap_positions(dataset: Dataset) -> None:
    groups = dataset.PerFrameFunctionalGroupsSequence
    positions = [item.PlanePositionSequence for item in groups]
    for item, position in zip(groups, reversed(positions), strict=True):
        item.PlanePositionSequence = position


def flip_columns(dataset: Dataset) -> None:
    pixels = dataset.pixel_array[:, :, ::-1]
    dataset.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()


def flip_rows(dataset: Dataset) -> None:
    pixels = dataset.pixel_array[:, ::-1]
    dataset.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()


def turn_over(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, -1, 0]


def lose_a_pixel(dataset: Dataset) -> None:
    pixels = dataset.pixel_array.copy()
    pixels[1, 12, 12] = 0
    dataset.PixelData = np.packbits(pixels.ravel(), bitorder="little").tobytes()


def swap_segments(dataset: Dataset) -> None:
    for item in dataset.PerFrameFunctionalGroupsSequence:
        number = item.SegmentIdentificationSequence[0]
        number.ReferencedSegmentNumber = 3 - number.ReferencedSegmentNumber


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (swap_positions, "centroid lies"),
        (flip_columns, "centroid lies"),
        (flip_rows, "centroid lies"),
        (turn_over, "centroid lies"),
        (lose_a_pixel, "pixels where the mask has"),
        (swap_segments, "pixels where the mask has"),
    ],
)
def test_a_spoilt_segmentation_does_not_leave(spoil, words: str) -> None:  # type: ignore[no-untyped-def]
    series = make_series()
    mask = make_mask(series)
    dataset = segmentation(mask, series, PRODUCER)
    check_geometry(dataset, mask, series)
    spoil(dataset)
    with pytest.raises(ModelFailed, match=words) as caught:
        check_geometry(dataset, mask, series)
    assert caught.value.code == "seg.geometry"


def test_a_flip_is_seen_where_the_centroid_stays() -> None:
    """Two slices of one size change places and nothing but the shape in them differs."""
    series = make_series()
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 10:20, 10:20] = labels[7, 10:20, 10:20] = 1
    labels[3, 15, 10], labels[3, 15, 20], labels[3, 14, 19], labels[3, 14, 9] = 0, 1, 0, 1
    mask = replace(make_mask(series, two=False), labels=labels)
    dataset = segmentation(mask, series, PRODUCER)
    first, last = dataset.PerFrameFunctionalGroupsSequence
    first.PlanePositionSequence, last.PlanePositionSequence = last.PlanePositionSequence, first.PlanePositionSequence
    with pytest.raises(ModelFailed, match="pixels looked up"):
        check_geometry(dataset, mask, series)


CASES = (
    "cmbcrc-01068",
    "covidctmd-normal001",
    "covidctmd-p002",
    "lidc-0001",
    "lidc-0314",
    "lungdx-a0001",
    "lungdx-a0002",
)

# Real series


@pytest.mark.parametrize("name", CASES)
def test_objects_of_a_real_series_are_valid_and_in_place(data: Path, tmp_path: Path, name: str) -> None:
    series = choose_source(find_series(data / "ct" / name))
    assert isinstance(series, Series)
    volume = read_source(series)
    labels = ((volume.hu > -950) & (volume.hu < -700)).astype(np.uint8)
    labels[:, :, : labels.shape[2] // 4] = 0
    labels[: len(labels) // 3] = 0
    labels[:, ::7] = 0
    mask = Mask(labels=labels, grid=volume.grid, names={1: "lungs"}, uid=volume.uid)
    seg = segmentation(mask, series, PRODUCER)
    check_geometry(seg, mask, series)
    report = measurements(make_ratio(3.0), None, series, MAKERS, [seg])
    pdf = encapsulated_pdf(pdf_bytes(), series, PRODUCER, "Report", digest="said")
    for number, dataset in enumerate((seg, report, pdf)):
        assert errors_of(saved(dataset, tmp_path, f"{number}.dcm")) == []
    uids = {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in (data / "ct" / name).iterdir()}
    assert {i.ReferencedSOPInstanceUID for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence} == uids
    folder = tmp_path / "itk"
    folder.mkdir()
    run(tool("segimage2itkimage"), "--inputDICOM", tmp_path / "0.dcm", "--outputDirectory", folder, "-t", "nrrd")
    image = sitk.ReadImage(str(folder / "1.nrrd"))
    found = sitk.GetArrayFromImage(image) > 0
    used = np.flatnonzero(labels.any(axis=(1, 2)))
    corner = [float(value) for value in volume.grid.points_mm((used[0], 0, 0))]
    x, y, z = image.TransformPhysicalPointToIndex(corner)
    assert (x, y) == (0, 0)
    np.testing.assert_array_equal(found[z : z + len(used)], labels[used[0] : used[-1] + 1] > 0)
    assert np.count_nonzero(found) == np.count_nonzero(labels)


def test_a_tilted_series_gets_its_segmentation_on_its_own_slices(tmp_path: Path) -> None:
    hu = np.full((24, 80, 80), -1000, np.int16)
    hu[6:18, 30:60, 10:50] = 40
    grid = Grid(shape=hu.shape, spacing_mm=(3.0, 2.0, 2.0), origin_mm=(-80.0, -80.0, -36.0))
    block = Volume(hu=hu, grid=grid, uid="1.2.3.4")
    write_ct_series(block, tmp_path / "ct", settings=SeriesSettings(tilt_degrees=15.0))
    series = choose_source(find_series(tmp_path / "ct"))
    assert isinstance(series, Series)
    volume = read_source(series)
    labels = (volume.hu > -200).astype(np.uint8)
    mask = Mask(labels=labels, grid=volume.grid, names={1: "block"}, uid=volume.uid)
    assert volume.hu.shape != (len(series.instances), series.rows, series.columns)
    seg = segmentation(mask, series, PRODUCER)
    check_geometry(seg, mask, series)
    assert (seg.Rows, seg.Columns) == (series.rows, series.columns)
    assert errors_of(saved(seg, tmp_path)) == []
    positions = {
        tuple(float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient)
        for item in seg.PerFrameFunctionalGroupsSequence
    }
    known = {tuple(round(v, 4) for v in instance.position_mm) for instance in series.instances}
    assert {tuple(round(v, 4) for v in place) for place in positions} <= known
    flip_columns(seg)
    with pytest.raises(ModelFailed, match="centroid lies"):
        check_geometry(seg, mask, series)
