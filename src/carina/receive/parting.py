"""An arrival of several patients parted once it is released: each patient's instances become an arrival by itself.

So it is also where what it was given of earlier arrivals is another's, or nobody's, by now. Their files get second
names in folders of their own, and their rows name these: at no moment is a row without its file. What they were in is
joined, and its folder goes when retention removes it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update

from carina.config import AnySource, Settings
from carina.database import ARRIVAL, EVERY_PROJECT, INSTANCE, LONGEST_CODE, OwnFolder
from carina.dicom.part10 import open_file
from carina.errors import BadSeries, one_line, unwritable
from carina.pipeline.places import link_or_copy
from carina.receive.complete import RUN_REFUSED, judge_arrival, names_of_own, settle_anew
from carina.receive.durability import empty_folder, flush_folder, take_back
from carina.receive.instance import ASKED
from carina.receive.mixed import Mixture, damaged_among, mixture_of, nobodys_reasons
from carina.receive.named import known_patients, patients_kept
from carina.receive.patient import scan_of
from carina.receive.store import ArrivalState
from carina.sections import INCOMING

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PartOfArrival:
    """What an arrival has of one patient, or of nobody: names of files, and why it is to wait; empty: it is run.

    ``beside`` are the names of the patient's files of earlier arrivals, which lie in the same folder.
    """

    names: tuple[str, ...]
    beside: tuple[str, ...] = ()
    patient: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Parting:
    """How an arrival is to be parted, whose row was ``whole``; without parts it is one patient's.

    ``left`` are names of files of earlier arrivals in its folder that are no part of it, and ``left_words`` what these
    are.
    """

    whole: Row[Any] | None = None
    parts: tuple[PartOfArrival, ...] = ()
    left: frozenset[str] = frozenset()
    left_words: str = ""


@dataclass(frozen=True, kw_only=True)
class Parted:
    """The arrivals that an arrival's instances are in now: those that are run, and those that wait, by id."""

    run: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """What became of the instances, in a sentence; empty where they are of one patient."""
        if not self.run and not self.waiting:
            return ""
        run = f"{_listed(self.run)} {_are(self.run)} run" if self.run else ""
        left = f"{_listed(self.waiting)} {_are(self.waiting)} kept back, as can be read there" if self.waiting else ""
        became = ", ".join(filter(None, (run, left)))
        return f"It holds instances of several patients, and each one's are by themselves now: {became}."


def _are(ids: Sequence[int]) -> str:
    return "is" if len(ids) == 1 else "are"


def _listed(ids: Sequence[int]) -> str:
    return f"arrival{'' if len(ids) == 1 else 's'} {', '.join(map(str, ids))}"


def parts_of_arrival(settings: Settings, engine: Engine, own: OwnFolder, arrival_id: int, source: str) -> Parting:
    """An arrival by patient, what is run as a source's first; empty where it is one patient's, or no such source is.

    Raises:
        FolderAway: the node's folder is not there, so that nobody can see whose they are.
    """
    with engine.connect() as connection:
        whole = connection.execute(select(ARRIVAL).where(ARRIVAL.c.id == arrival_id)).one_or_none()
    mine = names_of_own(engine, whole) if whole else set()
    by = settings.sources.get(source or (whole.source if whole else ""))
    if by is None or whole is None or not mine:
        return Parting()
    own.check()
    folder = own.folder / INCOMING / str(arrival_id)
    mixture = mixture_of(folder, mine, known_patients(own.folder, engine, whole))
    patients = _by_patient(mixture, mine).items()
    parts = [
        one
        for patient, names in patients
        for one in _judged(patient, names, _beside(mixture, patient, mine), folder, (settings, by))
    ]
    parts.sort(key=lambda one: (bool(one.reason), -len(one.names), one.names))
    left = _in_none(mixture, parts)
    return Parting(whole=whole, parts=tuple(parts), left=left, left_words=mixture.left_words)


def _in_none(mixture: Mixture, parts: Sequence[PartOfArrival]) -> frozenset[str]:
    is_in_one = {name for one in parts for name in (*one.names, *one.beside)}
    return frozenset(mixture.whose.keys() - is_in_one) if parts else frozenset()


def _by_patient(mixture: Mixture, mine: Set[str]) -> Mapping[str, Sequence[str]]:
    """Names of an arrival's own files by their patients; empty where all in its folder is of one.

    Of what is not there nobody knows whose it is.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for name in sorted(mine):
        names[mixture.whose[name]].append(name)
    is_several = bool(mixture.left) or (mixture.state is not None and len(names) > 1)
    return names if is_several else {}


def _beside(mixture: Mixture, patient: str, mine: Set[str]) -> Sequence[str]:
    return sorted(name for name, whose in mixture.whose.items() if whose == patient and name not in mine)


def _judged(
    patient: str, names: Sequence[str], beside: Sequence[str], folder: Path, by: tuple[Settings, AnySource]
) -> Iterator[PartOfArrival]:
    if patient:
        reason = _why_refused([folder / name for name in (*names, *beside)], *by)
        yield PartOfArrival(names=tuple(names), beside=tuple(beside), patient=patient, reason=reason)
        return
    for nobodys, reason in nobodys_reasons(names, damaged_among(folder, names)).items():
        yield PartOfArrival(names=nobodys, reason=reason)


def _why_refused(files: Sequence[Path], settings: Settings, source: AnySource) -> str:
    """Why no run can read anything of some files, whatever the rules; empty where one can, or has to say it."""
    with TemporaryDirectory() as place:
        for file in files:
            Path(place, file.name).symlink_to(file.resolve())
        reason = judge_arrival(Path(place), settings, source).reason
    return reason if reason.endswith(RUN_REFUSED) else ""


@contextmanager
def taken_back(own: OwnFolder) -> Iterator[list[Path]]:
    """Files that are made within a block: where it fails, what no row names goes again, and folders left empty."""
    made: list[Path] = []
    is_done = False
    try:
        yield made
        is_done = True
    finally:
        if not is_done:
            for file in made:
                take_back(own.folder, own.engine, file)
                with suppress(OSError):
                    file.parent.rmdir()


def part(connection: Connection, own: OwnFolder, parting: Parting, made: list[Path]) -> Parted:
    """Make an arrival of each part of one that was just released, and join that one; ``made`` gets their files.

    What is left of earlier arrivals, and is in no run, is settled again.

    Raises:
        BadConfig: the files can't be put there.
        FolderAway: the node's folder is not there.
    """
    parts = parting.parts
    if parting.whole is None or not parts:
        return Parted()
    whole = connection.execute(select(ARRIVAL).where(ARRIVAL.c.id == parting.whole.id)).one()
    try:
        ids = [_begin_part(connection, own, whole, one, made) for one in parts]
        flush_folder(own.folder / INCOMING)
        own.check()
    except OSError as error:
        raise unwritable(error, own.folder / INCOMING) from error
    words = f"its instances are of several patients, each one's by itself: {_listed(ids)}."
    joined: dict[str, object] = {"state": ArrivalState.QUEUED, "reason": words}
    if whole.patients is None:
        joined["patients"] = patients_kept(one.patient for one in parts)
    connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == whole.id).values(**joined))
    if parting.left:
        words = parting.left_words or "some is of nobody, or another's"
        _LOG.warning("arrival %d: of what came before under its Series UID, %s", whole.id, words)
        settle_anew(connection, own.folder, parting.whole, parting.left)
    run = sum(not one.reason for one in parts)
    return Parted(run=tuple(ids[:run]), waiting=tuple(ids[run:]))


def _begin_part(connection: Connection, own: OwnFolder, whole: Row[Any], one: PartOfArrival, made: list[Path]) -> int:
    rows = connection.execute(select(INSTANCE).where(INSTANCE.c.arrival_id == whole.id)).all()
    mine = [row for row in rows if Path(row.path).name in one.names]
    files = [own.folder / row.path for row in mine]
    state = ArrivalState.QUARANTINED if one.reason else ArrivalState.COMPLETE
    values = {name: value for name, value in whole._mapping.items() if name != "id"}
    values |= {"state": state, "reason": one.reason, "expected": None, "patients": one.patient}
    values |= _said_in(files, mine[0].source)
    added = insert(ARRIVAL).returning(ARRIVAL.c.id).execution_options(**EVERY_PROJECT)  # in the project of the whole
    new = int(connection.execute(added, values).scalar_one())
    folder = empty_folder(own, Path(INCOMING, str(new)))
    beside = [own.folder / INCOMING / str(whole.id) / name for name in one.beside]
    for file in (*files, *beside):
        made.append(folder / file.name)
        with suppress(FileNotFoundError):  # what the node has lost is named by its run
            link_or_copy(file, folder / file.name)
    for row, file in zip(mine, files, strict=True):
        path = Path(INCOMING, str(new), file.name).as_posix()
        moved = update(INSTANCE).where(INSTANCE.c.id == row.id)
        connection.execute(moved.values(arrival_id=new, path=path))
    flush_folder(folder)
    return new


def _said_in(files: Sequence[Path], source: str) -> dict[str, object]:
    """What the row of an arrival has of its files: of the first, and whose they are where all say the same."""
    said, whose = [], set()
    for file in files:
        with suppress(BadSeries, OSError):
            if opened := open_file(file, ASKED):
                said.append({keyword: opened.text(keyword) for keyword in ASKED})
                whose.add(scan_of(said[-1]).whose(source))
    if not said:
        return {"whose_sha256": ""}
    return {
        "study_uid": said[0]["StudyInstanceUID"],
        "whose_sha256": whose.pop() if len(whose) == 1 else "",
        "studied": scan_of(said[0]).studied,
        "modality": said[0]["Modality"][:LONGEST_CODE],
        "study_description": one_line(said[0]["StudyDescription"]),
        "series_description": one_line(said[0]["SeriesDescription"]),
    }
