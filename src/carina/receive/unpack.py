"""Zip archives of strangers: unpacked into a folder of ours, bounded in bytes, members and memory."""

from __future__ import annotations

import errno
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from carina.errors import BadSeries, with_words
from carina.pipeline.places import make_below

MOST_MEMBERS = 100_000
LARGEST_DIRECTORY = 32_000_000
"""Bytes of an archive's list of members, which is read into memory as a whole; 100,000 members need about 15 MB."""

LONGEST_PATH, LONGEST_PART, DEEPEST_FILE = 1000, 200, 20

_COPIED_AT_ONCE = 1 << 20
_END, _LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_END_BYTES, _LOCATOR_BYTES, _END64_BYTES = 22, 20, 56
"""Records at an archive's end (APPNOTE 4.3.14 to 4.3.16)."""

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)
"""What reading a damaged archive ends in."""

_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Methods that need little memory whatever a member says; one in LZMA may ask for 4 GB."""


def unpack(archive: Path, folder: Path, most_bytes: int) -> int:
    """Unpack an archive into a folder, which is made; gives how many bytes that were.

    Raises:
        BadSeries: ``upload.zip``, it is damaged or encrypted, or has a member that is no file for the folder;
            ``upload.too-large``, it unpacks to more than ``most_bytes`` or has too many members.
    """
    try:
        _check_directory(archive)
        with zipfile.ZipFile(archive) as opened:
            members = [one for one in opened.infolist() if not one.is_dir()]
            if len(members) > MOST_MEMBERS:
                raise BadSeries("upload.too-large", f"the zip has more than {MOST_MEMBERS} files; send it in parts.")
            return _unpack(opened, members, folder, most_bytes)
    except _DAMAGED as error:
        raise _damaged(error) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a member at an offset that no file has
            raise _damaged(error) from error
        raise


def _damaged(error: Exception) -> BadSeries:
    """An archive that can't be read; the library quotes names of files, which may be a patient's."""
    words = f"the zip can't be unpacked ({type(error).__name__}): make it anew and send that."
    return with_words(BadSeries("upload.zip", words), error)


def _unpack(opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path, most_bytes: int) -> int:
    unpacked = 0
    for number, member in enumerate(members, 1):
        target = folder.joinpath(*_parts_of(member, number))
        try:
            make_below(folder.parent, target.parent)
            with opened.open(member) as packed, target.open("xb") as file:
                for chunk in iter(lambda: packed.read(_COPIED_AT_ONCE), b""):
                    unpacked += len(chunk)
                    if unpacked > most_bytes:
                        words = f"the zip unpacks to more than the {most_bytes / 1e9:.3g} GB that are left"
                        raise BadSeries("upload.too-large", f"{words} (uploads.gb, node.free_gb): send it in parts.")
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise BadSeries("upload.zip", f"file {number} of the zip has the name of another in it.") from error
    return unpacked


def _parts_of(member: zipfile.ZipInfo, number: int) -> tuple[str, ...]:
    if member.flag_bits & 1:
        raise BadSeries("upload.zip", "the zip is encrypted: send it without a password.")
    if member.compress_type not in _PLAIN:
        raise BadSeries("upload.zip", f"file {number} of the zip is not packed by deflate: zip it anew.")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise BadSeries("upload.zip", f"file {number} of the zip is a link or a device; expected plain files.")
    try:
        return safe_parts(member.filename)
    except ValueError as error:
        raise BadSeries("upload.zip", f"file {number} of the zip {error}.") from error


def safe_parts(name: str) -> tuple[str, ...]:
    r"""The parts of a relative path that a stranger gives, each of which names something in the folder before it.

    Raises:
        ValueError: they may not; the message is the end of a sentence that begins with what has the name.
    """
    parts = tuple(name.split("/"))
    if not all(parts) or {".", ".."} & set(parts) or "\\" in name or not name.isprintable():
        raise ValueError("has a name that is no relative path of printable text")
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError as error:
        raise ValueError("has a name that is no text") from error
    if longest > LONGEST_PART or len(name) > LONGEST_PATH or len(parts) > DEEPEST_FILE:
        raise ValueError("has a name that is too long, or lies too deep")
    return parts


def _check_directory(archive: Path) -> None:
    """See that the list of members isn't larger than any, before it is read; which it is as a whole."""
    with archive.open("rb") as file:
        for size in _directory_sizes(file):
            if size > LARGEST_DIRECTORY:
                raise BadSeries(
                    "upload.too-large", f"the zip's list of files has {size / 1e6:.0f} MB; send it in parts."
                )


def _directory_sizes(file: BinaryIO) -> Iterator[int]:
    """What the records at an archive's end say of its list, the 64-bit one as well."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _END_BYTES - _LOCATOR_BYTES - _END64_BYTES - 0xFFFF))
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < _END_BYTES:
        raise BadSeries("upload.zip", "a file that is called .zip is no zip archive, or its end is missing.")
    size = int(struct.unpack_from("<L", tail, end + 12)[0])
    locator, end64 = end - _LOCATOR_BYTES, end - _LOCATOR_BYTES - _END64_BYTES
    if end64 >= 0 and tail[locator : locator + 4] == _LOCATOR and tail[end64 : end64 + 4] == _END64:
        yield int(struct.unpack_from("<Q", tail, end64 + 40)[0])
    if size != 0xFFFFFFFF:
        yield size
