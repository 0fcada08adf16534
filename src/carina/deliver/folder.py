"""Delivery into a folder: each file appears whole, under its own name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from carina.deliver.answers import Answer, Outcome
from carina.deliver.identity import ObjectIdentity, file_digest, identity_of
from carina.deliver.receipt import DeliveryReceipt, Sent, sop_instance_uid
from carina.errors import FULL, DeliveryFailed, no_space
from carina.pipeline.places import copy_whole, file_name


def deliver_to_folder(files: Sequence[Path], name: str, folder: Path, *, warning: str = "") -> DeliveryReceipt:
    """Copy files into a folder, which is made; a file of the same name is replaced.

    Where several of them share a name, each is called by its SOP Instance UID.

    Raises:
        DeliveryFailed: the folder can't be written.
    """
    sent, names = [], Counter(file.name.lower() for file in files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            uid = sop_instance_uid(file)
            own = file.name if names[file.name.lower()] == 1 else f"{file_name(uid)}.dcm"
            copy_whole(file, folder / own)
            sent.append(Sent(sop_instance_uid=uid, file=own, stored=True))
    except OSError as error:
        raise DeliveryFailed(
            "delivery.folder", f"{name}: folder {folder} can't be written ({error.strerror}): make it writable."
        ) from error
    return DeliveryReceipt(destination=name, kind="folder", where=str(folder), sent=tuple(sent), warning=warning)


def store_in_folder(file: Path, folder: Path) -> Answer:
    """Copy a file to ``STUDY/SOP INSTANCE.dcm`` of a folder; it is on the disk for good when this comes back.

    Objects of many runs lie there: their own names say the kind alone.
    """
    target = _place(identity_of(file), folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_whole(file, target)
        for path in (target, target.parent, folder):
            _flush(path)
    except OSError as error:
        left, remedy = no_space(error)
        full = f"no space is left in {folder}{left}, {remedy} there: "
        words = f"{full if error.errno in FULL else ''}{target.name} can't be written ({error.strerror or error})"
        return Answer(outcome=Outcome.LATER, note=words)
    return Answer(outcome=Outcome.STORED)


def held_in_folder(files: Sequence[Path], name: str, folder: Path) -> frozenset[str]:
    """The SOP Instance UIDs of those files that a folder has, byte for byte.

    Raises:
        DeliveryFailed: what is in the folder can't be read.
    """
    held = set()
    for file in files:
        identity = identity_of(file)
        try:
            if file_digest(_place(identity, folder)) == file_digest(file):
                held.add(identity.sop_instance_uid)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            words = f"{name}: folder {folder} can't be read ({error.strerror or error}): make it readable."
            raise DeliveryFailed("delivery.folder", words) from error
    return frozenset(held)


def _place(identity: ObjectIdentity, folder: Path) -> Path:
    return folder / file_name(identity.study_uid) / f"{file_name(identity.sop_instance_uid)}.dcm"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
