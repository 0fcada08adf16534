"""Who is known under a Series Instance UID: the rows of its arrivals say it, also of those whose files are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, case, func, select, update

from carina.database import ARRIVAL, INSTANCE, OwnFolder, read_only
from carina.database.one_series import is_of_series
from carina.dicom.patients import patients_of

PATIENTS_KEPT = 2
"""Patients of an arrival that its row names; whoever asks wants to know whether they are several."""

WHOSE_OF_BOTH = case((ARRIVAL.c.whose_sha256 == bindparam("whose"), bindparam("whose")), else_="")
"""What a row says once an instance has come that is ``whose``: nobody's where they are two patients'."""

_IS_KEPT = ARRIVAL.c.patients.contains(bindparam("patient")) | ARRIVAL.c.patients.contains(" ")
WITH_PATIENT = case((_IS_KEPT, ARRIVAL.c.patients), else_=func.trim(ARRIVAL.c.patients + " " + bindparam("patient")))
"""What a row says once an instance of a ``patient`` has come, too; as before where it is known of nobody in it."""

_NOBODY_KNOWS_WHO = "unknown"


def patients_kept(patients: Iterable[str]) -> str:
    """What the row of an arrival says of whom its instances name: digests, of two patients at most."""
    found: list[str] = []
    for patient in patients:
        if patient and patient not in found:
            found.append(patient)
        if len(found) == PATIENTS_KEPT:
            break
    return " ".join(found)


def known_patients(folder: Path, engine: Engine, arrival: Row[Any]) -> Iterator[str]:
    """Who is named in any arrival of a series in its project, whoever sent it and whatever became of it; some twice.

    Files, below the node's ``folder``, are looked into only for arrivals that came before rows said it. Of such a one
    whose files are gone, its patient counts as the one whom another arrival names that is the same patient's; who
    can't be found so is somebody else.
    """
    same = is_of_series(arrival) & (ARRIVAL.c.project == arrival.project)
    with engine.connect() as connection:
        rows = connection.execute(select(ARRIVAL).where(same).order_by(ARRIVAL.c.id)).all()
    for row in rows:
        yield from (row.patients or "").split()
    older = [row for row in rows if row.patients is None]
    if older:
        of = {row.whose_sha256: row.patients for row in rows if row.whose_sha256 and row.patients}
        yield from _known_of_older(folder, engine, older, of)


def _known_of_older(folder: Path, engine: Engine, older: Sequence[Row[Any]], of: dict[str, str]) -> Iterator[str]:
    """Who is named in arrivals whose rows don't say it; ``of`` tells who it is whose they are."""
    are_gone = []
    for row in older:
        with engine.connect() as connection:
            files = _files(connection, folder, row)
        named = _named_in(files, row.whose_sha256)
        if named and row.whose_sha256:
            of[row.whose_sha256] = named
        elif not named and (row.whose_sha256 or not files):
            are_gone.append(row.whose_sha256)
        yield from named.split()
    yield from (of.get(whose, whose) or _NOBODY_KNOWS_WHO for whose in are_gone)


def note_patients(own: OwnFolder, arrival_id: int) -> None:
    """Write down who is named in an arrival that came before rows said it, while its files are there to be asked."""
    with read_only(own.engine) as connection:
        row = connection.execute(select(ARRIVAL).where(ARRIVAL.c.id == arrival_id)).one_or_none()
        if row is None or row.patients is not None:
            return
        files = _files(connection, own.folder, row)
    found = _named_in(files, row.whose_sha256)
    if found or (files and not row.whose_sha256):
        with own.begin() as connection:
            unsaid = (ARRIVAL.c.id == arrival_id) & ARRIVAL.c.patients.is_(None)
            connection.execute(update(ARRIVAL).where(unsaid).values(patients=found))


def _files(connection: Connection, folder: Path, row: Row[Any]) -> Sequence[Path]:
    """The files of an arrival that are there."""
    wanted = select(INSTANCE.c.path).where(INSTANCE.c.arrival_id == row.id).order_by(INSTANCE.c.id)
    files = (folder / path for path in connection.execute(wanted).scalars())
    return [file for file in files if file.is_file()]


def _named_in(files: Sequence[Path], whose: str) -> str:
    """Who is named in files as ``patients_kept`` says it; where it is said ``whose`` they are, it is one patient."""
    named = filter(None, patients_of(files))
    return patients_kept(islice(named, 1) if whose else named)
