"""What became of each object that was sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from carina.errors import DeliveryFailed


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One object: its UID, the file it was read from, and whether the destination keeps it. ``note`` says why not."""

    sop_instance_uid: str
    file: str
    stored: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DeliveryReceipt:
    """One delivery. ``where`` is a folder, ``AE@host:port`` or a URL; ``warning`` is a sentence for the manifest."""

    destination: str
    kind: str
    where: str
    sent: tuple[Sent, ...]
    warning: str = ""


def sop_instance_uid(file: Path) -> str:
    """The SOP Instance UID in a DICOM file."""
    return str(dcmread(file, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def complete(receipt: DeliveryReceipt) -> DeliveryReceipt:
    """The receipt, if everything was stored.

    Raises:
        DeliveryFailed: something was not; the message lists each object and why.
    """
    failed = [sent for sent in receipt.sent if not sent.stored]
    if not failed:
        return receipt
    listed = "; ".join(f"{sent.file} ({sent.note})" for sent in failed)
    raise DeliveryFailed(
        "delivery.incomplete",
        f"{receipt.destination} ({receipt.where}) did not store {len(failed)} of {len(receipt.sent)} objects: "
        f"{listed}. Send again when it does; what it has is not stored twice.",
    )


def unreachable(name: str, where: str, reason: str, advice: str = "") -> DeliveryFailed:
    """The error for a destination that does not answer; what to do is to look at its address, unless it is known."""
    check = advice or f"Check {'its URL' if '://' in where else 'address, port and AE titles'}"
    return DeliveryFailed("delivery.unreachable", f"{name} ({where}) can't be reached: {reason}. {check}.")
