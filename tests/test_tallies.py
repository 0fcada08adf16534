"""What is counted for everybody: true soon, at once after a change by hand, and counted by one thread at a time."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import event

from carina.service.tallies import Tallies
from served_nodes import add_job, opened


def test_a_tally_is_counted_again_when_it_is_old_or_forgotten(tmp_path: Path) -> None:
    node = opened(tmp_path)
    clock_s = 0.0
    tallies = Tallies(node.engine, lambda: clock_s)
    add_job(node)
    assert tallies.now().jobs["healthy"] == 1
    add_job(node)
    assert tallies.now().jobs["healthy"] == 1
    clock_s = 0.6
    assert tallies.now().jobs["healthy"] == 2
    add_job(node)
    tallies.forget()
    assert tallies.now().jobs["healthy"] == 3


def test_many_who_look_at_once_have_it_counted_once(tmp_path: Path) -> None:
    node = opened(tmp_path)
    add_job(node)
    asked: list[str] = []
    event.listen(node.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    tallies = Tallies(node.engine)
    gate = threading.Barrier(8)

    def look() -> None:
        gate.wait()
        assert tallies.now().jobs["healthy"] == 1

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("FROM job" in one for one in asked) == 1
