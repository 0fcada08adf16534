"""Operators of others in containers: what an engine is told, a script in its place, and a real one where it runs."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from carina.errors import BadConfig
from carina.operators import containers
from carina.pipeline.manifest import read_manifest
from carina.sections import EngineChoice, OperatorSettings
from carina.synth.phantom import chest_phantom
from carina.volume.files import write_volume
from foreign_definitions import (
    FROM_CT,
    READER,
    SHOW,
    FakeEngine,
    RealEngine,
    definition,
    foreign,
    go,
    problems,
    python,
    trusting,
)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("scan") / "scan.mhd"
    write_volume(chest_phantom(shape=(36, 96, 96), lesions=0).volume, file)
    return file


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine(tmp_path / "engine", "example/show:2")
    monkeypatch.setenv("PATH", str(fake.folder), prepend=os.pathsep)
    return fake


def test_an_engine_is_told_everything_that_bounds_a_container(engine: FakeEngine, scan: Path, tmp_path: Path) -> None:
    where = tmp_path / "a, b"  # a comma parts the fields of a mount
    where.mkdir()
    step = foreign("show", python(SHOW, "/output"), FROM_CT, more=", tag: 2, variables: {LIMIT: '1'}")
    step = step.rstrip().removesuffix("}") + ", requests: {cpu: 2, memory: 512}}\n"
    folder = go(scan, where / "run", definition(tmp_path / "mine.yaml", READER, step), OperatorSettings(time_s=60))
    assert (folder / "steps" / "show" / "output" / "environment.json").is_file()
    (words,) = engine.asked("run")
    pairs = set(pairwise(words))
    user = "65534:65534" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"
    assert pairs >= {
        ("--pull", "never"),
        ("--network", "none"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--user", user),
        ("--memory", "512m"),
        ("--cpus", "2"),
        ("--timeout", "61"),
        ("--entrypoint", "python"),
        ("--env", "LIMIT=1"),
        ("--env", "NVIDIA_CLARA_INPUTPATHS=ct:/input"),
    }
    mounts = [next(csv.reader([value])) for flag, value in pairwise(words) if flag == "--mount"]
    assert [(fields[2], fields[3:]) for fields in mounts] == [
        ("target=/input", ["readonly"]),
        ("target=/output", []),
    ]
    assert words[words.index("example/show:2") :] == ["example/show:2", "-c", SHOW, "/output"]
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.operators["show"].package == "podman example/show:2"


def test_a_container_gets_whole_paths_though_the_run_folder_is_relative(
    engine: FakeEngine, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = definition(Path("mine.yaml"), READER, foreign("show", python(SHOW, "/output"), FROM_CT, more=", tag: 2"))
    folder = go(scan, Path("runs", "one"), file, OperatorSettings())
    assert (tmp_path / folder / "steps" / "show" / "output" / "environment.json").is_file()
    (words,) = engine.asked("run")
    mounts = [next(csv.reader([value])) for flag, value in pairwise(words) if flag == "--mount"]
    place = f"source={tmp_path / 'runs' / 'one' / '.writing' / 'show.'}"
    assert [fields[1].startswith(place) for fields in mounts] == [True, True]


def test_an_image_that_is_not_here_is_not_fetched(engine: FakeEngine, scan: Path, tmp_path: Path) -> None:
    file = definition(tmp_path / "mine.yaml", READER, foreign("other", ["x"], FROM_CT))
    with pytest.raises(BadConfig, match=r"podman has no image example/other:latest on this machine \(no such image\)"):
        go(scan, tmp_path / "run", file, OperatorSettings(trusted=(str(file),)))
    assert not engine.asked("run") and not engine.asked("pull")


def test_a_container_that_takes_too_long_is_removed(engine: FakeEngine, scan: Path, tmp_path: Path) -> None:
    step = foreign("show", python("import time; time.sleep(600)"), FROM_CT, more=", tag: 2")
    with pytest.raises(BadConfig, match=r"was ended after 5 s, the limit of \[operators\] time_s"):
        go(scan, tmp_path / "run", definition(tmp_path / "mine.yaml", READER, step), OperatorSettings(time_s=5))
    (words,), (ended,) = engine.asked("run"), engine.asked("rm")
    assert ended == ["rm", "--force", words[words.index("--name") + 1]]


def test_an_engine_without_its_server_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho 'Cannot connect to the daemon' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    file = definition(tmp_path / "mine.yaml", READER, foreign("a", ["x"], FROM_CT))
    (problem,) = problems(file, OperatorSettings())
    assert "no container engine answers (podman: not found; docker: Cannot connect to the daemon)" in problem


def test_a_name_that_is_too_long_for_a_file_is_a_mistake(tmp_path: Path) -> None:
    for length, count in ((120, 0), (121, 1), (255, 1)):
        step = foreign("a", ["python"], FROM_CT).replace("name: a,", f"name: {'a' * length},")
        file = definition(tmp_path / "mine.yaml", READER, step)
        found = problems(file, trusting(file))
        told = f"its name has {length} characters, and files are called by it; expected at most 120"
        assert [told in problem for problem in found] == [True] * count


def test_the_check_says_who_is_foreign_and_how_it_runs(engine: FakeEngine, tmp_path: Path) -> None:
    file = definition(tmp_path / "mine.yaml", READER, foreign("show", ["x"], FROM_CT, more=", tag: 2"))
    words = [sys.executable, "-m", "carina.cli.main", "pipelines", "check", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[1:] == [
        "  show is somebody else's; it runs in a container of podman, image example/show:2, without network"
    ]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    real = RealEngine(tmp_path_factory.mktemp("podman"))
    if why := real.why_not():
        pytest.skip(why)
    yield real


INSIDE = "id -u > /output/user.txt; ls /sys/class/net > /output/net.txt; cp /input/* /output/; touch /input/x; touch /x"


def test_a_real_container_reads_and_writes_folders_and_can_do_no_more(
    podman: RealEngine, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in podman.environment.items():
        monkeypatch.setenv(name, value)
    step = foreign("inside", ["/bin/sh", "-c", INSIDE + "; exit 0"], FROM_CT).replace("example/inside", podman.IMAGE)
    step = step.rstrip().removesuffix("}") + ", requests: {cpu: 1, memory: 64}}\n"
    file = definition(tmp_path / "mine.yaml", READER, step)
    folder = go(scan, tmp_path / "run", file, OperatorSettings(engine=EngineChoice.PODMAN))
    out = folder / "steps" / "inside" / "output"
    assert int((out / "user.txt").read_text()) != 0
    assert (out / "net.txt").read_text().split() == ["lo"]
    assert (out / next((folder / "volume").glob("*.raw")).name).read_bytes()
    assert "/input/x: Read-only file system" in (folder / "steps" / "inside.log").read_text()


def test_a_real_container_is_gone_after_its_time(
    podman: RealEngine, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in podman.environment.items():
        monkeypatch.setenv(name, value)
    step = foreign("slow", ["/bin/sleep", "600"], FROM_CT).replace("example/slow", podman.IMAGE)
    file = definition(tmp_path / "mine.yaml", READER, step)
    with pytest.raises(BadConfig, match="was ended after 3 s"):
        go(scan, tmp_path / "run", file, OperatorSettings(engine=EngineChoice.PODMAN, time_s=3))
    left = subprocess.run(["podman", "ps", "--all", "--quiet"], capture_output=True, text=True, check=True)
    assert left.stdout == ""


def test_the_engine_is_asked_once(engine: FakeEngine) -> None:
    for _ in range(2):
        assert isinstance(containers.find_engine(EngineChoice.PODMAN), containers.ContainerEngine)
    assert len(engine.asked("version")) == 1
