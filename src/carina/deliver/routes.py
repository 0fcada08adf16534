"""Where the results of a source go: destinations of the settings by name, and the sender itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from carina.config import Destination, DicomDestination

SENDER = "sender"
"""In a source's destinations: whoever sent the series gets its results."""


def routes(
    names: Sequence[str], destinations: Mapping[str, Destination], sender: str
) -> tuple[dict[str, Destination], tuple[str, ...]]:
    """The destinations that a source names, and a sentence on each that there is none for.

    ``sender`` is what an arrival says of it, ``AE@address``. It becomes the destinations with that AE title.
    """
    found: dict[str, Destination] = {}
    missing = []
    for name in names:
        if name in destinations:
            found[name] = destinations[name]
        elif name == SENDER:
            back = _called(sender, destinations)
            found |= back
            missing += [] if back else [_nobody(sender)]
        else:
            known = ", ".join(destinations) or "none"
            missing.append(f"destination {name} is not configured; known are {known}: add it under [destinations].")
    return found, tuple(missing)


def _title(sender: str) -> str:
    return sender.partition("@")[0].strip()


def _called(sender: str, destinations: Mapping[str, Destination]) -> dict[str, Destination]:
    return {
        name: one
        for name, one in destinations.items()
        if isinstance(one, DicomDestination) and one.ae_title.strip() == _title(sender)
    }


def _nobody(sender: str) -> str:
    title = _title(sender) or "(no AE title)"
    return (
        f"results can't go back to the sender {title}: no destination has this ae_title; "
        f'add one to [destinations], with kind = "dicom", its host and its port.'
    )
