"""What an open page compares to see whether anybody painted, finished or decided since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carina.api.result import Run
from carina.corrections.finish import Finished, finished_of
from carina.corrections.masks import MaskName, decisions_file, strokes_file


def painted_stamp(strokes_bytes: int, done: Sequence[Finished]) -> str:
    """Another one once anybody painted in a mask or finished it."""
    return f"{strokes_bytes}-{len(done)}"


def painted_stamp_now(run: Run, layer: MaskName) -> str:
    """The same, as a run's folder has it now."""
    return painted_stamp(_size(strokes_file(run.folder, layer)), finished_of(run.folder, layer))


def decided_stamp(run: Run) -> str:
    """Another one once anybody decided about a mask of a run, or finished one."""
    done = [one for layer in MaskName for one in finished_of(run.folder, layer)]
    return f"{_size(decisions_file(run.folder))}-{len(done)}"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
