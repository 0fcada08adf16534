"""Deliveries that are tried again by hand; a correction that doesn't hold any more stays where nobody began to send it.

Where it waits when it is rejected or replaced it is taken back. Where its delivery has failed, it is refused here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select

from carina.corrections.masks import CORRECTIONS, MaskName
from carina.database import DELIVERY
from carina.deliver.ledger import DeliveryState, resend
from carina.errors import BadConfig
from carina.service.problems import Conflict


class SentAgain(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries wait again, and of each that is refused why, in a sentence."""

    deliveries: int
    refused: tuple[str, ...] = ()


def send_what_holds(
    connection: Connection, folder: Path, *, destination: str, job_id: int | None, among: Collection[str]
) -> SentAgain:
    """Let deliveries be tried now, as ``resend``, but for corrections that don't hold; ``folder`` is the node's.

    Raises:
        Conflict: ``corrections.replaced``, of all that was asked for nothing else could be sent.
    """
    refused = dict(_refused(connection, folder, destination, job_id))
    number = resend(connection, destination=destination, job_id=job_id, among=among, but=refused)
    words = tuple(refused.values())
    if words and not number:
        more = f" So it is with {len(words) - 1} more." if len(words) > 1 else ""
        raise Conflict("corrections.replaced", words[0] + more)
    return SentAgain(deliveries=number, refused=words)


def _refused(connection: Connection, folder: Path, destination: str, job_id: int | None) -> Iterator[tuple[int, str]]:
    """Failed deliveries of corrections that don't hold and that nobody began to send, by their ids, and why not."""
    unbegun = (DELIVERY.c.state == DeliveryState.FAILED) & (DELIVERY.c.attempts == 0)
    wanted = select(DELIVERY).where(unbegun, DELIVERY.c.path.contains(f"/{CORRECTIONS}/"))
    wanted = wanted.where(DELIVERY.c.destination == destination) if destination else wanted
    wanted = wanted.where(DELIVERY.c.job_id == job_id) if job_id is not None else wanted
    for row in connection.execute(wanted.order_by(DELIVERY.c.id)).all():
        if why := _why_not(row, folder):
            yield row.id, why


def _why_not(row: Row[Any], folder: Path) -> str:
    """Why the correction of a delivery is not to be sent; empty: it holds, or is no correction that can be read."""
    from carina.api.result import Run  # what these need takes memory of a server that sends no correction again
    from carina.corrections.decisions import rejected_corrections
    from carina.corrections.finish import finished_of

    run, _, rest = row.path.partition(f"/{CORRECTIONS}/")
    layer, _, number = PurePosixPath(rest).parts[0].rpartition("-")
    if layer not in set(MaskName) or not number.isdecimal():
        return ""
    try:
        latest = finished_of(folder / run, MaskName(layer))[-1:]
        rejected = rejected_corrections(Run(folder / run), MaskName(layer)).get(int(number))
    except BadConfig:
        return ""
    this = f"correction {number} of the {layer} mask of job {row.job_id}"
    if latest and latest[0].number != int(number):
        instead = latest[0].number
        return f"{this} was replaced by correction {instead}, and is not sent to {row.destination}: send that one."
    if rejected:
        words = f"was rejected by {rejected.reader}, and is not sent to {row.destination}"
        return f"{this} {words}: finish one that holds, or accept this one again."
    return ""
