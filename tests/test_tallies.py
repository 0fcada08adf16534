"""What is counted for everybody: true soon, at once after a change by hand, and counted by one thread at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from carina.service.app import PAGES_AT_ONCE, web_app
from carina.service.pages import rendering
from carina.service.pages import worklist as pages
from carina.service.pages.rendering import TEMPLATES
from carina.service.tallies import Tallies
from served_nodes import add_job, opened, serving
from waiting import wait_until


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


def test_a_change_by_hand_is_counted_for_whoever_sees_it(tmp_path: Path) -> None:
    whole = opened(tmp_path)
    one_project = whole.seen_in(frozenset({"default"}))
    for count, changed in enumerate((whole, one_project)):
        assert [one.tallies.now().jobs["healthy"] for one in (whole, one_project)] == [count, count]
        add_job(whole)
        changed.count_anew()
        assert [one.tallies.now().jobs["healthy"] for one in (whole, one_project)] == [count + 1, count + 1]


def test_a_count_that_takes_long_is_made_behind_the_pages(tmp_path: Path) -> None:
    node = opened(tmp_path)
    clock_s, is_behind = 0.0, False
    counting, may_go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        nonlocal clock_s
        clock_s += 1.0
        if is_behind and threading.current_thread().name == "tally":
            counting.set()
            wait_until(may_go_on.is_set)

    tallies = Tallies(node.engine, lambda: clock_s)
    event.listen(node.engine, "before_cursor_execute", slow)
    assert tallies.now().jobs["healthy"] == 0
    good_until_s = 21 * clock_s  # counting took all of the time so far, and is good for twenty times that
    add_job(node)
    clock_s, is_behind = good_until_s + 1, True
    assert tallies.now().jobs["healthy"] == 0  # nobody waits: the count is under way
    wait_until(counting.is_set)
    assert tallies.now().jobs["healthy"] == 0
    may_go_on.set()
    _let_it_end()
    assert tallies.now().jobs["healthy"] == 1


def _let_it_end() -> None:
    for thread in [one for one in threading.enumerate() if one.name == "tally"]:
        thread.join(30)


def test_after_a_failed_count_behind_the_pages_the_next_who_asks_tries_again(tmp_path: Path) -> None:
    node = opened(tmp_path)
    add_job(node)
    times_s = iter([0.0, 1.0, 1.0])
    tallies = Tallies(node.engine, lambda: next(times_s, 22.0))
    tallies.now()
    failed = threading.Event()

    def away(*_: object) -> None:
        failed.set()
        raise OperationalError("select", {}, OSError("away"))

    event.listen(node.engine, "before_cursor_execute", away)
    assert tallies.now().jobs["healthy"] == 1
    wait_until(failed.is_set)
    _let_it_end()
    event.remove(node.engine, "before_cursor_execute", away)
    tallies.forget()
    add_job(node)
    assert tallies.now().jobs["healthy"] == 2


def test_nobody_is_shown_a_count_of_long_ago(tmp_path: Path) -> None:
    node = opened(tmp_path)
    clock_s = 0.0

    def slow(*_: object) -> None:
        nonlocal clock_s
        clock_s += 0.03

    tallies = Tallies(node.engine, lambda: clock_s)
    event.listen(node.engine, "before_cursor_execute", slow)
    for there in range(3):  # a monitor that asks once an hour
        assert tallies.now().jobs["healthy"] == there
        add_job(node)
        clock_s += 3600


def test_a_change_by_hand_is_counted_however_often_counting_fails(tmp_path: Path) -> None:
    node = opened(tmp_path)
    tallies = Tallies(node.engine, lambda: 0.0)
    tallies.now()

    def away(*_: object) -> None:
        raise OperationalError("select", {}, OSError("away"))

    add_job(node)
    tallies.forget()
    event.listen(node.engine, "before_cursor_execute", away)
    for _ in range(2):
        with pytest.raises(OperationalError, match="away"):
            tallies.now()
    event.remove(node.engine, "before_cursor_execute", away)
    assert tallies.now().jobs["healthy"] == 1


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


def test_templates_are_compiled_before_anybody_asks(tmp_path: Path) -> None:
    fresh = TEMPLATES.overlay(cache_size=400)
    with patch.object(rendering, "TEMPLATES", fresh):
        web_app(opened(tmp_path))
    assert fresh.cache is not None
    assert {name for _, name in fresh.cache} == set(fresh.list_templates(extensions=["html"]))


def test_worklists_are_made_a_few_at_once(tmp_path: Path) -> None:
    node = opened(tmp_path)
    at_work, most, lock = 0, 0, threading.Lock()
    worklist = pages.worklist

    def slow(*given: Any) -> Any:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.05)
        with lock:
            at_work -= 1
        return worklist(*given)

    with patch.object(pages, "worklist", slow), serving(node) as url, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: httpx.get(f"{url}/?before={number}").status_code, range(1, 9)))
    assert answers == [200] * 8
    assert most == PAGES_AT_ONCE
