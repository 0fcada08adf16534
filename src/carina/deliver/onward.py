"""What a node does with a run's objects, as the run's steps are told: it sends them itself, once the run has ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SENT_FROM = "dicom"
"""The folder of a run whose objects a node sends."""

_BEGINS = (128, b"DICM")
"""What a DICOM file has after its preamble (PS3.10 7.1)."""


@dataclass(frozen=True, kw_only=True)
class Onward:
    """Where a node sends the objects of a run; no step of it sends anything.

    ``destinations`` are the names, with that of the sender where it is one of them. ``remedy`` says in a sentence what
    to do for another.
    """

    destinations: tuple[str, ...]
    remedy: str

    def why_not(self, name: str, folder: str) -> str:
        """Why objects of a run don't get to a destination that a step names; empty where the node sends them there.

        ``folder`` is where in the run they are put in place of that.
        """
        if name in self.destinations:
            return ""
        where = f"the destinations of its source or job ({', '.join(self.destinations) or 'none'})"
        why = f"nothing is sent to {name} by this step: the node itself sends a run's objects, to {where}."
        return f"{why} They are in the folder {folder} of the run. {self.remedy}"


def not_sent_yet(files: Sequence[Path], run: Path) -> list[Path]:
    """The objects among some files of a run that lie where a node sends nothing from."""
    return [file for file in dicom_files(files) if not file.is_relative_to(run / SENT_FROM)]


def dicom_files(files: Iterable[Path]) -> list[Path]:
    """The DICOM files among some: those named ``.dcm``, and those that begin as one, whatever their names are."""
    return [file for file in files if file.suffix.lower() == ".dcm" or _begins_as_dicom(file)]


def _begins_as_dicom(file: Path) -> bool:
    place, prefix = _BEGINS
    try:
        with file.open("rb") as stream:
            return stream.read(place + len(prefix))[place:] == prefix
    except OSError:
        return False
