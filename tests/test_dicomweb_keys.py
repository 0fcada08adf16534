"""What QIDO-RS may be asked to match, at every resource: UIDs, sequences, levels, and what can't be matched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from dicomweb_studies import uids
from served_nodes import hold, opened, serving

SLICES = 3
RESOURCES = ("/studies", "/series", "/instances")
INSIDE = ("/studies/{study}/series", "/studies/{study}/instances", "/studies/{study}/series/{series}/instances")
REFERENCED = "2.25.4711"


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A node with a study of two series, of which one names a request and another series, and another study."""

    url: str
    named: tuple[str, str, str]
    others: int

    def get(self, path: str) -> httpx.Response:
        study, series, _ = self.named
        return httpx.get(f"{self.url}/dicom-web{path.format(study=study, series=series)}")


def with_sequences(file: Path, syntax: str) -> None:
    header = dcmread(file)
    request, reference, deeper = Dataset(), Dataset(), Dataset()
    request.ScheduledProcedureStepID, request.RequestedProcedureID = "STEP-7", "ASKED-7"
    reference.SeriesInstanceUID = REFERENCED
    deeper.ReferencedSOPInstanceUID = "2.25.99"
    reference.ReferencedInstanceSequence = [deeper]
    header.RequestAttributesSequence = [Dataset(), request]
    header.ReferencedSeriesSequence = [reference]
    header.add_new(0x00091001, "LO", "private")
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.save_as(file)


@pytest.fixture(scope="module", params=[ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    folder = tmp_path_factory.mktemp("keys")
    node = opened(folder)
    volume = chest_phantom(shape=(SLICES, 64, 64), lesions=0, seed=5).volume
    named = list(write_ct_series(volume, folder / "named"))
    for file in named:
        with_sequences(file, request.param)
    hold(node, named)
    study = uids(named[0])[0]
    for number, uid in enumerate((study, "2.25.31")):
        files = list(write_ct_series(volume, folder / f"{number}"))
        for at, file in enumerate(files):
            header = dcmread(file)
            header.StudyInstanceUID, header.SeriesInstanceUID = uid, f"2.25.3{number}.1"
            header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.3{number}.1.{at}")
            header.Modality = "PT"
            header.save_as(file)
        hold(node, files)
    with serving(node) as url:
        yield Searched(url=url, named=uids(named[0]), others=2)


def counts(searched: Searched, query: str) -> list[int]:
    answers = [searched.get(f"{path}?{query}") for path in RESOURCES]
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    return [len(answer.json()) for answer in answers]


EVERYTHING = [2, 3, 3 * SLICES]
NAMED = [1, 1, SLICES]


@pytest.mark.parametrize("value", ["*", "", "%20*"])
@pytest.mark.parametrize(
    "key",
    [
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "SOPClassUID",
        "StudyDate",
        "StudyTime",
        "SeriesNumber",
        "PatientName",
        "RequestAttributesSequence",
        "RequestAttributesSequence.ScheduledProcedureStepID",
        "ReferencedSeriesSequence.SeriesInstanceUID",
        "ReferencedSeriesSequence.ReferencedInstanceSequence.ReferencedSOPInstanceUID",
        "00081115.0020000E",
        "00091001",
        "PixelData",
    ],
)
def test_everything_matches_what_is_asked_for_universally(searched: Searched, key: str, value: str) -> None:
    assert counts(searched, f"{key}={value}") == EVERYTHING


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (f"ReferencedSeriesSequence.SeriesInstanceUID={REFERENCED}", NAMED),
        (f"00081115.0020000E={REFERENCED},2.25.1", NAMED),
        ("ReferencedSeriesSequence.SeriesInstanceUID=2.25.1", [0, 0, 0]),
        ("ReferencedSeriesSequence.ReferencedInstanceSequence.ReferencedSOPInstanceUID=2.25.99", NAMED),
        ("RequestAttributesSequence.ScheduledProcedureStepID=STEP-7", NAMED),
        ("RequestAttributesSequence.RequestedProcedureID=ASKED*", NAMED),
        ("RequestAttributesSequence.RequestedProcedureID=OTHER*", [0, 0, 0]),
        ("RequestAttributesSequence.ScheduledProcedureStepID=STEP-7&Modality=PT", [0, 0, 0]),
        ("Modality=PT", [2, 2, 2 * SLICES]),
        ("Modality=MR", [0, 0, 0]),
        ("SeriesInstanceUID=2.25.31.1", [1, 1, SLICES]),
        ("SeriesInstanceUID=2.25.31.1&SeriesInstanceUID=2.25.30.1", [2, 2, 2 * SLICES]),
        ("SOPInstanceUID=2.25.31.1.1", [1, 1, 1]),
        ("InstanceNumber=1", [2, 3, 3]),
        ("NumberOfSeriesRelatedInstances=3", EVERYTHING),
    ],
)
def test_a_key_of_any_level_is_matched_at_every_resource(searched: Searched, query: str, found: list[int]) -> None:
    assert counts(searched, query) == found


@pytest.mark.parametrize("path", [*RESOURCES, *INSIDE])
@pytest.mark.parametrize("key", ["00091001", "PixelData", "00091002.PatientID", "RedPaletteColorLookupTableData"])
def test_what_can_not_be_matched_is_ignored_and_said(searched: Searched, path: str, key: str) -> None:
    answer = searched.get(f"{path}?{key}=x")
    assert answer.headers["warning"] == (
        f'299 carina "These keys are not supported for matching, and were ignored: {key}"'
    )
    assert answer.json() == searched.get(path).json()
    assert "warning" not in searched.get(f"{path}?{key}=").headers


@pytest.mark.parametrize("path", [*RESOURCES, *INSIDE])
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SeriesInstanceUID=1.2.*", "SeriesInstanceUID is '1.2.*'; expected a whole UID (digits and dots), or several"),
        ("SOPInstanceUID=nope", "SOPInstanceUID is 'nope'; expected a whole UID"),
        ("ReferencedSeriesSequence.SeriesInstanceUID=1..2", "'1..2'; expected a whole UID"),
        ("RequestAttributesSequence=x", "is a sequence; name one of its attributes"),
        ("PatientID.SeriesInstanceUID=1.2", "PatientID is no sequence"),
        ("RequestAttributesSequence.Colour=1", "'Colour' is no attribute"),
        (".".join(["ReferencedSeriesSequence"] * 9) + "=1", "names more than 8 attributes in each other"),
        ("StudyTime=noon", "StudyTime is 'noon'; expected HHMMSS, or from and to"),
        ("InstanceNumber=one", "InstanceNumber is 'one'; expected a number"),
        ("SliceThickness=1*", "SliceThickness is '1*'; expected a number"),
        ("Modality=CT&Modality=PT", "Modality is asked for more than once; only UIDs can be"),
    ],
)
def test_what_can_be_no_value_of_a_key_is_said_in_one_line(
    searched: Searched, path: str, query: str, words: str
) -> None:
    answer = searched.get(f"{path}?{query}")
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("path", INSIDE)
def test_what_a_path_names_is_not_asked_to_be_another(searched: Searched, path: str) -> None:
    assert searched.get(f"{path}?StudyInstanceUID={searched.named[0]}").json() == searched.get(path).json()
    answer = searched.get(f"{path}?StudyInstanceUID=2.25.31")
    assert (answer.status_code, "another than that of the path" in answer.text) == (400, True)


def test_a_series_tells_the_request_that_it_is_of(searched: Searched) -> None:
    [record] = searched.get("/studies/{study}/series?Modality=CT").json()
    items = record["00400275"]["Value"]
    assert items[0] == {}
    assert items[1]["00400009"] == {"vr": "SH", "Value": ["STEP-7"]}
    [record] = searched.get("/series?includefield=ReferencedSeriesSequence.SeriesInstanceUID&Modality=CT").json()
    assert record["00081115"]["Value"][0]["0020000E"]["Value"] == [REFERENCED]
