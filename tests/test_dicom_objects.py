"""The objects we write, judged by validators and readers that are not ours: codes, UIDs, headers, PDF, report."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from carina.dicom import codes
from carina.dicom.objects_header import notes
from carina.dicom.pdf import encapsulated_pdf
from carina.dicom.seg import check_geometry, segmentation
from carina.dicom.series import Series
from carina.dicom.sr import measurements, unlike_segments
from carina.dicom.uids import derived_uid
from carina.errors import ModelFailed
from carina.measure.findings import Classification, RatioFindings
from carina.measure.ratio import lesion_ratio
from carina.volume import Mask
from dicom_objects_samples import (
    LESION_PRODUCER,
    MAKERS,
    PRODUCER,
    SHAPE,
    errors_of,
    evidence_of,
    full_header,
    make_mask,
    make_ratio,
    make_series,
    pdf_bytes,
    run,
    saved,
    tool,
)

# Codes and UIDs


def all_codes() -> list[Code]:
    found = [value for value in vars(codes).values() if isinstance(value, Code)]
    return sorted(set(found), key=str)


@pytest.mark.parametrize("code", all_codes(), ids=lambda code: f"{code.scheme_designator} {code.value}")
def test_every_code_is_listed_or_said_to_be_unlisted(code: Code) -> None:
    assert len(code.value) <= 16
    if code.scheme_designator == codes.PRIVATE_SCHEME:
        return
    known: dict[str, Any] = dict(concepts.get(code.scheme_designator, {}))
    meanings = {meaning for entries in known.values() for value, (meaning, _) in entries.items() if value == code.value}
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


def test_the_same_mask_on_another_series_gives_other_uids() -> None:
    series = make_series()
    other = replace(
        series, instances=tuple(replace(i, sop_instance_uid=f"9.{n}") for n, i in enumerate(series.instances))
    )
    moved = replace(series, uid="1.2.3.9")
    made = [segmentation(make_mask(series), one, PRODUCER) for one in (series, other, moved)]
    assert len({one.SOPInstanceUID for one in made}) == len({one.SeriesInstanceUID for one in made}) == 3
    pdfs = [encapsulated_pdf(pdf_bytes(), one, PRODUCER, "Report", digest="said") for one in (series, other)]
    assert len({one.SOPInstanceUID for one in pdfs}) == 2


# Headers


def test_an_empty_header_gives_valid_objects_and_notes(tmp_path: Path) -> None:
    series = replace(make_series(Dataset()), study_uid="", frame_of_reference_uid="")
    mask = make_mask(series)
    seg = segmentation(mask, series, PRODUCER)
    check_geometry(seg, mask, series)
    report = measurements(make_ratio(1.0), None, series, MAKERS, [seg])
    pdf = encapsulated_pdf(pdf_bytes(), series, PRODUCER, "Report", digest="said")
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
    dataset = encapsulated_pdf(data, series, PRODUCER, "COVID-19 classification", digest="said")
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
        encapsulated_pdf(b"<html>", make_series(), PRODUCER, "Report", digest="said")


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


def groups_of(dataset: Dataset) -> dict[str, Dataset]:
    """The measurement groups of a report by their tracking identifier."""
    (measured,) = [item for item in dataset.ContentSequence if name_of(item) == "Imaging Measurements"]
    return {text_of(group, "Tracking Identifier"): group for group in measured.ContentSequence}


def name_of(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning) if "ConceptNameCodeSequence" in item else ""


def text_of(group: Dataset, name: str) -> str:
    (found,) = [item.TextValue for item in group.ContentSequence if name_of(item) == name]
    return str(found)


def algorithm_of(item: Dataset) -> str:
    parameters = [part.TextValue for part in item.ContentSequence if name_of(part) == "Algorithm Parameters"]
    return " ".join([text_of(item, "Algorithm Name"), text_of(item, "Algorithm Version"), parameters[0]])


def measured(series: Series) -> tuple[RatioFindings, list[Dataset]]:
    """Two lungs and a lesion in the left one, measured and written."""
    lung, labels = make_mask(series), np.zeros(SHAPE, np.uint8)
    labels[3:6, 8:15, 5:12] = 1
    lesion = Mask(labels=labels, grid=lung.grid, names={1: "COVID-19 lesion"}, uid=series.uid)
    segs = [segmentation(lung, series, PRODUCER), segmentation(lesion, series, LESION_PRODUCER)]
    return lesion_ratio(lesion, lung), segs


def test_a_report_holds_the_numbers_and_refers_to_the_segments(tmp_path: Path) -> None:
    series = make_series()
    ratio, segs = measured(series)
    lung, lesion = segs
    classes = Classification(uid=series.uid, probabilities={"COVID-19": 0.75, "non-COVID-19": 0.25})
    with_hu = replace(ratio, regions=tuple(replace(one, lung_mean_hu=-812.5) for one in ratio.regions))
    dataset = measurements(with_hu, classes, series, MAKERS, segs)
    path = saved(dataset, tmp_path)
    assert (unlike_segments(ratio, series, segs), errors_of(path)) == ((), [])
    values = values_of(dataset)
    voxel_ml = 2.5 * 0.75 * 0.7 / 1000
    left_ml, lesion_ml = (7 * 25 * 17 - 1) * voxel_ml, 3 * 7 * 7 * voxel_ml
    expected = {
        ("left lung", "Volume"): (pytest.approx(left_ml, abs=1e-6), "cm3"),
        ("right lung", "Volume"): (pytest.approx(4 * 26 * 19 * voxel_ml, abs=1e-6), "cm3"),
        ("left lung", "Volume of lesion in region"): (pytest.approx(lesion_ml, abs=1e-6), "cm3"),
        ("right lung", "Volume of lesion in region"): (0.0, "cm3"),
        ("left lung", "Lesion volume as a part of lung volume"): (
            pytest.approx(100 * lesion_ml / left_ml, abs=1e-5),
            "%",
        ),
        ("lungs", "Attenuation Coefficient"): (-812.5, "[hnsf'U]"),
        ("COVID-19 lesion", "Volume"): (pytest.approx(lesion_ml, abs=1e-6), "cm3"),
        ("COVID-19 lesion", "Number of separate lesions"): (1.0, "1"),
        ("classification", "Probability of COVID-19"): (0.75, "1"),
    }
    assert {key: values[key] for key in expected} == expected
    assert {lung.SOPInstanceUID, lesion.SOPInstanceUID} <= evidence_of(dataset)
    json = tmp_path / "report.json"
    run(tool("tid1500reader"), "--inputDICOM", path, "--outputMetadata", json)
    text = json.read_text()
    assert lesion.SOPInstanceUID in text and lung.SOPInstanceUID in text


def test_each_number_names_the_bundle_that_it_comes_from() -> None:
    series = make_series()
    ratio, segs = measured(series)
    classes = Classification(uid=series.uid, probabilities={"COVID-19": 0.75, "non-COVID-19": 0.25})
    lung, lesion, covid = (
        f"{name} bundle_sha256={sha * 32}"
        for name, sha in (("lung-ahnet 0.1.0", "ab"), ("lesion-segresnet 0.2.0", "cd"), ("covid-densenet 0.3.0", "ef"))
    )
    both = f"lesion-segresnet + lung-ahnet 0.2.0 + 0.1.0 bundle_sha256={'cd' * 32} {'ab' * 32}"
    for objects in ([], segs):
        groups = groups_of(measurements(ratio, classes, series, MAKERS, objects))
        assert (algorithm_of(groups["classification"]), algorithm_of(groups["COVID-19 lesion"])) == (covid, lesion)
        for region in ratio.regions:
            group = groups[region.region]
            numbers = {name_of(item): item for item in group.ContentSequence if item.ValueType == "NUM"}
            share = numbers["Lesion volume as a part of lung volume"]
            items = (group, numbers["Volume of lesion in region"], share)
            assert tuple(map(algorithm_of, items)) == (lung, lesion, both)
            assert "ContentSequence" not in numbers["Volume"], "the group's"
    whole = measurements(ratio, classes, series, MAKERS, segs)
    assert whole.ManufacturerModelName == "lesion-segresnet + lung-ahnet + covid-densenet"


def segment_of(group: Dataset, seg: Dataset) -> Dataset:
    """The segment of ``seg`` that a measurement group refers to."""
    (image,) = [item for item in group.ContentSequence if item.ValueType == "IMAGE" and "Segment" in name_of(item)]
    reference = image.ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
    segments: list[Dataset] = list(seg.SegmentSequence)
    (segment,) = [item for item in segments if item.SegmentNumber == reference.ReferencedSegmentNumber]
    return segment


def test_each_side_refers_to_the_segment_of_its_side() -> None:
    series = make_series()
    ratio, segs = measured(series)
    groups = groups_of(measurements(ratio, None, series, MAKERS, segs))
    for side, code in (("left", "7771000"), ("right", "24028007")):
        group = groups[f"{side} lung"]
        assert segment_of(group, segs[0]).SegmentLabel == f"{side} lung"
        (site,) = [item for item in group.ContentSequence if name_of(item) == "Finding Site"]
        laterality = [item.ConceptCodeSequence[0].CodeValue for item in site.ContentSequence]
        assert laterality == [code]


def test_a_segment_of_another_volume_is_not_referred_to_and_that_is_said() -> None:
    series = make_series()
    ratio, segs = measured(series)
    fewer = make_mask(series)
    fewer.labels[2] = 0
    other = segmentation(fewer, series, PRODUCER)
    said = unlike_segments(ratio, series, [other, segs[1]])
    assert len(said) == 1 and said[0].startswith(
        "The segment 'left lung' holds 3.35 ml, measured were 3.90 ml: the meas"
    )
    groups = groups_of(measurements(ratio, None, series, MAKERS, [other, segs[1]]))
    referring = [name for name, group in groups.items() if any(i.ValueType == "IMAGE" for i in group.ContentSequence)]
    assert referring == ["right lung", "COVID-19 lesion"]


def test_one_segment_for_both_lungs_is_the_whole_and_kinds_of_lesion_are_not() -> None:
    series = make_series()
    ratio = measured(series)[0]
    lung = segmentation(make_mask(series), series, PRODUCER, ["Lung-seg"])
    two = make_mask(series)
    kinds = segmentation(two, series, LESION_PRODUCER, ["GroundGlass-seg", "Consolidation"])
    assert unlike_segments(ratio, series, [lung, kinds]) == ()
    groups = groups_of(measurements(ratio, None, series, MAKERS, [lung, kinds]))
    referring = [name for name, group in groups.items() if any(i.ValueType == "IMAGE" for i in group.ContentSequence)]
    assert referring == ["lungs"]


def test_nothing_found_is_a_valid_report_with_volume_zero(tmp_path: Path) -> None:
    series = make_series()
    lesion = segmentation(make_mask(series, empty=True, two=False), series, PRODUCER)
    dataset = measurements(make_ratio(0.0), None, series, MAKERS, [lesion])
    assert errors_of(saved(dataset, tmp_path)) == []
    values = values_of(dataset)
    assert values["COVID-19 lesion", "Volume"] == (0.0, "cm3")
    assert not any(group == "classification" for group, _ in values)


def test_a_report_without_segments_is_valid(tmp_path: Path) -> None:
    dataset = measurements(make_ratio(5.0), None, make_series(), MAKERS)
    assert errors_of(saved(dataset, tmp_path)) == []


@pytest.mark.filterwarnings("error")
def test_no_maker_warns_about_a_patient(tmp_path: Path) -> None:
    header = full_header()
    header.PatientName = "OneWord"
    series = make_series(header)
    seg = segmentation(make_mask(series), series, PRODUCER)
    report = measurements(make_ratio(1.0), None, series, MAKERS, [seg])
    assert seg.PatientName == report.PatientName == "OneWord"
    assert str(dcmread(saved(seg, tmp_path)).PatientName) == "OneWord"
