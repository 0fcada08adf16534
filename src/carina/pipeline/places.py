"""Names and places of files: the one way from a text of a stranger's to a file name, and into a folder of ours."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO

from carina.errors import BadConfig, unwritable

NAME_BYTES = 120
"""Room for suffixes and for the names of half-written files below the 255 bytes that file systems allow."""

COPIED_AT_ONCE = 1 << 20

_NO_LINK = frozenset(
    {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
)
"""How FAT and some network folders refuse links, and what says that a file has as many as it may."""

_KEPT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?<!\.)", re.ASCII)
_DIGEST = re.compile(r"-[0-9a-f]{12}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""Names that Windows keeps for devices, whatever their suffix."""


def file_name(text: str) -> str:
    """A name for a file or folder that stands for a text from outside: a UID, a Patient ID, another file's name.

    A text of ASCII letters, digits, ``.``, ``_`` and ``-`` names itself unless it is too long, a device's, or ends like
    a digest. Of any other the letters that are left are kept and a digest of the whole text is added, so that two texts
    never share a name. The result never holds a separator, starts with a dot or is empty.
    """
    is_plain = _KEPT.fullmatch(text) and len(text) <= NAME_BYTES
    if is_plain and not _DEVICES.match(text) and not _DIGEST.fullmatch(text[-13:]):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[: NAME_BYTES - len(digest) - 1]
    return f"{kept}-{digest}" if kept and not _DEVICES.match(kept) else f"unnamed-{digest}"


def trace_name(step: str) -> str:
    """The file in a run's folder with the traceback of what an operator raised, by its step."""
    return file_name(f"bug-{step}") + ".txt"


def below(folder: Path, name: str) -> Path:
    """The file of a relative name below a folder, which a list from outside (an old manifest, an archive) gives.

    Links are followed before the answer: a link that leads out of the folder is refused too.

    Raises:
        BadConfig: ``output.outside``, the name is absolute, leads out of the folder, or is the folder itself.
    """
    plain = os.path.normpath(name)
    path = folder / plain
    try:
        is_inside = plain != os.curdir and path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name too long, a zero byte, a loop of links
        is_inside = False
    if not is_inside or Path(plain).is_absolute() or os.pardir in Path(plain).parts:
        raise BadConfig(
            "output.outside", f"{folder}: {name!r} does not lie in this folder: only files below it are touched."
        )
    return path


def check_place(path: Path, *, is_file: bool = False) -> None:
    """See that a folder, or a file, can be made or written at a path, before any work is done for it.

    Raises:
        BadConfig: ``output.unwritable``, it can't: the message says why.
    """
    try:
        above = next((one for one in (path, *path.parents) if _is_there(one)), path)
        is_wrong_kind = above.is_dir() == is_file if above == path else not above.is_dir()
        if is_wrong_kind:
            raise _system_error(errno.EISDIR if above.is_dir() else errno.ENOTDIR, above)
        if not os.access(above, os.W_OK | os.X_OK if above.is_dir() else os.W_OK):
            raise _system_error(_why_unwritable(above), above)
    except (OSError, ValueError) as error:
        raise unwritable(error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error)), path) from error


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _why_unwritable(path: Path) -> int:
    """The system's number for what it refuses: the rights, or the file system can't be written at all."""
    return errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES


def _system_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file into a folder that is there; it appears whole, and a link in its place is replaced, not followed.

    Raises:
        OSError: the source can't be read, or the target not be written.
    """
    with source.open("rb") as read, _appearing(target) as written:
        shutil.copyfileobj(read, written, COPIED_AT_ONCE)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or a flushed copy where the file system has no links or no more of them.

    Raises:
        FileExistsError: the target is there.
        OSError: the source can't be read, or the target not be written.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        if target.exists():
            raise _system_error(errno.EEXIST, target) from None
        copy_whole(source, target)
        flush(target)


def flush(*paths: Path) -> None:
    """Flush files and folders to the disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def free_place(place: Path) -> Path:
    """A place where nothing is: this one, or it with a number."""
    names = (place.name if number == 1 else f"{place.name}-{number}" for number in count(1))
    return next(one for name in names if not (one := place.with_name(name)).exists())


def write_whole(target: Path, data: bytes) -> None:
    """Write a file in a folder that is there; it appears whole, and a link in its place is replaced, not followed.

    Raises:
        OSError: the target can't be written.
    """
    with _appearing(target) as written:
        written.write(data)


def make_below(above: Path, folder: Path) -> None:
    """Make a folder with those between it and one above it, which is there: where that has gone, it is not made anew.

    Raises:
        OSError: it can't be made.
    """
    names = folder.relative_to(above).parts
    for number in range(1, len(names) + 1):
        above.joinpath(*names[:number]).mkdir(exist_ok=True)


@contextmanager
def _appearing(target: Path) -> Iterator[BinaryIO]:
    partial = target.with_name(f".{file_name(target.name)}.partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as written:
            yield written
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
