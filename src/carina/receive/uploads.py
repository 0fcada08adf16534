"""Uploads: files that come in chunks, over days and restarts if need be, until they are whole.

An upload is a folder of the node, ``uploads/ID``: ``upload.json`` says whose it is and which job was made of it,
``parts`` has what came so far, and ``content`` all of it, unpacked, once it is finished. The folder's own time is when
something of it last came, or when it was finished.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from carina.errors import BadSeries
from carina.pipeline.json_text import as_json, read_json
from carina.pipeline.places import flush, link_or_copy, make_below, write_whole
from carina.receive.unpack import safe_parts, unpack
from carina.receive.upload_errors import TWO_OF_A_NAME, NoRoomForUpload, NoUpload, UploadRefused, told_disk
from carina.receive.upload_parts import UploadParts
from carina.receive.upload_share import most_for_one, room_for
from carina.sections import UPLOADS, UploadSettings
from carina.web_settings import DEFAULT_PROJECT

CAME, CONTENT = "parts", "content"
LARGEST_CHUNK = 4 << 20
MOST_UPLOADS = 1000
"""Unfinished uploads that one node has at a time; each project has its share of them, as of the room."""

_FACTS = "upload.json"
_NEW = "content.new"
_ID = re.compile(r"[0-9a-f]{32}")
_JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db")
"""What computers add to folders and archives."""


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """Whose upload it is, and what was announced; ``key`` is what its sender knows it by, to find it again.

    ``project`` is the one in whose share it counts, and, where ``is_project_named``, in which it is run. ``job`` is the
    job that was made of it; without one it is unfinished.
    """

    id: str
    owner: str
    key: str
    files: int
    bytes: int
    begun_at: datetime
    project: str = DEFAULT_PROJECT
    is_project_named: bool = False
    job: int | None = None


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A file of an upload, and how many of its bytes are there for good."""

    name: str
    bytes: int


class Uploads:
    """The uploads of a node, in a folder that is there; ``free_gb`` is what is to stay free on its disk.

    ``job_on`` finds the job that was made of a content, where the node was killed before the upload had its id.
    """

    def __init__(
        self, folder: Path, settings: UploadSettings, free_gb: float, job_on: Callable[[Path], int | None]
    ) -> None:
        self.folder, self.settings, self._free_gb = folder / UPLOADS, settings, free_gb
        self._job_on = job_on
        self._beginning, self._knowing = threading.Lock(), threading.Lock()
        self._parts: dict[str, UploadParts] = {}
        self._unfinished: dict[str, Upload] = {}
        self._finished: set[str] = set()

    def begin(self, upload: Upload, projects: int = 1) -> Upload:
        """A new upload, or the unfinished one that its owner began under the same key; ``projects`` share the room.

        Raises:
            UploadRefused: ``upload.key``, other numbers, or another project, were announced under that key.
            NoRoomForUpload: ``upload.too-large``, ``upload.too-many`` or ``upload.disk-full``.
            UploadNotStored: the disk does not take it.
        """
        with self._beginning, told_disk():
            unfinished = self.unfinished()
            same = (one for one in unfinished if (one.owner, one.key) == (upload.owner, upload.key))
            if found := next(same, None):
                _check_same(upload, found)
                return found
            self._check_room(upload, unfinished, projects)
            place = self.folder / upload.id
            place.mkdir()  # not what is above, as below: an empty folder may have come in place of the node's
            (place / CAME).mkdir()
            self._keep(upload)
            flush(self.folder)
            return upload

    def _check_room(self, upload: Upload, unfinished: list[Upload], projects: int) -> None:
        """See that an upload fits into its project's part; what others have taken is told where there are no others."""
        taken: Counter[str] = Counter()
        for one in unfinished:
            taken[one.project] += one.bytes
        whole, announced = self.settings.gb * 1e9, f"{upload.bytes / 1e9:.3g} GB"
        most, left = most_for_one(whole, projects), room_for(upload.project, taken, whole, projects)
        if upload.bytes > most:
            words = f"{announced} are too large: this node takes {most / 1e9:.3g} GB at a time at most (uploads.gb)"
            advice = "send less, such as one series alone, or ask whoever runs the node to raise the limit."
            raise NoRoomForUpload("upload.too-large", f"{words}: {advice}")
        if upload.bytes > left:
            words = f"{announced} are announced, {max(0.0, left) / 1e9:.3g} GB are left"
            if projects > 1:
                words = f"{announced} are announced, more than project {upload.project} has left"
            raise NoRoomForUpload("upload.too-large", f"{words} for uploads (uploads.gb): wait until others are run.")
        number = Counter(one.project for one in unfinished)
        if room_for(upload.project, number, MOST_UPLOADS, projects) < 1:
            who = f"project {upload.project}" if projects > 1 else "a node"
            words = f"{number[upload.project]} uploads are unfinished, and {who} has no more at a time"
            raise NoRoomForUpload("upload.too-many", f"{words}: finish some, or give them up.")
        self._check_disk(upload.bytes)

    def _check_disk(self, size: float) -> None:
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

    def unfinished(self) -> list[Upload]:
        """Every upload without a job, the oldest first; the facts of each are read once, and then known."""
        with self._knowing:
            ids = set(self._ids())
            self._finished &= ids
            for gone in self._unfinished.keys() - ids:
                del self._unfinished[gone]
            for upload_id in ids - self._finished - self._unfinished.keys():
                if upload := self._read(upload_id):
                    self._know(upload)
            return sorted(self._unfinished.values(), key=lambda one: (one.begun_at, one.id))

    def _know(self, upload: Upload) -> None:
        if upload.job is None:
            self._unfinished[upload.id] = upload
        else:
            self._unfinished.pop(upload.id, None)
            self._finished.add(upload.id)

    def open_of(self, owner: str) -> list[tuple[Upload, int]]:
        """The unfinished uploads of somebody's, and how many bytes of each have come."""
        mine = [one for one in self.unfinished() if one.owner == owner]
        return [(one, one.bytes if self.is_whole(one) else self._parts_of(one.id).total()[1]) for one in mine]

    def is_whole(self, upload: Upload) -> bool:
        """Whether all of an upload has come and is unpacked: what is left to do is to finish it."""
        return self._content(upload).exists()

    def received(self, upload: Upload) -> list[Received]:
        """What has come of an upload, by name; nothing of one that is whole, whose content may have other names."""
        if self.is_whole(upload):
            return []
        return [Received(name=name, bytes=size) for name, size in sorted(self._parts_of(upload.id).sizes().items())]

    def take(self, upload: Upload, name: str, offset: int, chunk: bytes, sha256: bytes) -> int:
        """Append a chunk to a file, on the disk for good; gives how many of its bytes are there now.

        Raises:
            UploadRefused: ``upload.name``, ``upload.digest`` or ``upload.offset``.
            NoRoomForUpload: more comes than was announced, or the disk is full.
            UploadNotStored: the disk does not take it.
        """
        if hashlib.sha256(chunk).digest() != sha256:
            raise UploadRefused("upload.digest", "the chunk is not what its digest says; send it again.")
        try:
            safe_parts(name)
        except ValueError as error:
            raise UploadRefused("upload.name", f"a file {error}.") from error
        parts = self._parts_of(upload.id)
        with parts.writing, told_disk():
            self.find(upload.id, upload.owner)  # it may have been given up meanwhile
            there = parts.size(name)
            if offset != (there or 0) or self.is_whole(upload):
                words = "all bytes" if self.is_whole(upload) else f"{there or 0} bytes"
                raise UploadRefused("upload.offset", f"the chunk begins at byte {offset}; {words} are there.")
            self._check_announced(upload, parts, len(chunk), is_new=there is None)
            self._check_disk(len(chunk))
            size = parts.append(name, chunk)
            os.utime(parts.folder.parent)
            return size

    def _check_announced(self, upload: Upload, parts: UploadParts, size: int, *, is_new: bool) -> None:
        files, came = parts.total()
        if came + size > upload.bytes or files + is_new > upload.files:
            words = f"{upload.files} file{'' if upload.files == 1 else 's'} of {upload.bytes} bytes together"
            raise NoRoomForUpload("upload.too-large", f"more comes than was said: {words} were announced.")

    def finish(self, upload: Upload, submit: Callable[[Path], int]) -> int:
        """Make the content of what has come, archives unpacked, and a job of it; gives that job, however often.

        Raises:
            UploadRefused: ``upload.incomplete``, less has come than was announced.
            BadSeries: an archive can't be unpacked.
            NoRoomForUpload: the disk is full.
            UploadNotStored: the disk does not take it.
        """
        parts = self._parts_of(upload.id)
        with parts.writing:
            upload = self.find(upload.id, upload.owner)
            if not self.is_whole(upload):
                with told_disk():
                    self._make(upload, parts)
            if (job := self._job(upload)) is None:
                job = submit(self._content(upload))
                self._keep(msgspec.structs.replace(upload, job=job))
            return job

    def submit_again(self, upload_id: str, submit: Callable[[Path], int]) -> int:
        """Make another job of an upload that is whole, whose content is not removed meanwhile; gives that job.

        Raises:
            NoUpload: ``upload.gone``, its files are not there any more.
        """
        with self._parts_of(upload_id).writing:
            upload = self._read(upload_id) if _ID.fullmatch(upload_id) else None
            if upload is None or not self.is_whole(upload):
                raise NoUpload("upload.gone", "the files of this upload were removed: send them again.")
            return submit(self._content(upload))

    def _job(self, upload: Upload) -> int | None:
        """The job of an upload, whose id is kept from now on."""
        if upload.job is None and self.is_whole(upload):
            job = self._job_on(self._content(upload))
            if job is not None:
                self._keep(msgspec.structs.replace(upload, job=job))
            return job
        return upload.job

    def _make(self, upload: Upload, parts: UploadParts) -> None:
        files, size = parts.total()
        if (files, size) != (upload.files, upload.bytes):
            words = f"{files} of {upload.files} files and {size} of {upload.bytes} bytes have come"
            raise UploadRefused("upload.incomplete", f"{words}: send the rest.")
        content = self._content(upload)
        new = content.with_name(_NEW)
        shutil.rmtree(new, ignore_errors=True)
        try:
            self._lay_out(parts, new)
        except (BadSeries, OSError) as error:
            shutil.rmtree(new, ignore_errors=True)
            if isinstance(error, TWO_OF_A_NAME):
                raise BadSeries("upload.name", "two files, or a file and a folder, have one name.") from None
            raise
        flush(*(path for path in new.rglob("*") if path.is_dir()), new)
        new.rename(content)
        flush(content.parent)
        shutil.rmtree(parts.folder, ignore_errors=True)
        parts.forget()

    def _lay_out(self, parts: UploadParts, new: Path) -> None:
        free = shutil.disk_usage(self.folder).free - self._free_gb * 1e9
        left = int(min(self.settings.gb * 1e9, free))
        new.mkdir()
        for name, size in sorted(parts.sizes().items()):
            part, target = parts.place(name, size), new / name
            if part.stat().st_size != size:  # behind it lies what a killed server had begun to write
                os.truncate(part, size)
                flush(part)
            make_below(new, target.parent)
            if name.lower().endswith(".zip"):
                left -= unpack(part, target.with_suffix(""), left)
            else:
                link_or_copy(part, target)
        for junk in [path for path in new.rglob("*") if path.name in _JUNK]:
            shutil.rmtree(junk, ignore_errors=True) if junk.is_dir() else junk.unlink(missing_ok=True)
        if not any(files_below(new)):
            raise BadSeries("upload.empty", "the upload holds no file; send DICOM files, a zip of them, or NIfTI.")

    def discard(self, upload: Upload) -> bool:
        """Give an upload up; False of one with a job, which keeps the files."""
        with self._parts_of(upload.id).writing:
            upload = self._read(upload.id) or upload
            is_free = self._job(upload) is None
            if is_free:
                self._remove(upload.id)
        return is_free

    def sweep(self, now: datetime, is_over: Callable[[int], bool]) -> list[str]:
        """Remove what had nothing come for too long, and what belongs to a job that is over; gives the ids.

        What is written to at the moment is neither. Folders that a kill left without their facts go too.
        """
        gone = []
        for upload_id in self._ids():
            writing = self._parts_of(upload_id).writing
            if not writing.acquire(blocking=False):
                continue
            try:
                if self._is_needless(upload_id, now, is_over):
                    self._remove(upload_id)
                    gone.append(upload_id)
            finally:
                writing.release()
        return gone

    def _is_needless(self, upload_id: str, now: datetime, is_over: Callable[[int], bool]) -> bool:
        upload, place = self._read(upload_id), self.folder / upload_id
        if upload is not None and upload.job is not None:
            return is_over(upload.job)
        if not place.is_dir():
            return False
        last = datetime.fromtimestamp(place.stat().st_mtime, tz=now.tzinfo)
        if now - (last if upload is None else max(last, upload.begun_at)) <= timedelta(hours=self.settings.abandoned_h):
            return False
        if upload is None:
            return not (place / _FACTS).exists()  # facts that can't be read may be of a job
        return self._job(upload) is None

    def _remove(self, upload_id: str) -> None:
        """Remove an upload, whose lock is held; the facts first, so that it is none any more whatever happens next."""
        place = self.folder / upload_id
        with told_disk():
            (place / _FACTS).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        with self._knowing:
            self._unfinished.pop(upload_id, None)
        self._parts.pop(upload_id, None)

    def _parts_of(self, upload_id: str) -> UploadParts:
        return self._parts.setdefault(upload_id, UploadParts(self.folder / upload_id / CAME))

    def _content(self, upload: Upload) -> Path:
        return self.folder / upload.id / CONTENT

    def _ids(self) -> list[str]:
        names = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        return [name for name in names if _ID.fullmatch(name)]

    def _keep(self, upload: Upload) -> None:
        place = self.folder / upload.id
        with told_disk():
            write_whole(place / _FACTS, as_json(upload))
            flush(place / _FACTS, place)
        with self._knowing:
            self._know(upload)

    def _read(self, upload_id: str) -> Upload | None:
        try:
            return read_json((self.folder / upload_id / _FACTS).read_bytes(), Upload)
        except (OSError, ValueError):
            return None


def _check_same(upload: Upload, found: Upload) -> None:
    if (upload.files, upload.bytes) != (found.files, found.bytes):
        was = f"{found.files} file{'' if found.files == 1 else 's'} of {found.bytes} bytes together"
        words = f"under this key {was} were announced, not {upload.files} of {upload.bytes}"
        raise UploadRefused("upload.key", f"{words}: take another key, or give upload {found.id} up.")
    if (upload.project, upload.is_project_named) != (found.project, found.is_project_named):
        was = f"project {found.project}" if found.is_project_named else "no project"
        words = f"under this key {was} was announced: name the same, take another key, or give upload {found.id} up."
        raise UploadRefused("upload.key", words)


def new_upload_id() -> str:
    """An id that nobody guesses."""
    return secrets.token_hex(16)


def files_below(folder: Path) -> Iterator[Path]:
    """Every plain file below a folder."""
    return (path for path in folder.rglob("*") if path.is_file())
