"""The transfer syntaxes whose pixel data is read (PS3.5 annex A)."""

from __future__ import annotations

from pydicom.config import IGNORE
from pydicom.uid import UID

from carina.dicom.uids import is_uid

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)
"""Transfer syntaxes whose pixel data is not encapsulated."""

RLE = "1.2.840.10008.1.2.5"

JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70))
"""Baseline, extended, the retired spectral selection and full progression, lossless (PS3.5 A.4.1, A.4.2)."""

JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
HTJ2K = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
"""Each frame deflated by itself (PS3.5 A.4.13); not the deflated data set of ``DEFLATED``."""

ENCAPSULATED = (RLE, *JPEG, *JPEG_LS, *JPEG_2000, *HTJ2K, DEFLATED_FRAMES)

SHOWN_SYNTAX = 64
"""Characters that are shown of what is no UID."""


def unread(syntax: str) -> str:
    """A clause on a transfer syntax whose pixel data is not read; empty for one that is."""
    if syntax in NATIVE or syntax in ENCAPSULATED:
        return ""
    name = UID(syntax, validation_mode=IGNORE).name if is_uid(syntax) else syntax
    words = f"{name} ({syntax})" if name != syntax else syntax if is_uid(syntax) else repr(syntax[:SHOWN_SYNTAX])
    return f"its transfer syntax is {words}, which Carina does not read (send it uncompressed or as JPEG 2000 Lossless)"
