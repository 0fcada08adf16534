"""Voxels out of a file, block by block: no more memory than the header needs, and no more than the file can hold."""

from __future__ import annotations

import bz2
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from isal.igzip_lib import IsalError

from carina.errors import BadSeries
from carina.volume.header import Packing, StoredVoxels, bad, short

BLOCK_BYTES = 1 << 20
CHUNK_BYTES = 1 << 16

MOST_UNPACKED = {Packing.RAW: 1, Packing.TEXT: 1, Packing.DEFLATE: 1032, Packing.BZIP2: 50_000}
"""How many bytes one byte can unpack to: two bits stand for 258 in deflate, some 40 bytes for 900,000 in bzip2."""

MOST_OF_A_PATH = 500

_DAMAGED: Any = IsalError  # of which its stub says that it is an instance

GZIP = b"\x1f\x8b"

Use = Callable[[int, npt.NDArray[Any]], None]
"""Called with the index of a block's first voxel and the block, scaled; the block is only valid during the call."""


class Stream(Protocol):
    """What bytes are read from."""

    def readinto(self, buffer: Any, /) -> int | None:
        """Fill a buffer as far as bytes come at once; 0 at the end."""


def open_voxels(path: Path) -> io.BufferedReader:
    """Open a regular file for reading.

    Raises:
        BadSeries: ``file.missing`` or ``file.unreadable``: no such file, a folder, a pipe, no permission.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not block
    except FileNotFoundError as error:
        raise BadSeries("file.missing", f"{short(str(path), MOST_OF_A_PATH)}: no such file.") from error
    except (OSError, ValueError) as error:  # a name with a zero byte
        raise unreadable_voxels(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise bad(path, "unreadable", "is no file but a folder, pipe or device; give the file.")
    return os.fdopen(descriptor, "rb")


def unreadable_voxels(path: Path, error: Exception) -> BadSeries:
    """The error that the system will not let a file be read."""
    reason = getattr(error, "strerror", None) or "its name is no file's"
    return bad(path, "unreadable", f"can't be read ({reason}).")


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a file, unpacked if it is packed with gzip; fewer where it is shorter.

    Raises:
        BadSeries: the file can't be read, or what is packed is damaged.
    """
    with open_voxels(path) as file:
        try:
            packing = Packing.DEFLATE if file.peek(2)[:2] == GZIP else Packing.RAW
            return bytes(_filled(_unpacked(file, packing), count))
        except OSError as error:
            raise unreadable_voxels(path, error) from error
        except (EOFError, _DAMAGED) as error:
            raise _damaged(path) from error


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip does, whatever its name."""
    with open_voxels(path) as file:
        return file.read(2) == GZIP


def size_of(path: Path) -> int:
    """Bytes of a file.

    Raises:
        BadSeries: it can't be opened.
    """
    with open_voxels(path) as file:
        return os.fstat(file.fileno()).st_size


def check_room(voxels: StoredVoxels) -> None:
    """Refuse a file that can't hold what its header claims, or holds more; nothing is read and no memory asked for.

    Raises:
        BadSeries: ``file.truncated`` or ``file.leftover``.
    """
    held = size_of(voxels.path) - voxels.start
    needed = voxels.skip + voxels.voxel_bytes
    if needed > max(0, held) * MOST_UNPACKED[voxels.packing] + 1:
        raise bad(
            voxels.path,
            "truncated",
            f"is cut short, or its header is wrong: {voxels.voxel_bytes} bytes of voxels can't be in {max(0, held)} "
            "bytes; copy it again.",
        )
    if voxels.packing is Packing.RAW:
        _check_rest(voxels, held - needed)


def read_blocks(voxels: StoredVoxels, use: Use) -> tuple[str, ...]:
    """Give ``use`` every voxel in file order; returns warnings.

    Raises:
        BadSeries: ``file.truncated``, ``file.leftover`` or ``file.unreadable``; memory is the caller's.
    """
    check_room(voxels)
    with _opened(voxels.path) as file:
        file.seek(voxels.start)
        stream = _unpacked(file, voxels.packing)
        if voxels.packing is Packing.TEXT:
            rest = _each_number(stream, voxels, use)
        else:
            _each_block(stream, voxels, use)
            rest = len(_filled(stream, voxels.plane_bytes))
    return _check_rest(voxels, rest)


def read_parts(voxels: StoredVoxels, parts: Iterable[tuple[int, int]], use: Use) -> None:
    """Give ``use`` some voxels of a file that is not packed: of each part, ``(first, count)``, these alone are read.

    Raises:
        BadSeries: ``file.truncated`` or ``file.unreadable``.
    """
    size = voxels.dtype.itemsize
    with _opened(voxels.path) as file:
        for first, count in parts:
            file.seek(voxels.start + voxels.skip + first * size)
            block = _filled(file, count * size)
            if len(block) < count * size:
                raise EOFError
            use(first, _scaled(np.frombuffer(block, voxels.dtype), voxels))


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """A file while its voxels are read; what goes wrong then is told of in words."""
    with open_voxels(path) as file:
        try:
            yield file
        except OSError as error:
            if error.errno is None:  # how bz2 says that its data are damaged
                raise _damaged(path) from error
            raise unreadable_voxels(path, error) from error
        except (EOFError, ValueError, _DAMAGED) as error:
            raise _damaged(path) from error


def _each_block(stream: Stream, voxels: StoredVoxels, use: Use) -> None:
    _skip(stream, voxels.skip)
    size = voxels.dtype.itemsize
    for first in range(0, voxels.count, BLOCK_BYTES // size):
        count = min(BLOCK_BYTES // size, voxels.count - first)
        block = _filled(stream, count * size)
        if len(block) < count * size:
            raise EOFError
        use(first, _scaled(np.frombuffer(block, voxels.dtype), voxels))


def _each_number(stream: Stream, voxels: StoredVoxels, use: Use) -> int:
    """As ``_each_block`` for numbers in text; returns the bytes of those that are too many."""
    done, left, is_last = 0, b"", False
    words: list[bytes] = []
    while done + len(words) <= voxels.count and not is_last:
        block = bytes(_filled(stream, CHUNK_BYTES))
        is_last = len(block) < CHUNK_BYTES
        text, left = _whole_numbers(left + block, is_last=is_last)
        words = text.split()
        numbers = np.array(words[: voxels.count - done], dtype=np.float64)
        use(done, _scaled(numbers, voxels))
        done += len(numbers)
        words = words[len(numbers) :]
    if done < voxels.count:
        raise EOFError
    return len(words) * voxels.dtype.itemsize


def _whole_numbers(text: bytes, *, is_last: bool) -> tuple[bytes, bytes]:
    """Text up to its last white space, and the rest, which may be half a number."""
    if is_last:
        return text, b""
    at = max(text.rfind(sign) for sign in (b" ", b"\n", b"\t", b"\r"))
    if at < 0:
        raise ValueError("no number has so many digits")
    return text[:at], text[at:]


def _scaled(values: npt.NDArray[Any], voxels: StoredVoxels) -> npt.NDArray[Any]:
    if voxels.slope == 1.0 and voxels.intercept == 0.0:
        return values
    with np.errstate(all="ignore"):
        return np.asarray(values * np.float64(voxels.slope) + voxels.intercept, dtype=np.float64)


def _check_rest(voxels: StoredVoxels, rest: int) -> tuple[str, ...]:
    if rest >= voxels.plane_bytes:
        raise bad(
            voxels.path,
            "leftover",
            "holds at least a slice more than its header says: header and voxels do not belong together; "
            "convert it again.",
        )
    return (f"{voxels.path.name}: {rest} bytes after its voxels are left out.",) if rest else ()


def _damaged(path: Path) -> BadSeries:
    return bad(path, "truncated", "is cut short or damaged; copy it again.")


def _unpacked(file: io.BufferedReader, packing: Packing) -> Stream:
    if packing is Packing.DEFLATE:
        return _Inflated(file)
    return bz2.BZ2File(file) if packing is Packing.BZIP2 else file


def _filled(stream: Stream, count: int) -> bytearray:
    """So many bytes, or what is left."""
    filled = bytearray(min(count, BLOCK_BYTES))
    done = 0
    while done < count:
        if done == len(filled):
            filled.extend(bytes(min(BLOCK_BYTES, count - done)))
        got = stream.readinto(memoryview(filled)[done:])
        if not got:
            break
        done += got
    del filled[done:]
    return filled


def _skip(stream: Stream, count: int) -> None:
    while count > 0:
        passed = len(_filled(stream, min(count, BLOCK_BYTES)))
        if not passed:
            raise EOFError
        count -= passed


class _Inflated(io.RawIOBase):
    """What gzip or zlib packed; gzip members follow each other (RFC 1952, 2.2), zeros may fill up the end."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._unit = isal_zlib.decompressobj(isal_zlib.MAX_WBITS | 32)
        self._packed = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while True:
            if len(self._packed) < len(GZIP):
                self._packed += self._file.read(CHUNK_BYTES)
            if self._unit.eof and not self._next_member():
                return 0
            is_over = not self._packed
            part = self._unit.decompress(self._packed, len(view))
            self._packed = self._unit.unused_data if self._unit.eof else self._unit.unconsumed_tail
            if part:
                view[: len(part)] = part
                return len(part)
            if is_over and not self._unit.eof:
                raise EOFError("the packed data end early")

    def _next_member(self) -> bool:
        """Begin the next member, if one follows; what is no member ends the data."""
        if not self._packed.startswith(GZIP):
            return False
        self._unit = isal_zlib.decompressobj(isal_zlib.MAX_WBITS | 32)
        return True
