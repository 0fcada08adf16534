"""Which operators an attempt's process was at when it died: they alone may be to blame."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from carina.errors import BadConfig
from carina.pipeline.folder import MANIFEST
from carina.pipeline.manifest import State, read_manifest

UNENDED = (State.RUNNING, State.INTERRUPTED)
"""How operators stand that a process was at when it died: the manifest of a run without one is read as interrupted."""


def manifest_time(run: Path) -> int:
    """When a run's manifest was last written, in ns; 0 where there is none."""
    with suppress(OSError):
        return (run / MANIFEST).stat().st_mtime_ns
    return 0


def at_work(run: Path, began: int) -> str:
    """The operators that a run's manifest says are running, as the end of a sentence; empty where it says none.

    ``began`` is the manifest's time from before the attempt: one that has not changed is of another attempt.
    """
    if manifest_time(run) == began:
        return ""
    try:
        manifest = read_manifest(run)
    except BadConfig:
        return ""
    running = [f"'{name}'" for name, one in manifest.operators.items() if one.state in UNENDED] if manifest else []
    if not running:
        return ""
    several = len(running) > 1
    return f" while operator{'s' * several} {' and '.join(running)} {'were' if several else 'was'} at work"
