"""Notices by webhook: one for each job that faulted or found much, signed, tried again, and without a patient."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from carina.database import JOB, NOTICE
from carina.deliver.notices import Notifier, sign
from carina.deliver.pace import Pace
from carina.sections import NoticeSettings
from delivery_objects import NOW, new_ledger
from webhooks import Hook

SECRET = "x" * 32
PACE = Pace(first_s=5, longest_s=60)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = new_ledger(tmp_path)
    yield made
    made.dispose()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def notifier(engine: Engine, folder: Path, clock: Clock, url: str, **more: Any) -> Notifier:
    settings = NoticeSettings(url=url, secret=SECRET, timeout_s=60, **more)
    return Notifier(engine=engine, folder=folder, settings=settings, clock=clock, pace=PACE)


def add(engine: Engine, folder: Path, number: int, *, stopped: datetime = NOW, **values: Any) -> None:
    """A job that ended; with findings of 30 % lesion and a probability of 0.9 where it is healthy."""
    row = {"source": "/data/DOE^JANE", "pipeline": "default", "folder": f"runs/{number}", "state": "stopped"}
    row |= {"series_uid": "1.2.840.99", "error": "runs/DOE^JANE: broken", "ended": "faulted", **values}
    with engine.begin() as connection:
        connection.execute(
            insert(JOB).values(**row, id=number, priority=1, memory_mb=1, cores=1, created_at=NOW, stopped_at=stopped)
        )
    run = folder / "runs" / str(number)
    run.mkdir(parents=True)
    found = {
        "uid": "1.2.840.99",
        "regions": [{"region": "lungs", "ratio_percent": 30.0}, {"region": "left lung", "ratio_percent": 80.0}],
        "probabilities": {"non-COVID-19": 0.1, "COVID-19": 0.9},
    }
    (run / "findings.json").write_text(json.dumps(found))


def test_a_faulted_job_is_told_once_with_a_signature_and_without_a_patient(
    engine: Engine, tmp_path: Path, hook: Hook
) -> None:
    add(engine, tmp_path, 1, error_code="series.gap", pipeline="/srv/DOE/fast.yaml")
    add(engine, tmp_path, 2, ended="canceled")
    clock = Clock()
    notices = notifier(engine, tmp_path, clock, hook.url)
    for _ in range(4):
        notices.round()
    ((headers, body),) = hook.got
    told = json.loads(body)
    assert {key: told[key] for key in ("kind", "job", "pipeline", "error_code", "at")} == {
        "kind": "faulted",
        "job": 1,
        "pipeline": "fast.yaml",
        "error_code": "series.gap",
        "at": "2026-03-01T12:00:00Z",
    }
    assert told["notice"].startswith("For research use only")
    assert headers["X-Carina-Signature"] == sign(SECRET, headers["X-Carina-Timestamp"], body)
    assert headers["X-Carina-Notice"] == told["id"]
    assert not any(word in body + str(headers).encode() for word in (b"DOE", b"JANE", b"1.2.840.99", SECRET.encode()))


def test_the_signature_is_what_other_programs_compute() -> None:
    """As ``printf '1.x' | openssl dgst -sha256 -hmac key`` says."""
    assert sign("key", "1", b"x") == "sha256=fc4913c41a7bf793267e2a384f3261c9436ec2cd097bd745e7b0d99113f510ec"


@pytest.mark.parametrize(
    ("thresholds", "over"),
    [
        ({}, None),
        ({"lesion_percent": 30.0}, {"lesion_percent": 30.0}),
        ({"lesion_percent": 30.1}, None),
        ({"covid_probability": 0.5}, {"covid_probability": 0.9}),
        ({"lesion_percent": 1.0, "covid_probability": 0.5}, {"lesion_percent": 30.0, "covid_probability": 0.9}),
    ],
)
def test_findings_over_a_threshold_are_told(
    engine: Engine, tmp_path: Path, hook: Hook, thresholds: dict[str, float], over: dict[str, float] | None
) -> None:
    add(engine, tmp_path, 1, ended="healthy")
    notices = notifier(engine, tmp_path, Clock(), hook.url, **thresholds)
    for _ in range(3):
        notices.round()
    assert [one["over"] for one in hook.bodies()] == ([over] if over else [])


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"regions": 3}', b'{"regions": [{"region": "lungs"}]}', None])
def test_a_run_without_findings_is_no_notice(engine: Engine, tmp_path: Path, hook: Hook, content: bytes | None) -> None:
    add(engine, tmp_path, 1, ended="healthy")
    file = tmp_path / "runs" / "1" / "findings.json"
    file.unlink() if content is None else file.write_bytes(content)
    notices = notifier(engine, tmp_path, Clock(), hook.url, lesion_percent=1.0, covid_probability=0.1)
    assert notices.round() and not notices.round() and hook.got == []


def test_a_notice_that_is_not_taken_is_told_again_later_the_same(
    engine: Engine, tmp_path: Path, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "carina")
    add(engine, tmp_path, 1)
    hook.codes = [500, 302]
    clock = Clock()
    notices = notifier(engine, tmp_path, clock, hook.url)
    notices.round()
    notices.round()
    assert len(hook.got) == 1 and not notices.round()
    clock.now += timedelta(seconds=5)
    assert notices.round() and not notices.round()
    clock.now += timedelta(seconds=10)
    assert notices.round() and not notices.round()
    assert len({body for _, body in hook.got}) == 1 and len(hook.got) == 3
    with engine.connect() as connection:
        (row,) = connection.execute(select(NOTICE)).all()
    assert (row.state, row.attempts, row.status, row.error) == ("sent", 3, 204, "")
    assert [line.partition(" (")[0].partition(" after")[0] for line in caplog.messages] == [
        "notices by webhook: a notice was not taken",
        "notices by webhook: a notice was not taken",
        "notices by webhook: works again",
    ]


def test_a_hook_that_is_away_is_waited_for(engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(engine, tmp_path, 1)
    clock = Clock()
    notices = notifier(engine, tmp_path, clock, "http://127.0.0.1:1/hook")
    for _ in range(3):
        notices.round()
    (line,) = caplog.messages
    assert line.startswith("notices by webhook: a notice was not taken (Connection refused). It resumes")
    with engine.connect() as connection:
        (row,) = connection.execute(select(NOTICE)).all()
    assert (row.state, row.attempts, row.status) == ("waiting", 1, None) and "refused" in row.error


def test_jobs_of_the_past_and_those_not_asked_for_stay_silent(engine: Engine, tmp_path: Path, hook: Hook) -> None:
    add(engine, tmp_path, 1, stopped=NOW - timedelta(days=2))
    assert not notifier(engine, tmp_path, Clock(), hook.url).round()
    add(engine, tmp_path, 2)
    notices = notifier(engine, tmp_path, Clock(), hook.url, faulted=False)
    for _ in range(3):
        notices.round()
    assert hook.got == []


def test_each_ending_of_a_job_is_told_once(engine: Engine, tmp_path: Path, hook: Hook) -> None:
    """It faults, is run again and faults, is run again and finds much."""
    add(engine, tmp_path, 1, attempt=1)
    notices = notifier(engine, tmp_path, Clock(), hook.url, lesion_percent=1.0)
    for attempt, ended in enumerate(("faulted", "faulted", "healthy"), 1):
        again = update(JOB).values(attempt=attempt, ended=ended, stopped_at=NOW)
        with engine.begin() as connection:
            connection.execute(again.values(state="running", ended=""))
        assert not notices.round()
        with engine.begin() as connection:
            connection.execute(again.values(state="stopped"))
        for _ in range(3):
            notices.round()
    assert [one["kind"] for one in hook.bodies()] == ["faulted", "faulted", "findings"]
    assert len({one["id"] for one in hook.bodies()}) == 3
