"""Notices by mail, to a real SMTP server on loopback: once each, tried again, and without a patient."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from sqlalchemy import insert, select

from carina.config import Settings
from carina.database import JOB, NOTICE
from carina.deliver.notices import Notifier
from carina.deliver.pace import Pace
from carina.sections import MailSettings, NoticeSettings
from carina.service.health import _notices
from carina.service.node import RunningNode
from carina.testing.ports import free_port
from delivery_objects import NOW, new_ledger
from webhooks import Hook


class Box:
    """A mail server that answers with what it is told, then takes everything."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.answers: list[str] = []
        self.refused: dict[str, str] = {}
        self.recipients: list[list[str]] = []
        self.controller = Controller(self, hostname="127.0.0.1", port=free_port())

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, _: Any) -> str:  # noqa: N802
        if address not in self.refused:
            envelope.rcpt_tos.append(address)
        return self.refused.get(address, "250 known")

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.answers:
            return self.answers.pop(0)
        self.got.append(envelope.content)
        self.recipients.append(envelope.rcpt_tos)
        return "250 taken"


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box()
    made.controller.start()
    yield made
    made.controller.stop()


class Drip:
    """A mail server that says hello for ever, a line every twentieth of a second."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            connection, _ = self.listener.accept()
            while not self.stop.wait(0.05):
                connection.sendall(b"220-hello\r\n")


@pytest.fixture
def drip() -> Iterator[Drip]:
    made = Drip()
    yield made
    made.stop.set()
    made.listener.close()


def notifier(port: int, folder: Path, url: str = "", **more: Any) -> Notifier:
    engine = new_ledger(folder)
    row = {"source": "/in/Doe", "pipeline": "default", "folder": "runs/1", "state": "stopped", "ended": "faulted"}
    sized = {"priority": 1, "memory_mb": 1, "cores": 1, "created_at": NOW, "stopped_at": NOW}
    with engine.begin() as connection:
        connection.execute(insert(JOB).values(**row, **sized, error_code="series.tilt", error="Doe"))
    mail = MailSettings(
        host="127.0.0.1",
        port=port,
        security="none",
        sender="carina@example.org",
        to=more.pop("to", ("it@example.org",)),
    )
    settings = NoticeSettings(url=url, secret="x" * 32, mail=mail, **{"timeout_s": 5} | more)
    made = Notifier(
        engine=engine, folder=folder, settings=settings, clock=lambda: NOW, pace=Pace(first_s=5, longest_s=60)
    )
    made.round()
    return made


def state(made: Notifier) -> Any:
    with made.engine.connect() as connection:
        return connection.execute(select(NOTICE)).one()


def test_a_notice_is_mailed_once_without_a_patient(box: Box, tmp_path: Path) -> None:
    made = notifier(box.controller.port, tmp_path)
    made.round()
    made.round()
    assert state(made).state == "sent"
    (content,) = box.got
    message = message_from_bytes(content)
    assert (message["Subject"], message["To"]) == ("Carina: job 1: faulted", "it@example.org")
    assert b"series.tilt" in content
    assert b"Doe" not in content
    made.engine.dispose()


def test_what_the_server_does_not_take_is_mailed_again_later(box: Box, tmp_path: Path) -> None:
    box.answers = ["451 try later"]
    made = notifier(box.controller.port, tmp_path)
    made.round()
    assert (state(made).state, "451" in state(made).error, box.got) == ("waiting", True, [])
    made.clock = lambda: NOW + timedelta(minutes=2)
    made.round()
    assert (state(made).state, len(box.got)) == ("sent", 1)
    made.engine.dispose()


def test_a_webhook_that_is_away_makes_no_second_mail(box: Box, tmp_path: Path) -> None:
    made = notifier(box.controller.port, tmp_path, f"http://127.0.0.1:{free_port()}/")
    for minutes in (0, 2, 5):
        made.clock = lambda minutes=minutes: NOW + timedelta(minutes=minutes)  # type: ignore[misc]
        made.round()
    assert (state(made).state, state(made).attempts, len(box.got)) == ("mailed", 3, 1)
    made.engine.dispose()


def test_a_mail_server_that_is_away_does_not_hold_up_the_webhook(box: Box, hook: Hook, tmp_path: Path) -> None:
    box.answers = ["451 try later", "451 try later"]
    made = notifier(box.controller.port, tmp_path, hook.url)
    states = []
    for minutes in (0, 2, 5, 9):
        made.clock = lambda minutes=minutes: NOW + timedelta(minutes=minutes)  # type: ignore[misc]
        made.round()
        states.append((state(made).state, len(hook.got), len(box.got)))
    assert states == [("posted", 1, 0), ("posted", 1, 0), ("sent", 1, 1), ("sent", 1, 1)]
    made.engine.dispose()


def test_a_mail_server_that_drips_is_cut_in_time_and_the_webhook_told(drip: Drip, hook: Hook, tmp_path: Path) -> None:
    made = notifier(drip.listener.getsockname()[1], tmp_path, hook.url, timeout_s=0.2)
    made.round()
    assert (state(made).state, len(hook.got)) == ("posted", 1)
    assert state(made).error == "mail: the server took longer than 0.4 s over one mail"
    made.engine.dispose()


def test_who_is_refused_for_now_is_tried_again_and_who_for_good_is_told(
    box: Box, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "carina")
    box.refused = {"b@example.org": "451 later", "c@example.org": "550 nobody"}
    made = notifier(box.controller.port, tmp_path, to=tuple(f"{one}@example.org" for one in "abc"))
    made.round()
    row = state(made)
    assert (row.state, row.mail_left, box.recipients) == ("waiting", '["b@example.org"]', [["a@example.org"]])
    later, lost = "b@example.org was refused (451: a local error)", "c@example.org was refused (550: the mailbox is"
    assert row.error.startswith(f"mail: {later}, {lost}")
    assert caplog.messages[0].endswith(
        f"a notice was not taken (mail: {later}). It resumes by itself when that is over."
    )
    assert caplog.messages[1].startswith(f"notices by mail: {lost}")
    assert caplog.messages[1].endswith(": for good, it is not tried again (notices.mail.to).")
    box.refused = {}
    made.clock = lambda: NOW + timedelta(minutes=2)
    made.round()
    made.round()
    assert (state(made).state, box.recipients[1:]) == ("sent", [["b@example.org"]])
    made.engine.dispose()


@pytest.mark.parametrize("is_of_one", [True, False])
def test_what_a_server_says_beside_its_codes_is_kept_nowhere(
    box: Box, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, is_of_one: bool
) -> None:
    caplog.set_level(logging.DEBUG, "carina")
    answer = "554 5.7.1 no mail about Doe^Jane"
    box.refused, box.answers = ({"b@example.org": answer}, []) if is_of_one else ({}, [answer])
    made = notifier(box.controller.port, tmp_path, to=("a@example.org", "b@example.org"))
    made.round()
    assert "554 5.7.1: it takes no mail, or not this one" in state(made).error
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("carina")]
    assert ours and "Doe" not in f"{state(made).error}{ours}"
    made.engine.dispose()


def test_who_is_refused_for_good_stays_in_the_row_and_health_warns(
    box: Box, hook: Hook, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box.refused = {"b@example.org": "550 nobody"}
    hook.codes = [500]
    made = notifier(box.controller.port, tmp_path, hook.url, to=("a@example.org", "b@example.org"))
    made.round()
    made.clock = lambda: NOW + timedelta(minutes=2)
    made.round()
    assert (state(made).state, state(made).error) == (
        "sent",
        "mail: b@example.org was refused (550: the mailbox is not available, or may not be sent to)",
    )
    assert box.recipients == [["a@example.org"]]
    assert len(hook.got) == 2
    of_mail = [line for line in caplog.messages if line.startswith("notices by mail")]
    assert len(of_mail) == 1 and "is not tried again" in of_mail[0] and "resumes" not in of_mail[0]
    (told,) = _notices(RunningNode(settings=Settings(), engine=made.engine, now=made.clock))
    assert told.startswith("notices: 1 notice(s) of the last day did not reach everybody")
    made.engine.dispose()
