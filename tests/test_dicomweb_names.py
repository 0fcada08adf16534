"""Names and other text in DICOMweb: the same in a search and in the metadata, each component group in its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from carina.service.dicomweb.attributes import attribute, header_record, matches
from carina.service.dicomweb.held import Held
from carina.service.dicomweb.json_values import Attributes
from carina.service.dicomweb.metadata import metadata_of
from carina.service.dicomweb.qido import instance_record
from test_reading_text import raw_file

KANJI = "山田^太郎".encode("iso2022_jp")
GB_2312 = b"\x1b$)A" + "王".encode("gb2312") + b"^\x1b$)A" + "小东".encode("gb2312")
FOUND: dict[str, Any] = {
    "plain": ("", b"Doe^Jane", {"Alphabetic": "Doe^Jane"}),
    "latin": ("ISO_IR 100", b"M\xfcller^Ann", {"Alphabetic": "Müller^Ann"}),
    "no set": ("", b"M\xfcller^Ann", {"Alphabetic": "M\ufffdller^Ann"}),
    "unknown set": ("ISO_IR 999", b"M\xfcller^Ann", {"Alphabetic": "M\ufffdller^Ann"}),
    "chinese": (
        "\\ISO 2022 IR 58",
        b"Wang^XiaoDong=" + GB_2312,
        {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"},
    ),
    "backslash": ("GB18030", "Wang=誠".encode("gb18030"), {"Alphabetic": "Wang", "Ideographic": "誠"}),
    "japanese": ("\\ISO 2022 IR 87", b"Yamada=" + KANJI, {"Alphabetic": "Yamada", "Ideographic": "山田^太郎"}),
    "no first": ("ISO_IR 192", "=王^小东".encode(), {"Ideographic": "王^小东"}),
    "no first of three": (
        "ISO_IR 192",
        "=山田^太郎=やまだ^たろう".encode(),
        {"Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
    ),
    "no second": (
        "ISO_IR 192",
        "Yamada^Tarou==やまだ^たろう".encode(),
        {"Alphabetic": "Yamada^Tarou", "Phonetic": "やまだ^たろう"},
    ),
    "only the last": ("ISO_IR 192", "==やまだ".encode(), {"Phonetic": "やまだ"}),
    "trailing": ("ISO_IR 192", b"Doe^Jane==", {"Alphabetic": "Doe^Jane"}),
    "none": ("ISO_IR 192", b"==", None),
    "empty": ("ISO_IR 192", b"", None),
}


def held(file: Path) -> Held:
    return Held(study_uid="2.25.1", series_uid="2.25.2", sop_instance_uid="2.25.3", sop_class_uid="2.25.4", path=file)


@pytest.fixture(params=FOUND)
def named(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Held, dict[str, str] | None]]:
    sets, data, told = FOUND[request.param]
    values = {"ReferringPhysicianName": data, "PatientName": data, "StudyDescription": data}
    yield held(raw_file(tmp_path / "file", values, sets)), told


def test_a_name_is_the_same_in_a_search_and_in_the_metadata(named: tuple[Held, dict[str, str] | None]) -> None:
    one, told = named
    searched, whole = instance_record(one), metadata_of(one, "/url")
    for tag in ("00100010", "00080090"):
        assert searched[tag].get("Value", [None]) == whole[tag].get("Value", [None]) == [told]
    assert searched["00081030"] == whole["00081030"]
    for record in (searched, whole):
        assert record["00080005"].get("Value", ["ISO_IR 192"]) == ["ISO_IR 192"], "the answer is in UTF-8"


def test_items_of_sequences_are_told_in_their_own_character_set(tmp_path: Path) -> None:
    file = raw_file(tmp_path / "file", {"StudyDescription": "Größe".encode("latin-1")}, "ISO_IR 100")
    header, own, plain, deeper = dcmread(file), Dataset(), Dataset(), Dataset()
    own.SpecificCharacterSet, own.RequestedProcedureDescription = "ISO_IR 144", "Иванов"
    plain.RequestedProcedureDescription = "Prüfung"
    deeper.CodeMeaning = "früh"
    plain.RequestedProcedureCodeSequence = [deeper]
    header.RequestAttributesSequence = [own, plain]
    header.save_as(file)
    searched, whole = header_record(file, ["RequestAttributesSequence"]), metadata_of(held(file), "/url")
    assert whole["00081030"]["Value"] == ["Größe"]
    assert searched["00400275"] == whole["00400275"]
    first, second = whole["00400275"]["Value"]
    assert first["00321060"]["Value"] == ["Иванов"]
    assert first["00080005"]["Value"] == ["ISO_IR 192"]
    assert second["00321060"]["Value"] == ["Prüfung"]
    assert second["00321064"]["Value"][0]["00080104"]["Value"] == ["früh"]


FULL = {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}
SECOND = {"Ideographic": "王^小东"}
THIRD = {"Alphabetic": "Yamada^Tarou", "Phonetic": "やまだ^たろう"}


@pytest.mark.parametrize(
    ("name", "wish", "expected"),
    [
        (SECOND, "=王*", True),
        (SECOND, "王*", True),
        (SECOND, "=王^小东", True),
        (SECOND, "==王*", False),
        (FULL, "=王*", True),
        (FULL, "wang*=李*", False),
        (FULL, "==王*", False),
        (FULL, "*=王*", True),
        (FULL, "王*", True),
        (FULL, "wang^xiaodong", True),
        (FULL, "wang*", True),
        (FULL, "Wang^XiaoDong=王^小东", True),
        (FULL, "李*", False),
        (THIRD, "Yamada*==やまだ*", True),
        (THIRD, "Yamada*=やまだ*", False),
        (THIRD, "やまだ*", True),
    ],
)
def test_a_name_is_found_by_each_of_its_groups(name: dict[str, str], wish: str, *, expected: bool) -> None:
    record: Attributes = attribute("PatientName", name)
    assert matches(record, {"PatientName": wish}) is expected
