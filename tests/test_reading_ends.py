"""A file that was cut: wherever that is, it is told from a whole one by the lengths that are written in it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pynetdicom.dsutils import encode

from carina.dicom.part10 import INFLATED_PIXELS, open_file
from carina.errors import BadSeries
from carina.receive.files import arriving_file, read_says
from carina.receive.instance import Arriving, NotAccepted
from carina.receive.store import InstanceStore, SentBy
from received_files import new_store, stored_files

PADDING = 0xFFFCFFFC


def file_of(dataset: Dataset, syntax: UID) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def a_slice(*, is_compressed: bool = False) -> Dataset:
    """A slice with a sequence before its pixels, and padding after them."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.3"
    inner = Dataset()
    inner.CodeValue = "1"
    dataset.ProcedureCodeSequence = [inner]
    noise = np.random.default_rng(1).integers(1, 255, 128, dtype=np.uint8).tobytes()
    if is_compressed:
        dataset.add_new("PixelData", "OB", encapsulate([noise, noise[:64]]))
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.add_new("PixelData", "OW", noise)
    dataset.add_new(PADDING, "OB", bytes(range(1, 21)))
    return dataset


def a_report() -> Dataset:
    dataset = a_slice()
    del dataset.PixelData, dataset[PADDING]
    dataset.SOPClassUID, dataset.ContentDate = BasicTextSRStorage, "20260304"
    return dataset


FILES = {
    "explicit": file_of(a_slice(), ExplicitVRLittleEndian),
    "implicit": file_of(a_slice(), ImplicitVRLittleEndian),
    "compressed": file_of(a_slice(is_compressed=True), RLELossless),
    "report": file_of(a_report(), ExplicitVRLittleEndian),
}


def ends_of_elements(content: bytes) -> set[int]:
    """Where a file may be cut so that nothing in it tells: where an element of the data set ends."""
    dataset = dcmread(BytesIO(content))
    is_implicit = dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    sizes = [len(encode(Dataset({one.tag: one}), is_implicit, True) or b"") for one in dataset]
    start = len(content) - sum(sizes)
    return {start, *(start + end for end in accumulate(sizes))}


def is_whole(folder: Path, content: bytes) -> bool:
    file = folder / "x.dcm"
    file.write_bytes(content)
    try:
        return open_file(file, [], to_its_end=True) is not None
    except BadSeries:
        return False


@pytest.mark.parametrize("kind", FILES)
def test_every_cut_within_an_element_is_seen(tmp_path: Path, kind: str) -> None:
    content = FILES[kind]
    ends = ends_of_elements(content)
    whole = {size for size in range(min(ends), len(content) + 1) if is_whole(tmp_path, content[:size])}
    filling = range(sorted(ends)[-2], sorted(ends)[-2] + 12) if kind != "report" else range(0)  # no element yet
    fragments = {sorted(ends)[-2] - 8, sorted(ends)[-2] - 80} if kind == "compressed" else set()
    assert whole - set(filling) == (ends | fragments) - set(filling)  # the delimiter after fragments may be left out


@pytest.mark.parametrize("inflated", [INFLATED_PIXELS, 64])
@pytest.mark.parametrize("made", [a_slice, a_report])
def test_every_cut_of_a_deflated_file_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[], Dataset], inflated: int
) -> None:
    monkeypatch.setattr("carina.dicom.part10.INFLATED_PIXELS", inflated)
    content = file_of(made(), DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(content[140:144], "little")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(content[start:])
    end = len(content) - len(inflater.unused_data)  # a NUL may follow, to make the length even
    assert [size for size in range(start + 1, end) if is_whole(tmp_path, content[:size])] == []
    assert is_whole(tmp_path, content[:end])
    assert is_whole(tmp_path, content + bytes(600))


def deflated_again(content: bytes, more: bytes = b"") -> bytes:
    """A deflated file with more behind its last element; its last block is empty, two bytes long."""
    start = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    inner = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    return content[:start] + packer.compress(inner + more) + packer.flush(zlib.Z_SYNC_FLUSH) + packer.flush()


def test_a_deflated_file_is_followed_behind_its_pixels_as_any_other(tmp_path: Path) -> None:
    content = file_of(a_slice(), DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(content[140:144], "little")
    inner = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    again = inner[: 8 + int.from_bytes(inner[6:8], "little")]  # its first element, SOP Class UID
    for more, whole in ((bytes(40), True), (b"\r\n", True), (bytes(90 << 20), True), (again, False)):
        assert is_whole(tmp_path, deflated_again(content, more)) is whole


def test_a_deflated_file_cut_on_its_way_to_a_folder_is_not_taken(tmp_path: Path) -> None:
    store: InstanceStore = new_store(tmp_path)
    content = deflated_again(file_of(a_slice(), DeflatedExplicitVRLittleEndian))
    file = tmp_path / "x.dcm"
    file.write_bytes(content[:-1])
    with (
        arriving_file(file, read_says(file)) as cut,
        pytest.raises(NotAccepted, match=r"it is truncated: its deflated bytes end early; send it again\."),
    ):
        store.accept(cut, SentBy("any", "folder"))
    assert not stored_files(store)
    file.write_bytes(content)
    with arriving_file(file, read_says(file)) as whole:
        store.accept(whole, SentBy("any", "folder"))
    store.engine.dispose()


@pytest.mark.parametrize("filling", [bytes(600), b"\r\n", b"\n", bytes(3)])
@pytest.mark.parametrize("kind", FILES)
def test_filling_at_the_end_is_no_cut(tmp_path: Path, kind: str, filling: bytes) -> None:
    assert is_whole(tmp_path, FILES[kind] + filling)


def test_what_was_cut_is_not_accepted_and_leaves_nothing(tmp_path: Path) -> None:
    store: InstanceStore = new_store(tmp_path)
    whole = bytes(encode(a_slice(), False, True) or b"")
    names: dict[str, Any] = {"sop_class_uid": CTImageStorage, "sop_instance_uid": "1.2.3.4"}
    names["transfer_syntax_uid"] = ExplicitVRLittleEndian
    with pytest.raises(NotAccepted, match=r"it is truncated: its pixel data has 96 of 128 bytes; send it again\."):
        store.accept(Arriving(data=whole[:-64], **names), SentBy("any", "CT1@127.0.0.1"))
    assert not stored_files(store)
    store.accept(Arriving(data=whole, **names), SentBy("any", "CT1@127.0.0.1"))
    store.engine.dispose()
