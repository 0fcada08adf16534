"""Whether what readers finished is there as they left it: the masks of corrections, and their objects, sent or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlalchemy import Connection, inspect, select

from carina.corrections.finish import FACTS, SEG_NAMES, Finished, finished_folder
from carina.corrections.masks import CORRECTIONS, MaskName
from carina.corrections.painting import labels_sha256
from carina.database import JOB
from carina.errors import BadConfig
from carina.jobs.reading import Decided
from carina.operators.ports import MaskPort
from carina.pipeline.json_text import read_json
from carina.pipeline.ports import FILE_ERRORS, load_folder

Corrections = Mapping[int, Mapping[MaskName, int]]
"""Of jobs by id: the number of the latest finished correction of a mask that their rows name."""


def corrections_named(connection: Connection) -> Corrections:
    """What a database of any version that has jobs says that readers finished."""
    if "decisions" not in {one["name"] for one in inspect(connection).get_columns(JOB.name)}:
        return {}
    rows = connection.execute(select(JOB.c.id, JOB.c.decisions).where(JOB.c.decisions != "[]"))
    return {row.id: _latest(read_json(row.decisions, list[Decided])) for row in rows}


def _latest(decisions: list[Decided]) -> Mapping[MaskName, int]:
    latest: dict[MaskName, int] = {}
    for one in (one for one in decisions if one.correction):
        layer = MaskName(one.layer)
        latest[layer] = max(one.correction, latest.get(layer, 0))
    return latest


def lost_corrections(run: Path, named: Mapping[MaskName, int]) -> Iterator[str]:
    """Files and folders below a run's that a finished correction left, and that are gone or hold something else.

    Corrections are numbered without a gap: with the latest that is there, or is named, all before it were.
    """
    for layer in MaskName:
        numbers = [int(one.name.rpartition("-")[2]) for one in (run / CORRECTIONS).glob(f"{layer}-[0-9]*")]
        for number in range(1, max([named.get(layer, 0), *numbers]) + 1):
            place = finished_folder(run, layer, number)
            yield from (one.relative_to(run).as_posix() for one in _lost_of(place, layer))


def _lost_of(place: Path, layer: MaskName) -> Iterator[Path]:
    if not place.is_dir():
        yield place
        return
    try:
        finished = read_json((place / FACTS).read_bytes(), Finished)
    except (OSError, ValueError):
        yield place / FACTS
        return
    if not _is_mask(place / "mask", finished.sha256):
        yield place / "mask"
    if finished.seg_uid and not (seg := place / "dicom" / f"{SEG_NAMES[layer]}.dcm").is_file():
        yield seg


def _is_mask(folder: Path, sha256: str) -> bool:
    try:
        return labels_sha256(load_folder(MaskPort, folder).labels) == sha256
    except (BadConfig, *FILE_ERRORS):
        return False
