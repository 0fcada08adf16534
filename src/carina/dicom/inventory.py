"""What becomes of every file below a path: used, a copy, something else, or broken; none is lost in silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from carina.volume.grid import Triple


@dataclass(frozen=True, kw_only=True)
class BrokenFile:
    """A file (or a folder that can't be looked into) that is damaged, empty or can't be read.

    ``reason`` is a clause without the file's name. The UIDs and the position (mm, LPS) are those that its header gives,
    empty and None where it gives none.
    """

    path: Path
    code: str
    reason: str
    series_uid: str = ""
    sop_instance_uid: str = ""
    position_mm: Triple | None = None

    @property
    def words(self) -> str:
        """The file's name and what is wrong with it."""
        return f"{self.path.name}: {self.reason.rstrip('.')}"


@dataclass(frozen=True, kw_only=True)
class FileCounts:
    """How many files ended as what.

    ``used`` are those whose voxels are read, ``copy`` repeats of a file that is there already, ``broken`` what should
    be a slice or a volume and can't be read, ``other`` everything else: series that are not taken, objects without a
    volume, files that are no images.
    """

    used: int = 0
    copy: int = 0
    other: int = 0
    broken: int = 0

    @property
    def total(self) -> int:
        """Every file below the path."""
        return self.used + self.copy + self.other + self.broken


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Every file below a path: how many there are, which repeat another, and which are broken."""

    files: int = 0
    copies: frozenset[Path] = frozenset()
    broken: tuple[BrokenFile, ...] = ()

    def counts(self, used: Iterable[Path]) -> FileCounts:
        """The counts where ``used`` are the files that are read."""
        read, copy, broken = len(set(used)), len(self.copies), len(self.broken)
        return FileCounts(used=read, copy=copy, broken=broken, other=max(0, self.files - read - copy - broken))
