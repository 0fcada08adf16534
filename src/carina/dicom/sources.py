"""The bytes that a header is parsed from: a file's own, or those that a deflated data set inflates to (PS3.5 A.5)."""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO

from carina.errors import BadSeries

WINDOW = 16_384
"""Bytes of a file that are read at once; most headers fit."""

CHUNK = 65_536
"""Bytes that are inflated at once."""

LARGEST_INFLATED_HEADER = 64 * 1024 * 1024
"""Bytes that a deflated file may inflate to before its pixel data; the header of 10,000 frames has a third of it."""


class Bytes(ABC):
    """Bytes of one file, from which each read asks for a bounded number; ``bound`` says in words where they end."""

    bound = "the file holds"

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at``; fewer where they end."""

    @abstractmethod
    def reaches(self, at: int) -> bool:
        """Whether there are at least ``at`` bytes."""

    @abstractmethod
    def take(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at`` on, however many. The last call made."""

    def broken(self, words: str) -> BadSeries:
        """The refusal of a file whose header can't be followed."""
        return BadSeries("series.truncated", f"{self.name}: it is damaged in its header: {words}; send the file again.")


class Plain(Bytes):
    """A file's bytes, read through a window."""

    def __init__(self, name: str, stream: BinaryIO) -> None:
        super().__init__(name)
        self.size = os.fstat(stream.fileno()).st_size
        self._stream = stream
        self._window = b""
        self._base = 0

    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at``; fewer where the file ends."""
        start = at - self._base
        if not 0 <= start <= len(self._window) - size:
            self._stream.seek(at)
            self._window, self._base, start = self._stream.read(max(size, WINDOW)), at, 0
        return self._window[start : start + size]

    def reaches(self, at: int) -> bool:
        """Whether the file has at least ``at`` bytes."""
        return at <= self.size

    def count(self, at: int, most: int) -> int:
        """How many bytes there are from ``at`` on, at most ``most``."""
        return max(min(self.size - at, most), 0)

    def take(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at`` on."""
        self._stream.seek(at)
        return self._stream.read(self.count(at, size))


class Inflated(Bytes):
    """What a deflated data set inflates to, offset 0 being its first byte: inflated only as far as it is asked for."""

    bound = f"the file inflates to, or than {LARGEST_INFLATED_HEADER} that a header may have"

    def __init__(self, name: str, stream: BinaryIO, start: int) -> None:
        super().__init__(name)
        stream.seek(start)
        self._parts = self._inflate(stream)
        self._kept = bytearray()

    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at``; fewer where they end.

        Raises:
            BadSeries: the deflated bytes are damaged.
        """
        self.reaches(at + size)
        return bytes(self._kept[at : at + size])

    def reaches(self, at: int) -> bool:
        """Whether there are at least ``at`` bytes, of those that a header may have.

        Raises:
            BadSeries: the deflated bytes are damaged.
        """
        if at > LARGEST_INFLATED_HEADER:
            return False
        while len(self._kept) < at:
            part = next(self._parts, None)
            if part is None:
                return False
            self._kept += part
        return True

    def take(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at`` on."""
        parts = [bytes(self._kept[at : at + size])]
        missing = size - len(parts[0])
        while missing > 0 and (part := next(self._parts, None)) is not None:
            parts.append(part[:missing])
            missing -= len(parts[-1])
        return b"".join(parts)

    def _inflate(self, stream: BinaryIO) -> Iterator[bytes]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            while not inflater.eof and (waiting := inflater.unconsumed_tail or stream.read(CHUNK)):
                yield inflater.decompress(waiting, CHUNK)
            yield inflater.flush()
        except zlib.error as error:
            raise self.broken(f"its deflated bytes are damaged: {error}") from error
