"""The fonts of a report: Source Sans, embedded, so that every viewer and every PACS shows the same page."""

from __future__ import annotations

from font_source_sans_pro import font_files_ttf
from reportlab.pdfbase.pdfmetrics import registerFont, registerFontFamily
from reportlab.pdfbase.ttfonts import TTFont

SANS = "SourceSansPro"
BOLD = "SourceSansPro-Bold"

_REGULAR = TTFont(SANS, font_files_ttf["SourceSansPro"])
registerFont(_REGULAR)
registerFont(TTFont(BOLD, font_files_ttf["SourceSansProBold"]))
registerFontFamily(SANS, normal=SANS, bold=BOLD, italic=SANS, boldItalic=BOLD)


def identifiable(text: str) -> str:
    """An identifier in the characters that the fonts have: of any other the code point, so that no two look alike."""
    known = _REGULAR.face.charToGlyph
    return "".join(c if ord(c) in known else f"[U+{ord(c):04X}]" for c in text)


def printable(text: str) -> str:
    """Text in the characters that the fonts have (Latin, Greek, Cyrillic); a question mark stands for any other."""
    known = _REGULAR.face.charToGlyph
    return "".join(c if ord(c) in known else "?" for c in text)
