"""The objects we write, judged by validators and readers that are not ours."""

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
from pydicom import Dataset, dcmread
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from carina.dicom import codes
from carina.dicom.find import choose, find_series
from carina.dicom.objects import Producer, save
from carina.dicom.objects_header import notes
from carina.dicom.pdf import encapsulated_pdf
from carina.dicom.read import read_volume
from carina.dicom.seg import check_geometry, segmentation
from carina.dicom.series import Instance, Series
from carina.dicom.sr import measurements
from carina.dicom.uids import derived_uid
from carina.errors import BadConfig, ModelFailed
from carina.measure.findings import Classification, RatioFindings, RegionFindings
from carina.testing.dicom import SeriesSettings, write_ct_series
from carina.volume import Grid, Mask, Volume

PRODUCER = Producer(
    model_creator="Carina",
    model_name="lung-ahnet",
    model_version="0.1.0",
    bundle_sha256="ab" * 32,
    software_version="0.1.0",
    when=datetime(2026, 1, 2, 3, 4, 5),
)

SHAPE = (12, 40, 52)
"""Slices, rows, columns; 40 x 52 bits end within a byte, so frames are packed across byte borders."""

REGIONS = ("lungs", "left lung", "right lung", "left lung upper third", "right lung lower third")

CASES = (
    "cmbcrc-01068",
    "covidctmd-normal001",
    "covidctmd-p002",
    "lidc-0001",
    "lidc-0314",
    "lungdx-a0001",
    "lungdx-a0002",
)


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
    return save(dataset, folder / name)


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


# Codes and UIDs


def all_codes() -> list[Code]:
    found = [value for value in vars(codes).values() if isinstance(value, Code)]
    return sorted(set(found), key=str)


@pytest.mark.parametrize("code", all_codes(), ids=lambda code: f"{code.scheme_designator} {code.value}")
def test_every_code_is_listed_or_said_to_be_unlisted(code: Code) -> None:
    assert len(code.value) <= 16
    if code.scheme_designator == codes.PRIVATE_SCHEME:
        return
    meanings = {
        meaning
        for entries in concepts.get(code.scheme_designator, {}).values()
        for value, (meaning, _) in entries.items()
        if value == code.value
    }
    if code in codes.UNLISTED:
        assert not meanings, "it is listed now: drop it from UNLISTED"
    else:
        assert code.meaning in meanings


def test_every_structure_has_codes() -> None:
    assert set(codes.SEGMENT_CODES) == set(codes.Structure)


@pytest.mark.parametrize(
    ("label", "structure"),
    [
        ("Lung-seg", codes.Structure.LUNGS),
        ("lungs", codes.Structure.LUNGS),
        ("left lung", codes.Structure.LEFT_LUNG),
        ("Lung_Right", codes.Structure.RIGHT_LUNG),
        ("GroundGlass-seg", codes.Structure.GROUND_GLASS),
        ("COVID-19 lesion", codes.Structure.LESION),
        ("lung lesion", codes.Structure.LESION),
        ("lesion", codes.Structure.LESION),
        ("Consolidation", codes.Structure.CONSOLIDATION),
        ("Aorta", codes.Structure.OTHER),
    ],
)
def test_a_label_name_gives_its_structure(label: str, structure: codes.Structure) -> None:
    assert codes.structure_of(label) is structure


def test_uids_follow_from_their_parts() -> None:
    assert derived_uid("a", "b") == derived_uid("a", "b")
    assert derived_uid("a", "b") != derived_uid("ab")
    assert derived_uid("a").startswith("2.25.") and len(derived_uid("a")) <= 64


def test_a_repeated_run_gives_the_same_uids_and_another_bundle_others() -> None:
    series = make_series()
    later = replace(PRODUCER, when=datetime(2027, 1, 1))
    other = replace(PRODUCER, bundle_sha256="cd" * 32)
    first, again, changed = (segmentation(make_mask(series), series, p) for p in (PRODUCER, later, other))
    assert (first.SOPInstanceUID, first.SeriesInstanceUID) == (again.SOPInstanceUID, again.SeriesInstanceUID)
    assert changed.SOPInstanceUID != first.SOPInstanceUID and changed.SeriesInstanceUID != first.SeriesInstanceUID
    assert first.ContentDate == "20260102" and first.ContentTime == "030405"
    pdfs = [encapsulated_pdf(pdf_bytes(), series, p, "Report").SOPInstanceUID for p in (PRODUCER, later, other)]
    assert pdfs[0] == pdfs[1] != pdfs[2]
    reports = [measurements(make_ratio(10.0), None, series, p).SOPInstanceUID for p in (PRODUCER, later, other)]
    assert reports[0] == reports[1] != reports[2]


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
    left, right = dataset.SegmentSequence
    assert left.SegmentLabel == "left lung" and left.SegmentedPropertyTypeCodeSequence[0].CodeValue == "39607008"
    sides = [
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeValue
        for item in (left, right)
    ]
    assert sides == ["7771000", "24028007"]
    algorithm = left.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lung-ahnet", "0.1.0")
    assert "ab" * 32 in algorithm.AlgorithmParameters
    assert dataset.NumberOfFrames == 7 + 4, "slices without a label have no frame"


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


# Headers


def test_an_empty_header_gives_valid_objects_and_notes(tmp_path: Path) -> None:
    series = replace(make_series(Dataset()), study_uid="", frame_of_reference_uid="")
    mask = make_mask(series)
    seg = segmentation(mask, series, PRODUCER)
    check_geometry(seg, mask, series)
    report = measurements(make_ratio(1.0), None, series, PRODUCER, [seg])
    pdf = encapsulated_pdf(pdf_bytes(), series, PRODUCER, "Report")
    assert len({item.StudyInstanceUID for item in (seg, report, pdf)}) == 1
    for number, dataset in enumerate((seg, report, pdf)):
        assert errors_of(saved(dataset, tmp_path, f"{number}.dcm")) == []
    said = notes(series)
    assert len(said) == 2 and "(0020,0052)" in said[1]


def test_broken_values_are_left_out_and_named_without_their_content(tmp_path: Path) -> None:
    from pydicom import config
    from pydicom.dataelem import DataElement

    header = full_header()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName = "Müller^Jürgen"
    for tag, vr, value in (
        (0x00100040, "CS", "female"),
        (0x00101010, "AS", "70"),
        (0x00080020, "DA", "2020-03"),
        (0x00080050, "SH", "A" * 40),
    ):
        header[tag] = DataElement(tag, vr, value, validation_mode=config.IGNORE)
    header.PatientIdentityRemoved = "YES"
    series = make_series(header)
    dataset = segmentation(make_mask(series), series, PRODUCER)
    assert [dataset[name].is_empty for name in ("PatientSex", "StudyDate", "AccessionNumber")] == [True] * 3
    assert "PatientAge" not in dataset
    path = saved(dataset, tmp_path)
    assert errors_of(path) == []
    assert str(dcmread(path).PatientName) == "Müller^Jürgen"
    (note,) = notes(series)
    assert note.startswith("PatientSex, StudyDate, AccessionNumber, PatientAge") and "female" not in note


# PDF


def test_a_pdf_comes_back_unchanged(tmp_path: Path) -> None:
    data = pdf_bytes()
    series = make_series()
    dataset = encapsulated_pdf(data, series, PRODUCER, "COVID-19 classification")
    assert dataset.StudyInstanceUID == "1.2.3" and dataset.Modality == "DOC"
    assert {item.ReferencedSOPInstanceUID for item in dataset.SourceInstanceSequence} == {
        instance.sop_instance_uid for instance in series.instances
    }
    path = saved(dataset, tmp_path)
    assert errors_of(path) == []
    run(tool("dcm2pdf"), path, tmp_path / "out.pdf")
    assert (tmp_path / "out.pdf").read_bytes()[: len(data)] == data
    run(tool("pdftoppm"), "-png", "-r", "30", tmp_path / "out.pdf", tmp_path / "page")
    assert list(tmp_path.glob("page*.png"))


def test_what_is_no_pdf_is_refused() -> None:
    with pytest.raises(ModelFailed, match="is no PDF"):
        encapsulated_pdf(b"<html>", make_series(), PRODUCER, "Report")


# Report


def values_of(dataset: Dataset) -> dict[tuple[str, str], tuple[float, str]]:
    """Each number of a report by (group's identifier, meaning), with its unit."""
    found = {}

    def walk(items: list[Dataset], group: str) -> None:
        for item in items:
            name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
            if name == "Measurement Group":
                children = item.ContentSequence
                identifiers = [c for c in children if c.ConceptNameCodeSequence[0].CodeMeaning == "Tracking Identifier"]
                walk(children, identifiers[0].TextValue)
            elif item.ValueType == "NUM":
                value = item.MeasuredValueSequence[0]
                unit = value.MeasurementUnitsCodeSequence[0].CodeValue
                found[group, name] = float(value.NumericValue), unit
            elif "ContentSequence" in item:
                walk(item.ContentSequence, group)

    walk(dataset.ContentSequence, "")
    return found


def test_a_report_holds_the_numbers_and_refers_to_the_segments(tmp_path: Path) -> None:
    series = make_series()
    lung = segmentation(make_mask(series), series, PRODUCER)
    lesion = segmentation(make_mask(series, two=False), series, replace(PRODUCER, model_name="lesion-segresnet"))
    classes = Classification(uid=series.uid, probabilities={"COVID-19": 0.75, "non-COVID-19": 0.25})
    dataset = measurements(make_ratio(100.0), classes, series, PRODUCER, [lung, lesion])
    path = saved(dataset, tmp_path)
    assert errors_of(path) == []
    values = values_of(dataset)
    assert values["left lung", "Volume"] == (4000.0, "cm3")
    assert values["lungs", "Lesion volume as a part of lung volume"] == (2.5, "%")
    assert values["lungs", "Attenuation Coefficient"] == (-812.5, "[hnsf'U]")
    assert values["COVID-19 lesion", "Volume"] == (100.0, "cm3")
    assert values["COVID-19 lesion", "Number of separate lesions"] == (3.0, "1")
    assert values["classification", "Probability of COVID-19"] == (0.75, "1")
    named = {
        item.ReferencedSOPInstanceUID
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for group in study.ReferencedSeriesSequence
        for item in group.ReferencedSOPSequence
    }
    assert {lung.SOPInstanceUID, lesion.SOPInstanceUID} <= named
    json = tmp_path / "report.json"
    run(tool("tid1500reader"), "--inputDICOM", path, "--outputMetadata", json)
    text = json.read_text()
    assert lesion.SOPInstanceUID in text and lung.SOPInstanceUID in text


def test_nothing_found_is_a_valid_report_with_volume_zero(tmp_path: Path) -> None:
    series = make_series()
    lesion = segmentation(make_mask(series, empty=True, two=False), series, PRODUCER)
    dataset = measurements(make_ratio(0.0), None, series, PRODUCER, [lesion])
    assert errors_of(saved(dataset, tmp_path)) == []
    values = values_of(dataset)
    assert values["COVID-19 lesion", "Volume"] == (0.0, "cm3")
    assert not any(group == "classification" for group, _ in values)


def test_a_report_without_segments_is_valid(tmp_path: Path) -> None:
    dataset = measurements(make_ratio(5.0), None, make_series(), PRODUCER)
    assert errors_of(saved(dataset, tmp_path)) == []


# Real series


@pytest.mark.parametrize("name", CASES)
def test_objects_of_a_real_series_are_valid_and_in_place(data: Path, tmp_path: Path, name: str) -> None:
    series = choose(find_series(data / "ct" / name))
    assert isinstance(series, Series)
    volume = read_volume(series)
    labels = ((volume.hu > -950) & (volume.hu < -700)).astype(np.uint8)
    labels[:, :, : labels.shape[2] // 4] = 0
    labels[: len(labels) // 3] = 0
    labels[:, ::7] = 0
    mask = Mask(labels=labels, grid=volume.grid, names={1: "lungs"}, uid=volume.uid)
    seg = segmentation(mask, series, PRODUCER)
    check_geometry(seg, mask, series)
    report = measurements(make_ratio(3.0), None, series, PRODUCER, [seg])
    pdf = encapsulated_pdf(pdf_bytes(), series, PRODUCER, "Report")
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
    series = choose(find_series(tmp_path / "ct"))
    assert isinstance(series, Series)
    volume = read_volume(series)
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


@pytest.mark.filterwarnings("error")
def test_no_maker_warns_about_a_patient(tmp_path: Path) -> None:
    header = full_header()
    header.PatientName = "OneWord"
    series = make_series(header)
    seg = segmentation(make_mask(series), series, PRODUCER)
    report = measurements(make_ratio(1.0), None, series, PRODUCER, [seg])
    assert seg.PatientName == report.PatientName == "OneWord"
    assert str(dcmread(saved(seg, tmp_path)).PatientName) == "OneWord"
