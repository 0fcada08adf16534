"""Whose an object is, and what else a search says of it, is what the object itself says: of each in a mixed study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import UID
from sqlalchemy import update

from carina.database import ARRIVAL
from carina.receive.complete import release
from carina.receive.files import arriving_file, read_says
from carina.receive.store import SentBy
from carina.service.dicomweb.attributes import hex_tag
from carina.service.node import RunningNode
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from dicomweb_studies import uids
from served_nodes import add_job, hold, opened, serving
from test_dicomweb_made import make_slices

MINE, OTHER = 4, 2
PATIENT = {"PatientID": "OTHER", "PatientName": "Other^Person", "PatientBirthDate": "19500102", "PatientSex": "F"}
STUDY = {"AccessionNumber": "B2", "StudyDescription": "Second", "StudyDate": "20210203"}
SERIES = {"SeriesDescription": "Another", "SeriesDate": "20210204", "Manufacturer": "Maker"}


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A node with one study of objects that disagree: those of the first, and the others."""

    root: str
    first: list[Path]
    others: list[Path]

    def search(self, path: str, **keys: str) -> list[dict[str, object]]:
        answer = httpx.get(self.root + path, params=keys)
        assert answer.status_code == 200
        found: list[dict[str, object]] = answer.json()
        return found

    @property
    def study(self) -> str:
        return f"/studies/{uids(self.first[0])[0]}"


def value(record: Mapping[str, object], keyword: str) -> object:
    found = record[hex_tag(keyword)]
    assert isinstance(found, dict)
    [one] = found.get("Value", [""])
    return one.get("Alphabetic") if isinstance(one, dict) else one


def others_of(files: list[Path], folder: Path, changes: Mapping[str, object], how: str) -> list[Path]:
    """Slices that say something else; ``how`` tells whether under UIDs of their own, or in a series of their own."""
    folder.mkdir()
    for number, file in enumerate(files):
        dataset = dcmread(file)
        for keyword, said in changes.items():
            setattr(dataset, keyword, said)
        if how == "another series":
            dataset.SeriesInstanceUID = "2.25.77"
        if how != "corrected":
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.78.{number}")
        dataset.save_as(folder / file.name)
    return sorted(folder.iterdir())


def came_together(node: RunningNode, first: list[Path], others: list[Path]) -> None:
    hold(node, [*first, *others], state="quarantined")


def came_apart(node: RunningNode, first: list[Path], others: list[Path]) -> None:
    hold(node, first)
    apart = hold(node, others, state="apart")
    with node.engine.begin() as connection:
        assert release(connection, apart)


def came_first(node: RunningNode, first: list[Path], others: list[Path]) -> None:
    hold(node, others)
    hold(node, first)


def came_by_the_door(node: RunningNode, first: list[Path], others: list[Path]) -> None:
    """As senders bring them, one of each in turn."""
    for file in [*others[:1], *first, *others[1:]]:
        with arriving_file(file, read_says(file)) as arriving:
            node.store.accept(arriving, SentBy("scanner", "CT1@127.0.0.1"))
    with node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(state="queued"))


WAYS: list[Callable[[RunningNode, list[Path], list[Path]], None]] = [
    came_together,
    came_apart,
    came_first,
    came_by_the_door,
]


@pytest.fixture
def mix(tmp_path: Path) -> Iterator[Callable[..., Mixed]]:
    volume = chest_phantom(shape=(MINE + OTHER, 32, 32), lesions=0, seed=5).volume
    how = SeriesSettings(patient_id="MINE", shuffled=False)
    files = list(write_ct_series(volume, tmp_path / "ct", settings=how))
    node = opened(tmp_path)
    with serving(node) as url:

        def made(changes: Mapping[str, object], way: Callable[..., None], how: str = "") -> Mixed:
            first, rest = (files, files[MINE:]) if how == "corrected" else (files[:MINE], files[MINE:])
            others = others_of(rest, tmp_path / "others", changes, how)
            way(node, first, others)
            kept = first[:MINE]
            return Mixed(root=f"{url}/dicom-web", first=kept, others=others)

        yield made


def instances(records: Sequence[Mapping[str, object]]) -> set[object]:
    return {value(one, "SOPInstanceUID") for one in records}


def check_instances(mixed: Mixed, changes: Mapping[str, object]) -> None:
    """Every instance is found by what it says, by nothing else, and is said to say that."""
    mine, theirs = ({uids(file)[2] for file in files} for files in (mixed.first, mixed.others))
    header = dcmread(mixed.first[0], stop_before_pixels=True)
    for place in ("/instances", f"{mixed.study}/instances"):
        for keyword, said in changes.items():
            assert instances(mixed.search(place, **{keyword: str(said)})) == theirs
            own = str(header.get(keyword, ""))
            assert instances(mixed.search(place, **{keyword: own})) == (mine if own else mine | theirs)
    check_told(mixed, changes, mine, theirs)


def check_told(mixed: Mixed, changes: Mapping[str, object], mine: set[str], theirs: set[str]) -> None:
    for place in ("/instances", f"{mixed.study}/instances", f"{mixed.study}/metadata"):
        told = mixed.search(place)
        assert instances(told) == mine | theirs
        found = {keyword: saying(told, keyword, said) for keyword, said in changes.items()}
        assert found == dict.fromkeys(changes, theirs)


def saying(told: Sequence[Mapping[str, object]], keyword: str, said: object) -> set[object]:
    return instances([one for one in told if value(one, keyword) == said])


@pytest.mark.parametrize(
    ("way", "how"), [*((way, how) for way in WAYS for how in ("", "another series")), (came_apart, "corrected")]
)
def test_a_study_of_two_patients_is_told_once_for_each_with_what_is_theirs(
    mix: Callable[..., Mixed], way: Callable[..., None], how: str
) -> None:
    mixed = mix(PATIENT, way, how)
    check_instances(mixed, PATIENT)
    told = {value(one, "PatientID"): one for one in mixed.search("/studies")}
    assert {patient: value(one, "NumberOfStudyRelatedInstances") for patient, one in told.items()} == {
        "MINE": MINE,
        "OTHER": OTHER,
    }
    for keyword, said in PATIENT.items():
        [study] = mixed.search("/studies", **{keyword: str(said)})
        assert [value(study, one) for one in PATIENT] == list(PATIENT.values())
        [series] = mixed.search("/series", **{keyword: str(said)})
        assert value(series, "NumberOfSeriesRelatedInstances") == OTHER
        assert [value(series, one) for one in PATIENT] == list(PATIENT.values())
    [study] = mixed.search("/studies", PatientID="OTHER", Modality="CT")
    [series] = mixed.search(f"{mixed.study}/series", PatientID="MINE", SOPInstanceUID=uids(mixed.first[0])[2])
    assert value(series, "NumberOfSeriesRelatedInstances") == MINE
    assert not mixed.search("/studies", PatientID="OTHER", SOPInstanceUID=uids(mixed.first[0])[2])
    assert not mixed.search("/studies", PatientID="NOBODY")


@pytest.mark.parametrize("changes", [STUDY, SERIES, STUDY | SERIES], ids=["study", "series", "both"])
@pytest.mark.parametrize("way", WAYS)
def test_what_else_objects_of_a_patient_say_differently_is_found_and_told_as_each_says_it(
    mix: Callable[..., Mixed], way: Callable[..., None], changes: Mapping[str, str]
) -> None:
    """A study stays one; where the two came by themselves it is found by either, and says what it was found by."""
    mixed = mix(changes, way)
    check_instances(mixed, changes)
    [study] = mixed.search("/studies")
    assert value(study, "NumberOfStudyRelatedInstances") == MINE + OTHER
    if way in (came_apart, came_first):
        for keyword, said in changes.items():
            [study] = mixed.search("/studies", **{keyword: said})
            [series] = mixed.search("/series", **{keyword: said})
            assert value(series, keyword) == said
            if keyword in STUDY:
                assert value(study, keyword) == said


@pytest.mark.parametrize("way", WAYS)
def test_what_names_no_patient_is_nobodys_in_a_study_of_several_and_theirs_in_that_of_one(
    mix: Callable[..., Mixed], way: Callable[..., None]
) -> None:
    mixed = mix({"PatientID": "", "PatientName": ""}, way)
    [study] = mixed.search("/studies")
    assert (value(study, "NumberOfStudyRelatedInstances"), len(mixed.search("/instances", PatientID="MINE"))) == (6, 4)
    assert {value(one, "PatientID") for one in mixed.search("/instances")} == {"MINE", ""}


def test_results_of_one_patient_are_no_other_patients(tmp_path: Path) -> None:
    volume = chest_phantom(shape=(6, 32, 32), lesions=0, seed=5).volume
    files = list(write_ct_series(volume, tmp_path / "ct", settings=SeriesSettings(patient_id="MINE", shuffled=False)))
    others = others_of(files[4:], tmp_path / "others", PATIENT, "")
    node = opened(tmp_path)
    hold(node, files[:4])
    job = add_job(node, hold(node, others))
    for place in ("dicom", "dicom/slices"):
        make_slices(node, job, others, place)
    with serving(node) as url:
        mixed = Mixed(root=f"{url}/dicom-web", first=files[:4], others=others)
        told = {value(one, "PatientID"): one for one in mixed.search("/studies")}
        assert value(told["OTHER"], "NumberOfStudyRelatedInstances") == 6
        assert value(told["MINE"], "NumberOfStudyRelatedInstances") == 4
        assert len(mixed.search("/series", PatientID="OTHER")) == 3


@pytest.mark.parametrize("way", [came_by_the_door, came_apart])
@pytest.mark.parametrize("patient", [{}, PATIENT])
def test_instances_of_two_studies_under_one_series_uid_are_each_in_their_own(
    mix: Callable[..., Mixed], way: Callable[..., None], patient: Mapping[str, object]
) -> None:
    mixed = mix({"StudyInstanceUID": "2.25.99", **patient}, way)
    assert {value(one, "StudyInstanceUID") for one in mixed.search("/studies")} == {"2.25.99", mixed.study[9:]}
    for files in (mixed.first, mixed.others):
        study, series, _ = uids(files[0])
        for place in (f"/studies/{study}/instances", f"/studies/{study}/series/{series}/metadata"):
            assert instances(mixed.search(place)) == {uids(file)[2] for file in files}
