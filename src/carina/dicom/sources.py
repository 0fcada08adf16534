"""The bytes that a header is parsed from: a file's own, or those that a deflated data set inflates to (PS3.5 A.5)."""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO

from carina.errors import BadSeries, with_words

WINDOW = 16_384
"""Bytes of a file that are read at once; most headers fit."""

CHUNK = 65_536
"""Bytes that are inflated at once."""

MOST_AFTER_PIXELS = 64 * 1024 * 1024
"""Bytes after a deflated file's pixel data that are inflated to see that it was not cut."""

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
        """Up to ``size`` bytes from ``at`` on, however many; those and what is before them are not asked for again."""

    @abstractmethod
    def pass_over(self, until: int) -> int:
        """Where the bytes end, at most at ``until``; those before it are not asked for again."""

    @abstractmethod
    def is_whole(self) -> bool:
        """Whether they end where they were meant to, as far as they tell by themselves. The last call made."""

    def broken(self, words: str) -> BadSeries:
        """The refusal of a file whose header can't be followed."""
        return BadSeries("series.truncated", f"{self.name}: it is damaged in its header: {words}; send the file again.")


class Encoded(Bytes):
    """Bytes that are in memory already, as a message's data set."""

    bound = "there are"

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(name)
        self.data = data

    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at``; fewer where they end."""
        return self.data[at : at + size]

    def reaches(self, at: int) -> bool:
        """Whether there are at least ``at`` bytes."""
        return at <= len(self.data)

    def take(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at`` on."""
        return self.read(at, size)

    def pass_over(self, until: int) -> int:
        """Where they end, at most at ``until``."""
        return min(len(self.data), until)

    def is_whole(self) -> bool:
        """True: nothing in them says how many there are, beside their elements."""
        return True


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

    def pass_over(self, until: int) -> int:
        """Where the file ends, at most at ``until``."""
        return min(self.size, until)

    def is_whole(self) -> bool:
        """True: nothing in a file says how long it is, beside its elements."""
        return True


class Inflated(Bytes):
    """What a deflated data set inflates to, offset 0 being its first byte: inflated only as far as it is asked for."""

    bound = f"the file inflates to, or than {LARGEST_INFLATED_HEADER} that a header may have"

    def __init__(self, name: str, stream: BinaryIO, start: int) -> None:
        super().__init__(name)
        stream.seek(start)
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._parts = self._inflate(stream)
        self._kept, self._kept_from = bytearray(), 0

    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at``; fewer where they end.

        Raises:
            BadSeries: the deflated bytes are damaged.
        """
        self.reaches(at + size)
        start = at - self._kept_from
        return bytes(self._kept[start : start + size])

    def reaches(self, at: int) -> bool:
        """Whether there are at least ``at`` bytes, of those that a header may have.

        Raises:
            BadSeries: the deflated bytes are damaged.
        """
        if at - self._kept_from > LARGEST_INFLATED_HEADER:
            return False
        while len(self._kept) < at - self._kept_from:
            part = next(self._parts, None)
            if part is None:
                return False
            self._kept += part
        return True

    def take(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at`` on.

        Raises:
            BadSeries: the deflated bytes are damaged.
        """
        self.pass_over(at)
        return b"".join(self._passed(at + size))

    def pass_over(self, until: int) -> int:
        """Where the bytes end, at most at ``until``; none before that is kept.

        Raises:
            BadSeries: the deflated bytes are damaged.
        """
        for _ in self._passed(until):
            pass
        return self._kept_from

    def is_whole(self) -> bool:
        """Whether the last deflated block has its end; true where far more follows than any file has.

        Raises:
            BadSeries: the deflated bytes are damaged.
        """
        self.pass_over(self._kept_from + len(self._kept) + MOST_AFTER_PIXELS)
        return self._inflater.eof or next(self._parts, None) is not None

    def _passed(self, until: int) -> Iterator[bytes]:
        """The bytes up to ``until``, none of which is kept."""
        while (missing := until - self._kept_from) > 0:
            part = bytes(self._kept) or next(self._parts, b"")
            if not part:
                return
            self._kept = bytearray(part[missing:])
            self._kept_from += min(len(part), missing)
            yield part[:missing]

    def _inflate(self, stream: BinaryIO) -> Iterator[bytes]:
        inflater = self._inflater
        try:
            while not inflater.eof and (waiting := inflater.unconsumed_tail or stream.read(CHUNK)):
                if part := inflater.decompress(waiting, CHUNK):
                    yield part
            if part := inflater.flush():
                yield part
        except zlib.error as error:
            raise with_words(self.broken("its deflated bytes are damaged"), error) from error
