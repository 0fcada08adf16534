"""Where the input of a job lies: what the node itself keeps is named within its folder, which may be moved."""

from __future__ import annotations

from pathlib import Path

from carina.jobs.listing import Job


def kept_source(folder: Path, source: Path) -> str:
    """How a job's row names its input: relative to the node's folder where it lies in that, else by its whole path."""
    whole = source.absolute()
    within = (above for above in (folder.absolute(), folder.resolve()) if whole.is_relative_to(above))
    return next((whole.relative_to(above).as_posix() for above in within), str(whole))


def source_of(folder: Path, job: Job) -> Path:
    """The folder or file that a job's run reads, where the node's folder is now."""
    return folder.absolute() / job.source
