"""Uploads that tests make: begun, sent in chunks, finished."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from carina.receive.uploads import Upload, Uploads, new_upload_id
from carina.sections import UPLOADS, UploadSettings

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def uploads(folder: Path, *, free_gb: float = 0.0, gb: float = 1.0, hours: float = 1.0) -> Uploads:
    (folder / UPLOADS).mkdir(parents=True, exist_ok=True)
    return Uploads(folder, UploadSettings(gb=gb, abandoned_h=hours), free_gb, lambda _: None)


def begun(taking: Uploads, files: dict[str, int], key: str = "k", owner: str = "op", at: datetime = NOON) -> Upload:
    size = sum(files.values())
    wanted = Upload(id=new_upload_id(), owner=owner, key=key, files=len(files), bytes=size, begun_at=at)
    return taking.begin(wanted)


def take(taking: Uploads, upload: Upload, name: str, offset: int, chunk: bytes) -> int:
    return taking.take(upload, name, offset, chunk, hashlib.sha256(chunk).digest())


def whole(folder: Path, **files: bytes) -> tuple[Uploads, Upload]:
    """An upload whose files have come, each in one chunk; dots in names are written as two underscores."""
    taking = uploads(folder)
    named = {name.replace("__", "."): data for name, data in files.items()}
    upload = begun(taking, {name: len(data) for name, data in named.items()})
    for name, data in named.items():
        take(taking, upload, name, 0, data)
    return taking, upload


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finished(taking: Uploads, upload: Upload) -> dict[str, bytes]:
    assert taking.finish(upload, lambda _: 7) == 7
    return contents(taking.folder / upload.id / "content")


def unused(_: object) -> bool:
    raise AssertionError("is not asked")


LATE = NOON + timedelta(hours=2)


def last_at(taking: Uploads, upload_id: str, when: datetime) -> None:
    """Make it look as if something of an upload came last at a time."""
    os.utime(taking.folder / upload_id, (when.timestamp(), when.timestamp()))
