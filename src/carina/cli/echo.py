"""``carina echo``: does each destination answer, how is what was sent confirmed, and can each source be reached?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.terminal import complain, say
from carina.errors import BadConfig, DeliveryFailed

if TYPE_CHECKING:
    from carina.config import Destination, Settings


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@CONFIG
def echo(names: tuple[str, ...], config: Path | None) -> None:
    """Test destinations and sources of the settings by NAME, all of them without one.

    A DICOM node gets a C-ECHO, a DICOMweb server a query; of a folder it is seen whether it can be written. Of a source
    our own side is tried, while the node runs, and those callers whose address a destination says.
    """
    settings = node_settings(config)
    _check_known(names, settings)
    wanted = names or tuple(dict.fromkeys([*settings.destinations, *settings.sources]))
    failed = _destinations({key: settings.destinations[key] for key in wanted if key in settings.destinations})
    failed |= _sources([key for key in wanted if key in settings.sources], settings)
    if failed:
        raise SystemExit(DeliveryFailed.exit_code)


def _destinations(wanted: Mapping[str, Destination]) -> bool:
    """Try destinations; whether one failed."""
    from carina.deliver.deliver import echo as answers
    from carina.deliver.deliver import proof_of

    failed = False
    for name, destination in wanted.items():
        try:
            answers(name, destination)
            proof = proof_of(name, destination)
        except DeliveryFailed as error:
            failed = True
            complain(f"{error.message} [{error.code}]")
        else:
            say(f"{name}: answers; what is sent there is confirmed by {PROOFS[proof]}.")
    return failed


def _sources(names: Sequence[str], settings: Settings) -> bool:
    """Try sources; whether one can't be reached."""
    from carina.receive.source_echo import reach_of

    failed = False
    for name in names:
        for found in reach_of(name, settings):
            (say if found.is_well else complain)(found.words)
            failed |= not found.is_well
    return failed


PROOFS: Mapping[str, str] = {
    "commitment": "storage commitment",
    "query": "query",
    "digest": "comparing the copy",
    "status": "the status of its answer alone (it answers no queries)",
}


def _check_known(names: tuple[str, ...], settings: Settings) -> None:
    known = [*settings.destinations, *settings.sources]
    unknown = [name for name in names if name not in known]
    if unknown or not known:
        seen = f"no destination or source is called {unknown[0]}" if unknown else "no destination or source is there"
        words = f"{seen}; known: {', '.join(dict.fromkeys(known)) or 'none'}. Add it under [destinations] or [sources]."
        raise BadConfig("config.destination", words)
