"""Text of strangers: character sets, control characters, names that are no names, UIDs that are no UIDs."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag
from pydicom.uid import UID

from carina.cli.series import series
from carina.dicom.find import find_series
from carina.dicom.objects_header import OPTIONAL, REQUIRED, notes, patient_and_study
from carina.dicom.pdf import encapsulated_pdf
from carina.dicom.seg import segmentation
from carina.dicom.sr import measurements
from carina.dicom.uids import is_uid
from carina.dicom.values import decoded
from carina.dicom.whole_header import read_header
from carina.report.facts import report_facts
from dicom_objects_samples import MAKERS, PRODUCER, errors_of, make_mask, make_ratio, make_series, pdf_bytes, saved
from reading_slices import ANY, EVEN, ct_slice, save, series_of, write_series

COPIED = (*REQUIRED, *OPTIONAL)

SINGLE = ("ISO_IR 6", "ISO_IR 100", "ISO_IR 192", "GB18030", "GBK", "ISO_IR 144", "ISO_IR 13", "ISO-IR 100")
EXTENDED = ("\\ISO 2022 IR 87", "ISO 2022 IR 13\\ISO 2022 IR 87", "\\ISO 2022 IR 149", "ISO_IR 192\\ISO 2022 IR 6")
SETS = (*SINGLE, *EXTENDED, "", "nonsense", "\\\\\\")
BYTES = st.one_of(st.binary(max_size=70), st.text(max_size=30).map(str.encode))


def raw_file(file: Path, values: dict[str, bytes], sets: str = "", **changes: Any) -> Path:
    """A slice whose header holds these bytes as they are."""
    dataset = ct_slice((1.0, 2.0, 3.0), 1, **changes)
    for keyword in values:
        dataset.pop(keyword, None)
    content = save(dataset, file).read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    raw = b""
    for keyword, data in {"SpecificCharacterSet": sets.encode(), **values}.items():
        tag, padded = Tag(keyword), data + b" " * (len(data) % 2)
        raw += struct.pack("<HH2sH", tag.group, tag.element, dictionary_VR(tag).encode(), len(padded)) + padded
    file.write_bytes(content[:start] + raw + content[start:])
    return file


def header_of(folder: Path, values: dict[str, bytes], sets: str = "") -> Dataset:
    return read_header(raw_file(folder / "file", values, sets))


@pytest.mark.parametrize(
    ("keyword", "data", "copied"),
    [
        ("PatientID", b"A\\B", ""),
        ("PatientID", b"P-1", "P-1"),
        ("PatientID", b"a\tb", ""),
        ("PatientID", b"caf\xe9", ""),
        ("PatientID", b"x" * 65, ""),
        ("PatientID", b" \0", ""),
        ("PatientName", b"Doe^Jane=\\", ""),
        ("PatientName", b"M\xfcller^Ann", ""),
        ("PatientName", b"a^b^c^d^e^f", ""),
        ("PatientName", b"a=b=c=d", ""),
        ("PatientBirthDate", b"19991332", ""),
        ("PatientBirthDate", b"19990231", ""),
        ("PatientBirthDate", b"19500102-19510102", ""),
        ("StudyTime", b"101199", ""),
        ("StudyTime", b"1011", "1011"),
        ("PatientSex", b"f", ""),
        ("AccessionNumber", b"x" * 17, ""),
        ("PatientWeight", b"nan", None),
        ("PatientWeight", b"1_0", None),
        ("PatientWeight", b"71.5", "71.5"),
        ("PatientSize", b"1e999", None),
        ("PatientAge", b"70Y", None),
        ("StudyDescription", b"CT\tchest\r\n", "CT chest"),
        ("StudyDescription", b"a\\b", None),
        ("DeidentificationMethod", b"one\\two", "one\\two"),
    ],
)
def test_what_its_vr_does_not_allow_is_left_empty_with_a_warning(
    tmp_path: Path, keyword: str, data: bytes, copied: str | None
) -> None:
    source = make_series(header_of(tmp_path, {keyword: data}))
    element = patient_and_study(source).get(keyword)
    given = None if element is None else "\\".join(element) if keyword.startswith("Deid") else str(element)
    assert given == copied
    is_told = any(keyword in note and "not valid in the source" in note for note in notes(source))
    assert is_told == (copied in ("", None) and bool(data.strip(b" \0")))


NAME = "Wolfeschlegelsteinhausenbergerdorff^Hubert Blaine"


@pytest.mark.parametrize(
    ("keyword", "text", "copied"),
    [
        ("PatientName", NAME + "x" * 40, (NAME + "x" * 40)[:64]),
        ("PatientName", "x" * 64, "x" * 64),
        ("PatientName", "x" * 64 + "^y", "x" * 64),
        ("PatientName", "x" * 62 + " ^y", "x" * 62),
        ("PatientName", f"{'山' * 65}=Doe^Jane={'y' * 99}", f"{'山' * 64}=Doe^Jane={'y' * 64}"),
        ("ReferringPhysicianName", "x" * 65, "x" * 64),
        ("StudyDescription", "CT\t" + "x" * 99, "CT " + "x" * 61),
        ("DeidentificationMethod", f"one\\{'x' * 65}", f"one\\{'x' * 64}"),
    ],
)
def test_names_and_descriptions_that_are_too_long_are_cut_in_every_object_with_a_warning(
    tmp_path: Path, keyword: str, text: str, copied: str
) -> None:
    file, header = objects_of({keyword: text.encode()}, "ISO_IR 192", tmp_path)
    element = dcmread(file)[keyword]
    assert "\\".join(element.value if element.VM > 1 else [str(element.value)]) == copied
    assert not [line for line in errors_of(file) if not is_about_bytes_of_characters(line)]
    told = [note for note in notes(make_series(header)) if keyword in note]
    cut = f"{keyword}: longer than 64 characters in the source, cut to 64 in the objects."
    assert told == ([cut] if copied != text else [])


@pytest.mark.parametrize(
    "text", [b"x" * 65 + b"\x01", b"x^" * 40, b"x" * 70 + b"^" * 5, b"=".join([b"x" * 65] * 4), b"x" * 65 + b"\xff"]
)
def test_a_long_name_that_is_not_valid_otherwise_is_left_empty(tmp_path: Path, text: bytes) -> None:
    source = make_series(header_of(tmp_path, {"PatientName": text}))
    assert patient_and_study(source).PatientName == ""
    assert [note for note in notes(source) if "PatientName: not valid in the source, left out" in note]


@pytest.mark.parametrize(
    ("sets", "data", "text"),
    [
        ("ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        ("ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
        ("ISO_IR 144", b"\xbb\xee\xda", "\u041b\u044e\u043a"),
        ("ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東".encode(), "Wang^XiaoDong=王^小東"),
        ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            "ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        ),
        (
            "\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        ("\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab", "Zhang^XiaoDong=张^小东"),
        ("ISO 2022 IR 100\\ISO 2022 IR 144", b"\xe9 \x1b-L\xbb\xee=\xe9", "é Лю=é"),
        ("iso_ir 192", "Müller".encode(), "Müller"),
        ("ISO-IR 100", b"M\xfcller", "Müller"),
    ],
)
def test_declared_character_sets_are_decoded(tmp_path: Path, sets: str, data: bytes, text: str) -> None:
    """Examples of PS3.5 annexes H to K, and terms as they are misspelt."""
    assert decoded(data, sets.split("\\")) == text
    assert str(patient_and_study(make_series(header_of(tmp_path, {"PatientName": data}, sets))).PatientName) == text


@pytest.mark.parametrize(
    ("sets", "data"),
    [("", b"M\xfcller"), ("ISO_IR 192", b"M\xfcller"), ("nonsense", b"M\xfcller"), ("", b"\x1b$B;3ED\x1b(B")],
)
def test_bytes_of_no_declared_character_set_are_left_empty_everywhere(tmp_path: Path, sets: str, data: bytes) -> None:
    source = make_series(header_of(tmp_path, {"PatientName": data, "PatientID": data}, sets))
    copied = patient_and_study(source)
    assert (copied.PatientName, copied.PatientID) == ("", "")
    assert report_facts(source, (PRODUCER,)).patient_id == ""
    assert "PatientName, PatientID: not valid in the source" in notes(source)[-1]


def objects_of(values: dict[str, bytes], sets: str, folder: Path) -> tuple[Path, Dataset]:
    source = make_series(header_of(folder, values, sets))
    made = encapsulated_pdf(pdf_bytes(), source, PRODUCER, "COVID-19 classification", digest="said")
    return saved(made, folder), source.header


@settings(max_examples=60, deadline=None)
@given(values=st.dictionaries(st.sampled_from(COPIED), BYTES), sets=st.sampled_from(SETS))
@example({"DeidentificationMethod": b"\x01"}, "ISO_IR 6")
@example({"PatientName": b"\xff\xfe", "PatientID": b"A\\B", "PatientBirthDate": b"19991332"}, "ISO_IR 192")
def test_whatever_bytes_text_holds_objects_are_valid_and_say_what_they_declare(
    tmp_path: Path, values: dict[str, bytes], sets: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file, _ = objects_of(values, sets, tmp_path)
    assert not [line for line in errors_of(file) if not is_about_bytes_of_characters(line)]
    written = dcmread(file)
    assert written.SpecificCharacterSet == "ISO_IR 192"
    for element in written:
        assert str(element.value if element.VR not in ("OB", "SQ") else "").isprintable()


HOSTILE = {
    "no text": {keyword: b"\xff\xfe\x80" for keyword in COPIED},
    "several": {keyword: b"A\\B" for keyword in COPIED},
    "no numbers": {"PatientWeight": b"nan", "PatientSize": b"-inf", "LossyImageCompressionRatio": b"nan"},
    "too long": {keyword: b"9" * 200 for keyword in COPIED},
    "control": {keyword: b"\x1b[31m\n\t\0" for keyword in COPIED},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_kind_of_object_is_valid_whatever_its_source_holds(tmp_path: Path, kind: str) -> None:
    lossy = {"LossyImageCompression": b"01", "LossyImageCompressionMethod": b"no method"}
    source = make_series(header_of(tmp_path, {**lossy, **HOSTILE[kind]}))
    seg = segmentation(make_mask(source), source, PRODUCER)
    report = measurements(make_ratio(12.0), None, source, MAKERS, [seg])
    pdf = encapsulated_pdf(pdf_bytes(), source, PRODUCER, "COVID-19 classification", digest="said")
    for name, made in (("seg", seg), ("report", report), ("pdf", pdf)):
        assert errors_of(saved(made, tmp_path, name)) == []


def is_about_bytes_of_characters(line: str) -> bool:
    """dciodvfy counts bytes where the standard counts characters (PS3.5 6.2): it is wrong about text in UTF-8."""
    return "Length invalid" in line and not line.isascii()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(SINGLE))
def test_one_character_set_decodes_as_python_does_or_says_so(data: bytes, term: str) -> None:
    data = data.replace(b"\x1b", b"")
    encoding = convert_encodings(["ISO_IR 100" if term == "ISO-IR 100" else term])[0]
    try:
        wanted = data.decode("ascii" if term == "ISO_IR 6" else encoding)
    except UnicodeDecodeError:
        assert "\N{REPLACEMENT CHARACTER}" in decoded(data, [term])
    else:
        assert decoded(data, [term]) == wanted


@given(
    st.binary(max_size=80), st.lists(st.sampled_from(["", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO 2022 IR 58", "x"]))
)
@example(b"\x1b", ["ISO 2022 IR 87"])
@example(b"\x1b$B\x1b$)C\xff\x1b(B", ["", "ISO 2022 IR 87", "ISO 2022 IR 149"])
def test_code_extensions_never_raise(data: bytes, sets: list[str]) -> None:
    assert isinstance(decoded(data, sets), str)


def test_control_characters_become_spaces_in_listings_warnings_and_reports(tmp_path: Path) -> None:
    ugly: dict[str, Any] = {
        "SeriesDescription": "Chest\t1\nnative\x1b[31m",
        "ConvolutionKernel": "B30f\x7f",
        "BodyPartExamined": "CHEST",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_series(tmp_path, EVEN, **ugly)
    listed = CliRunner().invoke(series, [str(tmp_path)], standalone_mode=False).output.splitlines()
    assert "\tChest 1 native [31m\t" in listed[0] and all(line.isprintable() for line in "".join(listed).split("\t"))
    facts = report_facts(series_of(tmp_path), (PRODUCER,))
    assert (facts.series_description, facts.kernel) == ("Chest 1 native [31m", "B30f")


HOSTILE_UIDS = ("../../x", "/tmp/x", "1.2." + "3" * 61, "1..2", "1.2.x", ".", "..", "1.2\\3.4", "\xe9", "1 2", "-1")


@pytest.mark.parametrize("uid", HOSTILE_UIDS)
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"])
def test_a_uid_that_is_none_is_replaced_with_a_warning(tmp_path: Path, keyword: str, uid: str) -> None:
    for k, height in enumerate(EVEN):
        own: dict[str, Any] = {
            "ImagePositionPatient": [0.0, 0.0, height],
            "InstanceNumber": k + 1,
            "SOPInstanceUID": f"2.25.5{k}",
        }
        raw_file(tmp_path / str(k), {keyword: uid.encode("latin-1")}, **own)
    source = series_of(tmp_path)
    uids = (
        source.uid,
        source.study_uid,
        source.frame_of_reference_uid,
        *(i.sop_instance_uid for i in source.instances),
    )
    assert all(UID(one).is_valid for one in uids)
    assert any("is no UID" in warning and f"{uid}" not in warning.split() for warning in source.warnings)
    assert series_of(tmp_path).uid == source.uid
    written = encapsulated_pdf(pdf_bytes(), source, PRODUCER, "COVID-19 classification", digest="said")
    assert errors_of(saved(written, tmp_path.parent, f"{tmp_path.name}.dcm")) == []


def test_two_series_with_uids_that_are_none_stay_two(tmp_path: Path) -> None:
    for name, uid in (("a", "../../x"), ("b", "../../y")):
        for k, height in enumerate(EVEN):
            own: dict[str, Any] = {"ImagePositionPatient": [0.0, 0.0, height], "SOPInstanceUID": f"2.25.{ord(name)}{k}"}
            raw_file(tmp_path / f"{name}{k}", {"SeriesInstanceUID": uid.encode()}, **own)
    assert [one.slices for one in find_series(tmp_path, ANY)] == [12, 12]


@given(st.text(max_size=80))
@example("1.2.03")
@example("\uff11.2")
def test_a_uid_that_is_kept_is_digits_and_dots(text: str) -> None:
    if is_uid(text):
        assert len(text) <= 64 and set(text) <= set("0123456789.") and "" not in text.split(".")
