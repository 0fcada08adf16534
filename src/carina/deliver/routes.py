"""Where the results of a source go: the destinations that it names, and the sender itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from carina.config import Destination, DicomDestination

SENDER = "sender"
"""In a source's destinations: whoever sent the series gets its results."""


def routes(names: Sequence[str], destinations: Mapping[str, Destination], sender: str) -> tuple[tuple[str, ...], str]:
    """The names of a source with ``sender`` replaced by the destinations that have its AE title, each name once.

    ``sender`` is what an arrival says of it, ``AE@address``. The text is a sentence where no destination has that
    title, else empty.
    """
    title = sender.partition("@")[0].strip()
    back = [name for name, one in destinations.items() if isinstance(one, DicomDestination) and one.ae_title == title]
    replaced = [one for name in names for one in (back if name == SENDER else [name])]
    is_lost = SENDER in names and not back
    return tuple(dict.fromkeys(replaced)), _nobody(title) if is_lost else ""


def _nobody(title: str) -> str:
    return (
        f"results can't go back to the sender {title or '(no AE title)'}: no destination has this ae_title; "
        f'add one to [destinations], with kind = "dicom", its host and its port.'
    )
