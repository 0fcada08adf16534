"""A node saved while it receives, killed and brought back: what was accepted is there and goes on."""

from __future__ import annotations

import platform
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage
from sqlalchemy import insert, select, update

from carina.cli.backup import backup
from carina.cli.terminal import SOME_FAILED
from carina.config import FolderDestination, NodeSettings, Settings, load_settings
from carina.database import ARRIVAL, AUDIT, DELIVERY, INSTANCE, JOB, REMOVAL, open_database, read_only
from carina.deliver.ledger import enter
from carina.errors import BadConfig
from carina.jobs.places import open_node
from carina.keeping.backup import save_node
from carina.keeping.lock import files_held
from carina.keeping.restore import restore_node
from carina.keeping.results import lost_of_run
from carina.pipeline.digests import Digests
from carina.pipeline.manifest import OperatorRecord, write_manifest
from carina.sections import SET_ASIDE
from carina.testing.ports import free_port
from delivery_objects import eventually, write_objects
from kept_nodes import TODAY, KeptArrival, KeptJob, a_manifest, dangling, fill
from received_files import small_ct
from saved_nodes import make_earlier
from test_retention import retention

PROGRAM = Path(sys.executable).with_name("carina")
JOBS = (KeptJob(deliveries=("confirmed", "waiting")), KeptJob(state="running"), KeptJob(state="pending"))


def settings_in(folder: Path) -> Settings:
    return Settings(node=NodeSettings(folder=str(folder)))


def filled(made: Settings) -> Settings:
    """A node with jobs and files of two arrivals."""
    engine, folder = open_node(made), Path(made.node.folder)
    fill(engine, folder, [KeptArrival(jobs=JOBS), KeptArrival(series="2", state="arriving")])
    with engine.begin() as connection:
        source = str(folder.resolve() / "incoming/1")
        connection.execute(update(JOB).values(source=source, attempt=4, worker="HOST:1"))
    engine.dispose()
    return made


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return filled(settings_in(tmp_path / "node"))


def test_a_restored_node_goes_on_where_the_backup_was_made(node: Settings, tmp_path: Path) -> None:
    made = save_node(node, tmp_path / "saved", TODAY)
    assert (made.instances, made.runs) == (4, 1)
    there = settings_in(tmp_path / "there")
    assert restore_node(there, tmp_path / "saved", TODAY) == made
    engine = open_database(f"sqlite:///{tmp_path}/there/node.sqlite")
    assert not dangling(engine, tmp_path / "there")
    with read_only(engine) as connection:
        jobs = connection.execute(select(JOB).order_by(JOB.c.id)).all()
        asked = connection.execute(select(DELIVERY.c.state, DELIVERY.c.ask).order_by(DELIVERY.c.id)).all()
        trail = connection.execute(select(AUDIT.c.who, AUDIT.c.action)).all()
    assert [(job.state, job.worker) for job in jobs] == [("stopped", "HOST:1"), ("pending", ""), ("pending", "HOST:1")]
    assert {job.source for job in jobs} == {"incoming/1"}
    assert asked == [("confirmed", 0), ("waiting", 1)]
    assert trail == [("backup", "copied"), ("restore", "changed")]
    assert sorted(one.name for one in (tmp_path / "there" / "runs").iterdir()) == ["1"]  # the others begin again
    assert (tmp_path / "there" / "logs" / "job-1-1.log").is_file()
    engine.dispose()


def rights(folder: Path) -> set[tuple[bool, int]]:
    """The rights of all that is in a folder, itself included: whether it is a folder, and its mode."""
    return {(one.is_dir(), one.stat().st_mode & 0o777) for one in (folder, *folder.rglob("*"))}


def test_backups_and_restored_nodes_are_their_users_alone(node: Settings, tmp_path: Path) -> None:
    """Whatever the rights of the node's files are, and of an empty folder that waits for them."""
    folder = tmp_path / "node"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("node.lock", "receiving.lock", "sender.lock"):
        (folder / name).touch()
    (folder / "alive").mkdir()
    (folder / "alive" / f"{platform.node()}:1").touch()
    for one in (folder, *folder.rglob("*")):
        one.chmod(0o777 if one.is_dir() else 0o664)
    (tmp_path / "saved").mkdir()
    save_node(node, tmp_path / "saved", TODAY)
    assert rights(tmp_path / "saved") == {(True, 0o700), (False, 0o600)}
    assert not [*(tmp_path / "saved").glob("*.lock"), *(tmp_path / "saved").glob("alive")]
    for one in (tmp_path / "saved", *(tmp_path / "saved").rglob("*")):
        one.chmod(0o755 if one.is_dir() else 0o644)
    restore_node(settings_in(tmp_path / "there"), tmp_path / "saved", TODAY)
    assert rights(tmp_path / "there") == {(True, 0o700), (False, 0o600)}


def test_what_an_earlier_version_restored_is_closed_once_the_node_is_opened(node: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.chmod(0o755)
    open_node(node).dispose()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o1777)  # one that all share
    open_node(node).dispose()
    assert folder.stat().st_mode & 0o1777 == 0o1777


def test_what_a_restored_node_may_have_sent_is_asked_for_first(node: Settings, tmp_path: Path) -> None:
    save_node(node, tmp_path / "saved", TODAY)
    folder = tmp_path / "there"
    restore_node(settings_in(folder), tmp_path / "saved", TODAY)
    files = write_objects(folder / "runs" / "2" / "dicom")
    engine = open_database(f"sqlite:///{folder}/node.sqlite")
    with engine.begin() as connection:
        enter(connection, 2, {"share": FolderDestination(path="x")}, files, folder=folder, now=TODAY)
        asked = connection.execute(select(DELIVERY.c.ask).where(DELIVERY.c.job_id == 2)).scalars().all()
    assert list(asked) == [1] * len(files)
    engine.dispose()


def test_files_of_one_content_under_several_names_stay_one(node: Settings, tmp_path: Path) -> None:
    incoming = tmp_path / "node" / "incoming"
    (incoming / "2" / "earlier.dcm").hardlink_to(incoming / "1" / "0.dcm")
    save_node(node, tmp_path / "saved", TODAY)
    saved = tmp_path / "saved" / "incoming"
    assert (saved / "2" / "earlier.dcm").samefile(saved / "1" / "0.dcm")


def test_nothing_is_removed_while_a_node_is_saved(node: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    engine = open_database(f"sqlite:///{folder}/node.sqlite")
    with files_held(folder, wait=True):
        assert retention(engine, folder, runs_days=1, incoming_days=1).round() == 0
    with engine.begin() as connection:
        connection.execute(update(DELIVERY).values(state="confirmed"))
    assert retention(engine, folder, runs_days=1).round() == 1
    engine.dispose()


def test_what_stands_in_the_way_is_said_and_nothing_is_touched(node: Settings, tmp_path: Path) -> None:
    (tmp_path / "full" / "file").parent.mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(BadConfig, match="full: is not empty, and nothing is overwritten"):
        save_node(node, tmp_path / "full", TODAY)
    with pytest.raises(BadConfig, match="lies in the node's own folder"):
        save_node(node, tmp_path / "node" / "saved", TODAY)
    with pytest.raises(BadConfig, match=r"empty: holds no node \(no node.sqlite\)"):
        save_node(settings_in(tmp_path / "empty"), tmp_path / "saved", TODAY)
    other = Settings(node=NodeSettings(folder=str(tmp_path / "node"), database=f"sqlite:///{tmp_path}/other.sqlite"))
    with pytest.raises(BadConfig, match=r"is for SQLite in the node's folder \(.*\) and PostgreSQL"):
        save_node(other, tmp_path / "saved", TODAY)
    save_node(node, tmp_path / "saved", TODAY)
    with pytest.raises(BadConfig, match="of a node on SQLite, and is restored to SQLite in the node's folder: leave"):
        restore_node(other, tmp_path / "saved", TODAY)
    with pytest.raises(BadConfig, match="node: is not empty, and nothing is overwritten"):
        restore_node(node, tmp_path / "saved", TODAY)
    with pytest.raises(BadConfig, match="full: is no backup, or one that was broken off"):
        restore_node(settings_in(tmp_path / "there"), tmp_path / "full", TODAY)
    result = next(one for one in sorted((tmp_path / "saved" / "runs").rglob("*")) if one.is_file())
    content = result.read_bytes()
    for harm in (result.unlink, lambda: result.write_bytes(content[:-1])):
        harm()
        with pytest.raises(BadConfig, match=rf"{result}: is missing, or not as long as it was"):
            restore_node(settings_in(tmp_path / "there"), tmp_path / "saved", TODAY)
    result.write_bytes(content)
    (tmp_path / "saved" / "incoming" / "1" / "0.dcm").unlink()
    with pytest.raises(BadConfig, match=r"incoming/1/0\.dcm: is missing"):
        restore_node(settings_in(tmp_path / "there"), tmp_path / "saved", TODAY)
    assert not (tmp_path / "there").exists()
    assert not list(tmp_path.glob("*.part"))


def alter(file: Path) -> None:
    """Change one byte of a file, and not its length."""
    found = bytearray(file.read_bytes())
    found[-400] ^= 1
    file.write_bytes(found)


def test_an_altered_instance_is_refused_by_name(node: Settings, tmp_path: Path) -> None:
    save_node(node, tmp_path / "saved", TODAY)
    alter(tmp_path / "saved" / "incoming" / "1" / "1.dcm")
    with pytest.raises(BadConfig, match=r"saved/incoming/1/1\.dcm: is not what was saved; expected the SHA-256"):
        restore_node(settings_in(tmp_path / "there"), tmp_path / "saved", TODAY)
    assert not (tmp_path / "there").exists()
    (tmp_path / "saved" / "incoming" / "1" / "1.dcm").write_bytes(bytes(999))
    with pytest.raises(BadConfig, match=r"incoming/1/1\.dcm: is missing, or not as long as it was"):
        restore_node(settings_in(tmp_path / "there"), tmp_path / "saved", TODAY)
    make_earlier(tmp_path / "saved", with_list=False)
    with pytest.raises(BadConfig, match=r"incoming/1/1\.dcm: is not what the node received; expected the SHA-256 of"):
        restore_node(settings_in(tmp_path / "there"), tmp_path / "saved", TODAY)


def test_what_the_node_itself_lost_is_named_and_the_rest_comes_back(
    node: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = Path(node.node.folder) / "incoming"
    first, second, *rest = sorted(received.glob("*/*.dcm"))
    first.unlink()
    alter(second)
    monkeypatch.setattr("carina.cli.backup.node_settings", lambda _: node)
    done = CliRunner().invoke(backup, [str(tmp_path / "saved")])
    assert done.exit_code == SOME_FAILED
    assert f"{received.parent}: incoming/1/0.dcm and 1 more: missing or not what came" in done.stderr
    said = restore_node(settings_in(tmp_path / "there"), tmp_path / "saved", TODAY)
    assert said.lost == ("incoming/1/0.dcm", second.relative_to(received.parent).as_posix())
    there = sorted((tmp_path / "there" / "incoming").glob("*/*.dcm"))
    assert [one.read_bytes() for one in there] == [one.read_bytes() for one in (second, *rest)]


def lose_object(folder: Path) -> None:
    (folder / "runs/1/dicom/1.dcm").unlink()


def alter_object(folder: Path) -> None:
    alter(folder / "runs/1/dicom/1.dcm")


def lose_run(folder: Path) -> None:
    shutil.rmtree(folder / "runs/1")


def damage_manifest(folder: Path) -> None:
    (folder / "runs/1/manifest.json").write_bytes(b"\0")


def lose_manifest(folder: Path) -> None:
    (folder / "runs/1/manifest.json").unlink()


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lose_object, ("runs/1/dicom/1.dcm",)),
        (alter_object, ("runs/1/dicom/1.dcm",)),
        (lose_run, ("runs/1", "runs/1/dicom/1.dcm")),
        (damage_manifest, ("runs/1/manifest.json",)),
        (lose_manifest, ("runs/1/manifest.json",)),
    ],
)
def test_a_result_that_the_node_itself_lost_is_named_and_the_rest_comes_back(
    node: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path], None],
    named: tuple[str, ...],
) -> None:
    harm(Path(node.node.folder))
    monkeypatch.setattr("carina.cli.backup.node_settings", lambda _: node)
    done = CliRunner().invoke(backup, [str(tmp_path / "saved")])
    assert done.exit_code == SOME_FAILED
    more = " and 1 more" if len(named) > 1 else ""
    assert f"{node.node.folder}: {named[0]}{more}: missing or not what its run, or a reader, wrote" in done.stderr
    said = restore_node(settings_in(tmp_path / "there"), tmp_path / "saved", TODAY)
    assert (said.lost, said.lost_results) == ((), named)


def test_what_nobody_wrote_or_retention_removed_is_no_loss(node: Settings, tmp_path: Path) -> None:
    folder = Path(node.node.folder)
    engine = open_database(f"sqlite:///{folder}/node.sqlite")
    fill(engine, folder, [KeptArrival(series="3", jobs=(KeptJob(ended="faulted"), KeptJob(), KeptJob()))])
    for number in (4, 5, 6):
        shutil.rmtree(folder / f"runs/{number}")  # of one that faulted before it stored anything,
    (folder / SET_ASIDE / "run-5").mkdir(parents=True)  # set aside,
    with engine.begin() as connection:  # and removed
        row = {"kind": "run", "subject_id": 6, "why": "old", "begun_at": TODAY, "ended_at": TODAY}
        connection.execute(insert(REMOVAL), row)
    engine.dispose()
    made = save_node(node, tmp_path / "saved", TODAY)
    assert (made.lost, made.lost_results) == ((), ())


def test_a_file_that_several_operators_wrote_is_as_the_last_one_left_it(tmp_path: Path) -> None:
    (tmp_path / "runs/1").mkdir(parents=True)
    scene, said = tmp_path / "runs/1/scene.json", a_manifest()
    said.operators.clear()
    for step in ("first", "second"):
        scene.write_text(step)
        said.operators[step] = OperatorRecord(image="x", files={scene.name: Digests().of(scene)})
    write_manifest(said, tmp_path / "runs/1")
    assert list(lost_of_run(tmp_path, 1)) == []
    scene.write_text("none")
    assert list(lost_of_run(tmp_path, 1)) == ["runs/1/scene.json"]


def test_a_backup_of_a_later_version_is_refused(node: Settings, tmp_path: Path) -> None:
    save_node(node, tmp_path / "saved", TODAY)
    database = sqlite3.connect(tmp_path / "saved" / "node.sqlite")
    database.execute("update alembic_version set version_num = '9999'")
    database.commit()
    database.close()
    make_earlier(tmp_path / "saved", with_list=True)
    with pytest.raises(BadConfig, match="has version 9999, this program knows up to"):
        restore_node(settings_in(tmp_path / "there"), tmp_path / "saved", TODAY)
    assert not (tmp_path / "there").exists()


class Scanner:
    """Sends one slice after another until it can't, and keeps the UIDs that were answered with success."""

    def __init__(self, port: int) -> None:
        self.port, self.accepted = port, list[str]()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _send(self) -> None:
        entity = AE(ae_title="CT1")
        entity.add_requested_context(CTImageStorage)
        association = entity.associate("127.0.0.1", self.port, ae_title="CARINA")
        number = 0
        while association.is_established:
            number += 1
            uid = f"1.2.3.4.{number}"
            slice_ = dcmread(BytesIO(small_ct(uid, f"1.2.3.{number // 10}")))
            try:
                status = association.send_c_store(slice_)
            except RuntimeError:  # the node was killed between two slices
                return
            if "Status" in status and status.Status == 0:
                self.accepted.append(uid)


def config_for(folder: Path, quiet_s: float) -> tuple[Path, int]:
    folder.mkdir()
    port = free_port()
    (folder / "carina.toml").write_text(
        f'[node]\nfolder = "{folder / "node"}"\nfree_gb = 0.0\n[dicom]\nport = {port}\n[web]\nport = {free_port()}\n'
        f'[sources.scanner]\nkind = "dicom"\nae_title = "CARINA"\nquiet_s = {quiet_s}\n'
    )
    return folder / "carina.toml", port


@contextmanager
def served(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([PROGRAM, "serve", "--config", config], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def listens(port: int) -> bool:
    entity = AE()
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", port, ae_title="CARINA")
    if association.is_established:
        association.release()
        return True
    return False


def test_a_node_that_receives_is_saved_killed_and_brought_back(tmp_path: Path) -> None:
    config, port = config_for(tmp_path / "old", quiet_s=3600)
    scanner = Scanner(port)
    with served(config):
        eventually(lambda: listens(port))
        scanner.start()
        eventually(lambda: len(scanner.accepted) >= 20)
        before = set(scanner.accepted)
        done = subprocess.run([PROGRAM, "backup", tmp_path / "saved", "--config", config], capture_output=True)
        assert done.returncode == 0, done.stderr
        assert re.search(rb"saved: saved as of .* UTC; instances: \d+, runs: 0", done.stdout + done.stderr)
        eventually(lambda: len(scanner.accepted) > len(before))
    there, port = config_for(tmp_path / "new", quiet_s=0.1)
    subprocess.run([PROGRAM, "restore", tmp_path / "saved", "--config", there], check=True)
    engine = open_node(load_settings(there, {}))
    with read_only(engine) as connection:
        assert before <= set(connection.execute(select(INSTANCE.c.sop_instance_uid)).scalars())
    assert not dangling(engine, tmp_path / "new" / "node")

    def settled() -> bool:
        with read_only(engine) as connection:
            return "arriving" not in connection.execute(select(ARRIVAL.c.state)).scalars().all()

    assert not settled()
    with served(there):
        eventually(settled)
    engine.dispose()
