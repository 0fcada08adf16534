"""UIDs of all that we write: what says something else is another object, and the same said again is the same one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from carina.config import Settings
from carina.dicom.confidentiality import Profile, Retained
from carina.dicom.deidentify import deidentified
from carina.dicom.instances import colour_slices, mask_slices, volume_slices
from carina.dicom.objects import Producer
from carina.dicom.pdf import encapsulated_pdf
from carina.dicom.pseudonyms import Pseudonyms
from carina.dicom.seg import segmentation
from carina.dicom.seg_reader import Correction, Earlier, reader_segmentation
from carina.dicom.sr import measurements
from carina.measure.change import ScanFindings
from carina.measure.findings import (
    Classification,
    KeySlice,
    RatioFindings,
    SaliencyFindings,
    SaliencyMethod,
)
from carina.operators import dicom_report_writer as dicom_report_writer_module
from carina.operators.dicom_report_writer import dicom_report_writer
from carina.operators.networks import Networks
from carina.pipeline.operator import Context
from carina.report.change_pages import CHANGE_TITLE, change_pdf
from carina.report.facts import report_facts, said_sha256
from carina.volume import Mask, Volume
from dicom_objects_samples import CLASSIFIER, MAKERS, PRODUCER, SHAPE, make_mask, make_ratio, make_series

SERIES = make_series()
FIRST_DAY, LATER_DAY = datetime(2026, 1, 2, 3, 4, 5), datetime(2027, 6, 7, 8, 9, 10)

Making = Callable[[datetime], Dataset]


def made_at(when: datetime, **changed: str) -> Producer:
    return replace(PRODUCER, when=when, **changed)


def other_mask(**changed: Any) -> Mask:
    return replace(make_mask(SERIES), **changed)


def fewer() -> Mask:
    mask = make_mask(SERIES)
    mask.labels[2] = 0
    return mask


MASKS = {
    "first": make_mask(SERIES),
    "other voxels": fewer(),
    "other names": other_mask(names={1: "right lung", 2: "left lung"}),
    "a warning": other_mask(warnings=("The scan ends inside the lungs.",)),
    "a refusal": other_mask(refusals=("No lungs of a chest were found.",)),
}

REFUSED = other_mask(refusals=("The scan ends inside the lungs.",))

PRODUCERS: dict[str, dict[str, str]] = {
    one.name: {one.name: "another"} for one in fields(Producer) if one.name != "when"
}


def of_masks(make: Callable[[Mask, datetime], Dataset]) -> dict[str, Making]:
    return {name: lambda when, mask=mask: make(mask, when) for name, mask in MASKS.items()}  # type: ignore[misc]


def of_producers(make: Callable[[Producer], Dataset]) -> dict[str, Making]:
    return {
        name: lambda when, changed=changed: make(made_at(when, **changed))  # type: ignore[misc]
        for name, changed in PRODUCERS.items()
    }


def segmentations() -> dict[str, Making]:
    return {
        **of_masks(lambda mask, when: segmentation(mask, SERIES, made_at(when))),
        **of_producers(lambda producer: segmentation(MASKS["first"], SERIES, producer)),
        "the warning as a refusal": lambda when: segmentation(REFUSED, SERIES, made_at(when)),
        "a label map": lambda when: segmentation(MASKS["first"], SERIES, made_at(when), kind="LABELMAP"),
        "other labels": lambda when: segmentation(MASKS["first"], SERIES, made_at(when), ["left", "right"]),
    }


EARLIER = Earlier(sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4", sop_instance_uid="1.2.3.4.5", series_uid="1.2.3.4.6")


def corrections() -> dict[str, Making]:
    first = Correction(reader="Roe", earlier=EARLIER, is_from_network=True)
    others = {
        "first": first,
        "another reader": replace(first, reader="Doe"),
        "a painter": replace(first, painters=("Doe",)),
        "another earlier": replace(first, earlier=replace(EARLIER, sop_instance_uid="1.2.3.4.7")),
        "nothing earlier": replace(first, earlier=None),
        "nothing of the network's": replace(first, is_from_network=False),
    }
    masks = of_masks(lambda mask, when: reader_segmentation(mask, SERIES, made_at(when), first))
    return masks | {
        name: lambda when, one=one: reader_segmentation(make_mask(SERIES), SERIES, made_at(when), one)
        for name, one in others.items()
    }


def slices_of_a_mask() -> dict[str, Making]:
    return of_masks(lambda mask, when: mask_slices(mask, SERIES, made_at(when)).make(5)) | of_producers(
        lambda producer: mask_slices(MASKS["first"], SERIES, producer).make(5)
    )


def slices_of_a_volume() -> dict[str, Making]:
    grid = make_mask(SERIES).grid
    first = Volume(hu=np.zeros(SHAPE, np.int16), grid=grid, uid=SERIES.uid)
    z, y, x = grid.spacing_mm
    others = {
        "first": first,
        "other voxels": replace(first, hu=first.hu + np.int16(1)),
        "another place": replace(first, grid=replace(grid, spacing_mm=(z * 1.01, y, x))),
        "a warning": replace(first, warnings=("tilt corrected",)),
    }
    return {
        name: lambda when, one=one: volume_slices(one, SERIES, made_at(when)).make(5)  # type: ignore[misc]
        for name, one in others.items()
    }


def colour_series() -> dict[str, Making]:
    def made(when: datetime, **changed: Any) -> Dataset:
        told = {"description": "CT", "digest": "d", **changed}
        return colour_slices(lambda k: np.zeros((*SHAPE[1:], 3), np.uint8), SERIES, made_at(when), **told).make(5)

    return {
        "first": made,
        "other masks": lambda when: made(when, digest="e"),
        "another description": lambda when: made(when, description="The CT"),
        "a warning": lambda when: made(when, told=("The scan ends inside the lungs.",)),
    }


def probabilities(covid: float) -> Classification:
    return replace(CLASSIFIED, probabilities={"COVID-19": covid, "non-COVID-19": 1 - covid})


def key_slice(**changed: Any) -> KeySlice:
    empty = np.zeros(SHAPE[1:], bool)
    plain = KeySlice(index=5, spacing_mm=(0.75, 0.7), lung=empty, lesion=empty, hu=np.zeros(SHAPE[1:], np.int16))
    return replace(plain, **changed)


SALIENT = SaliencyFindings(
    label="COVID-19",
    lowest=-0.1,
    highest=0.2,
    blocks=(4, 4, 4),
    key_slices=(key_slice(saliency=np.zeros(SHAPE[1:], np.float32)),),
)
CLASSIFIED = Classification(
    uid=SERIES.uid,
    probabilities={"COVID-19": 0.03, "non-COVID-19": 0.97},
    made_by="covid-densenet 0.3.0 abc",
    key_slices=(key_slice(),),
    saliency=SALIENT,
)
CLASSIFICATIONS = {
    "first": CLASSIFIED,
    "another probability": probabilities(0.9),
    "nearly the same probability": probabilities(0.031),
    "not classified": replace(CLASSIFIED, probabilities={}, not_computed="Not classified.", saliency=None),
    "not classified for another reason": replace(
        CLASSIFIED, probabilities={}, not_computed="Not classified. No chest.", saliency=None
    ),
    "a warning": replace(CLASSIFIED, warnings=("The scan ends inside the lungs.",)),
    "other limits": replace(CLASSIFIED, limits=("It can't tell COVID-19 from influenza.",)),
    "another bundle": replace(CLASSIFIED, made_by="covid-densenet 0.3.0 def"),
    "without saliency": replace(CLASSIFIED, saliency=None),
    "another kind of saliency": replace(CLASSIFIED, saliency=replace(SALIENT, method=SaliencyMethod.ACTIVATION)),
    "other places": replace(
        CLASSIFIED,
        saliency=replace(SALIENT, key_slices=(key_slice(saliency=np.ones(SHAPE[1:], np.float32)),)),
    ),
    "other outlines": replace(CLASSIFIED, key_slices=(key_slice(lung=np.ones(SHAPE[1:], bool)),)),
    "another slice": replace(CLASSIFIED, key_slices=(key_slice(index=6),)),
    "other HU": replace(CLASSIFIED, key_slices=(key_slice(hu=np.ones(SHAPE[1:], np.int16)),)),
}
RATIO = replace(make_ratio(10.0), lung_made_by="lung 1 abc", lesion_made_by="lesion 1 def", key_slices=(key_slice(),))
RATIOS = {
    "first": RATIO,
    "other volumes": replace(RATIO, regions=make_ratio(11.0).regions),
    "nothing marked": replace(RATIO, regions=make_ratio(0.0).regions),
    "another count": replace(RATIO, lesion_count=4),
    "a warning": replace(RATIO, warnings=("Thirds are not told.",)),
    "another bundle": replace(RATIO, lesion_made_by="lesion 1 abc"),
    "other lesions": replace(RATIO, key_slices=(key_slice(lesion=np.ones(SHAPE[1:], bool)),)),
}


@cache
def networks() -> Networks:
    return Networks(Settings())


def report(result: Classification | RatioFindings, when: datetime, **called: str) -> Dataset:
    """As the pipeline's operator writes it."""
    context = Context(
        step="report",
        folder=Path(),
        when=when,
        progress=lambda fraction: None,
        warn=lambda sentence: None,
        record=lambda name, value: None,
        saved=lambda value: (),
    )
    made = dicom_report_writer(result, SERIES, called=called, networks=networks(), context=context)
    (dataset,) = made.dicom.objects.values()
    return dataset


def reports() -> dict[str, Making]:
    results: Mapping[str, Classification | RatioFindings] = {
        **CLASSIFICATIONS,
        **{f"{name} (ratio)": one for name, one in RATIOS.items()},
    }
    made: dict[str, Making] = {
        name: lambda when, one=one: report(one, when)  # type: ignore[misc]
        for name, one in results.items()
    }
    return made | {"another name in the definition": lambda when: report(CLASSIFIED, when, name="x")}


def changes() -> dict[str, Making]:
    regions = make_ratio(10.0).regions
    early, late = (ScanFindings(on=date(2020, 3, day), lungs=regions[0], network="a") for day in (1, 9))

    def made(when: datetime, later: ScanFindings, *earlier: ScanFindings) -> Dataset:
        facts = report_facts(SERIES, (made_at(when),))
        pdf, digest = change_pdf(later, earlier, facts), said_sha256((later, earlier), facts)
        return encapsulated_pdf(pdf, SERIES, made_at(when), CHANGE_TITLE, digest=digest)

    return {
        "first": lambda when: made(when, late, early),
        "more": lambda when: made(when, replace(late, lungs=make_ratio(11.0).regions[0]), early),
        "another day": lambda when: made(when, late, replace(early, on=date(2020, 3, 2))),
        "cut": lambda when: made(when, late, replace(early, is_cut=True)),
        "another network": lambda when: made(when, late, replace(early, network="b")),
        "one scan more": lambda when: made(when, late, early, early),
    }


def structured_reports() -> dict[str, Making]:
    def made(when: datetime, ratio: RatioFindings, classes: Classification | None, lung: Mask | None = None) -> Dataset:
        makers = replace(MAKERS, lung=made_at(when), classifier=replace(CLASSIFIER, when=when))
        segs = [segmentation(lung, SERIES, made_at(when))] if lung else []
        return measurements(ratio, classes, SERIES, makers, segs)

    ratios: dict[str, Making] = {
        f"{name} (ratio)": lambda when, one=one: made(when, one, CLASSIFIED)  # type: ignore[misc]
        for name, one in RATIOS.items()
        if name not in ("first", "another bundle", "other lesions")
    }
    told = (
        "first",
        "another probability",
        "nearly the same probability",
        "not classified",
        "a warning",
        "other limits",
    )
    classes: dict[str, Making] = {
        name: lambda when, one=CLASSIFICATIONS[name]: made(when, RATIO, one)  # type: ignore[misc]
        for name in told
    }
    return {
        **classes,
        **ratios,
        "no classification": lambda when: made(when, RATIO, None),
        "segments": lambda when: made(when, RATIO, CLASSIFIED, make_mask(SERIES)),
        "other segments": lambda when: made(when, RATIO, CLASSIFIED, fewer()),
    }


def deidentified_slices() -> dict[str, Making]:
    def made(when: datetime, *retained: Retained) -> Dataset:
        header = Dataset()
        header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
        header.SeriesInstanceUID, header.StudyInstanceUID = "1.2.3", "1.2"
        header.StudyDate, header.PatientSex, header.StationName, header.BitsStored = "20200304", "F", "CT1", 16
        header.StudyDescription = "CT Chest"
        names = Pseudonyms(b"k" * 32, "P-1", tuple(sorted(retained)))
        return deidentified(header, np.zeros((1, 2, 2), np.int16), Profile(frozenset(retained)), names)

    every: dict[str, Making] = {
        one: lambda when, one=one: made(when, one)  # type: ignore[misc]
        for one in Retained
    }
    return {"first": made, **every, "two": lambda when: made(when, Retained.DATES, Retained.PATIENT)}


OBJECTS: dict[str, Callable[[], dict[str, Making]]] = {
    "Segmentation": segmentations,
    "correction": corrections,
    "slices of a mask": slices_of_a_mask,
    "slices of a volume": slices_of_a_volume,
    "colour series": colour_series,
    "reports": reports,
    "change": changes,
    "measurements": structured_reports,
    "de-identified": deidentified_slices,
}

IDENTITY = ("SOPInstanceUID", "SeriesInstanceUID")


def identity(dataset: Dataset) -> tuple[str, ...]:
    return tuple(str(dataset[keyword].value) for keyword in IDENTITY)


@pytest.mark.parametrize("kind", OBJECTS)
def test_what_says_something_else_has_other_uids(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in ("classification_pdf", "ratio_pdf"):  # drawing takes a while, and UIDs don't follow from the bytes
        monkeypatch.setattr(dicom_report_writer_module, page, lambda *parts: b"%PDF-")
    seen: dict[str, str] = {}
    for name, make in OBJECTS[kind]().items():
        made = identity(make(FIRST_DAY))
        for uid in made:
            assert uid not in seen, f"{name} has a UID of {seen[uid]}"
        seen |= dict.fromkeys(made, name)


@pytest.mark.parametrize("kind", OBJECTS)
def test_what_is_said_again_at_another_time_is_the_same_object(kind: str) -> None:
    make = OBJECTS[kind]()["first"]
    assert identity(make(FIRST_DAY)) == identity(make(LATER_DAY))


def test_what_a_report_says_is_every_field_of_it_but_the_time() -> None:
    facts = report_facts(SERIES, (PRODUCER,))
    first = said_sha256(CLASSIFIED, facts)
    for one in fields(facts):
        others: dict[str, Any] = {"made_at": LATER_DAY, "models": (CLASSIFIER,)}
        changed = replace(facts, **{one.name: others.get(one.name, "other")})
        assert (said_sha256(CLASSIFIED, changed) == first) is (one.name == "made_at"), one.name


def test_what_has_no_words_is_not_left_out_of_a_reports_hash() -> None:
    with pytest.raises(NotImplementedError, match="object is nothing that a report says"):
        said_sha256(object(), report_facts(SERIES, (PRODUCER,)))


@pytest.mark.parametrize("precision", ["float", "numpy"])
def test_numbers_say_the_same_whichever_library_holds_them(precision: str) -> None:
    value = 0.25 if precision == "float" else np.float64(0.25)
    facts = report_facts(SERIES, (PRODUCER,))
    assert said_sha256(value, facts) == said_sha256(0.25, facts)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "RIGHT-ID"),
        ("PatientName", "Right^Name"),
        ("PatientBirthDate", "19510203"),
        ("AccessionNumber", "A-2"),
        ("StudyDate", "20200305"),
        ("StudyDescription", "CT of another study"),
    ],
)
def test_results_of_a_corrected_patient_or_study_are_other_objects(keyword: str, value: str) -> None:
    header = copy.deepcopy(SERIES.header)
    setattr(header, keyword, value)
    corrected = replace(SERIES, header=header)
    first, other = (
        (identity(segmentation(make_mask(SERIES), one, made_at(FIRST_DAY))), made_at(FIRST_DAY).uid(one, "sr"))
        for one in (SERIES, corrected)
    )
    assert not {*first[0], first[1]} & {*other[0], other[1]}


def test_results_in_another_study_are_other_objects() -> None:
    uids = {made_at(FIRST_DAY).uid(one, "pdf") for one in (SERIES, replace(SERIES, study_uid="1.2.3.4.5"))}
    assert len(uids) == 2
