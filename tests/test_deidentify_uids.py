"""What says something else without its patient has other UIDs; the same has the same, and all of them fit together."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom._uid_dict import UID_dictionary
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless
from sqlalchemy import select, update

from carina.config import DeidentifySettings, Settings
from carina.database import DELIVERY
from carina.dicom.confidentiality import Retained
from carina.dicom.find import find_series, handed_source
from carina.dicom.pdf import encapsulated_pdf
from carina.dicom.read import read_source
from carina.dicom.seg import segmentation
from carina.dicom.series import Series
from carina.dicom.sr import measurements
from carina.jobs.execute import execute
from carina.jobs.queue import Attempt
from carina.operators.deidentify import MAP_FILE, deidentify
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from dicom_objects_samples import MAKERS, PRODUCER, make_ratio, pdf_bytes
from served_nodes import add_job
from test_deidentify import context_in
from test_onward import node_of

ALL = frozenset(Retained)
SETTINGS = Settings(deidentify=DeidentifySettings(key="k" * 32))
LOCALIZER = "1.2.3.999"
"""An instance of another series, which slices refer to."""

Edit = Callable[[list[Dataset]], object]


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(6, 48, 48), spacing_mm=(5.0, 7.0, 7.0), lesions=0, seed=4)


@pytest.fixture
def scan(phantom: Phantom, tmp_path: Path) -> Path:
    """A series whose slices refer to each other, to themselves and to another series."""
    files = write_ct_series(phantom.volume, tmp_path / "ct")
    slices = [dcmread(file) for file in files]
    for one, following in zip(slices, [*slices[1:], slices[0]], strict=True):
        one.StudyDate, one.PatientSex, one.StationName, one.StudyDescription = "20240229", "F", "CT1", "CT Chest"
        one.ReferencedInstanceSequence = Items([to(following.SOPInstanceUID), to(LOCALIZER)])
        one.SourceInstanceSequence = Items([to(one.SOPInstanceUID)])
        one.IrradiationEventUID = "1.2.3.77"
    return stored(slices, tmp_path / "ct")


def to(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
    return item


def stored(slices: Sequence[Dataset], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for number, one in enumerate(slices):
        one.save_as(folder / f"{number}.dcm")
    return folder


def edited(scan: Path, edit: Edit) -> Path:
    """The scan once more, corrected."""
    slices: list[Dataset] = [dcmread(file) for file in sorted(scan.iterdir())]
    edit(slices)
    return stored(slices, scan.parent / "corrected")


def without_patient(scan: Path, retained: frozenset[Retained] = ALL) -> Series:
    out = scan.parent / f"{scan.name}-run"
    out.mkdir(exist_ok=True)
    made = deidentify(handed_source(find_series(scan)), retained=retained, settings=SETTINGS, context=context_in(out))
    assert isinstance(made.source, Series)
    return made.source


def contents(series: Series) -> Mapping[str, bytes]:
    return {one.sop_instance_uid: one.path.read_bytes() for one in series.instances}


def each(**values: object) -> Edit:
    """A correction of every slice."""

    def edit(slices: list[Dataset]) -> None:
        for one in slices:
            for keyword, value in values.items():
                setattr(one, keyword, value)

    return edit


def moved(slices: list[Dataset]) -> None:
    x, y, z = slices[2].ImagePositionPatient
    slices[2].ImagePositionPatient = [x, y, float(z) + 0.5]


def brighter(slices: list[Dataset]) -> None:
    pixels = slices[2].pixel_array.copy()
    pixels[3, 3] += 1
    slices[2].PixelData = pixels.tobytes()


def nameless(slices: list[Dataset]) -> None:
    for one in slices:
        del one.PatientID


PATIENTS: dict[str, Edit] = {
    "another patient": each(PatientID="P-2"),
    "another issuer": each(IssuerOfPatientID="ELSEWHERE"),
    "no patient": nameless,
}

CORRECTIONS: dict[str, Edit] = {
    "another date": each(StudyDate="20240301"),
    "another sex": each(PatientSex="M"),
    "another station": each(StationName="CT2"),
    "another description": each(StudyDescription="CT Thorax"),
    "a number": each(KVP="100"),
    "other pixel spacing": each(PixelSpacing=[7.5, 7.5]),
    "another intercept": each(RescaleIntercept="-1000"),
    "the patient's position": each(PatientPosition="FFS"),
    "one slice moved": moved,
    "one pixel": brighter,
    "a slice less": lambda slices: slices.pop(),
    "the localizer's UID": lambda slices: setattr(
        slices[0].ReferencedInstanceSequence[1], "ReferencedSOPInstanceUID", "1.9"
    ),
}


@pytest.mark.parametrize("what", PATIENTS)
@pytest.mark.parametrize("retained", [frozenset(), ALL])
def test_nothing_of_one_patient_is_under_a_uid_of_anothers(
    scan: Path, what: str, retained: frozenset[Retained]
) -> None:
    first = without_patient(scan, retained)
    other = without_patient(edited(scan, PATIENTS[what]), retained)
    assert first.header.PatientID != other.header.PatientID
    assert not own_uids(first) & own_uids(other)
    assert {LOCALIZER, "1.2.3.77"} <= set(map_of(scan).values())


def own_uids(series: Series) -> set[str]:
    """Every UID in any slice that is not the standard's."""
    slices = [dcmread(file) for file in series.files]
    values = [element.value for one in slices for element in one.iterall() if element.VR == "UI"]
    return {str(value) for value in values} - set(UID_dictionary)


@pytest.mark.parametrize("what", CORRECTIONS)
def test_a_series_that_says_something_else_is_another_in_the_same_study(scan: Path, what: str) -> None:
    first, other = without_patient(scan), without_patient(edited(scan, CORRECTIONS[what]))
    assert not set(contents(first)) & set(contents(other))
    assert first.uid != other.uid
    for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert first.header[keyword].value == other.header[keyword].value


SAME: dict[str, Edit] = {
    "nothing": lambda slices: None,
    "order": lambda slices: slices.reverse(),
    "the name": each(PatientName="Roe^Richard"),
    "the birth date": each(PatientBirthDate="19610203"),
    "the accession number": each(AccessionNumber="A-2"),
    "words that go": each(StudyDescription="CT Chest Roe"),
    "a private element": lambda slices: slices[0].private_block(0x33, "X", create=True).add_new(1, "LO", "x"),
}


@pytest.mark.parametrize("what", SAME)
def test_a_series_that_says_the_same_is_the_same_to_the_byte(scan: Path, what: str) -> None:
    assert contents(without_patient(edited(scan, SAME[what]))) == contents(without_patient(scan))


@pytest.mark.parametrize("keyword", ["StudyDate", "PatientSex", "StationName", "StudyDescription"])
def test_what_no_option_keeps_makes_no_other_series(scan: Path, keyword: str) -> None:
    other = edited(scan, each(**{keyword: "20240301" if keyword == "StudyDate" else "O"}))
    assert contents(without_patient(other, frozenset())) == contents(without_patient(scan, frozenset()))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless])
def test_a_series_is_the_same_however_it_was_compressed(phantom: Phantom, tmp_path: Path, syntax: str) -> None:
    made = []
    for name, one in (("plain", ExplicitVRLittleEndian), ("other", syntax)):
        write_ct_series(phantom.volume, tmp_path / name, settings=SeriesSettings(transfer_syntax=one))
        made.append(contents(without_patient(tmp_path / name)))
    assert made[0] == made[1]


def test_references_of_slices_lead_to_what_they_led_to(scan: Path) -> None:
    made = without_patient(scan)
    slices = [dcmread(one.path) for one in made.instances]
    for one, following in zip(slices, [*slices[1:], slices[0]], strict=True):
        assert one.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == following.SOPInstanceUID
        assert one.SourceInstanceSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID


def test_what_several_series_of_a_patient_share_is_replaced_by_the_same(phantom: Phantom, scan: Path) -> None:
    first = without_patient(scan)
    earlier = edited(
        scan, each(SeriesInstanceUID="1.2.3.55", StudyInstanceUID="1.2.3.56", IrradiationEventUID="1.2.3.77")
    )
    other = without_patient(earlier)
    assert first.header.PatientID == other.header.PatientID
    assert first.header.StudyInstanceUID != other.header.StudyInstanceUID
    for one in (first, other):
        assert one.header.FrameOfReferenceUID == first.header.FrameOfReferenceUID
        assert one.header.IrradiationEventUID == first.header.IrradiationEventUID
        localizer = one.header.ReferencedInstanceSequence[1].ReferencedSOPInstanceUID
        assert localizer == first.header.ReferencedInstanceSequence[1].ReferencedSOPInstanceUID != LOCALIZER


def test_what_an_option_keeps_stays_for_every_patient(scan: Path) -> None:
    scan = edited(scan, each(DeviceUID="1.2.3.66"))
    kept = [without_patient(one) for one in (scan, edited(scan, each(PatientID="P-2")))]
    assert {one.header.DeviceUID for one in kept} == {"1.2.3.66"}
    assert without_patient(scan, frozenset()).header.get("DeviceUID") != "1.2.3.66"


def results(series: Series, phantom: Phantom) -> list[Dataset]:
    mask = replace(phantom.lung, grid=read_source(series).grid, uid=series.uid)
    seg = segmentation(mask, series, PRODUCER)
    sr = measurements(make_ratio(1.0), None, series, MAKERS, [seg])
    return [seg, sr, encapsulated_pdf(pdf_bytes(), series, PRODUCER, "A report", digest="said")]


def test_results_of_a_corrected_scan_are_others_and_refer_to_its_slices(phantom: Phantom, scan: Path) -> None:
    corrected = edited(scan, PATIENTS["another patient"])
    first, second = (uids_of_results(without_patient(one), phantom) for one in (scan, corrected))
    assert len(first) == len(second) == 3 and not first & second


def uids_of_results(series: Series, phantom: Phantom) -> set[str]:
    """UIDs of results that are of the series' patient and study, and refer to its slices and themselves."""
    objects = results(series, phantom)
    own = {str(one.SOPInstanceUID) for one in objects}
    for one in objects:
        assert referred_to(one) <= own | set(contents(series))
        assert (one.PatientID, one.StudyInstanceUID) == (series.header.PatientID, series.study_uid)
    assert named_slices(objects) == set(contents(series))
    return own


def referred_to(made: Dataset) -> set[str]:
    return {str(element.value) for element in made.iterall() if element.keyword == "ReferencedSOPInstanceUID"}


def named_slices(objects: Sequence[Dataset]) -> set[str]:
    (series,) = objects[0].ReferencedSeriesSequence
    assert series.SeriesInstanceUID not in ("", objects[0].SeriesInstanceUID)
    return {str(one.ReferencedSOPInstanceUID) for one in series.ReferencedInstanceSequence}


def map_of(scan: Path) -> Mapping[str, str]:
    """Originals of UIDs by what replaced them."""
    with (scan.parent / f"{scan.name}-run" / MAP_FILE).open(newline="") as table:
        return {row["replacement"]: row["original"] for row in csv.DictReader(table) if row["kind"] == "uid"}


@pytest.mark.parametrize("shared", ["", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_the_map_tells_of_every_uid_in_the_slices_what_it_was(scan: Path, shared: str) -> None:
    """Also where somebody gave a series the UID of its study: that is the same after a correction all the same."""
    if shared:
        scan = edited(scan, each(**{shared: handed_source(find_series(scan)).uid}))
    made, before = without_patient(scan), [dcmread(file) for file in sorted(scan.iterdir())]
    known = map_of(scan)
    assert set(known) == own_uids(made)
    assert {known[uid] for uid in contents(made)} == {str(one.SOPInstanceUID) for one in before}
    for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert known[str(made.header[keyword].value)] == before[0][keyword].value
    again = without_patient(edited(scan, brighter))
    assert again.study_uid == made.study_uid and again.frame_of_reference_uid == made.frame_of_reference_uid


def test_a_destination_gets_every_slice_of_a_corrected_patient(tmp_path: Path) -> None:
    """And none that it has is taken for one: of those it would be asked first."""
    node = node_of(tmp_path, ["share"])
    phantom = chest_phantom(shape=(12, 96, 96), spacing_mm=(3.0, 1.5, 1.5), lesions=0)
    wanted: dict[str, Any] = {"destinations": '["share"]', "state": "running", "ended": "", "stopped_at": None}
    for name in ("P-1", "P-1", "P-2"):
        write_ct_series(phantom.volume, tmp_path / "ct", settings=SeriesSettings(patient_id=name))
        pipeline = str(tmp_path / "sends.yaml")
        job = add_job(node, source=str(tmp_path / "ct"), pipeline=pipeline, attempt=1, **wanted)
        assert execute(node.settings, node.engine, Attempt(job, 1))
        with node.engine.begin() as connection:
            connection.execute(update(DELIVERY).values(state="sent", attempts=1))
    with node.engine.connect() as connection:
        rows = connection.execute(select(DELIVERY.c.job_id, DELIVERY.c.sop_instance_uid, DELIVERY.c.ask)).all()
    sent = {job: {row.sop_instance_uid for row in rows if row.job_id == job} for job in (1, 2, 3)}
    assert len(sent[1]) == 12 and sent[1] == sent[2] and len(sent[3]) == 12 and not sent[1] & sent[3]
    assert {row.job_id: row.ask for row in rows} == {1: 0, 2: 1, 3: 0}


def test_voxels_are_those_of_the_scan(scan: Path) -> None:
    before = handed_source(find_series(scan))
    np.testing.assert_array_equal(read_source(without_patient(scan)).hu, read_source(before).hu)
