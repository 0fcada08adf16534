"""Jobs and objects that wait for destinations which the settings don't have, and the new name of such a one."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from sqlalchemy import Connection, func, select, update

from carina.database import DELIVERY, JOB, OWED_REPORT
from carina.deliver.ledger import UNDER_WAY, counts
from carina.deliver.unknown_destination import STRANDED
from carina.errors import BadConfig
from carina.jobs.queue import JobState
from carina.pipeline.json_text import read_json


def unknown_destinations(connection: Connection, known: Collection[str]) -> dict[str, str]:
    """What waits for each destination that isn't among the known ones, in a sentence by its name."""
    objects = {name: sum(states[one] for one in UNDER_WAY) for name, states in counts(connection).items()}
    jobs = _jobs_naming(connection)
    names = sorted({name for found in (objects, jobs) for name, number in found.items() if number} - {*known})
    return {name: _said(name, jobs.get(name, 0), objects.get(name, 0)) for name in names}


def _said(name: str, jobs: int, objects: int) -> str:
    waiting = [f"{number} {what}" for number, what in ((jobs, "job(s)"), (objects, "object(s)")) if number]
    how = f"add it under [destinations], or carina deliveries rename {name} NEW"
    return f"{' and '.join(waiting)} wait for destination {name}, which the settings don't have: {how}."


def _jobs_naming(connection: Connection) -> Mapping[str, int]:
    """How many jobs that have not ended name each destination."""
    wanted = select(JOB.c.destinations, func.count().label("number")).where(JOB.c.state != JobState.STOPPED)
    found: dict[str, int] = {}
    for row in connection.execute(wanted.group_by(JOB.c.destinations)):
        for name in read_json(row.destinations, tuple[str, ...]):
            found[name] = found.get(name, 0) + row.number
    return found


def rename_destination(connection: Connection, old: str, new: str, known: Collection[str]) -> int:
    """Give a destination that the settings don't have any more, its jobs and its rows the name that it has now.

    What was confirmed stays so, what waits goes to the new name; gives the number of rows. Nothing may be sent
    meanwhile.

    Raises:
        BadConfig: the settings have the old name or lack the new one, nothing is of the old one, or objects of it are
            in the ledger under the new one as well.
    """
    _check_names(old, new, known)
    of_old, of_new = DELIVERY.c.destination == old, DELIVERY.c.destination == new
    uid = DELIVERY.c.sop_instance_uid
    both = select(func.count(uid.distinct())).where(of_old, uid.in_(select(uid).where(of_new)))
    if number := connection.execute(both).scalar_one():
        words = f"{number} object(s) of {old} are in the ledger for {new} as well; expected a name without them"
        raise BadConfig("delivery.rename", f"{words}. Add {old} under [destinations] again instead.")
    jobs = _rename_in_jobs(connection, old, new)
    connection.execute(update(OWED_REPORT).where(OWED_REPORT.c.destination == old).values(destination=new))
    waits = update(DELIVERY).where(of_old, DELIVERY.c.state.in_(UNDER_WAY))
    connection.execute(waits.values(not_before=None, error_code=STRANDED, error=f"It was called {old}."))
    rows = int(connection.execute(update(DELIVERY).where(of_old).values(destination=new)).rowcount)
    if not rows and not jobs:
        raise BadConfig("delivery.rename", f"destinations.{old}: no job names it, and no object was to go there.")
    return rows


def _check_names(old: str, new: str, known: Collection[str]) -> None:
    names = ", ".join(sorted(known)) or "none"
    if new not in known:
        words = f"destinations.{new}: is not in the settings; expected the name that the destination has now"
        raise BadConfig("delivery.rename", f"{words}; known: {names}.")
    if old in known:
        words = f"destinations.{old}: is in the settings; expected a name that they don't have any more"
        raise BadConfig("delivery.rename", f"{words}; known: {names}.")


def _rename_in_jobs(connection: Connection, old: str, new: str) -> int:
    renamed = 0
    for text in connection.execute(select(JOB.c.destinations).distinct()).scalars().all():
        if old in (names := read_json(text, tuple[str, ...])):
            after = json.dumps(list(dict.fromkeys(new if name == old else name for name in names)))
            changed = update(JOB).where(JOB.c.destinations == text).values(destinations=after)
            renamed += int(connection.execute(changed).rowcount)
    return renamed
