"""Which objects the node holds, and where: what it accepted, what its healthy jobs made, what readers made of that.

The tables know studies, series and files and no patient; whatever else is asked for is read from the files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydicom.errors import InvalidDicomError
from sqlalchemy import ColumnElement, Connection, Row, exists, false, func, or_, select

from carina.corrections.masks import CORRECTIONS
from carina.corrections.standing import Decision
from carina.database import ARRIVAL, INSTANCE, JOB, REMOVAL, read_only
from carina.database.ahead import DRIFT
from carina.deliver.identity import identity_of
from carina.errors import BadConfig
from carina.jobs.reading import Decided
from carina.operators.catalogue import definition_file, known_definitions
from carina.pipeline.definition import load_definition
from carina.pipeline.foreign import OWN_IMAGES
from carina.pipeline.json_text import read_json
from carina.receive.store import ArrivalState
from carina.service.dicomweb.reach import changed_ns, check_reached
from carina.service.dicomweb.soundness import Recorded, holds_recorded, is_of_size, note_damaged, recorded_results
from carina.service.node import RunningNode

OBJECTS = "dicom"
"""The folder of a run that holds its objects, series of slices in folders below it."""

REPLACING_IMAGES = frozenset({"carina/deidentify"})
"""Operators that make a series, and so results, of another study than that which was read."""

_LONG_AGO = datetime.fromtimestamp(0, UTC)

_ONE_CONTENT = (ARRIVAL.c.state != ArrivalState.APART) & or_(
    ARRIVAL.c.is_apart == 0, ARRIVAL.c.state != ArrivalState.ARRIVING
)
"""What came with another content under a known UID is not told until somebody releases it."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """One object of the node; ``job_id`` is that of the job of this node which made it, 0 of what came.

    Objects of one ``batch`` came, or were made, together; with ``is_of_one`` they are known to be one patient's. A
    result that is lost has no UIDs of its own.
    """

    study_uid: str
    series_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    path: Path
    job_id: int = 0
    batch: str = ""
    is_of_one: bool = False
    recorded: Recorded | None = None


@dataclass(frozen=True, kw_only=True)
class Holding:
    """The objects of a study that can be given, and those whose files don't hold any more what was recorded of them."""

    sound: list[Held]
    damaged: list[Held]


RunsOfStudies = Mapping[str, Sequence["MadeRun"]]
"""Jobs that ended well, by the studies of what they made."""


def study_uids(node: RunningNode, elsewhere: RunsOfStudies | None = None) -> Iterator[str]:
    """Every study: those that came, the last first, then others that jobs made.

    Raises:
        FolderAway: the node's folder is not there: what it holds is not nothing.
    """
    node.own.check()
    seen: set[str] = set()
    with read_only(node.engine) as connection:
        last = func.max(ARRIVAL.c.id)
        came = select(ARRIVAL.c.study_uid).where(_ONE_CONTENT).group_by(ARRIVAL.c.study_uid).order_by(last.desc())
        uids = list(connection.execute(came).scalars())
    for uid in (*uids, *(runs_elsewhere(node) if elsewhere is None else elsewhere)):
        if uid not in seen:
            seen.add(uid)
            yield uid


def objects_of(node: RunningNode, study_uid: str, elsewhere: RunsOfStudies | None = None) -> list[Held]:
    """The objects of a study that can be given, as ``holding_of`` has them."""
    return holding_of(node, study_uid, elsewhere).sound


def holding_of(node: RunningNode, study_uid: str, elsewhere: RunsOfStudies | None = None) -> Holding:
    """The objects of a study: accepted ones in the order in which they came, then results.

    Of several objects under one SOP Instance UID the last is taken, from whichever of its files is whole. What is
    damaged, or missing, is told apart by its size, in the log and to health. ``elsewhere`` is what ``runs_elsewhere``
    gives, for whoever asks for many studies.

    Raises:
        FolderAway: the node's folder is not there, so that nothing can be told of what is missing.
        OutOfReach: what is there can't be read.
    """
    elsewhere = runs_elsewhere(node) if elsewhere is None else elsewhere
    found = _holding(node, study_uid, elsewhere)
    if found.damaged or not found.sound:
        node.own.check()
    if found.damaged:  # once more: what was removed meanwhile, or replaced, is in no row any more
        found = _holding(node, study_uid, elsewhere)
        for held in found.damaged:
            tell_damaged(node, held)
    return found


def tell_damaged(node: RunningNode, held: Held) -> None:
    """Have the log, once, and health say that an object's file does not hold what was recorded of it."""
    whose = str(held.job_id) if held.job_id else held.sop_instance_uid
    note_damaged(node, held.path, whose, is_ours=bool(held.job_id))


def _holding(node: RunningNode, study_uid: str, elsewhere: RunsOfStudies) -> Holding:
    with read_only(node.engine) as connection:
        listed = [*_came(connection, node, study_uid), *_made(connection, node, study_uid, elsewhere)]
    files: dict[str, list[Held]] = {}
    for held in listed:
        files.setdefault(held.sop_instance_uid, []).append(held)
    lost = files.pop("", [])
    whole = {uid: _first_whole(node, under) for uid, under in files.items()}
    damaged = [files[uid][-1] for uid, held in whole.items() if held is None]
    return Holding(sound=list(filter(None, whole.values())), damaged=[*damaged, *lost])


def _first_whole(node: RunningNode, under: Sequence[Held]) -> Held | None:
    """Of files under one UID the last that is whole, of those with the content of the last."""
    last = under[-1]
    alike = (held for held in reversed(under) if held is last or (last.recorded and held.recorded == last.recorded))
    return next((held for held in alike if _seems_whole(node, held)), None)


def _seems_whole(node: RunningNode, held: Held) -> bool:
    """Whether a file is of its size, and if it was seen to be damaged holds again what was recorded of it."""
    looks_whole = holds_recorded if held.path in node.damaged else is_of_size
    return looks_whole(held.path, held.recorded)


def _came(connection: Connection, node: RunningNode, study_uid: str) -> Iterator[Held]:
    wanted = (
        select(INSTANCE, ARRIVAL.c.series_uid, ARRIVAL.c.whose_sha256, ARRIVAL.c.patients)
        .join(ARRIVAL, ARRIVAL.c.id == INSTANCE.c.arrival_id)
        .where(ARRIVAL.c.study_uid == study_uid, _ONE_CONTENT)
        .order_by(INSTANCE.c.id)
    )
    for row in connection.execute(wanted):
        yield Held(
            study_uid=study_uid,
            series_uid=row.series_uid,
            sop_instance_uid=row.sop_instance_uid,
            sop_class_uid=row.sop_class_uid,
            path=node.folder / row.path,
            batch=f"arrival {row.arrival_id}",
            is_of_one=bool(row.whose_sha256) or row.patients == "",
            recorded=Recorded(row.bytes, row.sha256, has_head=True),
        )


Folder = tuple[Path, int]
"""A folder, and when it was changed last."""


class MadeRun(NamedTuple):
    """A job that ended well, the folders with what it made, first that of all, and those of readers' corrections."""

    job_id: int
    folders: tuple[Folder, ...]
    corrected: tuple[Folder, ...] = ()

    def objects(self, study_uid: str) -> Iterator[Held]:
        """Its objects of a study, what readers made of its masks, and without UIDs what can't be known any more."""
        found = self._found()
        recorded = recorded_results(self.folders[0][0].parent, OBJECTS)
        unknown = recorded.keys() - {held.path for held in found}
        found += filter(None, map(_ours, sorted(path for path in unknown if is_of_size(path, recorded[path]))))
        lost = sorted(unknown - {held.path for held in found})
        here = (held for held in found if held.study_uid == study_uid)
        for held in (*here, *(Held(study_uid=study_uid, path=path) for path in lost)):
            batch = held.batch or f"job {self.job_id}"
            yield replace(held, job_id=self.job_id, batch=batch, recorded=recorded.get(held.path))

    def _found(self) -> list[Held]:
        found = [*_objects_in(*self.folders[0]), *(held for one in self.corrected for held in _objects_in(*one))]
        for folder, changed in self.folders[1:]:
            found += [replace(held, batch=str(folder), is_of_one=True) for held in _slices_in(folder, changed)]
        return found


def runs_elsewhere(
    node: RunningNode, guarded: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext()
) -> RunsOfStudies:
    """By study what jobs made that need not lie in the study of an arrival: the oldest job first.

    Such were handed in by path, or their pipeline makes a study of its own, or can't be told not to. Each job is looked
    at in a block of ``guarded``, which may let it be left out.

    Raises:
        OutOfReach: what is there can't be read.
    """
    found: dict[str, list[MadeRun]] = {}
    with read_only(node.engine) as connection:
        for job in _done(connection, JOB.c.arrival_id.is_(None) | ~_kept_the_study(connection)):
            with guarded(job.id):
                for run in _run_of(node, job):
                    for uid in _studies_of(run.folders):
                        found.setdefault(uid, []).append(run)
    return found


def _made(connection: Connection, node: RunningNode, study_uid: str, elsewhere: RunsOfStudies) -> Iterator[Held]:
    """The objects of a study that jobs made, in the order of the jobs."""
    of_study = select(ARRIVAL.c.id).where(ARRIVAL.c.study_uid == study_uid)
    kept = _kept_the_study(connection)
    done = _done(connection, JOB.c.arrival_id.in_(of_study) & kept)
    runs = [run for job in done for run in _run_of(node, job)]
    for run in sorted([*runs, *elsewhere.get(study_uid, ())]):
        yield from run.objects(study_uid)


def _kept_the_study(connection: Connection) -> ColumnElement[bool]:
    """Jobs whose pipeline made no study of its own: as its definition reads, and read already when they came.

    Of those that came before it was changed last, nobody knows what it was then: what they made says it.
    """
    kept: list[ColumnElement[bool]] = [false()]
    for name in connection.execute(select(JOB.c.pipeline).distinct()).scalars():
        if (since := _keeps_study_since(name)) is not None:
            kept.append((JOB.c.pipeline == name) & (JOB.c.created_at > since))
    return or_(*kept)


def _keeps_study_since(pipeline: str) -> datetime | None:
    """Since when a definition is known to make no study of its own; None where it makes one, or can't be told not to.

    Those that ship change with the version alone, and none of them has ever become another in that.
    """
    try:
        file = definition_file(pipeline)
        changed_s = max(found.st_ctime for found in (file.stat(), file.lstat()))
        if not _has_keeping_steps(file, changed_s):
            return None
    except (BadConfig, OSError):  # it is not here any more
        return None
    return _LONG_AGO if pipeline in known_definitions() else datetime.fromtimestamp(changed_s, UTC) + DRIFT


@lru_cache(maxsize=256)
def _has_keeping_steps(definition: Path, _changed_s: float) -> bool:
    images = {step.container.image for step in load_definition(definition).steps}
    return not images & REPLACING_IMAGES and all(image.startswith(OWN_IMAGES) for image in images)


def _done(connection: Connection, which: ColumnElement[bool]) -> Iterator[Row[Any]]:
    """Jobs that ended well, the oldest first."""
    removed = exists().where(REMOVAL.c.kind == "run", REMOVAL.c.subject_id == JOB.c.id)
    wanted = select(JOB.c.id, JOB.c.folder, JOB.c.decisions).where(JOB.c.ended == "healthy", which, ~removed)
    return iter(connection.execute(wanted.order_by(JOB.c.id)))


def _run_of(node: RunningNode, job: Row[Any]) -> Iterator[MadeRun]:
    """The run of a job, if it is there and has objects."""
    run = node.folder / job.folder
    if changed := changed_ns(run / OBJECTS):
        folders = tuple((one, changed_ns(one)) for one in _folders(run / OBJECTS, changed))
        corrected = ((run / place, changed_ns(run / place)) for place in _corrections_that_hold(job.decisions))
        yield MadeRun(job.id, folders, tuple(one for one in corrected if one[1]))


@lru_cache(maxsize=20_000)
def _corrections_that_hold(decisions: str) -> tuple[str, ...]:
    """Where, below a run's folder, the objects of finished corrections lie that no reader rejected or replaced."""
    said = read_json(decisions, list[Decided]) if decisions != "[]" else []
    held = (one for one in said if one.correction and one.standing is Decision.CORRECTED)
    return tuple(f"{CORRECTIONS}/{one.layer}-{one.correction}/{OBJECTS}" for one in held)


@lru_cache(maxsize=20_000)
def _folders(objects: Path, _changed: int) -> tuple[Path, ...]:
    def failed(error: OSError) -> None:
        check_reached(error, objects)

    below = (Path(folder, name) for folder, names, _ in os.walk(objects, onerror=failed) for name in names)
    return (objects, *sorted(below))


@lru_cache(maxsize=20_000)
def _studies_of(folders: tuple[Folder, ...]) -> tuple[str, ...]:
    """The studies of a run's objects; a folder below that of all holds one series, as operators write them."""
    first = (next(filter(None, map(_ours, _files(folder))), None) for folder, _ in folders[1:])
    found = [*_objects_in(*folders[0]), *filter(None, first)]
    return tuple(dict.fromkeys(held.study_uid for held in found))


def _read_objects(folder: Path, _changed: int) -> tuple[Held, ...]:
    """The objects right in a folder; its run is over, so that they are read once, and again where one joins them.

    Raises:
        OutOfReach: folder or file can't be read, which is not kept.
    """
    return tuple(filter(None, map(_ours, _files(folder))))


_objects_in, _slices_in = lru_cache(maxsize=20_000)(_read_objects), lru_cache(maxsize=100)(_read_objects)
"""The same of the folder of all objects, and of one below it: series of slices are long, and few of them are kept."""


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".dcm")
    except OSError as error:
        check_reached(error, folder)
        return []


def _ours(path: Path) -> Held | None:
    try:
        identity = identity_of(path)
    except (OSError, InvalidDicomError) as error:
        check_reached(error, path)
        return None
    if not (identity.study_uid and identity.series_uid and identity.sop_instance_uid):  # it ends before them
        return None
    return Held(
        study_uid=identity.study_uid,
        series_uid=identity.series_uid,
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        path=path,
    )
