"""Numbers and names on the command line: what can't be is wrong usage, on either database, and no fault of Carina's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from click.types import FloatParamType, IntParamType

from called import called
from carina.cli.main import carina
from carina.cli.numbers import LARGEST, NodeNumber
from carina.cli.worker import LONGEST_WORKER_NAME, worker
from carina.config import NodeSettings, Settings
from carina.jobs.places import open_node

USAGE, BAD_CONFIG = 2, 4
TOO_LARGE = ["99999999999999999999", f"{2**63}", f"{2**63 - 1}", f"{LARGEST + 1}", "9" * 5000]
NO_NUMBERS = [*TOO_LARGE, "0", "-1", "1.5", "x", ""]

JUDGED_WITH_THE_SETTINGS = {(kind, name) for kind in ("covid", "lesion", "lung") for name in ("folds", "fold")}
"""Those of a training, which its settings file may have as well."""


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below one that does something itself, with the words that call it."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    with click.Context(command) as ctx:
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            yield from commands(below, (*words, name))


EVERY = dict(commands(carina))
NUMERIC = [
    pytest.param(words, one, id=f"{' '.join(words)} {one.name}")
    for words, command in EVERY.items()
    for one in command.params
    if isinstance(one.type, IntParamType | FloatParamType | NodeNumber)
    and (words[-1], one.name) not in JUDGED_WITH_THE_SETTINGS
]
OF_NODES = [
    pytest.param(words, one, id=f"{' '.join(words)} {one.name}")
    for words, command in EVERY.items()
    for one in command.params
    if isinstance(one.type, NodeNumber)
]


def refuses(one: click.Parameter, text: str) -> bool:
    with suppress(click.BadParameter):
        one.type.convert(text, one, None)
        return False
    return True


@pytest.mark.parametrize(("words", "one"), NUMERIC)
def test_every_number_has_bounds(words: tuple[str, ...], one: click.Parameter) -> None:
    assert all(refuses(one, text) for text in ["99999999999999999999", "-1", "1e99", "x"]), words


def test_every_id_is_one_of_a_node() -> None:
    ids = {words for words, command in EVERY.items() for one in command.params if one.metavar in ("ID", "ID...")}
    assert ids == {param.values[0] for param in OF_NODES}
    assert len(OF_NODES) == 12


def line(words: tuple[str, ...], one: click.Parameter, text: str) -> list[str]:
    """The command with that number."""
    if isinstance(one, click.Option):
        return [*words, f"{one.opts[0]}={text}"]
    return [*words, "--", text, *(["high"] if words == ("jobs", "priority") else [])]


@pytest.mark.parametrize(("words", "one"), OF_NODES)
def test_what_no_node_numbers_is_wrong_usage(words: tuple[str, ...], one: click.Parameter, tmp_path: Path) -> None:
    for text in NO_NUMBERS:
        done = called(*line(words, one, text), folder=tmp_path)
        assert done.returncode == USAGE and "carina " + " ".join(words) in done.stderr, (text, done.stderr)
        assert "fault of Carina" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_largest_number_is_asked_of_the_database(
    node_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_node(Settings(node=NodeSettings(folder=str(tmp_path / "node"), database=node_database)))
    monkeypatch.setattr("carina.jobs.places.open_existing_node", lambda _: engine)
    text = f'[node]\nfolder = "node"\ndatabase = "{node_database}"\n[sources.a]\nkind = "dicom"\nae_title = "A"\n'
    (tmp_path / "carina.toml").write_text(text)
    try:
        for words, one in (param.values for param in OF_NODES):
            assert isinstance(one, click.Parameter) and isinstance(words, tuple)
            done = called(*line(words, one, f"{LARGEST}"), folder=tmp_path)
            assert done.returncode == 0 or (f" {LARGEST}" in done.stderr and done.returncode == BAD_CONFIG), done.stderr
    finally:
        engine.dispose()  # a server waits for its clients


@pytest.mark.parametrize("name", ["", " ", "x" * (LONGEST_WORKER_NAME + 1), "a\nb"])
def test_a_worker_has_a_name_that_the_table_can_show(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(worker, ["--name", name, "--config", f"{tmp_path / 'no.toml'}"])
    assert done.exit_code == USAGE
    assert f"expected 1 to {LONGEST_WORKER_NAME} characters that can be shown." in done.output
