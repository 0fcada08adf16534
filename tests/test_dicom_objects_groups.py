"""The groups of a measurement report: what they say was found, and that segments are tracked as what they measure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import pytest
from pydicom import Dataset

from carina.dicom import codes
from carina.dicom.seg import segmentation
from carina.dicom.sr import measurements
from carina.measure.findings import Classification
from carina.measure.ratio import lesion_ratio
from carina.volume import Mask
from dicom_objects_samples import (
    LESION_PRODUCER,
    MAKERS,
    PRODUCER,
    errors_of,
    make_mask,
    make_series,
    run,
    saved,
    tool,
)

SERIES = make_series()

FINDING, SUMMARY = "Finding", "CAD Processing and Findings Summary"


def groups_of(report: Dataset) -> dict[str, Dataset]:
    (measured,) = [item for item in report.ContentSequence if name_of(item) == "Imaging Measurements"]
    groups = list(measured.ContentSequence)
    found = {one_of(group, "Tracking Identifier").TextValue: group for group in groups}
    assert len(found) == len({one_of(group, "Tracking Unique Identifier").UID for group in groups}) == len(groups)
    return found


def name_of(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning) if "ConceptNameCodeSequence" in item else ""


def one_of(group: Dataset, name: str) -> Dataset:
    (found,) = [item for item in group.ContentSequence if name_of(item) == name]
    item: Dataset = found
    return item


def said_of(group: Dataset, name: str) -> list[str]:
    """The codes that stand in a group under a name."""
    return [str(item.ConceptCodeSequence[0].CodeMeaning) for item in group.ContentSequence if name_of(item) == name]


def lesion_mask(*, marked: bool) -> Mask:
    mask = make_mask(SERIES, empty=True, two=False)
    if marked:
        mask.labels[3:6, 8:15, 5:12] = 1
    return mask


def classes(covid: float) -> Classification:
    return Classification(uid=SERIES.uid, probabilities={"COVID-19": covid, "non-COVID-19": 1 - covid})


def report_of(*, marked: bool, lungs: bool = True, covid: float = 0.057, outlined: bool = True) -> Dataset:
    lung, lesion = make_mask(SERIES, empty=not lungs), lesion_mask(marked=marked)
    segs = [segmentation(lung, SERIES, PRODUCER), segmentation(lesion, SERIES, LESION_PRODUCER)] if outlined else []
    return measurements(lesion_ratio(lesion, lung), classes(covid), SERIES, MAKERS, segs)


FOUND: dict[str, tuple[dict[str, bool], list[str], list[str]]] = {
    "lesions": ({"marked": True}, ["Infiltrate"], ["All algorithms succeeded; with findings"]),
    "no lesions": ({"marked": False}, [], ["All algorithms succeeded; without findings"]),
    "no lungs": ({"marked": False, "lungs": False}, [], []),
}
"""What there is, and the lesion group's finding and summary."""


@pytest.mark.parametrize("what", FOUND)
@pytest.mark.parametrize("outlined", [True, False], ids=["segments", "no segments"])
def test_a_group_names_a_finding_only_of_what_was_found(tmp_path: Path, what: str, *, outlined: bool) -> None:
    there, finding, summary = FOUND[what]
    report = report_of(**there, outlined=outlined)
    assert errors_of(saved(report, tmp_path)) == []
    groups = groups_of(report)
    lesion = groups["COVID-19 lesion"]
    assert (said_of(lesion, FINDING), said_of(lesion, SUMMARY)) == (finding, summary)
    lungs = ["Lung"] if there.get("lungs", True) else []
    for name in ("lungs", "left lung", "right lung"):
        assert (said_of(groups[name], FINDING), said_of(groups[name], SUMMARY)) == (lungs, [])


@pytest.mark.parametrize("covid", [0.0, 0.057, 0.99])
def test_a_probability_is_no_finding(covid: float) -> None:
    group = groups_of(report_of(marked=True, covid=covid))["classification"]
    assert (said_of(group, FINDING), said_of(group, "Finding Site")) == ([], ["Lung"])
    assert one_of(group, "Probability of COVID-19").MeasuredValueSequence[0].NumericValue == pytest.approx(covid)


def test_readers_of_others_find_no_disease_where_none_was_found(tmp_path: Path) -> None:
    report = report_of(marked=False)
    path = saved(report, tmp_path)
    content = hd.sr.srread(path).content
    for code in (codes.INFILTRATE, codes.COVID_19):
        assert not content.get_planar_roi_measurement_groups(finding_type=code)
        assert not content.get_volumetric_roi_measurement_groups(finding_type=code)
        assert not content.get_image_measurement_groups(finding_type=code)
    (lesion,) = content.get_volumetric_roi_measurement_groups(tracking_uid=tracked(report)["COVID-19 lesion"])
    (said,) = lesion.get_qualitative_evaluations(name=codes.FINDINGS_SUMMARY)
    assert said.value == codes.WITHOUT_FINDINGS
    run(tool("tid1500reader"), "--inputDICOM", path, "--outputMetadata", tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())["Measurements"]
    assert "COVID-19 lesion" in [group["TrackingIdentifier"] for group in read]


LESION_LABELS: dict[str, list[str] | None] = {
    "the structure's own": None,
    "a word of the definition": ["lesion"],
    "the published pipeline's": ["GroundGlass-seg"],
}


@pytest.mark.parametrize("labels", LESION_LABELS)
@pytest.mark.parametrize("lung_labels", [None, ["Lung-left", "Lung-right"], ["Lung-seg"]])
def test_a_group_and_its_segment_are_tracked_as_the_same_thing(labels: str, lung_labels: list[str] | None) -> None:
    lung, lesion = make_mask(SERIES), lesion_mask(marked=True)
    segs = [
        segmentation(lung, SERIES, PRODUCER, lung_labels),
        segmentation(lesion, SERIES, LESION_PRODUCER, LESION_LABELS[labels]),
    ]
    ratio = lesion_ratio(lesion, lung)
    alone = tracked(measurements(ratio, None, SERIES, MAKERS))
    with_segs = measurements(ratio, None, SERIES, MAKERS, segs)
    segments = {(str(seg.SOPInstanceUID), item.SegmentNumber): item for seg in segs for item in seg.SegmentSequence}
    referred = 0
    for name, group in groups_of(with_segs).items():
        for image in (item for item in group.ContentSequence if name_of(item) == "Referenced Segment"):
            to = image.ReferencedSOPSequence[0]
            segment = segments[str(to.ReferencedSOPInstanceUID), to.ReferencedSegmentNumber]
            assert (segment.TrackingID, segment.TrackingUID) == (name, tracked(with_segs)[name])
            referred += 1
    assert referred == len(segments)
    both = tracked(with_segs)
    assert {name: both[name] for name in both if name in alone} == {name: alone[name] for name in alone if name in both}


def tracked(report: Dataset) -> dict[str, str]:
    return {name: str(one_of(group, "Tracking Unique Identifier").UID) for name, group in groups_of(report).items()}


def test_whoever_marks_it_a_structure_of_a_series_is_tracked_as_one() -> None:
    other = replace(PRODUCER, model_version="9", bundle_sha256="ef" * 32)
    first, second = (segmentation(make_mask(SERIES), SERIES, one).SegmentSequence for one in (PRODUCER, other))
    assert [item.TrackingUID for item in first] == [item.TrackingUID for item in second]
    elsewhere = segmentation(make_mask(SERIES), replace(SERIES, uid="1.2.3.9"), PRODUCER).SegmentSequence
    assert not {item.TrackingUID for item in first} & {item.TrackingUID for item in elsewhere}


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["Lung-seg"], ["lungs"]),
        (["Lung-left", "Lung-right"], ["left lung", "right lung"]),
        (["lesion", "COVID-19 lesion"], ["COVID-19 lesion", "COVID-19 lesion 2"]),
        (["lesion", "small lesion"], ["COVID-19 lesion", "small lesion"]),
        (["Aorta", "Aorta", "Aorta"], ["Aorta", "Aorta 2", "Aorta 3"]),
    ],
)
def test_every_segment_of_an_object_is_tracked_by_a_name_of_its_own(labels: list[str], names: list[str]) -> None:
    assert codes.tracked_names(labels) == names
