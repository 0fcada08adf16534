"""What readers made in runs and no destination has: the run, and what it reads, stay for it until it is given up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.uid import SegmentationStorage
from sqlalchemy import Connection, select

from carina.config import Destination
from carina.corrections.masks import CORRECTIONS
from carina.database import DELIVERY, JOB
from carina.deliver.ledger import DeliveryState, takes_kind
from carina.keeping.removable import Bounds
from carina.pipeline.json_text import read_json
from carina.sections import RUNS

if TYPE_CHECKING:
    from carina.corrections.finish import Finished
    from carina.corrections.hand_made import HandMade


@dataclass(frozen=True, kw_only=True)
class ReadersWork:
    """What lies in the runs of a node; ``destinations`` are those of its settings."""

    folder: Path
    destinations: Mapping[str, Destination]

    def holds(self, connection: Connection, job_id: int, bounds: Bounds) -> bool:
        """Whether a run stays: a reader was at it lately, or made there what is not delivered and not given up.

        A correction that holds is delivered where every destination of the job that takes its kind has confirmed it.
        That of a job without one is nowhere else, as strokes are that nobody finished.
        """
        made = self._made(job_id)
        if made is None:
            return False
        if made.last_at >= bounds.before:
            return True
        is_given_up = bounds.abandoned is not None and made.last_at < bounds.abandoned
        return not is_given_up and self._is_owed(connection, job_id, made)

    def _made(self, job_id: int) -> HandMade | None:
        run = self.folder / RUNS / str(job_id)
        try:
            (run / CORRECTIONS).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:  # told as what can't be read
            pass
        from carina.corrections.hand_made import hand_made  # 50 MB of libraries, which a run without any doesn't need

        return hand_made(run)

    def _is_owed(self, connection: Connection, job_id: int, made: HandMade) -> bool:
        if made.is_unreadable or made.unfinished:
            return True
        return any(not self._is_delivered(connection, job_id, one) for one in made.standing)

    def _is_delivered(self, connection: Connection, job_id: int, correction: Finished) -> bool:
        names = connection.execute(select(JOB.c.destinations).where(JOB.c.id == job_id)).scalar_one()
        wanted = {
            one for one in read_json(names, list[str]) if takes_kind(self.destinations.get(one), SegmentationStorage)
        }
        of_it = (DELIVERY.c.job_id == job_id) & (DELIVERY.c.sop_instance_uid == correction.seg_uid)
        has = select(DELIVERY.c.destination).where(of_it, DELIVERY.c.state == DeliveryState.CONFIRMED)
        return bool(wanted) and wanted <= set(connection.execute(has).scalars())

    def words(self, connection: Connection, job_id: int) -> str:
        """What of a run's readers goes with it, to stand behind why it goes; empty where that is nothing."""
        made = self._made(job_id)
        said = list(self._said(connection, job_id, made)) if made else []
        return f"; with it went {', '.join(said)}" if said else ""

    def _said(self, connection: Connection, job_id: int, made: HandMade) -> Iterator[str]:
        if made.is_unreadable:
            yield "what readers did to its masks, which could not be read"
        for one in made.finished:
            is_delivered = one in made.standing and self._is_delivered(connection, job_id, one)
            state = "delivered" if is_delivered else "not delivered" if one in made.standing else "rejected"
            yield f"correction {one.number} of the {one.layer} mask ({state})"
        yield from (f"unfinished strokes on the {layer} mask" for layer in made.unfinished)
