"""Whether the files of accepted instances still hold what their rows say: disks fail, and people tidy up."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Engine, Row, select

from carina.database.one_series import is_of_series
from carina.database.tables import ARRIVAL, INSTANCE
from carina.errors import BadSeries
from carina.sections import INCOMING

FILE_BEGINS = b"\x00" * 128 + b"DICM"
"""The preamble and prefix that we write (PS3.10 7.1)."""

LARGEST_HEAD = 512
"""Bytes of a file before its data set, at most: preamble, prefix and file meta information as we write them."""

LOST = "instance %s was accepted, and %s is damaged or missing on the node's disk: send its series again."

_AT_ONCE = 1 << 20

_NAMED_AT_MOST = 5


def check_intact(engine: Engine, node: Path, arrival_id: int, linked: Iterable[str] = ()) -> None:
    """See that every instance of an arrival is whole in its folder, and whatever else lies there of its series.

    ``linked`` are names of files of earlier arrivals that are to be there as well.

    Raises:
        BadSeries: ``input.damaged``, some are damaged or missing: the message counts and names them.
    """
    same = select(ARRIVAL).where(ARRIVAL.c.id == arrival_id).subquery()
    of_series = is_of_series(same) & (ARRIVAL.c.source == same.c.source)
    wanted = select(INSTANCE).join(ARRIVAL).join(same, of_series)
    with engine.connect() as connection:
        rows = connection.execute(wanted).all()
    folder = node / INCOMING / str(arrival_id)
    known: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        known[Path(row.path).name].append(row)
    expected = {Path(row.path).name for row in rows if row.arrival_id == arrival_id} | set(linked)
    expected |= {file.name for file in folder.glob("*.dcm") if file.name in known}
    bad = sorted(name for name in expected if not any(is_intact(folder / name, row) for row in known[name]))
    if bad:
        raise BadSeries("input.damaged", _in_words(bad, len(expected)))


def _in_words(bad: Sequence[str], count: int) -> str:
    names = ", ".join(name.removesuffix(".dcm") for name in bad[:_NAMED_AT_MOST])
    more = f" and {len(bad) - _NAMED_AT_MOST} more" if len(bad) > _NAMED_AT_MOST else ""
    are = "is" if len(bad) == 1 else "are"
    return (
        f"{len(bad)} of {count} accepted instances {are} damaged or missing on the node's disk: {names}{more}; "
        "send the series again."
    )


def is_intact(file: Path, row: Row[Any]) -> bool:
    """Whether the file of an instance's row is there, can be read, and holds what came."""
    try:
        with file.open("rb") as stream:
            return holds_data_set(stream, row)
    except OSError:
        return False


def holds_data_set(stream: BinaryIO, row: Row[Any]) -> bool:
    """Whether a file ends with the data set whose digest is known.

    What is before it, at most 470 bytes, shares the disk's smallest piece with the data set's first bytes.
    """
    return ends_with(stream, row.bytes, row.sha256)


def ends_with(stream: BinaryIO, size: int, sha256: str) -> bool:
    """Whether a file of ours ends with a data set of this size and SHA-256."""
    start = os.fstat(stream.fileno()).st_size - size
    if start < len(FILE_BEGINS) or stream.read(len(FILE_BEGINS)) != FILE_BEGINS:
        return False
    digest = hashlib.sha256()
    for _, chunk in chunks_of(stream, start):
        digest.update(chunk)
    return digest.hexdigest() == sha256


def chunks_of(stream: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """A stream's bytes from ``start`` on, with where each piece begins."""
    while True:
        stream.seek(start)
        chunk = stream.read(_AT_ONCE)
        if not chunk:
            return
        yield start, chunk
        start += len(chunk)
