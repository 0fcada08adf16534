"""De-identification: nothing that names the patient survives in any element, and the series still is one."""

from __future__ import annotations

import csv
import datetime as dt
import re
import stat
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, UltrasoundImageStorage

from carina.api.study import RunSettings, run
from carina.config import DeidentifySettings, Settings
from carina.dicom.confidentiality import KNOWN_TERMS, Deed, Profile, Retained, table
from carina.dicom.deidentify import check_drawn, deidentified
from carina.dicom.find import choose_source, find_series
from carina.dicom.pseudonyms import Pseudonyms
from carina.dicom.read import read_source
from carina.dicom.series import Series
from carina.errors import BadConfig, BadSeries
from carina.operators.deidentify import MAP_FILE, OPERATOR, Deidentified, deidentify
from carina.operators.ports import DicomObjects
from carina.pipeline import Context
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series

KEY = "k" * 32
SETTINGS = Settings(deidentify=DeidentifySettings(key=KEY))
ALL = frozenset(Retained)
SHOWN = ALL - {Retained.DEVICE}
"""Options that keep no text as it is."""

TEXTS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
BYTES = ("OB", "OW", "UN")
PLACES = sorted(tag for tag, entry in DicomDictionary.items() if entry[0] in (*TEXTS, *BYTES) and tag >> 16 > 8)
TERM_PLACES = sorted(KNOWN_TERMS)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(36, 200, 200), lesions=1, seed=4)


def context_in(folder: Path, facts: dict[str, Any] | None = None) -> Context:
    said = {} if facts is None else facts
    return Context(
        step="deidentify",
        folder=folder,
        when=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        progress=lambda fraction: None,
        warn=lambda sentence: None,
        record=said.__setitem__,
        saved=lambda value: (),
    )


def series_in(folder: Path) -> Series:
    source = choose_source(find_series(folder))
    assert isinstance(source, Series)
    return source


def run_on(folder: Path, out: Path, retained: frozenset[Retained] = frozenset()) -> Deidentified:
    out.mkdir(exist_ok=True)
    return deidentify(series_in(folder), retained=retained, settings=SETTINGS, context=context_in(out))


def stored(dataset: Dataset) -> bytes:
    """The file of an instance, with its meta information."""
    written = BytesIO()
    dcmwrite(written, dataset, enforce_file_format=True)
    return written.getvalue()


def hostile_header(planted: Mapping[int, str], text: str, *, depth: int = 0) -> Dataset:
    """A header with a text in elements, as they would come over the wire; VRs may be other than the standard's."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    header.Rows = header.Columns = 2
    header.BitsStored, header.PatientID, header.StudyInstanceUID, header.SeriesInstanceUID = 12, text, "1.2", "1.3"
    within = header
    for _ in range(depth):
        item = Dataset()
        within.add(
            DataElement(Tag(0x0008, 0x9215), "SQ", Items([item]))
        )  # Derivation Code Sequence is not in the table
        within = item
    for tag, vr in planted.items():
        value = text.encode() + b" " * (len(text) % 2)
        within[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    block = within.private_block(0x0033, text, create=True)
    block.add_new(1, "LO", text)
    return header


NAMES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz^", min_size=8, max_size=16).filter(
    lambda text: "^" not in (text[0], text[-1])
)
PLANTED = st.dictionaries(st.sampled_from(PLACES), st.none(), min_size=1, max_size=40)


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    text=NAMES,
    places=PLANTED,
    depth=st.sampled_from([0, 3]),
    wrong_vr=st.sampled_from(["", "LO", "UT", "UN", "CS"]),
    retained=st.frozensets(st.sampled_from(sorted(SHOWN))),
)
def test_no_planted_text_survives_in_any_element(
    text: str, places: dict[int, None], depth: int, wrong_vr: str, retained: frozenset[Retained]
) -> None:
    planted = {tag: wrong_vr or dictionary_VR(tag).split(" or ")[0] for tag in [*places, *TERM_PLACES]}
    planted = {tag: vr for tag, vr in planted.items() if vr in (*TEXTS, *BYTES)}
    header = hostile_header(planted, text, depth=depth)
    made = deidentified(header, np.zeros((1, 2, 2), np.int16), Profile(retained), Pseudonyms(b"k" * 32, "x"))
    made.file_meta.ImplementationVersionName = "CARINA"
    assert text.encode() not in stored(made)


def test_every_element_of_the_standard_is_judged_with_a_text_in_it() -> None:
    """All at once, so that none is left to chance; numbers' places hold it with another VR."""
    text = "Doe^Jane^Maria"
    for depth in (0, 3):
        planted = {
            tag: vr if vr in (*TEXTS, *BYTES) else "LO"
            for tag, entry in DicomDictionary.items()
            if tag >> 16 > 8 and (vr := entry[0].split(" or ")[0]) != "SQ" and tag not in (0x00280010, 0x00280011)
        }
        header = hostile_header(planted, text, depth=depth)
        header.BitsStored = 12
        made = deidentified(header, np.zeros((1, 2, 2), np.int16), Profile(SHOWN), Pseudonyms(b"k" * 32, "x"))
        assert text.encode() not in stored(made)


def test_the_table_is_the_standards() -> None:
    """Against rows of PS3.15 table E.1-1 that were read by hand."""
    deeds = table()
    assert len(deeds) > 600
    for removed in (0x00081030, 0x0008103E, 0x00181030, 0x00102160, 0x00081070, 0x00400275, 0x00080081, 0x00181000):
        assert deeds[Tag(removed)] is Deed.REMOVE
    for mapped in (0x0020000D, 0x0020000E, 0x00080018, 0x00200052, 0x00081155):
        assert deeds[Tag(mapped)] is Deed.UID
    for emptied in (0x00080020, 0x00080050, 0x00100030, 0x00080090):
        assert deeds[Tag(emptied)] is Deed.EMPTY
    assert Profile().deed(Tag(0x60003000)) is Profile().deed(Tag(0x00091001)) is Deed.REMOVE


NAMING = re.compile(rb"Doe|(?<![0-9a-f])4711(?![0-9a-f])|19610203|20240229")
"""What tells the planted patient; UIDs and hashes have the digits of the ID within them, by chance."""


def make_hostile(file: Path) -> None:
    """The patient's name wherever a file can hold one: preamble, file meta, private, overlay, after the pixels."""
    dataset = dcmread(file)
    dataset.PatientName = dataset.OperatorsName = dataset.SeriesDescription = "Doe^Jane"
    dataset.PatientID, dataset.PatientBirthDate, dataset.StudyDate = "4711-0815", "19610203", "20240229"
    dataset.StudyDescription, dataset.StationName = "CT Chest Doe 2.0 mm", "DoeCT"
    dataset.Manufacturer = "SIEMENS Doe"
    dataset.add_new(0x60000010, "US", 8)
    dataset.add_new(0x60003000, "OW", b"Doe^Jane")
    dataset.private_block(0x0029, "Doe", create=True).add_new(1, "UN", b"Doe^Jane")
    dataset.add_new(0xFFFCFFFC, "OB", b"Doe^Jane")
    dataset.preamble = b"Doe^Jane".ljust(128, b"\0")
    dataset.file_meta.PrivateInformation = b"Doe^Jane"
    dataset.file_meta.SourceApplicationEntityTitle = "Doe"
    dcmwrite(file, dataset, enforce_file_format=True)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless])
def test_a_whole_series_is_the_same_voxels_without_the_patient(phantom: Phantom, tmp_path: Path, syntax: str) -> None:
    files = write_ct_series(phantom.volume, tmp_path / "ct", settings=SeriesSettings(transfer_syntax=syntax))
    for file in files:
        make_hostile(file)
    made = run_on(tmp_path / "ct", tmp_path / "run")
    assert isinstance(made.source, Series)
    before, after = read_source(series_in(tmp_path / "ct")), read_source(made.source)
    np.testing.assert_array_equal(before.hu, after.hu)
    np.testing.assert_allclose(before.grid.spacing_mm, after.grid.spacing_mm)
    np.testing.assert_allclose(before.grid.origin_mm, after.grid.origin_mm)
    assert len(made.dicom.objects) == len(files)
    assert not [file for file in made.source.files if NAMING.search(file.read_bytes())]
    header = made.source.header
    assert (header.PatientIdentityRemoved, header.Manufacturer) == ("YES", "SIEMENS")
    assert (header.StudyDate, header.PatientBirthDate, header.AccessionNumber) == ("", "", "")
    assert codes_of(header) == ["113100"]
    assert "StudyDescription" not in header


def codes_of(header: Dataset) -> list[str]:
    return sorted(code.CodeValue for code in header.DeidentificationMethodCodeSequence)


def test_series_of_one_patient_stay_one_patients(phantom: Phantom, tmp_path: Path) -> None:
    made: list[Any] = []
    for number, key in ((1, KEY), (2, KEY), (3, "other" * 8)):
        write_ct_series(phantom.volume, tmp_path / f"{number}", settings=SeriesSettings(series_number=number))
        (tmp_path / f"run{number}").mkdir()
        source, settings = series_in(tmp_path / f"{number}"), Settings(deidentify=DeidentifySettings(key=key))
        made.append(deidentify(source, settings=settings, context=context_in(tmp_path / f"run{number}")).source)
    headers = [one.header for one in made if isinstance(one, Series)]
    assert headers[0].PatientID == headers[1].PatientID != headers[2].PatientID
    assert headers[0].StudyInstanceUID == headers[1].StudyInstanceUID != headers[2].StudyInstanceUID
    assert re.fullmatch(r"CARINA-[A-Z2-7]{12}", headers[0].PatientID)


def test_options_keep_what_they_say(phantom: Phantom, tmp_path: Path) -> None:
    for file in write_ct_series(phantom.volume, tmp_path / "ct"):
        make_hostile(file)
        describe(file)
    made = run_on(tmp_path / "ct", tmp_path / "run", ALL).source
    assert isinstance(made, Series)
    header = made.header
    check_moved(header)
    assert (header.PatientSex, header.PatientAge, header.PatientWeight) == ("F", "064Y", 61.5)
    assert (header.StationName, header.StudyDescription) == ("DoeCT", "CT Chest 2.0 mm")
    assert codes_of(header) == ["113100", "113105", "113107", "113108", "113109"]


def describe(file: Path) -> None:
    dataset = dcmread(file)
    dataset.PatientSex, dataset.PatientAge, dataset.PatientWeight = "F", "064Y", "61.5"
    dataset.AcquisitionDateTime, dataset.ContentDate = "20240301123000.5", "20240301"
    dcmwrite(file, dataset)


def check_moved(header: Dataset) -> None:
    moved = dt.datetime.strptime(header.StudyDate, "%Y%m%d")
    assert dt.datetime(2014, 1, 1) < moved < dt.datetime(2024, 2, 29)
    assert dt.datetime.strptime(header.ContentDate, "%Y%m%d") - moved == dt.timedelta(days=1)
    assert header.AcquisitionDateTime == f"{header.ContentDate}123000.5"
    assert header.PatientBirthDate == ""
    assert header.LongitudinalTemporalInformationModified == "MODIFIED"


def test_the_map_is_kept_for_the_node_alone(phantom: Phantom, tmp_path: Path) -> None:
    write_ct_series(phantom.volume, tmp_path / "ct")
    before = series_in(tmp_path / "ct")
    made: Any = run_on(tmp_path / "ct", tmp_path / "run").source
    file = tmp_path / "run" / MAP_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with file.open(newline="") as table:
        rows = {(row["kind"], row["original"]): row["replacement"] for row in csv.DictReader(table)}
    assert rows["uid", before.uid] == made.uid
    assert rows["patient", "\\PHANTOM"].startswith("CARINA-")
    assert not file.is_relative_to(tmp_path / "run" / "dicom")


DRAWN: dict[str, tuple[dict[str, Any], str]] = {
    "secondary capture": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "its class is Secondary Capture Image Storage"),
    "ultrasound": ({"SOPClassUID": UltrasoundImageStorage}, "its class is Ultrasound Image Storage"),
    "a private class": ({"SOPClassUID": "1.2.3.99"}, "its class is another"),
    "burned in": ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation is not NO"),
    "recognizable": ({"RecognizableVisualFeatures": "YES"}, "RecognizableVisualFeatures is not NO"),
    "captured": ({"ConversionType": "WSD"}, "it was captured"),
    "a screen": ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "Image Type says SCREEN SAVE"),
}


@pytest.mark.parametrize("what", DRAWN)
def test_pixels_that_may_show_a_name_are_refused(what: str) -> None:
    header = hostile_header({}, "x")
    check_drawn(header, "slice 1")
    for keyword, value in DRAWN[what][0].items():
        setattr(header, keyword, value)
    with pytest.raises(BadSeries, match=f"slice 1: {DRAWN[what][1]}.*its pixels may show"):
        check_drawn(header, "slice 1")


def test_without_a_key_nothing_is_made(phantom: Phantom, tmp_path: Path) -> None:
    write_ct_series(phantom.volume, tmp_path / "ct")
    with pytest.raises(BadConfig, match=r"deidentify\.key: has 0 characters"):
        deidentify(series_in(tmp_path / "ct"), settings=Settings(), context=context_in(tmp_path))


def test_an_option_that_is_none_is_said() -> None:
    with pytest.raises(
        ValueError, match='expected some of dates, device, patient, descriptors, with commas, not "all"'
    ):
        OPERATOR.variables["CARINA_RETAIN"].read("dates, all")


def test_instances_are_stored_as_objects(phantom: Phantom, tmp_path: Path) -> None:
    write_ct_series(phantom.volume, tmp_path / "ct")
    made = run_on(tmp_path / "ct", tmp_path / "run")
    (tmp_path / "out").mkdir()
    files = made.dicom.save(tmp_path / "out", lambda value: ())
    again = DicomObjects.load(files)
    assert {one.PatientIdentityRemoved for one in again.objects.values()} == {"YES"}


DEFINITION = """
api-version: 0.4.0
name: research
operators:
- name: deidentify
  container: {image: carina/deidentify, variables: {CARINA_RETAIN: "dates,patient"}}
  input:
  - path: /input
  output:
  - {path: /output, name: series}
  - {path: /dicom, name: dicom}
- name: dicom-reader
  container: {image: carina/dicom-reader}
  input:
  - {from: deidentify, name: series, path: /input}
  output:
  - path: /output
- name: dicom-writer
  container: {image: carina/dicom-writer}
  input:
  - {from: dicom-reader, path: /input}
  - {from: deidentify, name: series, path: /dicom}
  output:
  - {path: /output, name: dicom}
"""


def test_what_comes_after_it_in_a_pipeline_knows_no_patient(phantom: Phantom, tmp_path: Path) -> None:
    for file in write_ct_series(phantom.volume, tmp_path / "ct"):
        make_hostile(file)
    (tmp_path / "research.yaml").write_text(DEFINITION)
    done = run(tmp_path / "ct", tmp_path / "run", RunSettings(settings=SETTINGS, pipeline=tmp_path / "research.yaml"))
    assert len(done.dicom) == 2 * 36
    assert len(list((tmp_path / "run").rglob("*.dcm"))) == 3 * 36
    assert naming_files(tmp_path / "run") == [MAP_FILE]
    assert not list((tmp_path / "run").glob(".deidentify-*"))
    assert {str(dcmread(file).PatientName) for file in done.dicom} == {dcmread(done.dicom[0]).PatientID}


def naming_files(folder: Path) -> list[str]:
    return [file.name for file in folder.rglob("*") if file.is_file() and NAMING.search(file.read_bytes())]
