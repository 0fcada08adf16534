"""What readers made in a run that may be nowhere else: finished corrections, and strokes that nobody finished yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from carina.api.result import Run
from carina.corrections.decisions import DecisionRecord, rejected_corrections
from carina.corrections.finish import Finished, finished_of
from carina.corrections.journal import Journal
from carina.corrections.masks import CORRECTIONS, MaskName, decisions_file, network_mask, strokes_file
from carina.corrections.painting import Painting, StrokeRecord, labels_sha256
from carina.errors import BadConfig
from carina.pipeline.ports import FILE_ERRORS


@dataclass(frozen=True, kw_only=True)
class HandMade:
    """Of a run: the latest finished correction of each mask, those that were rejected, masks with unfinished strokes.

    ``last_at`` is when a reader last did anything there. ``is_unreadable`` says that the rest can't be told.
    """

    last_at: datetime
    finished: tuple[Finished, ...] = ()
    rejected: frozenset[MaskName] = frozenset()
    unfinished: tuple[MaskName, ...] = ()
    is_unreadable: bool = False

    @property
    def standing(self) -> tuple[Finished, ...]:
        """The corrections that hold: no later one replaced them, and no reader rejected them."""
        return tuple(one for one in self.finished if one.layer not in self.rejected)


_Stamps = tuple[tuple[str, int, int], ...]


def hand_made(run: Path) -> HandMade | None:
    """What readers made in a run's folder; None where they did nothing. It is read again when a file has changed."""
    stamps: _Stamps = ()
    try:
        entries = sorted((run / CORRECTIONS).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        stamps = tuple(_stamp(entry) for entry in entries)
        return _hand_made(run, stamps)
    except (BadConfig, *FILE_ERRORS):  # a name that is gone by now is that of a correction that is just finished
        changed_s = max((changed / 1e9 for _, changed, _ in stamps), default=datetime.now(UTC).timestamp())
        return HandMade(last_at=datetime.fromtimestamp(changed_s, UTC), is_unreadable=True)


def _stamp(file: Path) -> tuple[str, int, int]:
    found = file.stat()
    return file.name, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4096)
def _hand_made(run: Path, _: _Stamps) -> HandMade | None:
    latest = [done[-1] for layer in MaskName if (done := finished_of(run, layer))]
    times = [*_told(run), *(one.at for one in latest)]
    if not times:
        return None
    return HandMade(
        last_at=max(times),
        finished=tuple(latest),
        rejected=frozenset(one.layer for one in latest if _is_rejected(run, one)),
        unfinished=tuple(layer for layer in MaskName if _has_unfinished(run, layer)),
    )


def _is_rejected(run: Path, latest: Finished) -> bool:
    return latest.number in rejected_corrections(Run(run), latest.layer)


def _told(run: Path) -> Iterator[datetime]:
    """When readers decided, and when they last painted on each mask."""
    yield from (one.at for one in Journal(decisions_file(run), DecisionRecord).unread())
    for layer in MaskName:
        records = _strokes(run, layer)
        if any(one.runs for one in records):  # strokes that changed nothing were stored once
            yield records[-1].at


def _strokes(run: Path, layer: MaskName) -> list[StrokeRecord]:
    """The records behind the first, which is of the mask that was there before."""
    return Journal(strokes_file(run, layer), StrokeRecord).unread()[1:]


def _has_unfinished(run: Path, layer: MaskName) -> bool:
    """Whether a mask is neither the network's nor the one that was finished last; read only where there are strokes."""
    done = finished_of(run, layer)
    if len(_strokes(run, layer)) == (done[-1].revision if done else 0):
        return False
    painting = Painting(network_mask(Run(run), layer), strokes_file(run, layer))
    return labels_sha256(painting.labels) not in {painting.base_digest, *(one.sha256 for one in done[-1:])}
