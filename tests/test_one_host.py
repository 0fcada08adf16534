"""A node on SQLite is worked on from one host: another is refused in one line, and what is gone is taken over."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from carina.config import NodeSettings, Settings
from carina.errors import BadConfig
from carina.jobs import one_host
from carina.jobs.one_host import check_one_host, worked_on_here
from carina.jobs.signs import GONE_AFTER_S
from served_nodes import settings_of
from waiting import wait_until

REFUSED = (
    r"/node: host other works on this node \(seen \d+ s ago\), and its database is SQLite, which one machine has "
    r"alone: name a PostgreSQL server \(node\.database\) for more, or end what runs there; what was killed counts as "
    r"gone after 60 s\.$"
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


def sign_of(settings: Settings, host: str, age_s: float = 0.0) -> Path:
    """As a process on another host signs, or signed some time ago."""
    sign = Path(settings.node.folder) / "alive" / f"{host}:7"
    sign.parent.mkdir(parents=True, exist_ok=True)
    sign.touch()
    os.utime(sign, (time.time() - age_s,) * 2)
    return sign


def signs(settings: Settings) -> set[str]:
    return {one.name for one in (Path(settings.node.folder) / "alive").iterdir()}


def test_a_second_host_is_refused_in_one_line(settings: Settings, tmp_path: Path) -> None:
    """Of `carina worker` and every other command `test_other_user` knows."""
    sign_of(settings, "other")
    program = str(Path(sys.executable).with_name("carina"))
    command = [program, "serve", "--config", str(tmp_path / "carina.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, "host other works on this node" in line) == (4, True), line
    assert signs(settings) == {"other:7"}
    assert not (tmp_path / "node/node.sqlite").exists()


def test_another_host_is_refused_and_leaves_no_sign(settings: Settings) -> None:
    sign_of(settings, "other")
    with pytest.raises(BadConfig, match=REFUSED), worked_on_here(settings):
        pass
    assert signs(settings) == {"other:7"}


def test_a_clock_that_was_set_back_makes_nobody_alive(settings: Settings) -> None:
    sign_of(settings, "other", age_s=-2 * GONE_AFTER_S)
    with worked_on_here(settings):
        assert signs(settings) == {f"{platform.node()}:{os.getpid()}"}


def test_who_is_gone_is_taken_over_and_that_is_said(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    sign_of(settings, "other", age_s=2 * GONE_AFTER_S)
    with worked_on_here(settings):
        assert signs(settings) == {f"{platform.node()}:{os.getpid()}"}
    assert "taken over from host other, which was last seen 120 s ago" in caplog.text
    assert not signs(settings)


def test_processes_of_one_host_work_beside_each_other(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    sign_of(settings, platform.node())
    sign_of(settings, f"{platform.node()}x", age_s=2 * GONE_AFTER_S)
    with worked_on_here(settings):
        assert len(signs(settings)) == 2
    assert signs(settings) == {f"{platform.node()}:7"}


def test_of_two_that_begin_at_once_none_overlooks_the_other(settings: Settings) -> None:
    """The second has signed and not looked when the first looks."""
    folder = Path(settings.node.folder)
    second = sign_of(settings, "second")
    with pytest.raises(BadConfig, match="host second works on this node"):
        check_one_host(folder, second.with_name("first:1"))
    check_one_host(folder, second)


def test_a_node_on_a_server_has_any_number_of_hosts(settings: Settings) -> None:
    sign_of(settings, "other")
    server = NodeSettings(folder=settings.node.folder, database="postgresql+psycopg://db/carina")
    with worked_on_here(msgspec.structs.replace(settings, node=server)):
        assert signs(settings) == {"other:7"}


def test_who_stood_still_and_was_taken_over_ends(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    told: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        told.append((pid, number))
        ended.set()

    monkeypatch.setattr(one_host, "SIGN_EVERY_S", 0.01)
    monkeypatch.setattr(os, "kill", kill)
    with worked_on_here(settings):
        sign_of(settings, "other")
        (Path(settings.node.folder) / "alive" / f"{platform.node()}:{os.getpid()}").unlink()
        wait_until(ended.is_set)
    assert told == [(os.getpid(), signal.SIGTERM)]
    assert signs(settings) == {"other:7"}


def test_a_sign_that_was_deleted_is_made_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_host, "SIGN_EVERY_S", 0.01)
    signed = threading.Event()
    check = one_host.check_one_host

    def watched(folder: Path, sign: Path) -> None:
        check(folder, sign)
        if ended_once:
            signed.set()

    ended_once: list[bool] = []
    monkeypatch.setattr(one_host, "check_one_host", watched)
    with worked_on_here(settings):
        ended_once.append(True)
        (Path(settings.node.folder) / "alive" / f"{platform.node()}:{os.getpid()}").unlink()
        wait_until(signed.is_set)
        assert signs(settings) == {f"{platform.node()}:{os.getpid()}"}


class Rounds(threading.Event):
    """Lets a process sign so many times, whatever time it is; ``before`` is done before each."""

    def __init__(self, *before: Callable[[], object]) -> None:
        super().__init__()
        self._before = list(before)

    def wait(self, timeout: float | None = None) -> bool:
        if not self._before:
            return True
        self._before.pop(0)()
        return False


def test_in_another_nodes_folder_nothing_is_signed(settings: Settings, tmp_path: Path) -> None:
    """It lies in the place of ours for a while; in ours a sign that was deleted is made again."""
    folder, other = Path(settings.node.folder), tmp_path / "other"
    for one in (folder, other):
        (one / "alive").mkdir(parents=True)
        (one / "node.id").write_text(f"{one.name}\n")
    sign = folder / "alive" / "here:1"
    sign.touch()
    found: list[bool] = []

    def take_away() -> None:
        folder.rename(tmp_path / "kept")
        other.rename(folder)

    def bring_back() -> None:
        found.append(sign.exists())
        folder.rename(other)
        (tmp_path / "kept").rename(folder)
        sign.unlink()

    one_host._keep_signing(folder, sign, Rounds(lambda: None, take_away, lambda: None, bring_back))
    assert (found, sign.exists(), list((other / "alive").iterdir())) == ([False], True, [])


def test_a_sign_that_fails_is_told_once_and_when_it_is_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sign = sign_of(settings, "here")
    numbers: list[int] = []

    def utime(_: Path) -> None:
        if numbers:
            raise OSError(numbers[0], os.strerror(numbers[0]))

    def fails(number: int) -> Callable[[], object]:
        return lambda: numbers.__setitem__(slice(None), [number] if number else [])

    monkeypatch.setattr(os, "utime", utime)
    rounds = Rounds(*map(fails, (errno.EIO, errno.EIO, errno.EIO, errno.EROFS, errno.EROFS, 0, 0)))
    one_host._keep_signing(sign.parent.parent, sign, rounds)
    assert caplog.messages == [
        f"{sign}: can't be signed (Input/output error)",
        f"{sign}: can't be signed (Read-only file system)",
        f"{sign}: signed again after 0 s.",
    ]
