"""Instances that come as DICOM files: first into a spool of ours, whole and bounded, from there to the store.

A stranger's file is never mapped where it lies: whoever shortens it meanwhile would end the process.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from carina.database import FolderAway, OwnFolder
from carina.dicom.fragments import Piece
from carina.dicom.headers import is_image
from carina.dicom.part10 import OpenFile, open_file
from carina.errors import CarinaError
from carina.receive.instance import NO_ROOM, NOT_UNDERSTOOD, Arriving, NotAccepted
from carina.receive.part import unwritable_part
from carina.receive.presence import receiving
from carina.receive.store import PARTS_COMING

DIRECTORY = "1.2.840.10008.1.3.10"
"""Media Storage Directory: a DICOMDIR lists instances and is none."""

_NAMED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_OTHER_PIXELS = ("FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL")
"""What an image may have in place of Pixel Data (PS3.3 C.7.6.24, C.7.6.25; PS3.5 A.6)."""

_SEQUENCE_ENDS = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
_NUMBERS = count()


@dataclass(frozen=True, kw_only=True)
class FileSays:
    """What a DICOM file says of itself; empty where it says nothing."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""
    transfer_syntax_uid: str = ""
    data_offset: int = 0


@contextmanager
def spooled(own: OwnFolder, chunks: Iterable[bytes], largest: int) -> Iterator[Path]:
    """Bytes as a file of ours below a node's folder, until the block ends; all are taken, no more than fit are kept.

    Raises:
        NotAccepted: they are more than ``largest``, the disk takes no more, or the folder is not there. What ``chunks``
            raises passes through.
    """
    with _disk(own.folder):
        own.check()
    with receiving(own.folder):
        yield from _spooled(own, chunks, largest)


def _spooled(own: OwnFolder, chunks: Iterable[bytes], largest: int) -> Iterator[Path]:
    folder = own.folder
    spool = folder / PARTS_COMING / f"{os.getpid()}-spool-{next(_NUMBERS)}"
    try:
        with _disk(folder):
            own.make(PARTS_COMING)
            file = spool.open("xb")
        size = 0
        try:
            for chunk in chunks:
                size += len(chunk)
                if size <= largest:
                    with _disk(folder):
                        file.write(chunk)
        finally:
            with _disk(folder):
                file.close()
        check_file_size(size, largest)
        yield spool
    finally:
        spool.unlink(missing_ok=True)


def check_file_size(size: int, largest: int) -> None:
    """See that a file is no larger than what is taken, in bytes.

    Raises:
        NotAccepted: it is.
    """
    if size > largest:
        words = f"a file of {size / 1e6:.1f} MB is over the limit of {largest // 1_000_000} MB (dicom.instance_mb)."
        raise NotAccepted(NO_ROOM, "receive.too-large", words)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, FolderAway) as error:
        raise unwritable_part(folder, error) from error


def read_says(file: Path) -> FileSays:
    """What a spooled file says of itself.

    Raises:
        NotAccepted: it is no DICOM file, or its header can't be followed.
    """
    try:
        opened = open_file(file, _NAMED)
    except CarinaError as error:
        words = error.message.removeprefix(f"{file.name}: ")
        raise NotAccepted(NOT_UNDERSTOOD, error.code, f"a file: {words}") from error
    if opened is None or DIRECTORY in (opened.sop_class, opened.text("SOPClassUID")):
        raise NotAccepted(NOT_UNDERSTOOD, "receive.no-instance", "a file is no DICOM instance.")
    return _says(opened)


def _says(opened: OpenFile) -> FileSays:
    return FileSays(
        sop_class_uid=opened.text("SOPClassUID"),
        sop_instance_uid=opened.text("SOPInstanceUID"),
        study_uid=opened.text("StudyInstanceUID"),
        series_uid=opened.text("SeriesInstanceUID"),
        transfer_syntax_uid=opened.transfer_syntax,
        data_offset=opened.data_offset,
    )


def check_written(file: Path) -> None:
    """See that a spooled file whose end nobody told has one: an image its pixels, compressed ones their delimiter.

    A program may have stopped between two elements, or two fragments. What a protocol brings ends where it says.

    Raises:
        NotAccepted: it has none.
    """
    opened = open_file(file, ("SOPClassUID", "Rows", *_OTHER_PIXELS))
    if opened is None:
        return
    ends = opened.encapsulated if opened.pixel_bytes is None else None
    if ends is not None and ends.fragments and not _is_delimited(file, ends.fragments[-1]):
        words = "no delimiter follows its pixel data (PS3.5 A.4)"
    elif not opened.has_pixels and is_image(opened.number("Rows"), opened.text("SOPClassUID")):
        if any(opened.raw(keyword) is not None for keyword in _OTHER_PIXELS):
            return
        words = "it ends before its pixel data"
    else:
        return
    raise NotAccepted(NOT_UNDERSTOOD, "series.truncated", f"a file: it is truncated: {words}; write it whole.")


def _is_delimited(file: Path, last: Piece) -> bool:
    with file.open("rb") as stream:
        stream.seek(last.offset + last.size)
        return stream.read(len(_SEQUENCE_ENDS)) == _SEQUENCE_ENDS


@contextmanager
def arriving_file(file: Path, says: FileSays) -> Iterator[Arriving]:
    """A spooled file as the store takes it: its data set as it was written, mapped, not copied into memory."""
    with (
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as whole,
        whole[says.data_offset :] as data,
    ):
        yield Arriving(
            sop_class_uid=says.sop_class_uid,
            sop_instance_uid=says.sop_instance_uid,
            transfer_syntax_uid=says.transfer_syntax_uid,
            data=data,
        )
