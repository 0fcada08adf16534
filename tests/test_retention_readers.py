"""Retention keeps what readers made and no destination has, by age and for room, until it is given up."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from sqlalchemy import Engine, insert, select, update

from carina.api.result import Run
from carina.config import FolderDestination, ObjectKind, RetentionSettings
from carina.corrections.decisions import decide
from carina.corrections.finish import Draft, finish, finished_of
from carina.corrections.masks import MaskName, network_mask, strokes_file
from carina.corrections.painting import Author, Painting
from carina.corrections.standing import Decision
from carina.database import AUDIT, DELIVERY, JOB, SCHEMA, open_database
from carina.dicom.find import choose_source, find_series
from carina.jobs.kept import removals_of
from carina.keeping.retention import Retention
from kept_nodes import TODAY, KeptArrival, KeptJob, fill, folders
from viewer_runs import posed, through_dicom, write_run

LESION, LUNG = MaskName.LESION, MaskName.LUNG
MADE = TODAY - timedelta(days=40)
MEANS = {
    "age": {"runs_days": 5.0, "incoming_days": 5.0},
    "use": {"runs_gb": 1e-9, "incoming_gb": 1e-9},
    "room": {"free_gb": 1.0},
}


@dataclass(kw_only=True)
class Reader:
    """Somebody at the masks of a run, always at the same hour."""

    run: Run
    series: Path
    at: datetime = MADE

    def painting(self, layer: MaskName) -> Painting:
        return Painting(network_mask(self.run, layer), strokes_file(self.run.folder, layer))

    def paint(self, layer: MaskName = LESION) -> None:
        painting = self.painting(layer)
        first = int(np.flatnonzero(painting.marks == 0)[0])
        author = Author(reader="Roe", at=self.at, id=f"stroke {painting.revision}")
        painting.paint([first, 1], 1, "brush", author, painting.revision)

    def undo(self, layer: MaskName = LESION) -> None:
        painting = self.painting(layer)
        painting.undo(Author(reader="Roe", at=self.at, id=f"undo {painting.revision}"), painting.revision)

    def finish(self, layer: MaskName = LESION) -> None:
        labels, revision = self.painting(layer).now()
        source = choose_source(find_series(self.series).found, uid="1.2.3")
        finish(self.run, Draft(layer=layer, labels=labels, revision=revision, reader="Roe", at=self.at), source)

    def decide(self, decision: Decision, layer: MaskName = LESION) -> None:
        decide(self.run, layer, decision, "Roe", self.at)


def nothing(_: Reader) -> None:
    pass


def finished(reader: Reader) -> None:
    reader.paint()
    reader.finish()


def finished_twice(reader: Reader) -> None:
    finished(reader)
    finished(reader)


def rejected(reader: Reader) -> None:
    finished(reader)
    reader.decide(Decision.REJECTED)


def accepted_again(reader: Reader) -> None:
    rejected(reader)
    reader.decide(Decision.ACCEPTED)


def rejected_and_undone(reader: Reader) -> None:
    rejected(reader)
    reader.undo()


def painted_on(reader: Reader) -> None:
    rejected(reader)
    reader.paint()


def painted(reader: Reader) -> None:
    reader.paint(LUNG)


def painted_and_undone(reader: Reader) -> None:
    reader.paint(LUNG)
    reader.undo(LUNG)


def network_accepted(reader: Reader) -> None:
    reader.decide(Decision.ACCEPTED)


def torn(reader: Reader) -> None:
    reader.paint()
    file = strokes_file(reader.run.folder, LESION)
    file.write_bytes(b"odd\n" + file.read_bytes())


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a reader left in the run of a job, where its objects go, and what has the ``sent`` one of its corrections.

    ``sent`` are destinations and states, of the correction ``number``.
    """

    do: Callable[[Reader], None]
    destinations: Sequence[str] = ("pacs", "share")
    sent: dict[str, str] = field(default_factory=dict)
    number: int = 1


BOTH = {"pacs": "confirmed", "share": "confirmed"}
STAYS = {
    "finished and not sent": Left(do=finished),
    "finished, of a job without destinations": Left(do=finished, destinations=()),
    "finished, and nobody takes its kind": Left(do=finished, destinations=("pdfs",)),
    "finished and sent": Left(do=finished, sent=BOTH | {"share": "sent"}),
    "finished, and failed": Left(do=finished, sent=BOTH | {"share": "failed"}),
    "finished, and one destination has it": Left(do=finished, sent={"pacs": "confirmed"}),
    "the one before it is confirmed": Left(do=finished_twice, sent=BOTH),
    "accepted after it was rejected": Left(do=accepted_again),
    "strokes that are not finished": Left(do=painted),
    "strokes on a correction that was rejected": Left(do=painted_on),
    "strokes that can't be read": Left(do=torn),
}
GOES = {
    "nothing": Left(do=nothing),
    "the network's mask is accepted": Left(do=network_accepted),
    "confirmed everywhere": Left(do=finished, sent=BOTH),
    "confirmed where its kind is taken": Left(do=finished, destinations=("pacs", "pdfs"), sent={"pacs": "confirmed"}),
    "the last one is confirmed": Left(do=finished_twice, sent=BOTH, number=2),
    "rejected": Left(do=rejected),
    "rejected and undone": Left(do=rejected_and_undone),
    "strokes that were undone": Left(do=painted_and_undone),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Reader], None]], Path]:
    """Gives the run in which a reader did something."""
    place = tmp_path_factory.mktemp("made")
    phantom = through_dicom(posed("plain", (12, 24, 24)), place / "series")
    phantom = replace(phantom, lesion=replace(phantom.lesion, names={1: "COVID-19 lesion"}))
    untouched = write_run(phantom, place / "run")

    @cache
    def run_after(do: Callable[[Reader], None]) -> Path:
        run = place / do.__name__
        shutil.copytree(untouched, run)
        do(Reader(run=Run(run), series=place / "series"))
        return run

    return run_after


Made = Callable[[Callable[[Reader], None]], Path]


@contextmanager
def node_with(left: Left, made: Made, place: Path, *, more: Sequence[KeptArrival] = ()) -> Iterator[Engine]:
    """A node of a series of long ago, whose run has what a reader left."""
    engine = open_database(f"sqlite:///{place}/node.sqlite")
    SCHEMA.create_all(engine)
    fill(engine, place, [KeptArrival(days=100, jobs=(KeptJob(days=100),)), *more])
    shutil.rmtree(place / "runs/1")
    shutil.copytree(made(left.do), place / "runs/1")
    corrections = {one.number: one for one in finished_of(place / "runs/1", LESION)}
    assert all(one.seg_uid for one in corrections.values())
    with engine.begin() as connection:
        names = json.dumps(list(left.destinations))
        connection.execute(update(JOB).where(JOB.c.id == 1).values(destinations=names))
        for name, state in left.sent.items():
            row = {"job_id": 1, "destination": name, "sop_class_uid": "1", "state": state, "created_at": MADE}
            uid = corrections[left.number].seg_uid
            connection.execute(insert(DELIVERY).values(**row, sop_instance_uid=uid, path="runs/1/manifest.json"))
    yield engine
    engine.dispose()


def go_round(engine: Engine, folder: Path, **keys: float) -> tuple[set[int], set[int]]:
    """The arrivals and runs that are left then."""
    known = {name: FolderDestination(path=str(folder / name)) for name in ("pacs", "share")}
    known["pdfs"] = FolderDestination(path=str(folder / "pdfs"), takes=(ObjectKind.PDF,))
    settings = RetentionSettings(**keys)
    Retention(engine, folder, settings, destinations=known, clock=lambda: TODAY, free=lambda _: 0).round()
    return folders(folder, "incoming"), folders(folder, "runs")


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("what", STAYS)
def test_what_a_reader_made_and_nobody_has_stays(tmp_path: Path, made: Made, what: str, means: str) -> None:
    with node_with(STAYS[what], made, tmp_path) as engine:
        assert go_round(engine, tmp_path, **MEANS[means]) == ({1}, {1})
        assert go_round(engine, tmp_path, **MEANS[means], abandoned_days=50) == ({1}, {1})


@pytest.mark.parametrize("what", STAYS)
def test_a_series_that_would_go_before_its_run_stays_for_what_a_reader_made(
    tmp_path: Path, made: Made, what: str
) -> None:
    with node_with(STAYS[what], made, tmp_path) as engine:
        days = {"incoming_days": 30.0, "runs_days": 365.0}
        assert go_round(engine, tmp_path, **days) == ({1}, {1})
        is_more = bool({"sent", "failed"} & set(STAYS[what].sent.values())) or STAYS[what].do is torn
        left = {1} if is_more else set()  # it is on its way, or nobody can tell since when it waits
        assert go_round(engine, tmp_path, **days, abandoned_days=30) == (left, {1})


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("what", GOES)
def test_what_is_delivered_or_does_not_hold_keeps_no_run(tmp_path: Path, made: Made, what: str, means: str) -> None:
    with node_with(GOES[what], made, tmp_path) as engine:
        assert go_round(engine, tmp_path, **MEANS[means]) == (set(), set())


def finished_and_painted(reader: Reader) -> None:
    finished(reader)
    reader.paint(LUNG)


GIVEN_UP = {
    "not sent": (
        Left(do=finished_and_painted),
        "; with it went correction 1 of the lesion mask (not delivered), unfinished strokes on the lung mask",
    ),
    "delivered": (Left(do=finished, sent=BOTH), "; with it went correction 1 of the lesion mask (delivered)"),
    "rejected": (Left(do=rejected), "; with it went correction 1 of the lesion mask (rejected)"),
    "nothing": (Left(do=network_accepted), ""),
}


@pytest.mark.parametrize("what", GIVEN_UP)
def test_what_goes_with_a_run_is_said_wherever_its_removal_is(
    tmp_path: Path, made: Made, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    left, words = GIVEN_UP[what]
    why = f"older than 5 days{words}"
    with node_with(left, made, tmp_path) as engine, caplog.at_level(logging.INFO, "carina.keeping.retention"):
        assert go_round(engine, tmp_path, runs_days=5, incoming_days=5, abandoned_days=30) == (set(), set())
        with engine.connect() as connection:
            assert removals_of(connection, [1])[1].endswith(f": {why}.")
            subjects = connection.execute(select(AUDIT.c.subject)).scalars().all()
    assert f"run of job 1: {why}" in subjects
    assert [one.__dict__["why"] for one in caplog.records if one.__dict__.get("removed") == "run 1"] == [why]


def test_where_a_reader_was_lately_the_run_stays(tmp_path: Path, made: Made) -> None:
    with node_with(GOES["rejected"], made, tmp_path) as engine:
        reader = Reader(run=Run(tmp_path / "runs/1"), series=tmp_path, at=TODAY - timedelta(minutes=30))
        reader.decide(Decision.REJECTED)
        assert go_round(engine, tmp_path, free_gb=1) == ({1}, {1})


def test_what_a_reader_does_next_counts_at_once(tmp_path: Path, made: Made) -> None:
    with node_with(STAYS["strokes that are not finished"], made, tmp_path) as engine:
        assert go_round(engine, tmp_path, free_gb=1) == ({1}, {1})
        Reader(run=Run(tmp_path / "runs/1"), series=tmp_path).undo(LUNG)
        assert go_round(engine, tmp_path, free_gb=1) == (set(), set())


def test_what_stays_hides_nothing_that_is_younger(tmp_path: Path, made: Made) -> None:
    younger = [KeptArrival(series="2", jobs=(KeptJob(),))]
    with (
        node_with(STAYS["finished and not sent"], made, tmp_path, more=younger) as engine,
        patch("carina.keeping.retention.REMOVED_AT_ONCE", 1),
    ):
        assert go_round(engine, tmp_path, runs_days=5, incoming_days=5) == ({1}, {1})


def test_settings_that_lost_a_destination_make_no_correction_delivered(tmp_path: Path, made: Made) -> None:
    left = replace(GOES["confirmed everywhere"], destinations=("pacs", "share", "lost"))
    with node_with(left, made, tmp_path) as engine:
        assert go_round(engine, tmp_path, runs_days=5) == ({1}, {1})
