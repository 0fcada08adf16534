"""A command of another user or host than the node's: refused in one line before anything is asked or written."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextvars import copy_context
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from carina.cli.health import health
from carina.cli.main import VERBS
from carina.config import NodeSettings, Settings
from carina.jobs import places
from carina.jobs.places import DATABASE, NODE_LOCK, check_beside, open_node, open_node_beside
from carina.jobs.signs import GONE_AFTER_S, SIGNED
from carina.testing.ports import free_port

SOURCES = Path(places.__file__).parents[1]

COMMANDS = {
    "arrivals": ["list", "release 1 --source other"],
    "backup": ["../saved"],
    "deliveries": ["list", "counts", "resend --destination PACS", "rename OLD PACS"],
    "fetch": ["PACS --accession A1", "PACS --accession A1 --list"],
    "jobs": [
        "list",
        "count",
        "show 1",
        "cancel 1",
        "retry 1",
        "priority 1 high",
        "logs 1",
        "wait 1",
        "table t.csv",
    ],
    "mend": [""],
    "submit": [".", ". --each folder"],
    "worker": ["--until-empty"],
}
"""Verbs that open a node's database, with every command of theirs."""

AS_THE_NODE = {"serve"}
"""What another user may begin, and another host not."""

WITHOUT_DATABASE = {
    "a run of its own, with networks and operators of the settings": {"run", "series", "convert", "operator"},
    "bundles of the settings": {"models", "train", "evaluate"},
    "the settings' pipelines": {"pipelines"},
    "this machine's connections to peers, and what listens on it": {"echo", "health"},
    "an empty folder becomes a node": {"restore"},
}
"""Verbs that take a node's settings and open no database, by what they take them for."""

EVERY = [f"{verb} {words}" for verb, each in COMMANDS.items() for words in each]
REFUSED = re.compile(
    r"the node is of user #4711, who may not use what user \S+ writes there\. Give the command as #4711: sudo -u #4711 "
)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a node that has served, and a PACS in its settings that nobody listens for."""
    made = tmp_path / "work"
    made.mkdir()
    monkeypatch.chdir(made)
    (made / "carina.toml").write_text(
        f'[sources.scanner]\nkind = "dicom"\nae_title = "A"\n[destinations.PACS]\nkind = "dicom"\nhost = "127.0.0.1"\n'
        f'port = {free_port()}\nae_title = "P"\n[dicom]\nport = {free_port()}\n[web]\nport = {free_port()}\n'
    )
    open_node(Settings(node=NodeSettings(folder="node"))).dispose()
    (made / "node" / NODE_LOCK).touch()
    yield made


def content(folder: Path) -> dict[str, int]:
    return {str(one.relative_to(folder)): one.stat().st_mtime_ns for one in folder.rglob("*") if one.is_file()}


def call(words: str) -> str:
    verb, *more = words.split()
    command = getattr(import_module(VERBS[verb].module), VERBS[verb].command)
    assert isinstance(command, click.Command)
    done = copy_context().run(CliRunner().invoke, command, more)
    assert done.exit_code
    assert done.exception is not None
    return str(done.exception)


@pytest.mark.parametrize("words", EVERY)
def test_every_verb_of_a_node_refuses_another_user(node: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    before = content(node)
    monkeypatch.setattr(places, "owner_of", lambda _: 4711)
    assert REFUSED.search(call(words))
    assert content(node) == before
    assert not (node.parent / "saved").exists()


@pytest.mark.parametrize("words", [*EVERY, "serve --check"])
def test_every_verb_of_a_node_on_sqlite_refuses_another_host(node: Path, words: str) -> None:
    (node / "node" / SIGNED).mkdir()
    (node / "node" / SIGNED / "other:7").touch()
    before = content(node)
    assert re.search(
        r"/node: host other works on this node \(seen \d+ s ago\), and its database is SQLite", call(words)
    )
    assert content(node) == before
    assert not (node.parent / "saved").exists()


HOSTS: dict[str, tuple[str, float, str]] = {
    "our own": (f"{platform.node()}:7", 0, ""),
    "one that is gone": ("other:7", 2 * GONE_AFTER_S, ""),
    "of a database that has many": ("other:7", 0, "postgresql+psycopg://db/carina"),
}


@pytest.mark.parametrize("which", HOSTS)
def test_other_hosts_are_in_nobodys_way(node: Path, which: str) -> None:
    name, age_s, database = HOSTS[which]
    (node / "node" / SIGNED).mkdir()
    sign = node / "node" / SIGNED / name
    sign.touch()
    os.utime(sign, (time.time() - age_s,) * 2)
    check_beside(Settings(node=NodeSettings(folder="node", database=database)))
    assert [one.name for one in sign.parent.iterdir()] == [name]


def test_health_names_the_host_that_works_on_the_node(node: Path) -> None:
    assert CliRunner().invoke(health).output.endswith("; is `carina serve` running?\n")
    (node / "node" / SIGNED).mkdir()
    (node / "node" / SIGNED / "other:7").touch()
    said = CliRunner().invoke(health).output
    assert re.search(r"does not answer .*; ask there where it runs: .*/node: host other works on this node", said)


def takes_settings(command: click.Command) -> bool:
    of_it = command.commands.values() if isinstance(command, click.Group) else ()
    return any(one.name == "config" for one in command.params) or any(map(takes_settings, of_it))


def test_every_verb_that_takes_settings_is_known_to_open_a_database_or_none() -> None:
    taking = {name for name, verb in VERBS.items() if takes_settings(getattr(import_module(verb.module), verb.command))}
    without = {verb for verbs in WITHOUT_DATABASE.values() for verb in verbs}
    assert taking == {*COMMANDS, *AS_THE_NODE, *without}
    assert not without & {*COMMANDS, *AS_THE_NODE}


def test_every_command_of_a_group_that_opens_a_node_is_among_them() -> None:
    listed = {words.split()[0] for verb in ("arrivals", "deliveries", "jobs") for words in COMMANDS[verb]}
    groups = [getattr(import_module(f"carina.cli.{verb}"), verb) for verb in ("arrivals", "deliveries", "jobs")]
    assert {name for group in groups for name in group.commands} == listed


def test_a_node_s_database_is_opened_in_one_place_which_asks_for_other_hosts() -> None:
    """But those of a backup, and a server's, which is opened to be looked at before there is a node."""
    opens = re.compile(r"\b(?:open_database|create_engine)\((?!url: str)")
    found = {str(file.relative_to(SOURCES)) for file in SOURCES.rglob("*.py") if opens.search(file.read_text())}
    kept = {f"keeping/{name}.py" for name in ("dumped", "dumps", "mended_rows", "own_copy", "restore")}
    others = {"database/engine.py", *kept}
    assert found == {*others, "jobs/places.py", "service/check_database.py"}
    assert (SOURCES / "jobs/places.py").read_text().count("open_database(") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_root_is_refused_at_the_node_of_another_user(node: Path) -> None:
    for name in (DATABASE, NODE_LOCK):
        os.chown(node / "node" / name, 4711, 4711)
    before = content(node)
    command = [sys.executable, "-c", "import sys; from carina.cli.main import main; sys.exit(main())"]
    done = subprocess.run([*command, *EVERY[-1].split()], capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    assert REFUSED.search(done.stderr)
    assert content(node) == before


def test_where_all_files_are_one_users_nobody_is_another(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a share that gives every file to one user: what we write there is the node's, whoever we are."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    open_node_beside(Settings(node=NodeSettings(folder="node"))).dispose()


def test_nothing_is_anybodys_before_there_is_a_node(node: Path) -> None:
    shutil.rmtree(node / "node")
    check_beside(Settings(node=NodeSettings(folder="node")))
    assert not (node / "node").exists()
