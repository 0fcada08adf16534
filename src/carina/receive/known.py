"""What the node has under a SOP Instance UID already, and whether what comes is that again or another content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, select

from carina.database import ARRIVAL, INSTANCE

_SAME_UID = (
    select(INSTANCE)
    .join(ARRIVAL, ARRIVAL.c.id == INSTANCE.c.arrival_id)
    .where(INSTANCE.c.sop_instance_uid == bindparam("uid"), ARRIVAL.c.project == bindparam("project"))
    .order_by(INSTANCE.c.id)
)


def known_under(connection: Connection, uid: str, project: str) -> list[Row[Any]]:
    """What came under a UID into a project, from whichever of its sources, the first content first.

    What differs from that is kept apart. What another project has under the UID is not there: nobody learns of it, and
    nobody holds up another project's series by sending something else under its UIDs.
    """
    return list(connection.execute(_SAME_UID, {"uid": uid, "project": project}))


def same_door(alike: Sequence[Row[Any]], source: str, *, is_prior: bool) -> list[Row[Any]]:
    """Those of equal content for which the same again is repeated: what was sent needs no fetching."""
    return [row for row in alike if row.source == source and row.is_prior <= is_prior]


def differs(known: Sequence[Row[Any]], alike: Sequence[Row[Any]], *, is_prior: bool) -> bool:
    """Whether the first content under a UID is another one; an archive's copy holds up nothing that is sent."""
    first = next((row for row in known if row.is_prior == is_prior), None)
    return first is not None and first not in alike


def forget(connection: Connection, alike: Sequence[Row[Any]], source: str, *, is_prior: bool) -> None:
    """Remove the rows, of those of equal content, in whose place another is put: their files are gone or damaged."""
    gone = [row.id for row in same_door(alike, source, is_prior=is_prior) if row.is_prior == is_prior]
    if gone:
        connection.execute(delete(INSTANCE).where(INSTANCE.c.id.in_(gone)))
