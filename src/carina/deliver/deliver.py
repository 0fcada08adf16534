"""One way to every kind of destination."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from carina.config import Destination, DicomDestination, DicomwebDestination, FolderDestination, Settings
from carina.deliver.capabilities import proof_of_node
from carina.deliver.folder import deliver_to_folder
from carina.deliver.proof import Proof
from carina.deliver.receipt import DeliveryReceipt
from carina.deliver.store_scu import deliver_by_store, echo_node
from carina.deliver.stow import deliver_by_stow, echo_server
from carina.errors import DeliveryFailed


def deliver(files: Sequence[Path], destination_name: str, settings: Settings, fallback_folder: Path) -> DeliveryReceipt:
    """Send DICOM files to a destination of the settings; to ``fallback_folder``, with a warning, where it has none.

    Objects that a destination already has are stored once: their UIDs are the same when a run is repeated.

    Raises:
        DeliveryFailed: the destination can't be reached or did not store every object.
    """
    destination = settings.destinations.get(destination_name)
    if destination is None:
        warning = (
            f"Destination {destination_name} is not configured; its objects are in the folder {fallback_folder.name} "
            "of the run. Add it under [destinations] to the settings."
        )
        return deliver_to_folder(files, destination_name, fallback_folder, warning=warning)
    return deliver_to(files, destination_name, destination)


def deliver_to(files: Sequence[Path], name: str, destination: Destination) -> DeliveryReceipt:
    """Send DICOM files to one destination.

    Raises:
        DeliveryFailed: the destination can't be reached or did not store every object.
    """
    match destination:
        case FolderDestination():
            return deliver_to_folder(files, name, Path(destination.path))
        case DicomDestination():
            return deliver_by_store(files, name, destination)
        case DicomwebDestination():
            return deliver_by_stow(files, name, destination)
        case _:
            assert_never(destination)


def echo(name: str, destination: Destination) -> None:
    """See whether a destination answers: C-ECHO, a QIDO-RS query, or whether the folder can be written.

    Raises:
        DeliveryFailed: it does not; the message says what was seen.
    """
    match destination:
        case FolderDestination():
            _echo_folder(name, Path(destination.path))
        case DicomDestination():
            echo_node(name, destination)
        case DicomwebDestination():
            echo_server(name, destination)
        case _:
            assert_never(destination)


def proof_of(name: str, destination: Destination) -> Proof:
    """How it will be known that a destination, which answers, has what the node sent to it.

    Raises:
        DeliveryFailed: it doesn't answer any more.
    """
    match destination:
        case FolderDestination():
            return Proof.DIGEST
        case DicomDestination():
            return proof_of_node(name, destination)
        case DicomwebDestination():
            return Proof.QUERY
        case _:
            assert_never(destination)


def _echo_folder(name: str, folder: Path) -> None:
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise DeliveryFailed("delivery.folder", f"{name}: folder {folder} can't be written: make it writable.")
