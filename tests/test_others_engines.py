"""Operators of others in containers: what an engine is told, a script in its place, and a real one where it runs."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from carina.errors import BadConfig
from carina.operators import containers
from carina.operators.containers import Contained, ContainerEngine, Mount
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
        ("--read-only", "--read-only-tmpfs=false"),
        ("--tmpfs", "/tmp:rw,noexec,nosuid,nodev,mode=1777,size=256m,notmpcopyup,U"),
        ("--pids-limit", "4096"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--user", user),
        ("--memory", "512m"),
        ("--cpus", "2"),
        ("--timeout", "61"),
        ("--entrypoint", "python"),
        ("--env", "LIMIT=1"),
        ("--env", "HOME=/tmp"),
        ("--env", "TMPDIR=/tmp"),
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


def run_words(folder: Path, name: str = "podman", **more: Any) -> list[str]:
    """What an engine is told to run with an output, and nothing else that is asked for."""
    mount = Mount(folder=folder, path=more.pop("path", "/output"), is_output=True)
    facts: dict[str, Any] = {"memory_mb": 4096, "tmp_mb": 1000, "cpus": None, "time_s": 60.0} | more
    what = Contained(name="n", image="i", command=[], variables={"HOME": "/mine"}, mounts=[mount], **facts)
    return ContainerEngine(name, name).run(what)


def test_docker_is_told_the_same_but_for_what_it_does_not_know(tmp_path: Path) -> None:
    words = {name: run_words(tmp_path, name) for name in ("podman", "docker")}
    scratch = {name: said.pop(said.index("--tmpfs") + 1) for name, said in words.items()}
    (common, _, podmans), (same, _, dockers) = (scratch[one].partition("m,") for one in ("podman", "docker"))
    assert common == same and podmans == "notmpcopyup,U" and dockers.startswith("uid=")
    only = set(words["podman"]) - set(words["docker"])
    assert only == {"podman", "--read-only-tmpfs=false", "--timeout", "61"}
    assert words["docker"].count("--read-only") == words["docker"].count("--tmpfs") == 1


def test_an_output_may_be_the_place_of_temporary_files(tmp_path: Path) -> None:
    words = run_words(tmp_path, path="/tmp")
    assert "--tmpfs" not in words and "--read-only" in words and "--read-only-tmpfs=false" in words


def test_variables_of_the_definition_come_last(tmp_path: Path) -> None:
    words = run_words(tmp_path)
    given = [value for flag, value in pairwise(words) if flag == "--env"]
    assert given == ["HOME=/mine", "TMPDIR=/tmp"]


def test_an_image_has_a_network_only_if_the_settings_name_it(engine: FakeEngine, scan: Path, tmp_path: Path) -> None:
    step = foreign("show", python(SHOW, "/output"), FROM_CT, more=", tag: 2")
    file = definition(tmp_path / "mine.yaml", READER, step)
    for number, networked in enumerate([(), ("example/show",), ("example/show:2",)]):
        folder = go(scan, tmp_path / f"run{number}", file, OperatorSettings(networked=networked))
        manifest = read_manifest(folder)
        assert manifest is not None
        how = manifest.operators["show"].facts["program"]["how"]
        assert how.endswith("with a network ([operators] networked)" if number == 2 else ", without network")
    assert [("--network", "none") in pairwise(words) for words in engine.asked("run")] == [True, True, False]


INSIDE = """
id -u > /output/user.txt
ls /sys/class/net > /output/net.txt
cp /input/* /output/
cat /proc/self/status > /output/status.txt
cat /proc/self/mounts > /output/mounts.txt
busybox dd if=/dev/zero of=/tmp/small bs=1M count=10 || exit 1
busybox dd if=/dev/zero of=/tmp/large bs=1M count=60 && exit 1
echo "$HOME" > /output/home.txt
for place in /input/x /x /bin/x /run/x /var/tmp/x /etc/x; do touch $place && exit 1; done
exit 0
"""


def test_a_real_container_reads_and_writes_folders_and_can_do_no_more(
    podman: RealEngine, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in podman.environment.items():
        monkeypatch.setenv(name, value)
    step = foreign("inside", ["/bin/sh", "-c", INSIDE], FROM_CT).replace("example/inside", podman.IMAGE)
    step = step.rstrip().removesuffix("}") + ", requests: {cpu: 1, memory: 200}}\n"
    file = definition(tmp_path / "mine.yaml", READER, step)
    folder = go(scan, tmp_path / "run", file, OperatorSettings(engine=EngineChoice.PODMAN, tmp_gb=0.05))
    out = folder / "steps" / "inside" / "output"
    assert int((out / "user.txt").read_text()) != 0
    assert (out / "net.txt").read_text().split() == ["lo"]
    assert (out / next((folder / "volume").glob("*.raw")).name).read_bytes()
    check_what_it_said((folder / "steps" / "inside.log").read_text())
    check_what_it_had(out)


def check_what_it_said(log: str) -> None:
    """Nothing but its output and its scratch can be written, and that is bounded."""
    assert all(f"touch: {place}: Read-only file system" in log for place in ("/input/x", "/x", "/bin/x", "/etc/x"))
    assert "/tmp/large" in log and "No space left on device" in log


def check_what_it_had(out: Path) -> None:
    """No capability, no new privileges, and two places that can be written."""
    assert (out / "home.txt").read_text() == "/tmp\n"
    status = dict(line.split(":\t", 1) for line in (out / "status.txt").read_text().splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"] == "1"
    mounts = [line.split() for line in (out / "mounts.txt").read_text().splitlines()]
    writable = {place for _, place, _, options, *_ in mounts if "rw" in options.split(",")}
    assert {place for place in writable if not place.startswith(("/dev", "/proc", "/sys"))} == {"/output", "/tmp"}


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
    assert (tmp_path / "run" / "steps" / "slow.log").read_text() == "", "the program said nothing"


def test_an_engine_that_may_not_set_its_limits_is_told_how(engine: FakeEngine, scan: Path, tmp_path: Path) -> None:
    code = "import sys; print('runc: error setting rlimit type 7: operation not permitted'); sys.exit(126)"
    step = foreign("show", python(code), FROM_CT, more=", tag: 2")
    with pytest.raises(BadConfig, match=r"exit code 126; .*name lower ones as default_ulimits in its containers\.conf"):
        go(scan, tmp_path / "run", definition(tmp_path / "mine.yaml", READER, step), OperatorSettings())


def test_the_engine_is_asked_once(engine: FakeEngine) -> None:
    for _ in range(2):
        assert isinstance(containers.find_engine(EngineChoice.PODMAN), containers.ContainerEngine)
    assert len(engine.asked("version")) == 1


LEAVES = {
    "and leaves a process": "setsid sleep 600 > {folder}/out 2>&1 & echo $! > {folder}/pid",
    "never": "echo $$ > {folder}/pid; exec sleep 600",
}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what leaves its group is not found")
@pytest.mark.parametrize("how", LEAVES)
def test_nothing_is_left_of_a_question_to_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """As of Podman's without root, which starts a process that outlives it."""
    program = tmp_path / "podman"
    program.write_text(f"#!/bin/sh\n{LEAVES[how].format(folder=tmp_path)}\n")
    program.chmod(0o755)
    monkeypatch.setattr(containers, "ANSWER_S", 600 if "leaves" in how else 0.5)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = containers.find_engine(EngineChoice.PODMAN)
    assert isinstance(found, containers.ContainerEngine) is ("leaves" in how)
    if (started := tmp_path / "pid").exists():  # on a busy machine a time may be over before
        with pytest.raises(ProcessLookupError):
            os.kill(int(started.read_text()), 0)
