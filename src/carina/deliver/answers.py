"""What a peer's answer to one object means: stored, perhaps another time, or never."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from carina.errors import one_line, shortened

LONGEST_COMMENT = 64
"""Characters of an Error Comment (0000,0902), which is a LO."""

SUCCESS = 0x0000
DUPLICATE = 0x0111
NO_SUCH_OBJECT = 0x0112
CLASS_CONFLICT = 0x0119
CLASS_NOT_SUPPORTED = 0x0122

WARNINGS = {
    0x0001: "an optional feature is missing",
    0x0107: "attribute list error",
    0x0116: "a value is out of range",
    0xB000: "elements coerced",
    0xB006: "elements discarded",
    0xB007: "data set does not match",
}
"""Warning statuses: the object is stored (PS3.4 table B.2-1, PS3.7 annex C)."""

FAILURES = {
    0xA700: "out of resources",
    0xA900: "data set does not match its SOP class",
    0xC000: "can't understand the data set",
    0x0106: "invalid attribute",
    0x0110: "processing failure",
    DUPLICATE: "it has this object already",
    NO_SUCH_OBJECT: "no such object",
    0x0115: "invalid argument",
    0x0117: "invalid SOP instance",
    0x0118: "no such SOP class",
    CLASS_CONFLICT: "SOP class and instance don't agree",
    CLASS_NOT_SUPPORTED: "SOP class not supported",
    0x0124: "not authorised",
    0x0131: "transaction UID used twice",
    0x0210: "message used twice",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
}
"""Failure statuses, by their value without the free low bits (A7xx, A9xx, Cxxx)."""

FOR_GOOD = {0xA900, 0xC000, 0x0106, 0x0115, 0x0117, 0x0118, CLASS_CONFLICT, CLASS_NOT_SUPPORTED, 0x0211, 0x0212}
"""Failures that the same object meets however often it is sent."""

HTTP_FOR_GOOD = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_ACCEPTABLE,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""HTTP codes that are said of the object; others are of the server, its address or our token, which may be mended."""

HTTP_IN_DOUBT = {HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
"""HTTP codes of a server that may have stored the object all the same."""


class Outcome(StrEnum):
    """What is to be done after an answer, or after none: refused now, refused for good, or nobody knows."""

    STORED = "stored"
    LATER = "later"
    NEVER = "never"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One object's answer: ``status`` is a DIMSE status or an HTTP code, ``note`` says what is not plain success.

    ``comment`` is what the peer said of it in its own words, which may quote a patient's values: the ledger has it, and
    no message or log.
    """

    outcome: Outcome
    status: int | None = None
    note: str = ""
    comment: str = ""

    @property
    def for_ledger(self) -> str:
        """The note with the peer's comment."""
        return ", ".join(filter(None, (self.note, self.comment)))


def dimse_outcome(status: int) -> Outcome:
    """What a status of C-STORE, or a failure reason of STOW-RS, which has the same numbers, is taken for."""
    if status in {SUCCESS, DUPLICATE} or _general(status) == 0xB000 or status in WARNINGS:
        return Outcome.STORED
    return Outcome.NEVER if _general(status) in FOR_GOOD else Outcome.LATER


def http_outcome(code: int) -> Outcome:
    """What the code of a whole response is taken for that says nothing of the object."""
    if code in HTTP_FOR_GOOD:
        return Outcome.NEVER
    return Outcome.UNKNOWN if code in HTTP_IN_DOUBT else Outcome.LATER


def comment_of(text: object) -> str:
    """What a peer says of a status in its own words, as it is kept: one line, as long as an Error Comment may be."""
    return shortened(one_line(str(text)).strip(), LONGEST_COMMENT)


def status_words(status: int) -> str:
    """A status as people write it, with its meaning."""
    words = WARNINGS.get(status) or FAILURES.get(_general(status)) or "a failure without a known meaning"
    return f"status 0x{status:04X}, {words}"


def code_words(code: int) -> str:
    """A code of HTTP with the standard's own phrase: what a server says in its place is a stranger's."""
    return f"{code} {HTTPStatus(code).phrase}" if code in set(HTTPStatus) else str(code)


def short_status(status: int) -> str:
    """A status as its people write it: codes of HTTP in decimals, statuses of DIMSE as ``A700H``."""
    return str(status) if status in set(HTTPStatus) else f"{status:04X}H"


def _general(status: int) -> int:
    """A status without its free low bits."""
    if status & 0xF000 in {0xB000, 0xC000}:
        return status & 0xF000
    return status & 0xFF00 if status & 0xF000 == 0xA000 else status
