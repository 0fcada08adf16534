"""A run with a progress display: one line for each operator that works."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from carina.api.result import Run
from carina.api.study import RunSettings, run
from carina.dicom.series import Source
from carina.errors import one_line
from carina.pipeline.run import Event, What

MARKS = {What.DONE: "done", What.RESUMED: "done before", What.FAILED: "failed", What.SKIPPED: "skipped"}


def watched(source: Path | Source, out: Path, how: RunSettings, *, quiet: bool = False) -> Run:
    """Run with a display on the error stream; silent with ``quiet`` or where nobody looks."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        return run(source, out, how)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:38}", markup=False),
        BarColumn(24),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console) as display:
        return run(source, out, replace(how, progress=_Lines(display).hear))


class _Lines:
    """One line of the display for each operator."""

    def __init__(self, display: Progress) -> None:
        self.display = display
        self.tasks: dict[str, TaskID] = {}

    def hear(self, event: Event) -> None:
        """Show an event; called from the operators' threads."""
        task = self.tasks.get(event.operator)
        if task is None:
            task = self.tasks[event.operator] = self.display.add_task(one_line(event.operator), total=1.0, state="")
        if event.what is What.FRACTION:
            self.display.update(task, completed=event.fraction)
        elif event.what in MARKS:
            self.display.update(task, completed=1.0, state=MARKS[event.what])
            self.display.stop_task(task)
