"""MkDocs hook: what a page links to outside of docs/ is named on the site, where there is nothing to link to."""

from __future__ import annotations

import re

_OUTWARDS = re.compile(r"\[([^\]]*)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Turn links out of docs/ into the text and the path in the source tree."""
    return _OUTWARDS.sub(r"\1 (`\2`)", markdown)
