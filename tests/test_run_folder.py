"""A run's folder: nothing outside is touched, what is stored is checked, what went wrong is said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.api.result import open_run
from carina.api.study import RunSettings
from carina.api.study import run as run_study
from carina.errors import BadConfig
from carina.pipeline.digests import Digests
from carina.pipeline.folder import LOCK, opened, remove_files
from carina.pipeline.manifest import FORMAT, Provenance, State, read_manifest
from toy_operators import DIAMOND, Bench, definition, run


class Place:
    """A run's folder with a stranger's files around it and one of the user's in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "run"
        self.whole = self.out
        (folder / "outside").mkdir(parents=True)
        (folder / "outside" / "victim.txt").write_text("precious")
        (folder / "victim.txt").write_text("precious")
        run(Bench(), definition(*DIAMOND), self.out)
        (self.out / "mine").mkdir()
        (self.out / "mine" / "notes.txt").write_text("mine")

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.out / "manifest.json").read_text()))

    def write(self, manifest: dict[str, Any]) -> None:
        (self.out / "manifest.json").write_text(json.dumps(manifest))

    def run_other(self) -> list[str]:
        """Run with another input into the same folder; gives the warnings that are none of an operator's."""
        other = Provenance(inputs={"uid": "other"})
        manifest = run(Bench(), definition(*DIAMOND), self.out, provenance=other).manifest
        told = {said for record in manifest.operators.values() for said in record.warnings}
        assert told <= set(manifest.warnings)
        return [said for said in manifest.warnings if said not in told]

    def check(self) -> None:
        assert (self.folder / "victim.txt").read_text() == "precious"
        assert (self.folder / "outside" / "victim.txt").read_text() == "precious"
        assert (self.out / "mine" / "notes.txt").read_text() == "mine"
        assert sorted(path.name for path in self.folder.iterdir()) == ["outside", "run", "victim.txt"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


HOSTILE_FILES = (
    "../victim.txt",
    "steps/../../victim.txt",
    "/etc/hostname",
    "link/victim.txt",
    "victim-link",
    "",
    ".",
    "..",
    "mine",
    "manifest.json",
    LOCK,
    "a\0b",
    "x" * 300,
    "x/" * 3000,
)


@pytest.mark.parametrize("name", HOSTILE_FILES)
@pytest.mark.parametrize("where", ["outputs", "files", "facts", "traceback"])
def test_a_manifest_that_lists_what_is_not_the_runs_has_it_left_alone(place: Place, name: str, where: str) -> None:
    (place.out / "link").symlink_to(place.folder / "outside")
    (place.out / "victim-link").symlink_to(place.folder / "victim.txt")
    manifest = place.manifest
    record = manifest["operators"]["sum"]
    if where == "outputs":
        record["outputs"]["/more"] = [name]
    elif where == "files":
        record["files"][name] = {"bytes": 8, "sha256": ""}
    elif where == "facts":
        record["facts"]["files"] = [name]
    else:
        record["error"] = {"code": "x", "message": "x", "traceback": name}
    place.write(manifest)
    warnings = place.run_other()
    place.check()
    if name:
        assert any("which is none of its files: left alone" in warning for warning in warnings)
    assert (place.out / "sum" / "box.txt").read_text() == "56"


def test_a_manifest_of_the_last_format_is_replaced_with_its_files(place: Place) -> None:
    manifest = place.manifest | {"format": 1}
    for record in manifest["operators"].values():
        del record["files"]
    manifest["operators"]["first"]["facts"]["files"] = ["sent/left-over.dcm", 3]
    (place.out / "sent").mkdir()
    (place.out / "sent" / "left-over.dcm").write_text("")
    place.write(manifest)
    assert read_manifest(place.out) is not None
    bench = Bench()
    run(bench, definition(DIAMOND[0]), place.out)
    assert bench.calls == ["first"] and place.manifest["format"] == FORMAT
    assert not (place.out / "sent").exists() and not (place.out / "sum").exists()
    place.check()


def test_a_manifest_of_a_later_version_is_not_touched(place: Place) -> None:
    place.write(place.manifest | {"format": FORMAT + 1, "operators": 3})
    before = (place.out / "manifest.json").read_bytes()
    with pytest.raises(BadConfig, match=r"manifest\.json: is of a later version of Carina: update") as error:
        place.run_other()
    assert error.value.code == "run.newer" and (place.out / "manifest.json").read_bytes() == before


DAMAGED = {
    "empty": b"",
    "no object": b"[1, 2]",
    "not ours": b'{"name": "a web app", "icons": []}',
    "cut": b'{"format": 2, "fingerp',
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
    "deep value": b'{"format": 2, "inputs": ' + b"[" * 5000,
    "no text": b'{"format": 2, "carina": "\xff"}',
    "lone surrogate": b'{"format": 2, "carina": "\\ud800"}',
    "wrong types": b'{"format": 2, "fingerprint": 3, "started": [], "definition": {}, "operators": []}',
    "number": b'{"format": 1e400}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_manifest_that_is_none_is_set_aside_with_a_warning(place: Place, content: bytes) -> None:
    for number in (1, 2):
        (place.out / "manifest.json").write_bytes(content)
        with pytest.raises(BadConfig, match=r"manifest\.json: is no manifest of a run of Carina"):
            read_manifest(place.out)
        (warning,) = place.run_other()
        assert f"It is set aside as manifest.unreadable-{number}.json, and the run starts anew" in warning
        assert (place.out / f"manifest.unreadable-{number}.json").read_bytes() == content
    assert place.manifest["state"] == "done"
    place.check()


def test_a_huge_manifest_is_not_read(place: Place) -> None:
    with (place.out / "manifest.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(BadConfig, match=r"is a file of 1099512 MB; expected the manifest of a run"):
        read_manifest(place.out)
    place.run_other()
    place.check()


def test_a_manifest_that_is_no_file_is_named(place: Place) -> None:
    (place.out / "manifest.json").unlink()
    (place.out / "manifest.json").mkdir()
    with pytest.raises(BadConfig, match=r"manifest\.json: is no file; expected the manifest of a run") as error:
        place.run_other()
    assert error.value.exit_code == 4
    (place.out / "manifest.json").rmdir()
    os.mkfifo(place.out / "manifest.json")
    with pytest.raises(BadConfig, match=r"manifest\.json: is no file"):
        place.run_other()
    place.check()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("shared"))
    place.whole = shutil.copytree(place.out, tmp_path_factory.mktemp("whole") / "run")
    return place


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Some bytes with a few of them turned, gone, doubled or changed places."""
    text = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at, other = (data.draw(st.integers(0, len(content))) for _ in range(2))
        match data.draw(st.sampled_from(["flip", "cut", "put", "swap"])):
            case "flip":
                text[at : at + 1] = bytes(byte ^ 1 << data.draw(st.integers(0, 7)) for byte in text[at : at + 1])
            case "cut":
                del text[at : at + data.draw(st.integers(1, 60))]
            case "put":
                text[at:at] = data.draw(st.sampled_from([b"0", b'"', b"{", b"null", b"../", b"-1", b"[]"]))
            case "swap":
                text[at : at + 9], text[other : other + 9] = text[other : other + 9], text[at : at + 9]
    return bytes(text)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_a_manifest_says_the_run_ends_right_or_in_one_line(shared: Place, data: st.DataObject) -> None:
    shutil.rmtree(shared.out)
    shutil.copytree(shared.whole, shared.out)
    text = damaged(data, (shared.out / "manifest.json").read_bytes())
    (shared.out / "manifest.json").write_bytes(text)
    try:
        result = run(Bench(), definition(*DIAMOND), shared.out)
    except BadConfig as error:
        assert error.code == "run.newer" and "\n" not in error.message
    else:
        assert result.load("sum", "/output").content == 56
        assert json.loads((shared.out / "manifest.json").read_text())["state"] == "done"
    shared.check()


@pytest.mark.parametrize("name", [LOCK, ".writing", "manifest.json"])
def test_no_file_of_the_engines_own_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "victim.txt").write_text("precious")
    (out / name).symlink_to(tmp_path / ("outside" if name == ".writing" else "victim.txt"))
    with pytest.raises(BadConfig, match=f"{name}: is a link; a run writes no file through it: remove the link"):
        run(Bench(), definition(*DIAMOND), out)
    assert (tmp_path / "victim.txt").read_text() == "precious" and not list((tmp_path / "outside").iterdir())


def test_no_output_is_written_through_a_link_that_leads_out(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (tmp_path / "outside").mkdir()
    (out / "sum").symlink_to(tmp_path / "outside")
    with pytest.raises(BadConfig, match=r"'sum' does not lie in this folder") as error:
        run(Bench(), definition(*DIAMOND), out)
    assert error.value.code == "output.outside" and not list((tmp_path / "outside").iterdir())


def test_a_file_that_is_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "sum").mkdir(parents=True)
    (tmp_path / "victim.txt").write_text("precious")
    (out / "sum" / "box.txt").symlink_to(tmp_path / "victim.txt")
    run(Bench(), definition(*DIAMOND), out)
    assert (tmp_path / "victim.txt").read_text() == "precious" and (out / "sum" / "box.txt").read_text() == "56"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1])


def change(file: Path) -> None:
    facts = file.stat()
    file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def link_out(file: Path) -> None:
    (file.parents[2] / "elsewhere").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(file.parents[2] / "elsewhere")


@pytest.mark.parametrize("damage", [cut, change, Path.unlink, link_out])
def test_a_stored_file_that_is_not_what_was_written_is_made_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    out = tmp_path / "run"
    run(Bench(), definition(*DIAMOND), out)
    damage(out / "sum" / "box.txt")
    bench = Bench()
    result = run(bench, definition(*DIAMOND), out)
    assert bench.calls == ["sum"] and result.load("sum", "/output").content == 56


def test_the_manifest_has_size_and_hash_of_every_file(tmp_path: Path) -> None:
    run(Bench(), definition(*DIAMOND), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["operators"]["sum"]["files"] == {
        "sum/box.txt": {
            "bytes": 2,
            "sha256": "7688b6ef52555962d008fff894223582c484517cea7da49ee67800adc7fc8866",
        }
    }


def test_a_file_of_several_names_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_bytes(b"x")
    os.link(tmp_path / "one", tmp_path / "two")
    digests = Digests()
    first = digests.of(tmp_path / "one")
    monkeypatch.setattr(Path, "open", None)
    assert digests.of(tmp_path / "two") is first


def test_only_files_below_a_folder_are_removed_and_empty_folders_with_them(tmp_path: Path) -> None:
    for name in ("a/b/c.txt", "a/d.txt", "e/f.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert remove_files(tmp_path, ["a/b/c.txt", "e/f.txt", "e/gone.txt", "a", "../x"]) == ["a", "../x"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "d.txt"]


def test_facts_and_warnings_that_are_no_text_are_written_all_the_same(tmp_path: Path) -> None:
    provenance = Provenance(inputs={"file": "caf\udce9.nii"}, warnings=("caf\udce9\nis odd",))
    run(Bench(), definition(*DIAMOND), tmp_path, provenance=provenance)
    bench = Bench()
    manifest = run(bench, definition(*DIAMOND), tmp_path, provenance=provenance).manifest
    assert bench.calls == [] and manifest.inputs == {"file": "caf\\udce9.nii"}


def test_a_run_whose_process_is_gone_is_read_as_interrupted(place: Place) -> None:
    manifest = place.manifest
    manifest["state"] = manifest["operators"]["sum"]["state"] = "running"
    place.write(manifest)
    (place.out / LOCK).write_text("")
    gone = read_manifest(place.out)
    assert gone is not None and gone.state is gone.operators["sum"].state is State.INTERRUPTED
    with opened(place.out, 0):
        held = read_manifest(place.out)
    assert held is not None and held.state is State.RUNNING


def test_the_fault_that_deleted_a_file_outside_leaves_it_alone(data: Path, tmp_path: Path) -> None:
    place = shutil.copytree(data / "faults" / "manifest-deletes-outside", tmp_path / "fault")
    (tmp_path / "read.yaml").write_text(
        "api-version: 0.4.0\nname: read\noperators:\n- {name: dicom-reader, container: {image: carina/dicom-reader}, "
        "input: [{path: /input}], output: [{path: /output}]}"
    )
    before = (place / "victim.txt").read_bytes()
    result = run_study(place / "in", place / "out", RunSettings(pipeline=tmp_path / "read.yaml"))
    assert (place / "victim.txt").read_bytes() == before
    assert any("lists '../victim.txt', which is none of its files: left alone" in one for one in result.warnings)


def test_an_opened_run_reads_nothing_outside_and_says_what_is_damaged(place: Place) -> None:
    (place.folder / "outside" / "classification.json").write_text('{"probabilities": {"COVID-19": 1.0}}')
    manifest = place.manifest
    manifest["operators"]["sum"]["outputs"]["/output"] = ["../outside/classification.json"]
    place.write(manifest)
    with pytest.raises(BadConfig, match="does not lie in this folder"):
        _ = open_run(place.out).probabilities
    manifest["operators"]["sum"]["outputs"]["/output"] = ["classification.json"]
    place.write(manifest)
    for content in (b"{", b"\xff", b"[1]", b"[" * 10_000):
        (place.out / "classification.json").write_bytes(content)
        with pytest.raises(BadConfig, match=r"classification\.json: can't be read .* makes again what is damaged"):
            _ = open_run(place.out).probabilities
