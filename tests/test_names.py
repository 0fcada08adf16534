"""Names for what was found: each its own, the same again, and never a way out of the folder."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from carina.api.names import distinct, names_of, place_of
from carina.dicom.find import Found
from carina.pipeline.places import file_name

BELOW = Path("/archive")
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)


def series(uid: str, part: str = "", place: str = "a") -> Found:
    return Found(path=BELOW / place, uid=uid, part=part, modality="CT")


def volume(place: str) -> Found:
    return Found(path=BELOW / place, uid="ct")


def starts(found: list[Found]) -> list[str]:
    """The names without their digests."""
    return [name.rsplit("-", 1)[0] for name in names_of(found, BELOW)]


def test_a_uid_of_one_series_is_its_name() -> None:
    assert names_of([series("1.2.3"), series("1.2.4")], BELOW) == ["1.2.3", "1.2.4"]


def test_two_acquisitions_of_one_uid_are_named_by_what_tells_them_apart() -> None:
    found = [series("1.2.3", "AcquisitionNumber 1"), series("1.2.3", "AcquisitionNumber 2"), series("1.2.4")]
    assert starts(found)[:2] == ["1.2.3_AcquisitionNumber_1", "1.2.3_AcquisitionNumber_2"]
    assert names_of(found, BELOW)[2] == "1.2.4"


def test_two_patients_of_one_uid_are_named_by_their_places() -> None:
    found = [series("1.2.3", place="p1"), series("1.2.3", place="p2"), series("1.2.3", "KVP 80", place="p2")]
    assert starts(found) == ["1.2.3_p1", "1.2.3_p2", "1.2.3_KVP_80"]


def test_volume_files_are_named_by_their_places() -> None:
    assert starts([volume("s0001/ct.nii.gz"), volume("s0002/ct.nii.gz")]) == ["s0001_ct", "s0002_ct"]
    assert names_of([volume("ct.nii.gz")], BELOW) == ["ct"]
    assert starts([volume("ct.nii.gz"), volume("ct.mhd")]) == ["ct_ct.nii.gz", "ct_ct.mhd"]


def test_a_place_is_seen_from_the_path_that_was_looked_through() -> None:
    assert place_of(BELOW / "a" / "b", BELOW) == "a/b"
    assert place_of(BELOW, BELOW) == "archive"
    assert place_of(Path("/elsewhere/x"), BELOW) == "x"


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT), max_size=6))
def test_names_are_distinct_and_stay_in_their_folder(known: list[tuple[str, str, str]]) -> None:
    texts = distinct(known)
    assert texts == distinct(known)
    names = [file_name(text) for text in texts]
    assert len({name.casefold() for name in names}) == len(known)
    assert all(Path(name).name == name and name not in (".", "..") for name in names)


@given(st.lists(st.sampled_from(["1.2", "1.2 2", "../1.2", "A", "a"]), max_size=6))
def test_names_that_look_numbered_are_distinct_too(texts: list[str]) -> None:
    names = [file_name(text) for text in distinct([(text,) for text in texts])]
    assert len({name.casefold() for name in names}) == len(texts)
