"""Everything that a verb prints goes through here, so that no text from outside breaks a line or the terminal."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from pathlib import Path
from textwrap import wrap
from typing import Any

import click

from carina.errors import BadConfig, CarinaError, one_line

COLUMN_GAP = "  "

NOTE_COLUMNS = 100
"""How wide a sentence below a row is at most, but for words that are longer."""

SOME_FAILED = 3
"""The exit code where some of many failed and are named."""

STOPPED_BY = 128
"""The exit code of what a signal ended before it was done is this and the signal's number, as in a shell."""

NO_READER = 141
"""Where the reader of a pipe has gone (``carina series . | head``), the exit code is that of SIGPIPE."""


def say(*lines: object, err: bool = False, fg: str = "", bold: bool = False, dim: bool = False) -> None:
    """Print lines, each as one line whatever it holds; colours only where somebody looks."""
    for line in lines:
        text = one_line(str(line))
        styled = click.style(text, fg=fg or None, bold=bold or None, dim=dim or None) if fg or bold or dim else text
        click.echo(styled, err=err)


def say_text(text: str) -> None:
    """Print what would be a file's text, as it is."""
    click.echo(text, nl=False)


def say_fields(*fields: str) -> None:
    """Print one record for scripts: its fields parted by tabs, which no field holds itself."""
    click.echo("\t".join(one_line(field) for field in fields))


def say_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[Sequence[str]] = repeat(())
) -> None:
    """Print a table: the first column to the left, the others, which hold numbers, to the right.

    ``notes`` are sentences on each row, which stand below it.
    """
    lines = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for number, (cells, below) in enumerate(zip(lines, chain([()], notes), strict=False)):
        padded = [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))]
        say(COLUMN_GAP.join([padded[0], *padded[2:]]).rstrip(), bold=number == 0)
        for note in below:
            say(*wrap(one_line(note), NOTE_COLUMNS, initial_indent="    ", subsequent_indent="      "))


def say_json(value: object) -> None:
    """Print JSON that every parser takes: no lone surrogates, no NaN."""
    click.echo(json.dumps(_plain(value), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """The value with what JSON can't hold replaced: bytes that are no text by an escape, NaN and infinity by null."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def complain(*lines: str) -> None:
    """Print lines on the error stream; where that takes nothing, the exit code is all that is left to say."""
    with suppress(OSError):
        say(*lines, err=True)


def told_lines(error: CarinaError, words: str) -> list[str]:
    """The words on an error with its code; above them the traceback of what nobody foresaw, if that is asked for."""
    trace = error.trace.splitlines() if os.environ.get("CARINA_TRACEBACK") else []
    said = f" It said: {error.said}" if error.said else ""
    return [*trace, *f"{words}{said} [{error.code}]".split("\n")]


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Let texts be printed that the terminal's encoding lacks, and a standard output that is lost end the process.

    The process may have been started without standard output; then it prints nothing.
    """
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    before = sys.stdout
    try:
        if isinstance(before, io.TextIOWrapper):
            before.flush()
            sys.stdout = _guarded(before)
        elif before is None:
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
        yield
    finally:
        guarded, sys.stdout = sys.stdout, before
        guarded.flush()


def _guarded(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = _StandardOutput(stream.fileno(), "w", closefd=False)
    encoding, lines = stream.encoding, stream.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=lines)


class _StandardOutput(io.FileIO):
    """Standard output, which ends the process where nothing can be written to it, and is silent from then on."""

    _is_lost = False

    def write(self, data: Any, /) -> int:
        """Write, or end with the exit code of a pipe without reader, or of an output place that is wrong."""
        if self._is_lost:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._is_lost = True
            if error.errno == errno.EPIPE:
                raise SystemExit(NO_READER) from None
            complain(f"carina: the standard output can't be written ({error.strerror}). [output.stdout]")
            raise SystemExit(BadConfig.exit_code) from None
