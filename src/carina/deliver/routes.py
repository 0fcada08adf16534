"""Where the results of a source go: the destinations that it names, and the sender itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from carina.config import Destination
from carina.deliver.callers import destinations_of_caller

SENDER = "sender"
"""In a source's destinations: whoever sent the series gets its results."""

MENDED = "let its host in [destinations] be its address, or give one of them another ae_title"
"""What to do where peers share an AE title."""

_NO_TITLE = (
    "results can't go back to the sender: what comes by a watched folder or DICOMweb has no AE title that called; name "
    f"the destination in place of `{SENDER}`."
)


def routes(names: Sequence[str], destinations: Mapping[str, Destination], sender: str) -> tuple[tuple[str, ...], str]:
    """The names of a source with ``sender`` replaced by the destinations that it is, each name once.

    ``sender`` is what an arrival says of it, ``AE@address``, without ``@`` where no AE title called. The text is a
    sentence where it is no destination, or can't be told from another, else empty.
    """
    if SENDER not in names:
        return tuple(dict.fromkeys(names)), ""
    title, called, address = sender.partition("@")
    if not called:
        return tuple(name for name in dict.fromkeys(names) if name != SENDER), _NO_TITLE
    back, why = destinations_of_caller(destinations, title.strip(), address)
    replaced = [one for name in names for one in (back if name == SENDER else [name])]
    return tuple(dict.fromkeys(replaced)), _lost(title.strip(), why) if why else ""


def _lost(title: str, why: str) -> str:
    what = 'add one to [destinations], with kind = "dicom", its host and its port' if why.startswith("no ") else MENDED
    return f"results can't go back to the sender {title or '(no AE title)'}: {why}; {what}."
