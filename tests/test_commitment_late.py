"""An archive that commits itself late: it may report on any question that it was asked since an object was sent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel
from sqlalchemy import Engine, MetaData, func, insert, select

from carina.config import DicomDestination
from carina.database import DELIVERY, EARLIER_QUESTION, JOB, open_database, upgrade_schema
from carina.database.upgrade import migrations
from carina.deliver import ledger
from carina.deliver.answers import Answer, Outcome
from carina.deliver.channels import channel_to
from carina.deliver.commitment import take_report
from carina.deliver.courier import Courier
from carina.deliver.earlier_questions import MOST_REMEMBERED
from carina.deliver.ledger import Entry
from carina.deliver.pace import Pace
from carina.deliver.proof import Proof
from carina.deliver.reported import ALL_KEPT, PeerReport, ReportRefused, hear_report, read_report
from carina.testing.difficult_pacs import DifficultPacs, difficult_pacs
from delivery_objects import NOW, add_job, new_ledger, write_objects

PACE = Pace(first_s=5, longest_s=60, idle_s=1, report_s=0.0)
TRANSACTIONS = ["2.25.1", "2.25.2", "2.25.3"]
STORED = Answer(outcome=Outcome.STORED, status=0)


class Archive:
    """A PACS that is asked by a node, and reports to it when the test says so; all is over the network."""

    def __init__(self, pacs: DifficultPacs, engine: Engine, folder: Path) -> None:
        self.pacs, self.engine, self.now = pacs, engine, NOW
        self.destination = DicomDestination(
            host="127.0.0.1", port=pacs.port, ae_title=pacs.ae_title, timeout_s=60.0, confirm_s=20.0, commitment=True
        )
        with engine.begin() as connection:
            files = write_objects(folder / "runs" / "1")
            peers = {"PACS": self.destination}
            ledger.enter(connection, add_job(connection), peers, files, folder=folder, now=NOW)
        self.courier = Courier(
            engine=engine,
            folder=folder,
            name="PACS",
            destination=self.destination,
            channel=channel_to("PACS", self.destination),
            pace=PACE,
            clock=lambda: self.now,
        )

    def ask(self, times: int = 1) -> None:
        """Rounds, with the time put forward, until all objects are sent and were asked about so many times more."""
        wanted, latest = len(self.pacs.asked) + times, self.now + timedelta(days=1)
        while len(self.pacs.asked) < wanted:
            if not self.courier.round():
                self.now += timedelta(seconds=5)
            assert self.now < latest

    def report(self, question: int) -> int:
        return self.pacs.report(self.pacs.asked[question])

    def rows(self) -> list[dict[str, object]]:
        with self.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(select(DELIVERY).order_by(DELIVERY.c.id))]

    def all_are(self, state: str) -> bool:
        return {row["state"] for row in self.rows()} == {state}


@pytest.fixture
def engine(node_database: str) -> Iterator[Engine]:
    made = new_ledger(node_database)
    yield made
    made.dispose()


@pytest.fixture
def archive(engine: Engine, tmp_path: Path) -> Iterator[Archive]:
    node = AE(ae_title="CARINA")
    node.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    with difficult_pacs(commits=True) as pacs:
        pacs.commits_later = True
        made = Archive(pacs, engine, tmp_path)

        def hear(event: Event) -> tuple[int, None]:
            return hear_report(event, lambda report: take_report(engine, report, made.now, PACE))

        server = node.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, hear)])
        pacs.reports_to = ("CARINA", server.server_address[1])
        yield made
        server.shutdown()


def remembered(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(EARLIER_QUESTION)).scalar_one()


@pytest.mark.parametrize("question", [0, 2, 3])
def test_an_archive_that_reports_after_three_further_questions_is_believed(archive: Archive, question: int) -> None:
    archive.ask(4)
    assert archive.all_are("sent") and remembered(archive.engine) == 3 * 5
    assert archive.report(question) == 0x0000
    assert archive.all_are("confirmed") and {row["confirmed_by"] for row in archive.rows()} == {"commitment"}
    assert remembered(archive.engine) == 0 and archive.pacs.requests.total() == 5


@pytest.mark.parametrize("way", ["down", "refuses"])
def test_what_reached_nobody_takes_no_questions_place(archive: Archive, way: str) -> None:
    """However long an archive is away, what it was asked before counts when it is there again."""
    archive.ask(2)
    before = remembered(archive.engine)
    if way == "down":
        archive.pacs.down()
    else:
        archive.pacs.refuse(everybody=True)
    for _ in range(MOST_REMEMBERED + 5):
        archive.now += timedelta(hours=1)
        archive.courier.round()
    assert archive.courier.failures > MOST_REMEMBERED and remembered(archive.engine) == before
    if way == "down":
        archive.pacs.up()
    else:
        archive.pacs.refuse(everybody=False)
    archive.now += timedelta(hours=1)
    archive.ask()
    assert archive.report(0) == 0x0000
    assert archive.all_are("confirmed") and archive.pacs.requests.total() == 5


@pytest.mark.parametrize("reason", [0x0112, 0x0110, 0x0119])
def test_what_a_report_on_an_earlier_question_fails_is_left_to_the_newest(
    archive: Archive, reason: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first answer counts all the same: it can't be taken back."""
    caplog.set_level(logging.INFO)
    archive.ask(3)
    before = archive.rows()
    archive.pacs.refusal = reason
    assert archive.report(0) == 0x0000
    assert archive.rows() == before
    assert sum("refuses an object that it was asked about anew since" in one for one in caplog.messages) == 5
    archive.pacs.refusal = None
    assert archive.report(0) == 0x0115
    assert archive.rows() == before
    assert archive.report(1) == 0x0000
    assert archive.all_are("confirmed") and archive.pacs.requests.total() == 5


def test_a_report_on_a_question_from_before_an_object_was_sent_again_confirms_nothing(archive: Archive) -> None:
    archive.ask(3)
    kept, archive.pacs.stored = archive.pacs.stored, {}
    assert archive.report(2) == 0x0000  # it has lost them: they are sent again
    assert archive.all_are("waiting") and remembered(archive.engine) == 0
    archive.pacs.stored = kept
    assert [archive.report(number) for number in (0, 1, 2)] == [0x0115] * 3
    archive.ask(2)
    assert archive.pacs.requests.total() == 10
    assert [archive.report(number) for number in (0, 1, 2)] == [0x0115] * 3
    assert archive.all_are("sent")
    assert archive.report(3) == 0x0000
    assert archive.all_are("confirmed")


def report_on(transaction: str, uid: str, sop_class: str) -> PeerReport:
    information, item = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    information.TransactionUID, information.ReferencedSOPSequence = transaction, [item]
    return read_report(ALL_KEPT, information)


def enter_one(engine: Engine, folder: Path) -> Entry:
    """An object of another job, always the same."""
    with engine.begin() as connection:
        files = write_objects(folder / "runs" / "1")[:1]
        peer = DicomDestination(host="pacs", port=104, ae_title="ARCHIVE", commitment=True)
        job = add_job(connection)
        ledger.enter(connection, job, {"PACS": peer}, files, folder=folder, now=NOW)
        row = connection.execute(select(DELIVERY).where(DELIVERY.c.job_id == job)).one()
        return ledger.entry_of(row)


def ask(engine: Engine, entry: Entry, transactions: list[str], now: datetime = NOW) -> None:
    with engine.begin() as connection:
        for transaction in transactions:
            ledger.mark_asked(connection, entry, transaction, now=now, until=now)


def send(engine: Engine, entry: Entry) -> None:
    with engine.begin() as connection:
        assert ledger.begin_sending(connection, entry, NOW)
        ledger.mark_sent(connection, entry, STORED, now=NOW)


def test_nor_does_one_from_before_another_job_sent_the_object_again(engine: Engine, tmp_path: Path) -> None:
    first = enter_one(engine, tmp_path)
    send(engine, first)
    ask(engine, first, TRANSACTIONS)
    second = enter_one(engine, tmp_path)
    with engine.begin() as connection:
        ledger.mark_absent(connection, [second.id], NOW)
    with engine.connect() as connection:
        row = connection.execute(select(DELIVERY).where(DELIVERY.c.id == second.id)).one()
    send(engine, ledger.entry_of(row))
    for transaction in TRANSACTIONS:
        with pytest.raises(ReportRefused, match="none that waits for a report"):
            take_report(engine, report_on(transaction, first.sop_instance_uid, first.sop_class_uid), NOW)
    assert remembered(engine) == 0


TROUBLE = ledger.Trouble(code="delivery.lost", words="not there")


@pytest.mark.parametrize("end", ["confirmed", "failed", "absent", "gone"])
def test_of_what_became_clear_no_question_is_remembered(engine: Engine, tmp_path: Path, end: str) -> None:
    entry = enter_one(engine, tmp_path)
    ask(engine, entry, TRANSACTIONS)
    assert remembered(engine) == 2
    with engine.begin() as connection:
        match end:
            case "confirmed":
                ledger.mark_confirmed(connection, [entry.id], Proof.QUERY, NOW)
            case "failed":
                ledger.mark_failed(connection, [entry.id], TROUBLE)
            case "absent":
                ledger.mark_absent(connection, [entry.id], NOW, TROUBLE)
            case _:
                connection.execute(DELIVERY.delete())
    assert remembered(engine) == 0


def test_the_latest_questions_are_remembered_and_no_more(engine: Engine, tmp_path: Path) -> None:
    entry = enter_one(engine, tmp_path)
    others = [f"2.25.{number}" for number in range(100, 100 + MOST_REMEMBERED + 2)]  # the last is in the row
    ask(engine, entry, others)
    assert remembered(engine) == MOST_REMEMBERED
    with pytest.raises(ReportRefused, match="none that waits for a report"):
        take_report(engine, report_on(others[0], entry.sop_instance_uid, entry.sop_class_uid), NOW)
    take_report(engine, report_on(others[1], entry.sop_instance_uid, entry.sop_class_uid), NOW)
    with engine.connect() as connection:
        assert connection.execute(select(DELIVERY.c.state)).scalar_one() == "confirmed"


def as_it_was(engine: Engine, folder: Path) -> Engine:
    """A database of the version before, with the jobs and deliveries of another."""
    earlier = open_database(f"sqlite:///{folder}/earlier.sqlite")
    tables = MetaData()
    with earlier.begin() as connection:
        command.upgrade(migrations(connection), "0024")
        tables.reflect(connection)
    with engine.connect() as connection, earlier.begin() as into:
        for table in (JOB, DELIVERY):
            known = tables.tables[table.name]
            for row in connection.execute(select(*(table.c[column.name] for column in known.c))).mappings():
                into.execute(insert(known), dict(row))
    return earlier


@pytest.mark.parametrize("number_asked", [0, 2])
def test_what_was_asked_before_an_upgrade_is_confirmed_after_it(tmp_path: Path, number_asked: int) -> None:
    engine = new_ledger(tmp_path)
    entry = enter_one(engine, tmp_path)
    ask(engine, entry, ["2.25.9"])
    upgraded = as_it_was(engine, tmp_path)
    upgrade_schema(upgraded)
    ask(upgraded, entry, TRANSACTIONS[:number_asked])
    take_report(upgraded, report_on("2.25.9", entry.sop_instance_uid, entry.sop_class_uid), NOW)
    with upgraded.connect() as connection:
        assert connection.execute(select(DELIVERY.c.state)).scalar_one() == "confirmed"
    for one in (engine, upgraded):
        one.dispose()
