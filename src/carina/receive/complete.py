"""When a series that comes in is complete, and what it is then: fit to be run, in quarantine, or our own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, false, func, not_, or_, select, update

from carina.config import AnySource, Settings
from carina.database import ARRIVAL, INSTANCE, OwnFolder, database_now, draw_in
from carina.database.intact import check_intact
from carina.database.one_series import is_of_series
from carina.dicom.find import choose_source, find_series
from carina.dicom.found import Found
from carina.dicom.patients import are_several, patients_in
from carina.dicom.rules import load_rules
from carina.errors import BadSeries, Bug, told
from carina.pipeline.places import link_or_copy
from carina.receive.mixed import damaged_among, mixture_of, several_words
from carina.receive.named import known_patients
from carina.receive.own_results import is_made_by_us
from carina.receive.store import ArrivalState
from carina.sections import INCOMING

ARRIVALS_JUDGED = 50
"""Arrivals that are looked at in one round."""

JOINED_LATER = (ArrivalState.COMPLETE, ArrivalState.QUEUED, ArrivalState.QUARANTINED)
"""States of arrivals whose instances are part of the next arrival of the same series from the same source."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What a complete arrival is, and why where it is not run.

    ``left`` are names of files of other arrivals of the series that are no part of it, being another patient's.
    """

    state: ArrivalState
    reason: str = ""
    left: frozenset[str] = frozenset()


RUN_REFUSED = "Releasing it doesn't help: its run is refused for the same reason."
"""Behind the reason of what waits, where a job of it can do nothing but fail."""

OUR_RESULTS = "Carina's own results: kept, not run; `carina arrivals release` has them run all the same."

SENT_AS_WELL = Verdict(ArrivalState.QUEUED, "fetched to compare with, and sent as well: it is run with what was sent.")


def complete_arrivals(settings: Settings, engine: Engine, untaken: Mapping[str, datetime] | None = None) -> int:
    """Settle every arrival that is complete now; gives their number.

    One is complete when nothing has come for its source's ``quiet_s``, or when as many instances are there as are
    expected. Where a source has instances that are ``untaken`` since some time, those of its arrivals wait of which an
    instance came later. Files of other arrivals of the same series are linked into its folder, so that its run is on
    all of them.

    Raises:
        FolderAway: the node's folder is not there any more: what was seen of its files says nothing.
    """
    settled, own = 0, OwnFolder(Path(settings.node.folder), engine)
    for arrival, source in _due(settings, engine, untaken or {}):
        verdict = _settle(settings, engine, arrival, source)
        same = (ARRIVAL.c.id == arrival.id) & (ARRIVAL.c.state == ArrivalState.ARRIVING)
        unchanged = same & (ARRIVAL.c.last_at == arrival.last_at)  # what came meanwhile makes it wait again
        with own.begin() as connection:
            is_apart = verdict.state is ArrivalState.APART
            values = {"state": verdict.state, "reason": verdict.reason, "is_apart": int(is_apart)}
            if connection.execute(update(ARRIVAL).where(unchanged).values(**values)).rowcount:
                settled += 1
                if not is_apart and verdict != SENT_AS_WELL:
                    _end_waiting_of_others(connection, arrival, verdict.left)
                    settle_anew(connection, own.folder, arrival, verdict.left)
        if verdict.reason:
            level = logging.WARNING if is_apart or verdict.left else logging.INFO
            _LOG.log(level, "arrival %d: %s: %s", arrival.id, verdict.state, verdict.reason)
    return settled


def _settle(settings: Settings, engine: Engine, arrival: Row[Any], source: AnySource | None) -> Verdict:
    if arrival.is_apart:
        return _another_content(engine, arrival, Path(settings.node.folder) / INCOMING / str(arrival.id))
    if arrival.is_prior and _was_sent(engine, arrival):
        return SENT_AS_WELL
    folder = Path(settings.node.folder) / INCOMING / str(arrival.id)
    linked = _link_others(settings, engine, arrival, folder)
    known = known_patients(Path(settings.node.folder), engine, arrival)
    mixture = mixture_of(folder, names_of_own(engine, arrival), known)
    for name in mixture.left:
        (folder / name).unlink(missing_ok=True)
    if mixture.state is not None:
        return Verdict(mixture.state, mixture.reason, mixture.left)
    if mixture.left:
        _LOG.warning("arrival %d: of what came before under its Series UID, %s", arrival.id, mixture.left_words)
    verdict = _of_one_patient(settings, engine, arrival, source, linked - mixture.left)
    return replace(verdict, left=mixture.left)


def _of_one_patient(
    settings: Settings, engine: Engine, arrival: Row[Any], source: AnySource | None, linked: set[str]
) -> Verdict:
    folder = Path(settings.node.folder) / INCOMING / str(arrival.id)
    if source is None:
        words = (
            f"source {arrival.source} is not in the settings any more: add it under [sources], or release as another."
        )
        return Verdict(ArrivalState.QUARANTINED, words)
    try:
        check_intact(engine, Path(settings.node.folder), arrival.id, linked)
    except BadSeries as error:
        return Verdict(ArrivalState.QUARANTINED, f"{error.message} {RUN_REFUSED}")
    if is_made_by_us(engine, folder):
        return Verdict(ArrivalState.KEPT, OUR_RESULTS)
    return judge_arrival(folder, settings, source)


def _another_content(engine: Engine, arrival: Row[Any], folder: Path) -> Verdict:
    """What is said of instances whose UIDs are known with another content."""
    of_series = (ARRIVAL.c.series_uid == arrival.series_uid) & (ARRIVAL.c.project == arrival.project)
    counted = select(func.count(INSTANCE.c.sop_instance_uid.distinct())).join(ARRIVAL)
    with engine.connect() as connection:
        came = connection.execute(counted.where(ARRIVAL.c.id == arrival.id)).scalar_one()
        known = connection.execute(counted.where(of_series)).scalar_one()
    reason = (
        f"{came} of {known} instances of the series came with another content than is known under their SOP Instance "
        "UIDs: they were corrected, changed on the way, or two scans share UIDs. What came first stays. Release them "
        "(`carina arrivals release`, or the worklist) to run them by themselves, without the others of the series."
    )
    patients = patients_in(folder)
    if are_several(list(patients.values())):
        damaged = damaged_among(folder, (name for name, patient in patients.items() if not patient))
        reason += f" Besides, {several_words(patients, damaged)}"
    return Verdict(ArrivalState.APART, reason)


def names_of_own(engine: Engine, arrival: Row[Any]) -> set[str]:
    """The names of the files that came in an arrival itself."""
    with engine.connect() as connection:
        paths = connection.execute(select(INSTANCE.c.path).where(INSTANCE.c.arrival_id == arrival.id)).scalars()
        return {Path(path).name for path in paths}


def _due(
    settings: Settings, engine: Engine, untaken: Mapping[str, datetime]
) -> list[tuple[Row[Any], AnySource | None]]:
    """The arrivals that are to be settled now, the oldest first, each with its source; None where that is gone.

    What is not due yet takes no place among them, or one source's many would hold up another's. Where the clock was
    set back, a series begins to be quiet now.
    """
    counted = select(func.count()).select_from(INSTANCE).where(INSTANCE.c.arrival_id == ARRIVAL.c.id)
    with engine.begin() as connection:
        now = database_now(connection)
        draw_in(connection, ARRIVAL.c.last_at, ARRIVAL.c.state == ArrivalState.ARRIVING, now)
        quiet = [
            (ARRIVAL.c.source == name) & (ARRIVAL.c.last_at <= now - timedelta(seconds=source.quiet_s))
            for name, source in settings.sources.items()
        ]
        held: list[ColumnElement[bool]] = [false()]
        held += [(ARRIVAL.c.source == name) & (ARRIVAL.c.last_at >= since) for name, since in list(untaken.items())]
        is_whole = (ARRIVAL.c.expected > 0) & (counted.scalar_subquery() >= ARRIVAL.c.expected)
        is_quiet = and_(or_(*quiet), not_(or_(*held)))
        is_due = or_(ARRIVAL.c.source.not_in(list(settings.sources)), is_whole, is_quiet)
        wanted = select(ARRIVAL).where(ARRIVAL.c.state == ArrivalState.ARRIVING, is_due).order_by(ARRIVAL.c.last_at)
        rows = connection.execute(wanted.limit(ARRIVALS_JUDGED)).all()
    return [(row, settings.sources.get(row.source)) for row in rows]


def _others(arrival: Row[Any]) -> ColumnElement[bool]:
    """The other arrivals of the same series from the same source, without what is kept apart, or was."""
    same = is_of_series(arrival) & (ARRIVAL.c.source == arrival.source)
    return and_(same, ARRIVAL.c.id != arrival.id, ARRIVAL.c.is_apart == 0)


def _was_sent(engine: Engine, arrival: Row[Any]) -> bool:
    """Whether all that was fetched in an arrival was sent to us as well, so that it is run with what was sent.

    What was sent and waits in quarantine is not run: the archive's copy may pass where the scanner's did not.
    """
    sent = select(INSTANCE.c.sop_instance_uid).join(ARRIVAL, ARRIVAL.c.id == INSTANCE.c.arrival_id)
    sent = sent.where(_others(arrival), ARRIVAL.c.is_prior == 0, ARRIVAL.c.state != ArrivalState.QUARANTINED)
    more = select(INSTANCE.c.id).where(INSTANCE.c.arrival_id == arrival.id, INSTANCE.c.sop_instance_uid.not_in(sent))
    with engine.connect() as connection:
        return connection.execute(more.limit(1)).first() is None


def _link_others(settings: Settings, engine: Engine, arrival: Row[Any], folder: Path) -> set[str]:
    """Give a folder the files that came before in the same series from the same source; nothing is copied.

    Gives their names, also of those that are gone.
    """
    others = (
        select(INSTANCE.c.path)
        .join(ARRIVAL, ARRIVAL.c.id == INSTANCE.c.arrival_id)
        .where(_others(arrival), ARRIVAL.c.state.in_(JOINED_LATER))
        .order_by(ARRIVAL.c.is_prior, INSTANCE.c.id)  # of two contents what was sent, and what came first
    )
    with engine.connect() as connection:
        paths = [Path(settings.node.folder) / path for path in connection.execute(others).scalars()]
    for path in paths:
        place = folder / path.name
        with suppress(FileExistsError, FileNotFoundError):
            link_or_copy(path, place)
    return {path.name for path in paths}


def _end_waiting_of_others(connection: Connection, arrival: Row[Any], left: frozenset[str]) -> None:
    """What waited in quarantine is part of this arrival now, and is run or waits with that, but for what was left."""
    waiting = _others(arrival) & (ARRIVAL.c.state == ArrivalState.QUARANTINED)
    if left:
        held = select(INSTANCE.c.arrival_id, INSTANCE.c.path).join(ARRIVAL).where(waiting)
        wait_on = {row.arrival_id for row in connection.execute(held) if Path(row.path).name in left}
        waiting &= ARRIVAL.c.id.not_in(wait_on)
    values = {"state": ArrivalState.QUEUED, "reason": f"more came: its instances are in arrival {arrival.id} as well."}
    connection.execute(update(ARRIVAL).where(waiting).values(**values))


def settle_anew(connection: Connection, folder: Path, arrival: Row[Any], left: frozenset[str]) -> None:
    """Have arrivals settled again whose instances are ``left`` of one that they had joined, and are in no other's run.

    Nothing that was accepted is in no run without a reason that can be read.
    """
    if not left:
        return
    is_joined = (ARRIVAL.c.state == ArrivalState.QUEUED) & (ARRIVAL.c.reason != "")
    holding = select(ARRIVAL.c.id).where(
        is_of_series(arrival), ARRIVAL.c.id != arrival.id, ARRIVAL.c.state.in_(JOINED_LATER)
    )
    holding = holding.where(not_(is_joined))
    places = [folder / INCOMING / str(one) for one in connection.execute(holding).scalars()]
    joined = select(INSTANCE.c.arrival_id, INSTANCE.c.path).join(ARRIVAL).where(_others(arrival), is_joined)
    anew = set()
    for row in connection.execute(joined):
        name = Path(row.path).name
        if name in left and not any((place / name).exists() for place in places):
            anew.add(row.arrival_id)
    if anew:
        values = {"state": ArrivalState.ARRIVING, "reason": ""}
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id.in_(anew)).values(**values))
        _LOG.info("what is no part of arrival %d is in no run, and is looked at again: %s", arrival.id, sorted(anew))


def judge_arrival(folder: Path, settings: Settings, source: AnySource) -> Verdict:
    """What the instances of a series in a folder are, by the source's series rules.

    Where no rule but the series itself is why it is not run, as with missing slices, the reason says that a release
    doesn't help.
    """
    found: Sequence[Found] = ()
    try:
        rules = load_rules(source.series_rules or settings.series_rules)
        found = find_series(folder, rules, most_voxels=settings.limits.voxels)
        choose_source(found, rules)
    except Exception as error:  # noqa: BLE001 - the network edge: one series that breaks the reader holds up no other
        failure = told(error, kept="the node's log")
        if isinstance(failure, Bug):
            _LOG.error("%s: %s", folder.name, failure.places)
        is_refused_by_any = bool(found) and all(one.source is None for one in found)
        helpless = f" {RUN_REFUSED}" if is_refused_by_any and not isinstance(failure, Bug) else ""
        return Verdict(ArrivalState.QUARANTINED, f"{failure.message}{helpless}")
    return Verdict(ArrivalState.COMPLETE)


def release(connection: Connection, arrival_id: int, source: str = "", project: str = "") -> bool:
    """Let what waits in quarantine, apart, or is kept be run after all, whatever the rules say; False where it is not.

    With a ``source``, its pipelines and destinations count in place of those of the source that it came by. With a
    ``project``, it is in that one from now on.
    """
    waiting = ARRIVAL.c.state.in_([ArrivalState.QUARANTINED, ArrivalState.APART, ArrivalState.KEPT])
    changed = {name: value for name, value in {"source": source, "project": project}.items() if value}
    values = {"state": ArrivalState.COMPLETE, "reason": "", **changed}
    return bool(
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == arrival_id, waiting).values(**values)).rowcount
    )
