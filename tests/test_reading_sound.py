"""A data set that can be read in two ways, or has no bottom, is refused in one line at every door."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from carina.dicom.elements import DEEPEST_SEQUENCES
from carina.dicom.find import find_series
from carina.dicom.headers import slice_headers
from carina.dicom.part10 import open_file
from carina.dicom.rules import load_rules
from carina.errors import BadSeries
from carina.receive.files import read_says
from carina.receive.instance import NOT_UNDERSTOOD, Announced, Arriving, NotAccepted, file_head
from carina.receive.same_instance import is_same_object
from carina.receive.store import SentBy
from carina.receive.stow import StowRequest, store_over_the_web
from received_files import new_store, stored_files

CT = "1.2.840.10008.5.1.4.1.1.2"
LITTLE, IMPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{more}" for more in (".1", "", ".2", ".1.99"))
UNDEFINED, END_OF_ITEM, END_OF_SEQUENCE = 0xFFFFFFFF, 0xFFFEE00D, 0xFFFEE0DD
LONG = ("SQ", "UN", "OW", "OB")


class Written:
    """Elements in one transfer syntax."""

    def __init__(self, syntax: str = LITTLE) -> None:
        self.syntax, self.order = syntax, ">" if syntax == BIG else "<"

    def element(self, tag: int, vr: str, value: bytes, *, undefined: bool = False) -> bytes:
        head = struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF)
        size = UNDEFINED if undefined else len(value)
        if self.syntax == IMPLICIT or tag >> 16 == 0xFFFE:
            return head + struct.pack(self.order + "I", size) + value
        if vr in LONG:
            return head + vr.encode() + struct.pack(self.order + "HI", 0, size) + value
        return head + vr.encode() + struct.pack(self.order + "H", size) + value

    def sequence(self, *items: bytes, tag: int = 0x00081140, vr: str = "SQ", undefined: bool = False) -> bytes:
        ends = [self.element(end, "", b"") if undefined else b"" for end in (END_OF_ITEM, END_OF_SEQUENCE)]
        inside = b"".join(self.element(0xFFFEE000, "", item + ends[0], undefined=undefined) for item in items)
        return self.element(tag, vr, inside + ends[1], undefined=undefined)

    def nested(self, levels: int, *, vr: str = "SQ", undefined: bool = False) -> bytes:
        made = b""
        for _ in range(levels):
            made = self.sequence(made, vr=vr, undefined=undefined)
        return made

    def patient(self, name: str) -> bytes:
        return self.element(0x00100020, "LO", name.ljust(len(name) + len(name) % 2).encode())

    def data_set(self, *, early: bytes = b"", late: bytes = b"", end: bytes = b"") -> bytes:
        """An instance, with more before its study's UID, before its pixels, and after them."""
        uids = {0x00080016: CT, 0x00080018: "1.2.3.4", 0x0020000D: "1.2", 0x0020000E: "1.2.3"}
        said = {tag: self.element(tag, "UI", uid.encode() + b"\0" * (len(uid) % 2)) for tag, uid in uids.items()}
        sizes = [
            self.element(tag, "US", struct.pack(self.order + "H", 16)) for tag in (0x00280010, 0x00280011, 0x00280100)
        ]
        pixels = self.element(0x7FE00010, "OW", bytes(512))
        series = said[0x0020000D] + said[0x0020000E]
        names = said[0x00080016] + said[0x00080018] + self.element(0x00080060, "CS", b"CT")
        return names + early + self.patient("A") + series + b"".join(sizes) + late + pixels + end

    def file(self, **more: bytes) -> bytes:
        said = Announced(sop_class_uid=CT, sop_instance_uid="1.2.3.4", transfer_syntax_uid=self.syntax)
        data = self.data_set(**more)
        if self.syntax == DEFLATED:
            packed = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            data = packed.compress(data) + packed.flush()
        return file_head(said) + data


def refusal(folder: Path, content: bytes) -> str:
    """The code and words with which a file is refused; empty where it is read to its end."""
    file = folder / "x.dcm"
    file.write_bytes(content)
    try:
        assert open_file(file, ["PatientID"], to_its_end=True) is not None
    except BadSeries as error:
        return f"{error.message} [{error.code}]"
    return ""


TWICE = " stands in it twice; expected once: mend it where it was written. [series.tag-twice]"
PRIVATE = 0x00091001

Make = Callable[[Written], bytes]
REPEATED: dict[str, tuple[Make, str]] = {
    "at once": (lambda one: one.file(late=one.patient("B")), "(0010,0020) Patient ID"),
    "before": (lambda one: one.file(early=one.patient("B")), "(0010,0020) Patient ID"),
    "the same value": (lambda one: one.file(late=one.patient("A")), "(0010,0020) Patient ID"),
    "after the pixels": (lambda one: one.file(end=one.patient("B")), "(0010,0020) Patient ID"),
    "the pixels": (lambda one: one.file(end=one.element(0x7FE00010, "OW", bytes(512))), "(7FE0,0010) Pixel Data"),
    "a private one": (lambda one: one.file(early=2 * one.element(PRIVATE, "LO", b"AB")), "(0009,1001)"),
    "a sequence": (lambda one: one.file(early=2 * one.sequence(b"")), "(0008,1140) Referenced Image Sequence"),
    "in an item": (
        lambda one: one.file(early=one.sequence(b"", 2 * one.patient("B"))),
        "(0010,0020) Patient ID",
    ),
    "in an item of an item": (
        lambda one: one.file(late=one.sequence(one.sequence(2 * one.patient("B")), tag=0x00400275)),
        "(0010,0020) Patient ID",
    ),
    "in an item that has no length": (
        lambda one: one.file(early=one.sequence(2 * one.patient("B"), undefined=True)),
        "(0010,0020) Patient ID",
    ),
}


@pytest.mark.parametrize("syntax", [LITTLE, IMPLICIT, BIG])
@pytest.mark.parametrize("how", REPEATED)
def test_a_tag_that_stands_twice_is_named(tmp_path: Path, how: str, syntax: str) -> None:
    make, name = REPEATED[how]
    assert refusal(tmp_path, make(Written(syntax))) == f"x.dcm: {name}{TWICE}"


def test_so_it_is_where_all_is_deflated_and_in_the_meta_information(tmp_path: Path) -> None:
    one = Written(DEFLATED)
    assert refusal(tmp_path, one.file(late=one.patient("B"))) == f"x.dcm: (0010,0020) Patient ID{TWICE}"
    content = Written().file()
    syntax = Written().element(0x00020010, "UI", LITTLE.encode() + b"\0")
    at = content.index(syntax)
    assert refusal(tmp_path, content[:at] + syntax + content[at:]) == f"x.dcm: (0002,0010) Transfer Syntax UID{TWICE}"


def test_one_tag_in_several_items_and_in_what_holds_them_is_as_it_should_be(tmp_path: Path) -> None:
    for syntax in (LITTLE, IMPLICIT, BIG, DEFLATED):
        one = Written(syntax)
        items = (one.patient("B"), one.patient("C"), one.sequence(one.patient("D")))
        for undefined in (False, True):
            whole = one.file(early=one.sequence(*items, undefined=undefined), end=bytes(40))
            assert refusal(tmp_path, whole) == ""


DEEP = f"x.dcm: its sequences are nested more than {DEEPEST_SEQUENCES} deep; DICOM in use has about ten"
NESTED: dict[str, Callable[[int], bytes]] = {
    "with lengths": lambda levels: Written().file(early=Written().nested(levels)),
    "without": lambda levels: Written().file(early=Written().nested(levels, undefined=True)),
    "implicit, with lengths": lambda levels: Written(IMPLICIT).file(early=Written(IMPLICIT).nested(levels)),
    "implicit, without": lambda levels: Written(IMPLICIT).file(early=Written(IMPLICIT).nested(levels, undefined=True)),
    "of unknown VR": lambda levels: Written().file(early=Written().nested(levels, vr="UN")),
    "one more in functional groups": lambda levels: Written().file(
        late=Written().sequence(Written().nested(levels - 1), tag=0x52009230)
    ),
    "after the pixels": lambda levels: Written().file(
        end=Written().sequence(Written().nested(levels - 1), tag=0xFFFAFFFA)
    ),
}


@pytest.mark.parametrize("how", NESTED)
def test_nesting_has_a_bound_up_to_which_all_is_read(tmp_path: Path, how: str) -> None:
    for levels in (DEEPEST_SEQUENCES + 1, 3000):
        assert refusal(tmp_path, NESTED[how](levels)).startswith(DEEP)
    assert refusal(tmp_path, NESTED[how](DEEPEST_SEQUENCES)) == ""
    (tmp_path / "y.dcm").write_bytes((tmp_path / "x.dcm").read_bytes())
    assert is_same_object(tmp_path / "x.dcm", tmp_path / "y.dcm")


UNSOUND = {
    "series.tag-twice": Written().data_set(late=Written().patient("B")),
    "series.nested": Written().data_set(early=Written().nested(3000)),
}


@pytest.mark.parametrize("code", UNSOUND)
def test_no_door_lets_it_in(tmp_path: Path, code: str) -> None:
    """A data set comes by C-STORE and C-GET, a file by STOW-RS, WADO-RS and folders; jobs and uploads are of files."""
    store = new_store(tmp_path)
    head: dict[str, Any] = {"sop_class_uid": CT, "sop_instance_uid": "1.2.3.4", "transfer_syntax_uid": LITTLE}
    with pytest.raises(NotAccepted, match="mend it where it was written") as refused:
        store.accept(Arriving(**head, data=UNSOUND[code], is_agreed=True), SentBy("scanner", "CT1@192.0.2.1"))
    assert (refused.value.code, refused.value.status) == (code, NOT_UNDERSTOOD)
    whole = file_head(Announced(**head)) + UNSOUND[code]
    asked = StowRequest(origin=SentBy("web", "192.0.2.1"), content_type="application/dicom")
    answer = store_over_the_web(store, asked, iter([whole]))
    assert answer.status == 409
    assert stored_files(store) == []
    file = tmp_path / "slice.dcm"
    file.write_bytes(whole)
    with pytest.raises(NotAccepted, match="mend it where it was written"):
        read_says(file)
    with pytest.raises(BadSeries, match="mend it where it was written"):
        slice_headers(file)
    found = find_series(file, load_rules(""))
    assert [one.code for one in found.inventory.broken] == [code]
    store.engine.dispose()
