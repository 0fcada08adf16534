"""Delivery into a folder: each file appears whole, under its own name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carina.deliver.receipt import DeliveryReceipt, Sent, sop_instance_uid
from carina.errors import DeliveryFailed
from carina.pipeline.places import copy_whole


def deliver_to_folder(files: Sequence[Path], name: str, folder: Path, *, warning: str = "") -> DeliveryReceipt:
    """Copy files into a folder, which is made; a file of the same name is replaced.

    Raises:
        DeliveryFailed: the folder can't be written.
    """
    sent = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            copy_whole(file, folder / file.name)
            sent.append(Sent(sop_instance_uid=sop_instance_uid(file), file=file.name, stored=True))
    except OSError as error:
        raise DeliveryFailed(
            "delivery.folder", f"{name}: folder {folder} can't be written ({error.strerror}): make it writable."
        ) from error
    return DeliveryReceipt(destination=name, kind="folder", where=str(folder), sent=tuple(sent), warning=warning)
