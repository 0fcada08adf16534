"""What a client can take: the Accept header as DICOMweb uses it (PS3.18 8.7), and multipart answers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from carina.deliver.dicomweb import DICOM_JSON
from carina.service.problems import NotAcceptable

ANY = "*"
_RANGE = re.compile(r'(?:[^,"]|"[^"]*")+')
_PARAMETER = re.compile(r';\s*([\w!#$&^.+-]+)\s*=\s*(?:"([^"]*)"|([^;\s]*))')

LONGEST_ACCEPT = 4096


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One form that a client takes, of a multipart answer that of its parts; ``syntax`` is empty where none is said."""

    media_type: str
    is_multipart: bool
    syntax: str

    def takes(self, media_type: str) -> bool:
        """Whether it covers a media type."""
        general = self.media_type.partition("/")
        return self.media_type in ("*/*", media_type) or (general[2] == ANY and media_type.startswith(f"{general[0]}/"))

    @property
    def takes_parts(self) -> bool:
        """Whether a multipart answer will do."""
        return self.is_multipart or self.media_type == "*/*"

    def takes_alone(self, media_type: str) -> bool:
        """Whether it covers a media type that is the whole answer, not one of its parts."""
        return not self.is_multipart and self.takes(media_type)


def wishes(accept: str) -> list[Wish]:
    """The forms of an Accept header, the most wanted first; none said: anything."""
    found = []
    for one in _RANGE.findall(accept[:LONGEST_ACCEPT]) or ["*/*"]:
        media_type = one.partition(";")[0].strip().lower()
        parameters = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(one)}
        is_multipart = media_type == "multipart/related"
        inner = parameters.get("type", "*/*").lower() if is_multipart else media_type
        wish = Wish(media_type=inner, is_multipart=is_multipart, syntax=parameters.get("transfer-syntax", ""))
        found.append((_quality(parameters.get("q", "1")), wish))
    return [wish for quality, wish in sorted(found, key=lambda one: -one[0]) if quality > 0]


def check_takes_json(accepted: Iterable[Wish], what: str) -> None:
    """See that a client takes DICOM JSON, which is how ``what`` is answered.

    Raises:
        NotAcceptable: it takes other forms alone.
    """
    if not any(wish.takes_alone(one) for wish in accepted for one in (DICOM_JSON, "application/json")):
        raise NotAcceptable("dicomweb.accept", f"{what} answered in {DICOM_JSON} alone.")


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


@dataclass(frozen=True, kw_only=True)
class BodyPart:
    """One part of a multipart answer: its media type with parameters, where it is from, and its bytes."""

    content_type: str
    location: str
    chunks: Iterable[bytes]


class Multipart:
    """A multipart/related answer (RFC 2387): its type, and its bytes as they are read."""

    def __init__(self, media_type: str, parts: Iterable[BodyPart]) -> None:
        self._boundary = f"carina-{secrets.token_hex(16)}"
        self._parts = parts
        self.content_type = f'multipart/related; type="{media_type}"; boundary={self._boundary}'

    def __iter__(self) -> Iterator[bytes]:
        """The bytes."""
        for part in self._parts:
            lines = (f"Content-Type: {part.content_type}", f"Content-Location: {part.location}")
            yield "\r\n".join((f"--{self._boundary}", *lines, "", "")).encode("ascii")
            yield from part.chunks
            yield b"\r\n"
        yield f"--{self._boundary}--\r\n".encode("ascii")
