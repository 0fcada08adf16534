"""One series or volume file as it was found, with the verdict on it; and the list of all below a path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from carina.dicom.headers import SliceProblem
from carina.dicom.inventory import FileCounts, Inventory
from carina.dicom.series import Source, VolumeFile
from carina.errors import BadSeries


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """One series (or part of one), or one volume file, with the verdict on it.

    ``source`` is None where it can't be read. ``error`` is why it can't be used: it can't be read, or fails the
    rules. ``taken`` marks the one that is used; ``reason`` says in words why it is, or why not. ``part`` tells apart
    several volumes under one Series Instance UID, ``patient`` (a digest) several patients under one Study Instance
    UID. ``transfer_syntax`` is a UID. ``files`` are those that its slices come from, copies left out. Lengths in mm,
    angle in degrees; None where unknown.
    """

    path: Path
    uid: str
    study_uid: str = ""
    patient: str = ""
    part: str = ""
    modality: str = ""
    description: str = ""
    kernel: str = ""
    body_part: str = ""
    image_type: tuple[str, ...] = ()
    transfer_syntax: str = ""
    files: tuple[Path, ...] = ()
    slices: int = 0
    matrix: tuple[int, int] = (0, 0)
    pixel_spacing_mm: tuple[float, float] | None = None
    slice_spacing_mm: float | None = None
    plane: str = ""
    degrees_from_plane: float | None = None
    source: Source | None = None
    problems: tuple[SliceProblem, ...] = ()
    error: BadSeries | None = None
    taken: bool = False
    reason: str = ""

    @property
    def coverage_mm(self) -> float | None:
        """From the first slice to the last along the normal, one distance added."""
        return None if self.slice_spacing_mm is None else self.slice_spacing_mm * self.slices

    @property
    def warnings(self) -> tuple[str, ...]:
        """What reading it has to do, in sentences."""
        return () if self.source is None or isinstance(self.source, VolumeFile) else self.source.warnings


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing(Sequence[Found]):
    """Everything that was found below a path, the best first, and what became of every file there."""

    found: tuple[Found, ...]
    inventory: Inventory

    def counts(self, judged: Iterable[Found] | None = None) -> FileCounts:
        """How many files are used by what is taken here (or in another judgement of the same), and what the rest is."""
        taken = (one for one in (self.found if judged is None else judged) if one.taken)
        return self.inventory.counts(file for one in taken for file in one.files)

    def __len__(self) -> int:
        return len(self.found)

    @overload
    def __getitem__(self, index: int) -> Found: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Found]: ...
    def __getitem__(self, index: int | slice) -> Found | Sequence[Found]:
        return self.found[index]
