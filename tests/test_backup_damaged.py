"""A backup of which a file is gone, cut or altered is refused in one line, and nothing is left of the attempt."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from carina.cli.backup import backup, restore
from carina.cli.terminal import SOME_FAILED
from carina.config import NodeSettings, Settings
from carina.errors import BadConfig
from carina.keeping.backup import save_node
from carina.keeping.copied import COPIED
from carina.keeping.dumps import check_restorable
from carina.keeping.restore import restore_node
from databases import new_database
from kept_nodes import TODAY
from saved_nodes import DAMAGES, OF_DATABASES, make_earlier
from test_backup import filled

REFUSED = {"restore.damaged", "restore.no-backup"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A backup, and the address of an empty database of its kind."""
    folder, first, empty = tmp_path_factory.mktemp("saved"), "", ""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        first, empty = (new_database(server, f"damaged {name}") for name in ("node", "empty"))
    node = filled(Settings(node=NodeSettings(folder=str(folder / "node"), database=first)))
    upload = folder / "node" / "uploads" / "u1" / "content"
    upload.mkdir(parents=True)
    (upload / "1.dcm").write_bytes(b"a file that came\n" * 9)
    save_node(node, folder / "saved", TODAY)
    yield folder / "saved", empty


def refused(saved: Path, database: str) -> str:
    """What is said of a backup that is refused, of which nothing is left."""
    there = saved.with_name("there")
    with pytest.raises(BadConfig, match=rf"^{saved}.*: (is|has|can't) .*(; expected .*: restore|: choose)") as caught:
        restore_node(Settings(node=NodeSettings(folder=str(there), database=database)), saved, TODAY)
    assert caught.value.code in REFUSED and len(caught.value.message.splitlines()) == 1
    assert sorted(one.name for one in saved.parent.iterdir()) == [saved.name]
    if database:
        check_restorable(database)
    return caught.value.message


def files_in(folder: Path) -> list[str]:
    return sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_backup_is_looked_at(saved: tuple[Path, str], tmp_path: Path, damage: str) -> None:
    folder, database = saved
    names = files_in(folder)
    assert {"backup.json", "files.txt", "incoming/1/0.dcm", "runs/1/manifest.json", "uploads/u1/content/1.dcm"} < set(
        names
    ) and ({"node.sqlite"} if not database else {"node.dump", "instances.txt"}) < set(names)
    shutil.copytree(folder, tmp_path / "saved")
    for name in names:
        DAMAGES[damage](tmp_path / "saved" / name)
        words = refused(tmp_path / "saved", database)
        assert name == "backup.json" or f"{tmp_path}/saved/{name}: " in words
        shutil.copy2(folder / name, tmp_path / "saved" / name)


@pytest.mark.parametrize("with_list", [True, False])
@pytest.mark.parametrize("damage", [one for one in DAMAGES if one != "spots"])
def test_what_the_database_names_is_looked_for_in_backups_without_digests(
    saved: tuple[Path, str], tmp_path: Path, damage: str, *, with_list: bool
) -> None:
    folder, database = saved
    shutil.copytree(folder, tmp_path / "saved")
    make_earlier(tmp_path / "saved", with_list=with_list)
    apart = Path(shutil.copytree(tmp_path / "saved", tmp_path.with_name(f"{tmp_path.name}-apart")))
    names = [
        one for one in files_in(tmp_path / "saved") if one.startswith(("backup", "node.s", "node.d", "ins", "inc"))
    ]
    results = [one for one in files_in(tmp_path / "saved") if one.startswith("runs/1/")]
    for name in [*names, *(results if with_list else [])]:
        DAMAGES[damage](tmp_path / "saved" / name)
        refused(tmp_path / "saved", database)
        shutil.copy2(apart / name, tmp_path / "saved" / name)


def test_a_list_that_is_cut_hides_nothing(saved: tuple[Path, str], tmp_path: Path) -> None:
    """Of a backup with digests nor of one without."""
    folder, database = saved
    lists = {"files.txt": "runs/1/dicom/1.dcm", **({"instances.txt": "incoming/1/0.dcm"} if database else {})}
    for number, (listed, named) in enumerate(lists.items()):
        for is_earlier in (False, True):
            copy = tmp_path / f"{number}{is_earlier}" / "saved"
            shutil.copytree(folder, copy)
            if is_earlier:
                make_earlier(copy, with_list=True)
            lines = (copy / listed).read_text().splitlines(keepends=True)
            (copy / listed).write_text("".join(line for line in lines if named not in line))
            (copy / named).unlink()
            refused(copy, database)


def test_backups_of_earlier_versions_are_brought_back(tmp_path: Path) -> None:
    """One without a list of files, of a node that had lost a result, says what it turned out to lack."""
    node = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    (tmp_path / "node/runs/1/dicom/1.dcm").unlink()
    for with_list in (True, False):
        saved, there = tmp_path / f"saved-{with_list}", tmp_path / f"there-{with_list}"
        made = save_node(node, saved, TODAY)
        make_earlier(saved, with_list=with_list)
        said = restore_node(Settings(node=NodeSettings(folder=str(there))), saved, TODAY)
        assert said.lost_results == made.lost_results == ("runs/1/dicom/1.dcm",)
        assert files_in(there / "incoming") == files_in(tmp_path / "node" / "incoming")


def test_the_command_names_what_a_backup_never_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    (tmp_path / "node/incoming/1/0.dcm").unlink()
    save_node(node, tmp_path / "saved", TODAY)
    there = Settings(node=NodeSettings(folder=str(tmp_path / "there")))
    monkeypatch.setattr("carina.cli.backup.node_settings", lambda _: there)
    done = CliRunner().invoke(restore, [str(tmp_path / "saved")])
    assert done.exit_code == 0
    assert "incoming/1/0.dcm: missing or not what came: it was lost before the backup was made" in done.stderr


@pytest.mark.parametrize("damage", OF_DATABASES)
def test_a_damaged_database_is_saved_with_all_files_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """One line says so, and a restore takes it once it is mended, with what it then lacks."""
    node = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    own, came = tmp_path / "node/node.sqlite", files_in(tmp_path / "node/incoming")
    shutil.copy2(own, tmp_path / "mended")
    OF_DATABASES[damage](own)
    monkeypatch.setattr("carina.cli.backup.node_settings", lambda _: node)
    done = CliRunner().invoke(backup, [str(tmp_path / "saved")])
    assert done.exit_code == SOME_FAILED, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{own}: is damaged (") and "restore an earlier backup" in line
    assert files_in(tmp_path / "saved/incoming") == came
    there = Settings(node=NodeSettings(folder=str(tmp_path / "there")))
    with pytest.raises(BadConfig, match=r"was damaged when this backup was made \(.*or mend this one") as caught:
        restore_node(there, tmp_path / "saved", TODAY)
    assert caught.value.code == "restore.damaged" and not (tmp_path / "there").exists()
    shutil.copy2(tmp_path / "mended", tmp_path / "saved/node.sqlite")
    (tmp_path / "saved/incoming/1/0.dcm").write_bytes(b"")
    with pytest.raises(BadConfig, match=r"incoming/1/0.dcm: is missing, or not as long as it was"):
        restore_node(there, tmp_path / "saved", TODAY)
    shutil.copy2(tmp_path / "node/incoming/1/0.dcm", tmp_path / "saved/incoming/1/0.dcm")
    said = restore_node(there, tmp_path / "saved", TODAY)
    assert (said.instances, said.runs, said.lost, said.lost_results) == (4, 1, (), ())
    assert files_in(tmp_path / "there/incoming") == came


def test_of_a_mended_database_a_restore_names_what_was_never_saved(tmp_path: Path) -> None:
    node = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    whole = (tmp_path / "node/node.sqlite").read_bytes()
    (tmp_path / "node/node.sqlite").write_bytes(b"")
    (tmp_path / "node/incoming/1/0.dcm").unlink()
    (tmp_path / "node/runs/1/dicom/1.dcm").unlink()
    save_node(node, tmp_path / "saved", TODAY)
    (tmp_path / "saved/node.sqlite").write_bytes(whole)
    said = restore_node(Settings(node=NodeSettings(folder=str(tmp_path / "there"))), tmp_path / "saved", TODAY)
    assert (said.lost, said.lost_results) == (("incoming/1/0.dcm",), ("runs/1/dicom/1.dcm",))


NAMES = {
    "too long for a file": b"a" * 305,
    "too long for a path": b"a/" * 3000 + b"b",
    "with a zero": b"a%00b",
    "in other letters": b"m\xfcller",
    "half a letter": b"a%c3",
    "empty": b"%",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_list_with_a_name_that_no_file_has_is_refused_in_one_line(
    saved: tuple[Path, str], tmp_path: Path, name: str
) -> None:
    shutil.copytree(saved[0], tmp_path / "saved")
    make_earlier(tmp_path / "saved", with_list=True)
    with (tmp_path / "saved" / COPIED).open("ab") as listed:
        listed.write(b"3 " + NAMES[name] + b"\n")
    assert len(refused(tmp_path / "saved", saved[1])) < 1000


@pytest.mark.parametrize("is_earlier", [True, False])
def test_names_that_are_no_text_are_saved_and_brought_back(tmp_path: Path, *, is_earlier: bool) -> None:
    """Also from a list that holds them as they are, in place of the signs that stand for them."""
    odd = os.fsdecode(b"m\xfcller%20.txt")
    node = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    (tmp_path / "node/runs/1" / odd).write_bytes(b"text")
    saved, there = tmp_path / "saved", tmp_path / "there"
    save_node(node, saved, TODAY)
    (saved / odd).write_bytes(b"beside")
    if is_earlier:
        make_earlier(saved, with_list=True)
        (saved / COPIED).write_bytes((saved / COPIED).read_bytes().replace(b"m%FCller", b"m\xfcller"))
    said = restore_node(Settings(node=NodeSettings(folder=str(there))), saved, TODAY)
    assert (there / "runs/1" / odd).read_bytes() == b"text"
    assert said.left_out == (() if is_earlier else (odd,))


@pytest.mark.parametrize("has_sum", [True, False])
def test_a_backup_that_has_no_sum_of_what_it_says_is_taken_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_sum: bool
) -> None:
    node = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    save_node(node, tmp_path / "saved", TODAY)
    if not has_sum:
        said = json.loads((tmp_path / "saved/backup.json").read_bytes())
        del said["sha256"]
        (tmp_path / "saved/backup.json").write_text(json.dumps(said))
    there = Settings(node=NodeSettings(folder=str(tmp_path / "there")))
    monkeypatch.setattr("carina.cli.backup.node_settings", lambda _: there)
    done = CliRunner().invoke(restore, [str(tmp_path / "saved")])
    assert done.exit_code == 0
    assert ("saved/backup.json: has no SHA-256 of itself, like those of earlier versions" in done.stderr) != has_sum


def test_a_disk_that_is_full_while_the_database_is_brought_up_to_date_is_told_as_for_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_node(filled(Settings(node=NodeSettings(folder=str(tmp_path / "node")))), tmp_path / "saved", TODAY)

    def note(*_: object) -> None:
        with create_engine("sqlite://").begin() as connection:
            connection.execute(text("PRAGMA max_page_count = 1"))
            connection.execute(text("CREATE TABLE full (id INTEGER)"))

    monkeypatch.setattr("carina.keeping.restore._note", note)
    with pytest.raises(BadConfig, match=rf"^{tmp_path / 'there'}: no space left: make room") as caught:
        restore_node(Settings(node=NodeSettings(folder=str(tmp_path / "there"))), tmp_path / "saved", TODAY)
    assert caught.value.code == "output.disk-full" and not [*tmp_path.glob("there*")]
