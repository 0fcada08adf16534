"""A database that knows series or jobs is opened with its own folder alone: not with an empty, absent or other one.

A disk that isn't mounted leaves an empty folder, or none, where the node's was. Whatever opens the node then changes
nothing, in the database or in what is there, and all goes on once the folder is back.
"""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, delete, inspect, select, text, update

from called import called
from carina.config import Settings, load_settings
from carina.database import ARRIVAL, IDENTITY, IDENTITY_FILE, INSTANCE, JOB, SCHEMA, FolderAway, open_database
from carina.database.upgrade import SCHEMA_VERSION, migrations, schema_version
from carina.errors import BadConfig
from carina.jobs.coming_up import await_folder
from carina.jobs.places import open_existing_node, open_node, open_node_beside
from carina.jobs.queue import NewJob, submit
from carina.keeping.backup import save_node
from carina.receive.files import arriving_file, read_says
from carina.receive.recover import recover
from carina.receive.store import InstanceStore, SentBy
from carina.service.check_database import database_mistakes
from received_files import small_ct
from served_nodes import NOON
from served_nodes import settings_of as written_settings

PROGRAM = Path(sys.executable).with_name("carina")
ORIGIN = SentBy("scanner", "CT1@127.0.0.1")

HOW = r"is not the folder of the node whose database is .*\(no node\.id is there\)\. Is what it lies on mounted\?"


class _WaitedError(Exception):
    """What would wait for a folder did not end."""


def never(_: float) -> None:
    raise _WaitedError


WAYS: dict[str, Callable[[Settings], object]] = {
    "serve and worker": lambda settings: await_folder(settings, "node", never),
    "open_node": open_node,
    "beside": open_node_beside,
    "looking": open_existing_node,
    "backup": lambda settings: save_node(settings, Path(settings.node.folder).parent / "saved", datetime.now(UTC)),
}

COMMANDS = (
    ("jobs", "list"),
    ("arrivals", "list"),
    ("deliveries", "list"),
    ("backup", "saved"),
    ("serve", "--check"),
)


def contents(engine: Engine) -> dict[str, list[Any]]:
    with engine.connect() as connection:
        return {name: list(connection.execute(select(table)).all()) for name, table in SCHEMA.tables.items()}


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def node(tmp_path: Path, empty_database: str) -> Settings:
    """A node whose database lies elsewhere, with two instances that were taken in and a job that waits."""
    address = empty_database.replace("/node.sqlite", "/elsewhere.sqlite")
    written_settings(tmp_path)
    file = tmp_path / "carina.toml"
    file.write_text(file.read_text().replace("[node]\n", f'[node]\ndatabase = "{address}"\n'))
    settings = load_settings(file, {})
    engine = open_node(settings)
    take_in(settings, engine, tmp_path)
    with engine.begin() as connection:
        submit(connection, NewJob(source="incoming/1", pipeline="p", memory_mb=1, cores=1), NOON)
    engine.dispose()
    return settings


def take_in(settings: Settings, engine: Engine, folder: Path, store: InstanceStore | None = None) -> InstanceStore:
    store = store or InstanceStore(settings, engine)
    for uid in ("1.2.3.1", "1.2.3.2"):
        file = folder / f"{uid}.dcm"
        file.write_bytes(small_ct(uid, rows=32, PixelData=b"\x01\x02" * 1024))
        with arriving_file(file, read_says(file)) as arriving:
            store.accept(arriving, ORIGIN)
        file.unlink()
    return store


def put_away(settings: Settings, instead: str) -> Path:
    """Move the node's folder, and put nothing, an empty folder or another node's there; gives where it is now."""
    folder = Path(settings.node.folder)
    real = folder.rename(folder.with_name("real"))
    if instead != "absent":
        folder.mkdir()
    if instead == "another":
        (folder / IDENTITY_FILE).write_text("0" * 32)
        (folder / "incoming" / "1").mkdir(parents=True)
        (folder / "incoming" / "1" / "1.dcm").write_bytes(b"another's")
    return real


State = tuple[dict[str, list[Any]], dict[str, bytes], dict[str, bytes], bool]


def state_of(settings: Settings, engine: Engine, real: Path) -> State:
    folder = Path(settings.node.folder)
    return contents(engine), tree(real), tree(folder), folder.exists()


def check_is_back(settings: Settings, engine: Engine) -> None:
    """See that a node whose folder is back has all that it had accepted."""
    paths = [row.path for row in contents(engine)["instance"]]
    opened = open_node(settings)
    assert recover(settings, opened) == 0
    opened.dispose()
    assert [(row.path, row.flushed) for row in contents(engine)["instance"]] == [(path, 1) for path in paths]
    assert all((Path(settings.node.folder) / path).is_file() for path in paths)


@pytest.mark.parametrize("instead", ["empty", "absent", "another"])
def test_whatever_opens_a_node_without_its_folder_changes_nothing(node: Settings, instead: str) -> None:
    folder, engine = Path(node.node.folder), open_database(node.node.database)
    real = put_away(node, instead)
    before = state_of(node, engine, real)
    for way in WAYS.values():
        with pytest.raises((BadConfig, _WaitedError)) as caught:
            way(node)
        assert "\n" not in str(caught.value)
        assert state_of(node, engine, real) == before
    for words in COMMANDS:
        done = called(*words, folder=folder.parent)
        assert done.returncode == 4, (words, done.stderr)
        assert state_of(node, engine, real) == before, words
    if folder.exists():
        folder.rename(folder.with_name("instead"))
    real.rename(folder)
    check_is_back(node, engine)
    engine.dispose()


@pytest.mark.parametrize("instead", ["empty", "absent"])
def test_commands_that_end_say_what_is_not_there(node: Settings, instead: str) -> None:
    put_away(node, instead)
    for open_it in (open_node, open_node_beside, open_existing_node):
        with pytest.raises(FolderAway, match=HOW):
            open_it(node)
    (mistake,) = database_mistakes(node)
    assert mistake.key == ("node", "folder")
    assert re.search(HOW, mistake.words)


@pytest.mark.parametrize("words", [("serve",), ("worker", "--until-empty")])
def test_who_lasts_waits_for_the_folder_and_goes_on_once_it_is_there(node: Settings, words: tuple[str, ...]) -> None:
    folder = Path(node.node.folder)
    real = put_away(node, "empty")
    command = [str(PROGRAM), *words, "--config", str(folder.parent / "carina.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = line_with(process, "is not the folder of the node")
        assert not list(folder.iterdir())
        folder.rmdir()
        real.rename(folder)
        line_with(process, "works again")
        if words == ("serve",):
            line_with(process, "part started")
            process.send_signal(signal.SIGTERM)
        _, rest = process.communicate()
        assert process.returncode == 0, rest
    assert "It resumes by itself when that is over." in line
    assert len(list(folder.glob("incoming/1/*.dcm"))) == 2


def line_with(process: subprocess.Popen[str], words: str) -> str:
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)


def begin_together(made: list[Settings]) -> list[str]:
    """Open nodes at once; gives the codes of what was refused."""
    together, refused = threading.Barrier(len(made)), list[str]()

    def begin(settings: Settings) -> None:
        together.wait()
        try:
            open_node(settings).dispose()
        except BadConfig as error:
            refused.append(error.code)

    threads = [threading.Thread(target=begin, args=(settings,)) for settings in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refused


def test_of_several_that_start_together_on_a_new_database_one_is_given_it(tmp_path: Path, empty_database: str) -> None:
    address = empty_database.replace("/node.sqlite", "/elsewhere.sqlite")
    made = [load_settings_of(tmp_path, number, address) for number in range(4)]
    assert begin_together(made) == ["node.other-folder"] * 3
    (given,) = tmp_path.glob(f"node*/{IDENTITY_FILE}")
    engine = open_database(address)
    assert [row.uuid for row in contents(engine)["identity"]] == [given.read_text().strip()]
    engine.dispose()
    (mistake,) = database_mistakes(load_settings_of(tmp_path, 9, address))
    assert "is not the folder of the node whose database is" in mistake.words


def load_settings_of(folder: Path, number: int, address: str) -> Settings:
    file = folder / f"{number}.toml"
    file.write_text(f'[node]\nfolder = "{folder / f"node{number}"}"\ndatabase = "{address}"\nfree_gb = 0.0\n')
    return load_settings(file, {})


def test_a_node_of_before_there_were_identities_is_known_by_what_lies_in_its_folder(node: Settings) -> None:
    folder = Path(node.node.folder)
    engine = open_database(node.node.database)
    with engine.begin() as connection:
        connection.execute(delete(IDENTITY))
    (folder / IDENTITY_FILE).unlink()
    real = put_away(node, "empty")
    with pytest.raises(FolderAway, match=HOW):
        open_node(node)
    folder.rmdir()
    real.rename(folder)
    open_node(node).dispose()
    assert (folder / IDENTITY_FILE).read_text().strip() == contents(engine)["identity"][0].uuid
    engine.dispose()


@pytest.mark.parametrize("begun", ["waits", "logged", "uploaded"])
def test_of_a_node_of_before_there_were_identities_jobs_alone_tell(
    tmp_path: Path, empty_database: str, begun: str
) -> None:
    """One that waits, and was asked for by path, has nothing in the folder; what others have there is looked for."""
    settings = load_settings_of(tmp_path, 1, empty_database.replace("/node.sqlite", "/elsewhere.sqlite"))
    engine, folder = open_node(settings), Path(settings.node.folder)
    source = f"/srv/node/uploads/{'0' * 32}/content" if begun == "uploaded" else "/data/study"
    with engine.begin() as connection:
        submit(connection, NewJob(source=source, pipeline="p", memory_mb=1, cores=1), NOON)
        connection.execute(update(JOB).values(attempt=int(begun == "logged")))
        connection.execute(delete(IDENTITY))
    (folder / IDENTITY_FILE).unlink()
    if begun != "waits":
        with pytest.raises(FolderAway, match=HOW):
            open_node(settings)
        place = folder / {"logged": "logs/job-1-1.log", "uploaded": f"uploads/{'0' * 32}/content"}[begun]
        place.parent.mkdir(parents=True)
        place.write_text("")
    open_node(settings).dispose()
    assert (folder / IDENTITY_FILE).read_text().strip() == contents(engine)["identity"][0].uuid
    engine.dispose()


def test_who_only_looks_gives_no_database_a_folder(tmp_path: Path, empty_database: str) -> None:
    wrong = load_settings_of(tmp_path, 1, empty_database.replace("/node.sqlite", "/elsewhere.sqlite"))
    for words in (("jobs", "list"), ("jobs", "table", "made/table.csv"), ("arrivals", "list"), ("deliveries", "list")):
        done = called(*words, "--config", "1.toml", folder=tmp_path)
        assert done.returncode == 4, (words, done.stderr)
        assert "no node is here yet" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"1.toml", "pg"}
    open_node(load_settings_of(tmp_path, 2, wrong.node.database)).dispose()
    with pytest.raises(FolderAway, match=HOW):
        open_existing_node(wrong)


def settle(engine: Engine, *, state: str, flushed: int) -> None:
    with engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(state=state))
        connection.execute(update(INSTANCE).values(flushed=1))
        last = select(INSTANCE.c.id).order_by(INSTANCE.c.id.desc()).limit(1).scalar_subquery()
        connection.execute(update(INSTANCE).where(INSTANCE.c.id == last).values(flushed=flushed))


@pytest.mark.parametrize(("state", "gone"), [("queued", 1), ("quarantined", 1), ("apart", 1), ("arriving", 2)])
def test_what_was_answered_and_is_gone_is_told_and_its_row_stays(
    node: Settings, caplog: pytest.LogCaptureFixture, state: str, gone: int
) -> None:
    engine = open_node(node)
    settle(engine, state=state, flushed=0)
    files = sorted(Path(node.node.folder).glob("incoming/1/*.dcm"))
    for file in files[-gone:]:
        file.unlink()
    with caplog.at_level(logging.WARNING):
        assert recover(node, engine) == 0
    assert len(contents(engine)["instance"]) == 2
    assert f"instance 1.2.3.2 was accepted, and {files[-1].relative_to(node.node.folder)} is damaged or" in caplog.text
    engine.dispose()


def test_what_is_on_the_disk_is_written_down_when_nothing_more_comes(node: Settings, tmp_path: Path) -> None:
    engine = open_node(node)
    with engine.begin() as connection:
        connection.execute(delete(INSTANCE))
    take_in(node, engine, tmp_path).note_flushed()
    assert [row.flushed for row in contents(engine)["instance"]] == [1, 1]
    engine.dispose()


def _put(connection: Connection, table: str, **values: object) -> None:
    """A row of a table of any version, what its columns must have made up."""
    row = dict[str, object]()
    for column in inspect(connection).get_columns(table):
        kind = str(column["type"])
        if column["name"] in values:
            row[column["name"]] = values[column["name"]]
        elif not (column["nullable"] or column["default"] or column["name"] == "id"):
            row[column["name"]] = NOON.isoformat(" ") if "TIME" in kind else "1"
    names = ", ".join(row)
    connection.execute(text(f"insert into {table} ({names}) values ({', '.join(f':{name}' for name in row)})"), row)


@pytest.mark.parametrize("version", [f"{number:04}" for number in range(1, int(SCHEMA_VERSION) + 1)])
@pytest.mark.parametrize("kind", ["an instance", "a run", "an upload"])
def test_a_node_of_any_version_is_not_upgraded_into_an_empty_folder(tmp_path: Path, version: str, kind: str) -> None:
    """Its disk is not mounted: the folder is not given to the database, which stays as it is, version and all."""
    settings = load_settings_of(tmp_path, 1, f"sqlite:///{tmp_path}/elsewhere.sqlite")
    engine, folder = open_database(settings.node.database), Path(settings.node.folder)
    with engine.begin() as connection:
        command.upgrade(migrations(connection), version)
        if kind == "an instance":
            _put(connection, "arrival", id=1, state="queued")
            _put(connection, "instance", arrival_id=1, path="incoming/1/1.2.3.dcm")
        else:
            source = f"/srv/node/uploads/{'0' * 32}/content" if kind == "an upload" else "/data/study"
            _put(connection, "job", source=source, state="stopped", ended="healthy", attempt=1, arrival_id=None)
    folder.mkdir()
    for _ in range(2):
        with pytest.raises(FolderAway, match=HOW) as caught:
            open_node(settings)
        assert "\n" not in str(caught.value) and not list(folder.iterdir())
    with engine.connect() as connection:
        assert schema_version(connection) == version
    engine.dispose()
