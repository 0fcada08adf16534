"""The setting ``limits.voxels`` where files are read back, which no caller's argument reaches: one for a process.

A step of a run reads what an earlier one stored, and a server what it accepted, by functions that know no settings.
Whoever begins the process says what these allow.
"""

from __future__ import annotations

from dataclasses import dataclass

from carina.config import LimitSettings
from carina.errors import BadSeries

BYTES_OF_A_VOXEL = 4
"""Of the widest that is read (Bits Allocated 32)."""


@dataclass
class _Allowed:
    voxels: int = LimitSettings().voxels


_ALLOWED = _Allowed()


def allow_voxels(limits: LimitSettings) -> None:
    """Let no more voxels be read back, by this process, than its settings allow."""
    _ALLOWED.voxels = limits.voxels


def allowed_voxels() -> int:
    """How many voxels a series or volume that is read back may have."""
    return _ALLOWED.voxels


def too_many_voxels(name: str, seen: str, code: str = "series.memory") -> BadSeries:
    """The refusal of what is larger than the settings allow; ``seen`` says what of it."""
    return BadSeries(code, f"{name}: {seen}, more than limits.voxels ({allowed_voxels()}) allow.")
