"""An arrival of several patients parted once it is released: each patient's instances become an arrival by itself.

Their files get second names in folders of their own, and their rows name these: at no moment is a row without its file.
What they were in is joined, and its folder goes when retention removes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update

from carina.config import AnySource, Settings
from carina.database import ARRIVAL, EVERY_PROJECT, INSTANCE, LONGEST_CODE, OwnFolder
from carina.dicom.part10 import open_file
from carina.dicom.patients import TOLD_APART_BY, are_several, patients_in
from carina.errors import BadSeries, one_line, unwritable
from carina.pipeline.places import link_or_copy
from carina.receive.complete import RUN_REFUSED, judge_arrival
from carina.receive.durability import empty_folder, flush_folder, take_back
from carina.receive.instance import ASKED
from carina.receive.mixed import damaged_reason, is_nobodys, nameless_reason
from carina.receive.named import known_patients, patients_kept
from carina.receive.patient import scan_of
from carina.receive.store import ArrivalState
from carina.sections import INCOMING


@dataclass(frozen=True, kw_only=True)
class PartOfArrival:
    """What an arrival has of one patient, or of nobody: names of files, and why it is to wait; empty: it is run."""

    names: tuple[str, ...]
    patient: str = ""
    reason: str = ""


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


def parts_of_arrival(
    settings: Settings, engine: Engine, own: OwnFolder, arrival_id: int, source: str
) -> tuple[PartOfArrival, ...]:
    """An arrival by patient, what is run as a source's first; empty where it is one patient's, or no such source is.

    Raises:
        FolderAway: the node's folder is not there, so that nobody can see whose they are.
    """
    with engine.connect() as connection:
        paths = connection.execute(select(INSTANCE.c.path).where(INSTANCE.c.arrival_id == arrival_id)).scalars()
        mine = {Path(path).name for path in paths}
        whole = connection.execute(select(ARRIVAL).where(ARRIVAL.c.id == arrival_id)).one_or_none()
    by = settings.sources.get(source or (whole.source if whole else ""))
    if by is None or whole is None or not mine:
        return ()
    own.check()
    folder = own.folder / INCOMING / str(arrival_id)
    patients = _by_patient(folder, mine, known_patients(own.folder, engine, whole))
    parts = [one for patient in patients.items() for one in _judged(*patient, folder, settings, by)]
    return tuple(sorted(parts, key=lambda one: (bool(one.reason), -len(one.names), one.names)))


def _by_patient(folder: Path, mine: Set[str], known: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Names of files by their patients; empty where they are of one. Of what is not there nobody knows whose it is.

    Beside a patient's, files that name none are nobody's where another one is ``known`` under the series' UID.
    """
    patients = {**dict.fromkeys(mine, ""), **{name: one for name, one in patients_in(folder).items() if name in mine}}
    names: dict[str, list[str]] = defaultdict(list)
    for name, patient in sorted(patients.items()):
        names[patient].append(name)
    is_several = are_several(list(patients.values())) or (len(names) > 1 and is_nobodys(patients, known))
    return names if is_several else {}


def _judged(
    patient: str, names: Sequence[str], folder: Path, settings: Settings, source: AnySource
) -> Iterator[PartOfArrival]:
    if patient:
        reason = _why_refused([folder / name for name in names], settings, source)
        yield PartOfArrival(names=tuple(names), patient=patient, reason=reason)
        return
    damaged = tuple(name for name in names if not _is_read(folder / name))
    if damaged:
        yield PartOfArrival(names=damaged, reason=damaged_reason(damaged))
    if nameless := tuple(name for name in names if name not in damaged):
        yield PartOfArrival(names=nameless, reason=nameless_reason(nameless))


def _is_read(file: Path) -> bool:
    """Whether it can be read whose a file is."""
    with suppress(BadSeries):
        return open_file(file, TOLD_APART_BY) is not None
    return False


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


def part(
    connection: Connection, own: OwnFolder, arrival_id: int, parts: Sequence[PartOfArrival], made: list[Path]
) -> Parted:
    """Make an arrival of each part of one that was just released, and join that one; ``made`` gets their files.

    Raises:
        BadConfig: the files can't be put there.
        FolderAway: the node's folder is not there.
    """
    if not parts:
        return Parted()
    whole = connection.execute(select(ARRIVAL).where(ARRIVAL.c.id == arrival_id)).one()
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
    connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == arrival_id).values(**joined))
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
    for row, file in zip(mine, files, strict=True):
        made.append(folder / file.name)
        with suppress(FileNotFoundError):  # what the node has lost is named by its run
            link_or_copy(file, folder / file.name)
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
