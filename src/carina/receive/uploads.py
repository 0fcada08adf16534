"""Uploads: files that come in chunks, over days and restarts if need be, until they are whole.

An upload is a folder of the node, ``uploads/ID``: ``upload.json`` says whose it is, ``parts`` has what came so far,
and ``content`` all of it, unpacked, once it is finished. A part is called ``NAME.BYTES.part`` after the bytes of it
that are on the disk for good: a chunk is appended and flushed, and then the part is renamed, so that what a killed
server left half-written lies behind the bytes that count, and is written over.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from carina.errors import FULL, BadSeries, CarinaError
from carina.pipeline.json_text import as_json, read_json
from carina.pipeline.places import write_whole
from carina.receive.unpack import safe_parts, unpack
from carina.sections import UploadSettings

UPLOADS, CAME, CONTENT = "uploads", "parts", "content"
LARGEST_CHUNK = 4 << 20
MOST_UPLOADS = 1000
"""Uploads that one node has at a time."""

_FACTS = "upload.json"
_NEW = "content.new"
_ID = re.compile(r"[0-9a-f]{32}")
_PART = re.compile(r"(?P<name>.+)\.(?P<bytes>\d{1,15})\.part")
_JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db")
"""What computers add to folders and archives."""


_T = TypeVar("_T")


class NoUpload(CarinaError):
    """There is no such upload, or it is somebody else's."""


class UploadRefused(CarinaError):
    """A chunk or an end that doesn't fit what has come: the sender asks what has, and goes on from there."""


class NoRoomForUpload(CarinaError):
    """An upload is larger than what the settings or the disk leave."""


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """Whose upload it is, and what was announced; ``key`` is what its sender knows it by, to find it again."""

    id: str
    owner: str
    key: str
    files: int
    bytes: int
    begun_at: datetime


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A file of an upload, and how many of its bytes are there for good."""

    name: str
    bytes: int


class Uploads:
    """The uploads of a node; ``free_gb`` is what is to stay free on its disk."""

    def __init__(self, folder: Path, settings: UploadSettings, free_gb: float) -> None:
        self.folder, self.settings, self._free_gb = folder / UPLOADS, settings, free_gb
        self._beginning = threading.Lock()
        self._writing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def begin(self, upload: Upload) -> Upload:
        """A new upload, or the one that its owner began under the same key and has not ended.

        Raises:
            NoRoomForUpload: ``upload.too-large`` or ``upload.disk-full``.
        """
        with self._beginning:
            known = self.all()
            same = (one for one in known if (one.owner, one.key) == (upload.owner, upload.key))
            if found := next((one for one in same if not self._content(one.id).exists()), None):
                return found
            self._check_room(upload, known)
            place = self.folder / upload.id
            (place / CAME).mkdir(parents=True)
            write_whole(place / _FACTS, as_json(upload))
            _flush(place / _FACTS, place, self.folder)
            return upload

    def _check_room(self, upload: Upload, known: list[Upload]) -> None:
        taken = sum(one.bytes for one in known if not self._content(one.id).exists())
        limit = self.settings.gb * 1e9
        if taken + upload.bytes > limit or len(known) >= MOST_UPLOADS:
            words = f"{upload.bytes / 1e9:.3g} GB are announced, {max(0.0, limit - taken) / 1e9:.3g} GB are left"
            raise NoRoomForUpload("upload.too-large", f"{words} for uploads (uploads.gb): wait until others are run.")
        self._check_disk(upload.bytes)

    def _check_disk(self, size: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if free - size < self._free_gb * 1e9:
            words = f"{free / 1e9:.1f} GB are free, {self._free_gb:g} GB are to stay free (node.free_gb)"
            raise NoRoomForUpload("upload.disk-full", f"{words}: make room.")

    def find(self, upload_id: str, owner: str) -> Upload:
        """An upload of somebody's.

        Raises:
            NoUpload: there is none, or it is another's.
        """
        upload = self._read(upload_id) if _ID.fullmatch(upload_id) else None
        if upload is None or upload.owner != owner:
            raise NoUpload("upload.unknown", "there is no such upload of yours: it was finished, or given up.")
        return upload

    def all(self) -> list[Upload]:
        """Every upload, the oldest first."""
        names = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        found = [one for name in names if _ID.fullmatch(name) and (one := self._read(name))]
        return sorted(found, key=lambda one: one.begun_at)

    def open_of(self, owner: str) -> list[tuple[Upload, int]]:
        """The uploads of somebody's that are not finished, and how many bytes of each have come."""
        mine = [one for one in self.all() if one.owner == owner and not self._content(one.id).exists()]
        return [(one, sum(file.bytes for file in self.received(one))) for one in mine]

    def received(self, upload: Upload) -> list[Received]:
        """What has come of an upload, by name."""
        parts = self.folder / upload.id / CAME
        return [Received(name=name, bytes=size) for name, (_, size) in sorted(_parts_below(parts).items())]

    def take(self, upload: Upload, name: str, offset: int, chunk: bytes, sha256: bytes) -> int:
        """Append a chunk to a file, on the disk for good; gives how many of its bytes are there now.

        Raises:
            UploadRefused: ``upload.name``, ``upload.digest`` or ``upload.offset``.
            NoRoomForUpload: more comes than was announced, or the disk is full.
        """
        if hashlib.sha256(chunk).digest() != sha256:
            raise UploadRefused("upload.digest", "the chunk is not what its digest says; send it again.")
        try:
            *above, last = safe_parts(name)
        except ValueError as error:
            raise UploadRefused("upload.name", f"a file {error}.") from error
        with self._writing[upload.id]:
            self.find(upload.id, upload.owner)  # it may have been given up meanwhile
            folder = (self.folder / upload.id / CAME).joinpath(*above)
            part = next((path for path, one, _ in _parts_in(folder) if one == last), None)
            there = _bytes_of(part) if part else 0
            if offset != there:
                raise UploadRefused("upload.offset", f"the chunk begins at byte {offset}; {there} bytes are there.")
            self._check_announced(upload, len(chunk), is_new=part is None)
            self._check_disk(len(chunk))
            try:
                _append(folder, last, part, offset, chunk)
            except (FileExistsError, NotADirectoryError) as error:
                raise UploadRefused("upload.name", "a file has the name of a folder of the upload.") from error
            except OSError as error:
                raise _told(error) from error
            return offset + len(chunk)

    def _check_announced(self, upload: Upload, size: int, *, is_new: bool) -> None:
        came = self.received(upload)
        if sum(one.bytes for one in came) + size > upload.bytes or len(came) + is_new > upload.files:
            words = f"{upload.files} files of {upload.bytes} bytes together were announced"
            raise NoRoomForUpload("upload.too-large", f"more comes than was said: {words}.")

    def finish(self, upload: Upload, submit: Callable[[Path], _T]) -> _T:
        """Make the content of what has come, archives unpacked, and hand it on; one after the other, however often.

        Raises:
            UploadRefused: ``upload.incomplete``, less has come than was announced.
            BadSeries: an archive can't be unpacked.
        """
        with self._writing[upload.id]:
            self.find(upload.id, upload.owner)
            content = self._content(upload.id)
            if not content.exists():
                self._make(upload, content)
            return submit(content)

    def _make(self, upload: Upload, content: Path) -> None:
        came = self.received(upload)
        size = sum(one.bytes for one in came)
        if (len(came), size) != (upload.files, upload.bytes):
            words = f"{len(came)} of {upload.files} files and {size} of {upload.bytes} bytes have come"
            raise UploadRefused("upload.incomplete", f"{words}: send the rest.")
        parts, new = content.with_name(CAME), content.with_name(_NEW)
        shutil.rmtree(new, ignore_errors=True)
        try:
            self._lay_out(parts, new)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadSeries("upload.name", "two files, or a file and a folder, have one name.") from error
        except (BadSeries, OSError) as error:
            shutil.rmtree(new, ignore_errors=True)
            raise _told(error) from error
        _flush(*(path for path in new.rglob("*") if path.is_dir()), new)
        new.rename(content)
        _flush(content.parent)
        shutil.rmtree(parts, ignore_errors=True)

    def _lay_out(self, parts: Path, new: Path) -> None:
        free = shutil.disk_usage(self.folder).free - self._free_gb * 1e9
        left = int(min(self.settings.gb * 1e9, free))
        new.mkdir()
        for name, (part, size) in _parts_below(parts).items():
            target = new / name
            os.truncate(part, size)  # behind it lies what a killed server had begun to write
            target.parent.mkdir(parents=True, exist_ok=True)
            if name.lower().endswith(".zip"):
                left -= unpack(part, target.with_suffix(""), left)
            else:
                os.link(part, target)
        for junk in [path for path in new.rglob("*") if path.name in _JUNK]:
            shutil.rmtree(junk, ignore_errors=True) if junk.is_dir() else junk.unlink(missing_ok=True)
        if not any(files_below(new)):
            raise BadSeries("upload.empty", "the upload holds no file; send DICOM files, a zip of them, or NIfTI.")

    def discard(self, upload: Upload) -> None:
        """Remove an upload."""
        with self._writing[upload.id]:
            place = self.folder / upload.id
            with suppress(FileNotFoundError):
                (place / _FACTS).unlink()  # first, so that it is none any more whatever happens next
            shutil.rmtree(place, ignore_errors=True)
        self._writing.pop(upload.id, None)

    def sweep(self, now: datetime) -> list[str]:
        """Remove what was begun, and had nothing come for too long; gives the ids."""
        gone, limit = [], timedelta(hours=self.settings.abandoned_h)
        for one in self.all():
            if not self._content(one.id).exists() and now - self._last(one) > limit:
                self.discard(one)
                gone.append(one.id)
        return gone

    def finished(self) -> Iterator[tuple[Upload, Path]]:
        """The uploads that are whole, with their content."""
        return ((one, content) for one in self.all() if (content := self._content(one.id)).exists())

    def _last(self, upload: Upload) -> datetime:
        """When something of an upload last came."""
        places = (self.folder / upload.id / CAME).rglob("*")
        latest = max((path.stat().st_mtime for path in places), default=0.0)
        return max(upload.begun_at, datetime.fromtimestamp(latest, tz=upload.begun_at.tzinfo))

    def _content(self, upload_id: str) -> Path:
        return self.folder / upload_id / CONTENT

    def _read(self, upload_id: str) -> Upload | None:
        try:
            return read_json((self.folder / upload_id / _FACTS).read_bytes(), Upload)
        except (OSError, ValueError):
            return None


def _told(error: Exception) -> Exception:
    """A disk that is full as what it means to the sender."""
    if isinstance(error, OSError) and error.errno in FULL:
        return NoRoomForUpload("upload.disk-full", "the node's disk is full: make room (node.free_gb).")
    return error


def new_upload_id() -> str:
    """An id that nobody guesses."""
    return secrets.token_hex(16)


def files_below(folder: Path) -> Iterator[Path]:
    """Every plain file below a folder."""
    return (path for path in folder.rglob("*") if path.is_file())


def _append(folder: Path, name: str, part: Path | None, offset: int, chunk: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = part or folder / f"{name}.0.part"
    with path.open("r+b" if part else "wb") as file:
        file.seek(offset)
        file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    path.rename(folder / f"{name}.{offset + len(chunk)}.part")
    _flush(folder)


def _parts_in(folder: Path) -> Iterator[tuple[Path, str, int]]:
    """The parts of a folder: path, name of the file, bytes that count."""
    for path in folder.iterdir() if folder.is_dir() else ():
        found = _PART.fullmatch(path.name)
        if found and path.is_file():
            yield path, found["name"], int(found["bytes"])


def _parts_below(parts: Path) -> dict[str, tuple[Path, int]]:
    """The parts below a folder by the names of their files."""
    found = {}
    for folder in (parts, *(path for path in parts.rglob("*") if path.is_dir())):
        for path, name, size in _parts_in(folder):
            found[(folder.relative_to(parts) / name).as_posix()] = (path, size)
    return found


def _bytes_of(part: Path) -> int:
    found = _PART.fullmatch(part.name)
    return int(found["bytes"]) if found else 0


def _flush(*paths: Path) -> None:
    """Flush files and folders to the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
