"""A multipart body (RFC 2046 5.1) as it comes in, part by part: nothing is kept but what is between two boundaries.

What a stranger controls is bounded: the boundary's length, what stands before the first part, each part's headers, the
number of parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from carina.errors import CarinaError

MOST_PARTS = 20_000
LONGEST_HEADERS = 8192
LONGEST_PREAMBLE = 65_536
LONGEST_EPILOGUE = 65_536
LONGEST_BOUNDARY = 200
"""RFC 2046 5.1.1 allows 70 characters; Orthanc writes 73."""

DICOM_TYPE = "application/dicom"
_BODY_TYPE = "multipart/related"

LONGEST_PADDING = 64
"""Blanks after a boundary, which a mail relay may put there."""

_PARAMETER = re.compile(r';\s*([\w!#$&^.+-]+)\s*=\s*(?:"([^"]*)"|([^;\s"]*))')
_AFTER_BOUNDARY = re.compile(rb"--|[ \t]*\r\n")
_MAY_FOLLOW = re.compile(rb"[ \t]*\r?")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")


class BadBody(CarinaError):
    """A request's body that can't be followed; ``status`` is the HTTP status that says so."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code, message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class ContentType:
    """A media type in lower case, and its parameters by their names in lower case."""

    name: str
    parameters: Mapping[str, str]


def parse_content_type(text: str) -> ContentType:
    """A Content-Type header's value."""
    found = _PARAMETER.findall(text[:LONGEST_HEADERS])
    parameters = {name.lower(): quoted or plain for name, quoted, plain in found}
    return ContentType(name=text.partition(";")[0].strip().lower(), parameters=parameters)


class MultipartParts:
    """The parts of one body, to be read in their order; a part's chunks end where the next part begins."""

    def __init__(self, chunks: Iterable[bytes], boundary: str) -> None:
        if len(boundary) > LONGEST_BOUNDARY or not _BOUNDARY.fullmatch(boundary):
            words = (
                f"Content-Type: boundary {boundary[:80]!r}; expected 1 to {LONGEST_BOUNDARY} characters of RFC 2046."
            )
            raise BadBody(400, "stow.boundary", words)
        self._chunks = iter(chunks)
        self._mark = b"\r\n--" + boundary.encode("ascii")
        self._buffer = bytearray(b"\r\n")  # so that a boundary at the very beginning is found like all others
        self._open = True

    def __iter__(self) -> Iterator[tuple[ContentType, Iterator[bytes]]]:
        """Each part's content type and its chunks; what is not read of one is passed over.

        Raises:
            BadBody: a bound is passed, or the body ends before its closing boundary.
        """
        self._skip_preamble()
        number = 0
        while not self._is_closed():
            number += 1
            if number > MOST_PARTS:
                raise BadBody(413, "stow.parts", f"more than {MOST_PARTS} parts; send them in several requests.")
            content_type = self._content_type(number)
            data = self._data()
            yield content_type, data
            for _ in data:
                pass
        self._drain()

    def _skip_preamble(self) -> None:
        passed = 0
        for chunk in self._data():
            passed += len(chunk)
            if passed > LONGEST_PREAMBLE:
                raise BadBody(400, "stow.preamble", "no boundary at the beginning of the body; is it multipart?")

    def _more(self) -> bool:
        """Take in the next bytes; False where there are none."""
        chunk = next(self._chunks, None)
        self._buffer += chunk or b""
        return chunk is not None

    def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            if not self._more():
                raise BadBody(400, "stow.truncated", "the body ends before its closing boundary; send it again.")

    def _is_closed(self) -> bool:
        """Whether the boundary that was just passed closes the body; otherwise its line is passed over as well."""
        if self._buffer[:2] == b"--":
            return True
        del self._buffer[: self._buffer.find(b"\r\n")]  # its line end is left: headers may be absent
        return False

    def _find(self, what: bytes, within: int, words: str) -> int:
        """Where something begins, at most ``within`` bytes ahead."""
        while (at := self._buffer.find(what)) < 0:
            if len(self._buffer) > within:
                break
            self._need(len(self._buffer) + 1)
        if not 0 <= at <= within:
            raise BadBody(400, "stow.headers", f"{words} within {within} bytes.")
        return at

    def _content_type(self, number: int) -> ContentType:
        end = self._find(b"\r\n\r\n", LONGEST_HEADERS, f"part {number}: its headers do not end")
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        named = (line.partition(":") for line in lines)
        found = {name.strip().lower(): value.strip() for name, _, value in named}
        return parse_content_type(found.get("content-type", ""))

    def _data(self) -> Iterator[bytes]:
        """Bytes up to the next boundary, which is passed."""
        while not self._is_boundary(at := self._buffer.find(self._mark)):
            safe = len(self._buffer) - len(self._mark) + 1  # the rest may be a boundary's beginning
            if at >= 0:
                safe = at + len(self._mark)  # pixels, say, that look like one
            if safe > 0:
                yield bytes(self._buffer[:safe])
                del self._buffer[:safe]
            if at < 0:
                self._need(len(self._buffer) + 1)
        if at:
            yield bytes(self._buffer[:at])
        del self._buffer[: at + len(self._mark)]

    def _is_boundary(self, at: int) -> bool:
        """Whether a boundary is there: its line ends, or two hyphens follow (RFC 2046 5.1.1)."""
        after = at + len(self._mark)
        for end in range(after + 2, after + LONGEST_PADDING + 3) if at >= 0 else ():
            self._need(end)
            line = self._buffer[after:end]
            if _AFTER_BOUNDARY.fullmatch(line):
                return True
            if not _MAY_FOLLOW.fullmatch(line):
                break
        return False

    def _drain(self) -> None:
        """Take what follows the closing boundary, of which a little is allowed, so that the request is read whole."""
        passed = len(self._buffer)
        self._buffer.clear()
        for chunk in self._chunks:
            passed += len(chunk)
            if passed > LONGEST_EPILOGUE:
                break


def dicom_parts(content_type: str, chunks: Iterable[bytes]) -> Iterator[tuple[ContentType, Iterator[bytes]]]:
    """The parts of a body of DICOM instances, as ``MultipartParts`` gives them; one instance alone is one part.

    Raises:
        BadBody: it is a body of something else, or can't be followed.
    """
    whole = parse_content_type(content_type)
    of_parts = whole.parameters.get("type", DICOM_TYPE).lower()
    if whole.name == DICOM_TYPE:
        yield whole, iter(chunks)
    elif whole.name == _BODY_TYPE and of_parts == DICOM_TYPE:
        yield from MultipartParts(chunks, whole.parameters.get("boundary", ""))
    else:
        seen = f"{whole.name}, of {of_parts}" if whole.name == _BODY_TYPE else whole.name
        words = f'Content-Type: {seen[:80]!r}; expected {_BODY_TYPE}; type="{DICOM_TYPE}"; boundary=...'
        raise BadBody(415, "stow.content-type", words)
