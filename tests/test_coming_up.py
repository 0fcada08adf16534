"""A database whose server comes up after the node, or a worker, is waited for; settings that are wrong are not."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from carina.config import NodeSettings, Settings
from carina.database import DatabaseAway, open_database
from carina.errors import BadConfig
from carina.jobs.coming_up import open_node_once_there
from carina.testing.ports import free_port
from databases import new_database, postgresql_server
from served_nodes import settings_of
from test_jobs_away import recovering_postgresql

PROGRAM = Path(sys.executable).with_name("carina")


def server_at(port: int, name: str = "node", user: str = "carina") -> str:
    return f"postgresql+psycopg://{user}@127.0.0.1:{port}/{name}"


def node_settings(folder: Path, database: str) -> Settings:
    return Settings(node=NodeSettings(folder=str(folder / "node"), database=database))


@contextmanager
def answering(port: int, to: str) -> Iterator[None]:
    """A port from now on, behind which a server is."""
    host, _, behind = to.partition("@")[2].partition("/")[0].rpartition(":")
    with socket.create_server(("127.0.0.1", port)) as listener:
        Thread(target=_connect, args=(listener, (host, int(behind))), daemon=True).start()
        yield


def _connect(listener: socket.socket, server: tuple[str, int]) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            peer = socket.create_connection(server)
            for one, other in ((client, peer), (peer, client)):
                Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65_536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


class _TriedAgainError(Exception):
    """What would wait for a database, and did not end."""


def never(_: float) -> None:
    raise _TriedAgainError


def test_a_database_that_comes_up_later_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, postgresql: str
) -> None:
    caplog.set_level(logging.INFO)
    port, pauses = free_port(), list[float]()
    new_database(postgresql, "comes_up")
    with ExitStack() as stack:

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 7:
                stack.enter_context(answering(port, postgresql))

        open_node_once_there(node_settings(tmp_path, server_at(port, "comes_up")), "worker", pause).dispose()
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    away, over = (record.getMessage() for record in caplog.records if record.getMessage().startswith("worker: "))
    assert away.startswith(f"worker: database postgresql+psycopg://127.0.0.1:{port}/comes_up: its server can't be")
    assert over.startswith("worker: works again after ")


def test_a_server_that_takes_nobody_yet_is_one_that_comes_up() -> None:
    with recovering_postgresql() as address, pytest.raises(DatabaseAway, match="the database system is starting up"):
        open_database(address)


@pytest.mark.parametrize(("name", "user"), [("none", "carina"), ("postgres", "nobody")])
def test_what_a_server_refuses_is_told_and_not_tried_again(
    tmp_path: Path, postgresql: str, name: str, user: str
) -> None:
    port = int(postgresql.rstrip("/").rpartition(":")[2])
    with pytest.raises(BadConfig, match="does not exist") as caught:
        open_node_once_there(node_settings(tmp_path, server_at(port, name, user)), "node", never)
    assert not isinstance(caught.value, DatabaseAway)


def test_a_server_that_goes_again_before_its_tables_are_made_is_waited_for_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgresql_server() as server:
        settings = node_settings(tmp_path, f"{server}postgres")
        engine = open_database(settings.node.database)
        engine.dispose()  # of its connections: a server that is asked to end waits for those who are there
        monkeypatch.setattr("carina.jobs.places.connected", lambda _: engine)
    with pytest.raises(_TriedAgainError):  # the server has ended since the engine was made
        open_node_once_there(settings, "node", never)


@pytest.mark.parametrize(
    ("words", "code", "is_silent"),
    [(("serve",), 0, False), (("worker",), 0, True), (("worker", "--until-empty"), 128 + signal.SIGTERM, False)],
)
def test_who_waits_says_so_and_ends_when_asked(
    tmp_path: Path, words: tuple[str, ...], code: int, *, is_silent: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if is_silent else free_port()
        settings_of(tmp_path)
        environment = {**os.environ, "CARINA_NODE_DATABASE": f"{server_at(port)}?connect_timeout=2"}
        command = [str(PROGRAM), *words, "--config", str(tmp_path / "carina.toml")]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            line = next(one for one in process.stderr if "its server can't be reached" in one)
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait() == code, rest
    assert "It resumes by itself when that is over." in line
    assert "Traceback" not in rest


def test_commands_and_the_check_end_at_once(tmp_path: Path) -> None:
    settings_of(tmp_path)
    environment = {**os.environ, "CARINA_NODE_DATABASE": server_at(free_port())}
    for words in (("serve", "--check"), ("jobs", "list")):
        command = [str(PROGRAM), *words, "--config", str(tmp_path / "carina.toml")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 4
        assert "its server can't be reached" in done.stderr
        assert "Traceback" not in done.stderr
