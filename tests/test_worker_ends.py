"""A worker that is to empty the queue and is asked to end before has not done so: its exit code says it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from carina.cli.worker import ENDED_EARLY, worker
from carina.jobs.worker import Worker

ENDS: dict[str, tuple[list[str], signal.Signals | None, int]] = {
    "the time limit": (["--until-empty"], signal.SIGTERM, 143),
    "Ctrl-C": (["--until-empty"], signal.SIGINT, 130),
    "the queue is empty": (["--until-empty"], None, 0),
    "a worker that waits for jobs is stopped": ([], signal.SIGTERM, 0),
}


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("how", ENDS)
def test_the_exit_code_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    options, number, code = ENDS[how]

    def go(self: Worker, *, until_empty: bool) -> None:
        if number is not None:
            signal.raise_signal(number)
        assert self.stopping.is_set() is (number is not None)

    monkeypatch.setattr(Worker, "go", go)
    monkeypatch.setattr("carina.service.logs.log_to", lambda: None)
    (tmp_path / "carina.toml").write_text(f'[node]\nfolder = "{tmp_path}/node"\n')
    done = CliRunner().invoke(worker, [*options, "--config", str(tmp_path / "carina.toml")])
    assert done.exit_code == code
    assert caplog.messages.count(ENDED_EARLY) == bool(code)
