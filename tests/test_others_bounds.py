"""Operators of others: what a program may write, and the memory that a job on it is given."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from carina.config import Settings
from carina.errors import BadConfig, ModelFailed
from carina.jobs.estimate import others_mb
from carina.jobs.request import new_job
from carina.jobs.terms import Terms
from carina.operators.growth import WrittenBelow
from carina.pipeline.trees import remove_tree
from carina.synth.phantom import chest_phantom
from carina.volume.files import write_volume
from foreign_definitions import FROM_CT, READER, definition, foreign, go, python, trusting


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("scan") / "scan.mhd"
    write_volume(chest_phantom(shape=(36, 96, 96), lesions=0).volume, file)
    return file


WRITES = {
    "a file that grows": "f = open(sys.argv[1] + '/big', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "a file of holes": "open(sys.argv[1] + '/big', 'wb').truncate(1 << 40); time.sleep(600)",
    "a file that is gone before it ends": "open(sys.argv[1] + '/big', 'wb').truncate(1 << 40)",
    "many folders": (
        "import os\nfor n in range(10**9):\n"
        " os.makedirs(f'{sys.argv[1]}/{n}'); open(f'{sys.argv[1]}/{n}/x', 'wb').write(bytes(1 << 20))"
    ),
    "its own folder": "f = open(os.path.expanduser('~/scratch'), 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "many empty folders": "for n in range(10**9): os.mkdir(f'{sys.argv[1]}/{n}')",
    "many files": "for n in range(10**9): open(f'{sys.argv[1]}/{n}', 'wb').close()",
}


@pytest.mark.parametrize("how", WRITES)
def test_whoever_writes_without_end_is_ended(
    scan: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carina.operators.growth.MOST_FILES", 2000)
    code = f"import os, sys, time\n{WRITES[how]}"
    file = definition(tmp_path / "mine.yaml", READER, foreign("large", python(code, "/output"), FROM_CT))
    told = r"^operator 'large': its program was ended, because it wrote more than 0\.05 GB \(\[operators\] output_gb\)"
    with pytest.raises(BadConfig, match=told) as caught:
        go(scan, tmp_path / "run", file, trusting(file, output_gb=0.05))
    assert caught.value.code == "operator.output-size"
    left = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert left < 50e6, "what it wrote is gone"


def test_half_of_the_disk_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    (tmp_path / "before").write_bytes(bytes(1000))
    growth = WrittenBelow(tmp_path, 1e9)
    (tmp_path / "output").write_bytes(bytes(50))
    assert not growth.ends_over()
    (tmp_path / "output").write_bytes(bytes(51))
    assert growth.ends_over()


def test_what_is_not_seen_is_bounded_by_what_the_disk_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [100, 51, 49]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free.pop(0)))
    growth = WrittenBelow(tmp_path, 1e9)
    assert not growth.ends_over()
    assert growth.ends_over(), "half of the disk is gone, to a file that has no name"


def test_what_programs_say_that_they_need_is_in_the_estimate_of_a_job(scan: Path, tmp_path: Path) -> None:
    asks = "  requests: {memory: %d}\n"
    steps = [foreign(f"one-{size}", python("", "/output"), FROM_CT) + asks % size for size in (4096, 512)]
    own = READER.rstrip("}\n") + ", requests: {memory: 9000}}\n"
    file = definition(
        tmp_path / "mine.yaml",
        own,
        *(step.replace("}\n  requests", ", requests").rstrip("\n") + "}\n" for step in steps),
    )
    alone = definition(tmp_path / "alone.yaml", own)
    needs = [
        new_job(scan, Settings(operators=trusting(file)), Terms(pipeline=str(one))).memory_mb for one in (file, alone)
    ]
    assert needs[0] - needs[1] == 4096 + 512
    assert [others_mb(one) for one in ("default", str(tmp_path / "none.yaml"), str(scan))] == [0, 0, 0]


DEEP = {
    "2000 folders": ("for n in range(2000): os.mkdir('d'); os.chdir('d')", "more than 64 folders in each other"),
    "65 folders": ("for n in range(65): os.mkdir('d'); os.chdir('d')", "more than 64 folders in each other"),
    "a path that is too long": (
        "for n in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)",
        "folders in each other whose path is too long",
    ),
}


@pytest.mark.parametrize("how", DEEP)
def test_folders_deep_in_each_other_are_refused_in_one_line_and_removed(scan: Path, tmp_path: Path, how: str) -> None:
    code, words = DEEP[how]
    step = foreign("deep", python(f"import os, sys; os.chdir(sys.argv[1])\n{code}", "/output"), FROM_CT)
    file = definition(tmp_path / "mine.yaml", READER, step)
    for _ in range(2):  # what the first left stands in no later run's way
        with pytest.raises(ModelFailed, match=rf"^operator 'deep' /output: has {words}") as caught:
            go(scan, tmp_path / "run", file)
        assert (caught.value.code, len(str(caught.value).splitlines()[0].split(";"))) == ("operator.output", 2)
        assert not (tmp_path / "run" / ".writing").exists()


def test_folders_as_deep_as_any_operators_are_taken(scan: Path, tmp_path: Path) -> None:
    code = "import os, sys; p = os.path.join(sys.argv[1], *'d' * 64); os.makedirs(p); open(p + '/x', 'w').close()"
    step = foreign("deep", python(code, "/output"), FROM_CT)
    folder = go(scan, tmp_path / "run", definition(tmp_path / "mine.yaml", READER, step))
    assert len(next((folder / "steps" / "deep").rglob("x")).relative_to(folder).parts) > 64


@pytest.mark.parametrize("name", ["d", "d" * 200])
def test_a_tree_of_any_depth_is_removed_and_no_link_is_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (tmp_path / "tree").mkdir()
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path / "tree")
        for _ in range(1500):
            Path("link").symlink_to(tmp_path / "outside")
            Path("file").touch()
            Path(name).mkdir()
            os.chdir(name)
    finally:
        os.chdir(before)
        os.close(before)
    remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.rglob("*")] == ["outside", "kept"]
    remove_tree(tmp_path / "tree")  # it is gone


@pytest.mark.parametrize(
    "left", ["", "open(sys.argv[1] + '/x.txt', 'w')", "open(sys.argv[1] + '/x.mhd', 'wb').write(b'\\0')"]
)
def test_files_that_can_not_be_read_are_the_programs(scan: Path, tmp_path: Path, left: str) -> None:
    file = definition(
        tmp_path / "mine.yaml",
        READER,
        foreign("liar", python(f"import sys; {left}", "/output"), FROM_CT),
        "- {name: ratio, container: {image: carina/ai-volume-ratio}, input: [{from: liar, path: /input}, "
        "{from: liar, path: /label_image}], output: [{path: /output, name: metrics}]}\n",
    )
    with pytest.raises(ModelFailed, match=r"^operator 'liar' /output: what it left can't be read as Mask: ") as caught:
        go(scan, tmp_path / "run", file)
    assert (caught.value.code, caught.value.exit_code) == ("operator.output", 5)
