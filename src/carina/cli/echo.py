"""``carina echo``: does each destination answer, and how would the node know that it has what was sent?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.terminal import complain, say
from carina.errors import BadConfig, DeliveryFailed

if TYPE_CHECKING:
    from carina.config import Destination


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@CONFIG
def echo(names: tuple[str, ...], config: Path | None) -> None:
    """Test destinations of the settings by NAME, all of them without one.

    A DICOM node gets a C-ECHO, a DICOMweb server a query; of a folder it is seen whether it can be written.
    """
    from carina.deliver.deliver import echo as answers
    from carina.deliver.deliver import proof_of

    failed = False
    for name, destination in _wanted(names, node_settings(config).destinations).items():
        try:
            answers(name, destination)
            proof = proof_of(name, destination)
        except DeliveryFailed as error:
            failed = True
            complain(f"{error.message} [{error.code}]")
        else:
            say(f"{name}: answers; what is sent there is confirmed by {PROOFS[proof]}.")
    if failed:
        raise SystemExit(DeliveryFailed.exit_code)


PROOFS: Mapping[str, str] = {
    "commitment": "storage commitment",
    "query": "query",
    "digest": "comparing the copy",
    "status": "the status of its answer alone (it answers no queries)",
}


def _wanted(names: tuple[str, ...], known: Mapping[str, Destination]) -> Mapping[str, Destination]:
    listed = ", ".join(known) or "none"
    unknown = [name for name in names if name not in known]
    if unknown or not known:
        seen = f"no destination is called {unknown[0]}" if unknown else "no destination is configured"
        raise BadConfig("config.destination", f"{seen}; known: {listed}. Add it under [destinations] to the settings.")
    return {name: known[name] for name in names or known}
